//! What listings pass over: whatever lies in a place, only what can be addressed and read is ours.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing::warn;

/// Names that are kept of what was passed over: more are not counted.
const KEPT: usize = 100_000;

/// Why a listing passes something over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its name, or that of a folder that it is in, begins with a dot.
    Hidden,
    /// No object can have its name: an empty segment, a control character, not UTF-8; on disk also
    /// `#` and digits at the end, which writers of other programs leave behind.
    Name,
    /// The mark of an empty folder in a bucket, whose key ends with a slash.
    FolderMarker,
    /// It cannot be read.
    Unreadable,
    /// A pipe, a socket, a device, or a link that leads nowhere or in a circle.
    UnsupportedFileType,
    /// It lies in the folder of a product, and no record names it.
    Foreign,
}

impl SkipReason {
    /// The same in words, as what follows a number.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Hidden => "hidden (a name that begins with a dot)",
            Self::Name => "with a name that no object can have",
            Self::FolderMarker => "that only mark a folder",
            Self::Unreadable => "that cannot be read",
            Self::Foreign => "that no record of a product names",
            Self::UnsupportedFileType => "that are no file, or a link that leads nowhere",
        }
    }
}

/// What was passed over, shown with control characters escaped.
pub(super) type SkipLog = Vec<(String, SkipReason)>;

/// What the listings of a store have passed over so far.
#[derive(Debug, Default)]
pub(super) struct SkipCounts {
    seen: BTreeMap<String, SkipReason>,
    told: usize,
}

impl SkipCounts {
    pub(super) fn note(&mut self, noted: SkipLog) {
        for (name, why) in noted {
            if self.seen.len() < KEPT {
                self.seen.insert(name, why);
            }
        }
    }

    /// How many for each reason, and the first of them.
    pub(super) fn counts(&self) -> Vec<(SkipReason, usize, String)> {
        let mut counts: BTreeMap<SkipReason, (usize, String)> = BTreeMap::new();
        for (name, why) in &self.seen {
            counts.entry(*why).or_insert_with(|| (0, name.clone())).0 += 1;
        }
        counts.into_iter().map(|(why, (number, first))| (why, number, first)).collect()
    }

    /// Says once what was passed over; what is hidden is so on purpose.
    pub(super) fn tell(&mut self, place: &dyn std::fmt::Display) {
        let counts: Vec<_> =
            self.counts().into_iter().filter(|(why, ..)| *why != SkipReason::Hidden).collect();
        let number = counts.iter().map(|(_, number, _)| number).sum();
        if number > self.told {
            self.told = number;
            let said = counts.into_iter().map(|(why, number, first)| {
                format!("{number} {} (such as {first})", why.describe())
            });
            warn!("{place}: passed over: {}", said.collect::<Vec<_>>().join("; "));
        }
    }
}

/// A name as it can be shown.
pub(super) fn shown(name: &str) -> String {
    name.chars().flat_map(visible).collect()
}

fn visible(c: char) -> Vec<char> {
    match c.is_control() {
        true => c.escape_default().collect(),
        false => vec![c],
    }
}

tokio::task_local! {
    /// Where the pages of a listing note what is cut from them.
    static NOTED: Arc<Mutex<SkipLog>>;
}

/// Lists, and tells what was cut from the pages that came.
pub(super) async fn noting<T>(listing: impl Future<Output = T>) -> (T, SkipLog) {
    let noted = Arc::<Mutex<SkipLog>>::default();
    let result = NOTED.scope(Arc::clone(&noted), listing).await;
    let noted = std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner));
    (result, noted)
}

/// Notes what is cut from a page, where somebody wants to know.
pub(super) fn note(cut: SkipLog) {
    let keep = |noted: &Arc<Mutex<SkipLog>>| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).extend(cut);
    };
    // Nobody asks but a listing.
    _ = NOTED.try_with(keep);
}
