//! The options of a publish, and the selection of the objects of a source.

use std::collections::BTreeSet;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::destination::VerifyScope;
use super::limiter::Concurrency;
use crate::executor::Pool;
use crate::model::Case;

/// The options of a publish.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// The part of the source that is published.
    pub selection: Selection,
    /// Delete objects that an earlier publish sent and the source no longer has.
    pub delete: bool,
    /// Refuse to publish when more objects than this would be deleted.
    pub max_delete: usize,
    /// Replace published results even where the source has less or differs; lists the destination.
    pub overwrite: bool,
    /// List the destination before the plan is made.
    pub audit: bool,
    /// Objects to read back from the destination after the publish. `None`: none.
    pub verify: Option<VerifyScope>,
    /// Requests in flight at the same time.
    pub concurrency: Concurrency,
    /// Bytes sent per second. `None`: unlimited.
    pub rate: Option<u64>,
    /// Memory budget for objects that are held while they are sent. `None`: unlimited.
    pub pool: Option<Pool>,
    /// `Cache-Control` of all objects. `None`: no such header is sent.
    pub cache_control: Option<String>,
    /// `Content-Type` of all objects. `None`: chosen by the name of each object.
    pub content_type: Option<String>,
}

impl PublishOptions {
    /// Whether the user asks for a listing of the destination. `--overwrite` implies it: the
    /// destination equals the source only if it has lost nothing.
    pub(super) fn lists_destination(&self) -> bool {
        self.audit || self.overwrite
    }
}

/// The kind of product that a folder of a source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FolderKind {
    /// Research-grade files, `PPP/MM/*.nc`, with a case record in each folder.
    Research,
    /// A map store with case records: `store1`, `store2` or `store3`; empty where the shared record
    /// is not written yet.
    Store(String),
    /// Anything else.
    Other,
}

/// The part of a source that is published.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only keys that match one of these patterns are published. `None`: all keys.
    pub include: Option<GlobSet>,
    /// Keys that match one of these patterns are not published.
    pub exclude: Option<GlobSet>,
    /// Products: `research`, `store1`, `store2`, `store3`. Empty: all.
    pub only: BTreeSet<String>,
    /// Cases. Empty: all.
    pub cases: BTreeSet<Case>,
    /// Publish only objects of map stores that belong to a single case; the stores need not be finalized.
    pub single_cases_only: bool,
}

/// A pattern for whole keys: `*` matches within one folder, `**` across folders. A pattern that ends
/// with the name of a folder matches all below it.
///
/// # Errors
/// The text is not a valid pattern.
pub fn pattern(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).build()
}

/// A set of patterns; `None` for an empty list.
///
/// # Errors
/// The patterns are too large together.
pub fn patterns(patterns: &[Glob]) -> Result<Option<GlobSet>, globset::Error> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(pattern.clone());
        let folder = pattern.glob().trim_end_matches('/');
        let name = folder.rsplit('/').next().unwrap_or(folder);
        if !name.trim_matches('*').is_empty() {
            set.add(self::pattern(&format!("{folder}/**"))?);
        }
    }
    set.build().map(Some)
}

impl Selection {
    /// Whether a key passes the include and exclude patterns.
    pub fn has(&self, key: &str) -> bool {
        self.include.as_ref().is_none_or(|set| set.is_match(key))
            && self.exclude.as_ref().is_none_or(|set| !set.is_match(key))
    }

    /// Whether a product is selected.
    pub(super) fn has_part(&self, part: &FolderKind) -> bool {
        let name = match part {
            FolderKind::Research => "research",
            FolderKind::Store(name) => name,
            // Other files belong to no product and to no case.
            FolderKind::Other => return self.only.is_empty() && self.cases.is_empty(),
        };
        self.only.is_empty() || self.only.contains(name)
    }

    /// Whether a case is selected.
    pub(super) fn has_case(&self, case: &Case) -> bool {
        self.cases.is_empty() || self.cases.contains(case)
    }

    /// Whether all products and all cases are selected; patterns may still leave objects out.
    pub fn is_whole(&self) -> bool {
        self.only.is_empty() && self.cases.is_empty()
    }

    /// Whether include or exclude patterns are given.
    pub(super) fn has_patterns(&self) -> bool {
        self.include.is_some() || self.exclude.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_ends_with_the_name_of_a_folder_matches_all_below_it() {
        let matches = |text: &str, key: &str| {
            patterns(&[pattern(text).unwrap()]).unwrap().unwrap().is_match(key)
        };
        for text in ["research", "research/", "re*", "re*h/112", "**/04", "research/112/04/a.nc"] {
            assert!(matches(text, "research/112/04/a.nc"), "{text}");
        }
        // `*` alone stands for the names in one folder.
        for text in ["*", "research/*", "112", "esearch", "research/112/04/a.nc/x"] {
            assert!(!matches(text, "research/112/04/a.nc"), "{text}");
        }
        assert!(matches("*", "a.nc") && matches("{a,b}.nc", "b.nc"));
    }
}
