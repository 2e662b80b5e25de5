//! Entries that a listing skips: names that cannot be addressed, and files that cannot be read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing::warn;

/// Most skipped names that a store remembers and counts. It bounds memory.
const KEPT: usize = 100_000;

/// The reason why a listing skips an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// The name of the entry, or of one of its parent folders, begins with a dot.
    Hidden,
    /// The name cannot be an object key: it has an empty segment or a control character, or is not
    /// UTF-8. On disk also a name that ends in `#` and digits, which `object_store` uses for
    /// temporary files.
    Name,
    /// A folder marker of a bucket: an object whose key ends with a slash.
    FolderMarker,
    /// The system does not permit reading the entry.
    Unreadable,
    /// A pipe, a socket, a device, or a dangling or circular symbolic link.
    UnsupportedFileType,
    /// A file in the folder of a product that no case manifest lists.
    Foreign,
}

impl SkipReason {
    /// Description for messages; it follows a number, as in "2 folder markers".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Hidden => "hidden (the name begins with a dot)",
            Self::Name => "with a name that cannot be an object key",
            Self::FolderMarker => "folder markers",
            Self::Unreadable => "that cannot be read",
            Self::Foreign => "that no case manifest lists",
            Self::UnsupportedFileType => "that are not regular files, or links without a target",
        }
    }
}

/// Skipped entries: the name, with control characters escaped, and the reason.
pub(super) type SkipLog = Vec<(String, SkipReason)>;

/// All entries that the listings of one store have skipped so far.
#[derive(Debug, Default)]
pub(super) struct SkipCounts {
    by_name: BTreeMap<String, SkipReason>,
    /// Number of entries in the last warning.
    warned: usize,
}

impl SkipCounts {
    /// Adds the entries that one listing has skipped.
    pub(super) fn add(&mut self, skipped: SkipLog) {
        for (name, reason) in skipped {
            if self.by_name.len() < KEPT {
                self.by_name.insert(name, reason);
            }
        }
    }

    /// For each reason: the number of skipped entries, and the first of their names.
    pub(super) fn counts(&self) -> Vec<(SkipReason, usize, String)> {
        let mut counts: BTreeMap<SkipReason, (usize, String)> = BTreeMap::new();
        for (name, reason) in &self.by_name {
            counts.entry(*reason).or_insert_with(|| (0, name.clone())).0 += 1;
        }
        counts.into_iter().map(|(reason, (number, first))| (reason, number, first)).collect()
    }

    /// Logs a warning with the counts, if there are more than at the last warning. Hidden entries are
    /// left out, because their owner hides them on purpose.
    pub(super) fn warn_new(&mut self, location: &dyn std::fmt::Display) {
        let counts: Vec<_> = self
            .counts()
            .into_iter()
            .filter(|(reason, ..)| *reason != SkipReason::Hidden)
            .collect();
        let number = counts.iter().map(|(_, number, _)| number).sum();
        if number > self.warned {
            self.warned = number;
            let parts = counts.into_iter().map(|(reason, number, first)| {
                format!("{number} {} (such as {first})", reason.describe())
            });
            warn!("{location}: skipped: {}", parts.collect::<Vec<_>>().join("; "));
        }
    }
}

/// Escapes the control characters of a name, so that a terminal can show it.
pub(super) fn escape_control(name: &str) -> String {
    name.chars().flat_map(escape_char).collect()
}

fn escape_char(c: char) -> Vec<char> {
    match c.is_control() {
        true => c.escape_default().collect(),
        false => vec![c],
    }
}

tokio::task_local! {
    /// Entries removed from the pages of the listing that the current task runs.
    static SKIPPED: Arc<Mutex<SkipLog>>;
}

/// Runs a listing. Returns its result and the entries that were removed from its pages.
pub(super) async fn with_skipped<T>(listing: impl Future<Output = T>) -> (T, SkipLog) {
    let skipped = Arc::<Mutex<SkipLog>>::default();
    let result = SKIPPED.scope(Arc::clone(&skipped), listing).await;
    let skipped = std::mem::take(&mut *skipped.lock().unwrap_or_else(PoisonError::into_inner));
    (result, skipped)
}

/// Records entries removed from a page for the surrounding [`with_skipped`].
pub(super) fn record_skipped(removed: SkipLog) {
    let append = |skipped: &Arc<Mutex<SkipLog>>| {
        skipped.lock().unwrap_or_else(PoisonError::into_inner).extend(removed);
    };
    // Outside `with_skipped` nobody needs the entries.
    _ = SKIPPED.try_with(append);
}
