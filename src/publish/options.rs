//! How a publish is done, and what of a source.

use std::collections::BTreeSet;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::destination::VerifyScope;
use super::limiter::Concurrency;
use crate::executor::Pool;
use crate::model::Case;

/// How a publish is done.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// What of the source.
    pub selection: Selection,
    /// Delete objects that an earlier publish sent and the source no longer has.
    pub delete: bool,
    /// Refuse to publish when more objects than this would be deleted.
    pub max_delete: usize,
    /// Replace published results even where the source has less or differs; lists the destination.
    pub overwrite: bool,
    /// List the destination before the plan is made.
    pub audit: bool,
    /// Read again afterwards what lies there.
    pub verify: Option<VerifyScope>,
    /// Requests at a time.
    pub concurrency: Concurrency,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// Memory for objects that are held on their way; unlimited when there is none.
    pub pool: Option<Pool>,
    /// `Cache-Control` of all objects.
    pub cache_control: Option<String>,
    /// `Content-Type` of all objects; by name when there is none.
    pub content_type: Option<String>,
}

impl PublishOptions {
    /// Whether the destination is to be listed: to be as the source is, it must not have lost anything either.
    pub(super) fn is_audit(&self) -> bool {
        self.audit || self.overwrite
    }
}

/// A part of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourcePart {
    /// Research-grade files, `PPP/MM/*.nc` with a record each folder.
    Research,
    /// A map store with records: `store1`, `store2` or `store3`.
    Store(String),
    /// Anything else.
    Other,
}

/// What of a source is published.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Keys must match one of these, if there are any,
    pub include: Option<GlobSet>,
    /// and none of these.
    pub exclude: Option<GlobSet>,
    /// Products: `research`, `store1`, `store2`, `store3`; all when empty.
    pub only: BTreeSet<String>,
    /// Cases; all when empty.
    pub cases: BTreeSet<Case>,
    /// Of a map store only what belongs to a case, as long as nobody has put the store together.
    pub unfinished: bool,
}

/// A pattern over whole keys, where `*` stays within a folder and `**` does not.
pub fn pattern(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).build()
}

/// A set of patterns; none when there are none.
pub fn patterns(patterns: &[Glob]) -> Result<Option<GlobSet>, globset::Error> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(pattern.clone());
    }
    set.build().map(Some)
}

impl Selection {
    /// Whether a key may be published.
    pub fn has(&self, key: &str) -> bool {
        self.include.as_ref().is_none_or(|set| set.is_match(key))
            && self.exclude.as_ref().is_none_or(|set| !set.is_match(key))
    }

    pub(super) fn has_part(&self, part: &SourcePart) -> bool {
        let name = match part {
            SourcePart::Research => "research",
            SourcePart::Store(name) => name,
            // No product, and of no case.
            SourcePart::Other => return self.only.is_empty() && self.cases.is_empty(),
        };
        self.only.is_empty() || self.only.contains(name)
    }

    pub(super) fn has_case(&self, case: &Case) -> bool {
        self.cases.is_empty() || self.cases.contains(case)
    }

    /// Whether all is meant.
    pub fn is_all(&self) -> bool {
        self.is_whole() && !self.has_patterns() && !self.unfinished
    }

    /// Whether products and cases are all meant.
    pub fn is_whole(&self) -> bool {
        self.only.is_empty() && self.cases.is_empty()
    }

    pub(super) fn has_patterns(&self) -> bool {
        self.include.is_some() || self.exclude.is_some()
    }
}
