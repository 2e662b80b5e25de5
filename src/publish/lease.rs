//! The lease on a destination, `.dor/lease.json`: who publishes there.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::FOLDER;
use crate::store::{Liveness, Process, PutMode, PutOptions, Store, StoreError};

/// Without renewal for so long, a lease has expired.
pub(super) const EXPIRES: Duration = Duration::from_secs(600);

/// A lease as it lies at a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Random token of the holder.
    pub(super) token: String,
    /// Who has it.
    #[serde(flatten)]
    pub(super) owner: Process,
    /// Since when.
    pub(super) since: DateTime<Utc>,
    /// Last renewal.
    pub(super) renewed: DateTime<Utc>,
    /// Whether nobody holds it. It is kept because a publish is not complete, or for `dirty`.
    #[serde(default)]
    pub(super) released: bool,
    /// How often a publisher that had lost its lease reported possible changes since the last complete publish.
    #[serde(default)]
    pub(super) dirty: u32,
}

impl Lease {
    pub(super) fn new(dirty: u32) -> Self {
        let now = Utc::now();
        Self {
            token: format!("{:032x}", rand::rng().random::<u128>()),
            owner: Process::own(),
            since: now,
            renewed: now,
            released: false,
            dirty,
        }
    }

    /// Where it lies.
    pub(super) fn key() -> String {
        format!("{FOLDER}/lease.json")
    }

    /// The lease at a destination, if there is one that can be read.
    pub async fn load(destination: &Store) -> Result<Option<Self>, StoreError> {
        Ok(load(destination).await?.and_then(|(lease, _)| lease))
    }

    /// Whether somebody publishes under it, as far as can be known.
    pub fn is_held(&self) -> bool {
        !self.released
            && match self.owner.life() {
                Liveness::Running => true,
                Liveness::Gone => false,
                Liveness::Unknown => self.is_fresh(),
            }
    }

    /// Whether objects may have been changed by a publisher that had lost it.
    pub fn is_dirty(&self) -> bool {
        self.dirty > 0
    }

    /// Whether nobody can be at work under it any more.
    pub(super) fn is_over(&self) -> bool {
        self.released || self.owner.life() == Liveness::Gone
    }

    fn is_fresh(&self) -> bool {
        let age = Utc::now().signed_duration_since(self.renewed).to_std().unwrap_or_default();
        age < EXPIRES
    }

    pub(super) async fn write(
        &self,
        destination: &Store,
        condition: PutMode,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let sending = PutOptions { condition, ..PutOptions::default() };
        destination.send(&Self::key(), Bytes::from(text), &sending).await.map(drop)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |time: &DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC").to_string();
        write!(f, "{} since {}", self.owner, told(&self.since))?;
        match self.is_fresh() {
            true => Ok(()),
            false => write!(f, ", which hangs: it was last heard of {}", told(&self.renewed)),
        }
    }
}

/// The lease at a destination, `None` in it where it cannot be read, and the condition under which it is
/// replaced only while nobody else has done so.
pub(super) async fn load(
    destination: &Store,
) -> Result<Option<(Option<Lease>, PutMode)>, StoreError> {
    let found = destination.get(&Lease::key()).await?;
    Ok(found.map(|(bytes, info)| {
        let lease = serde_json::from_slice(&bytes).inspect_err(|error| {
            let url = destination.location().join(&Lease::key());
            warn!("{url} does not tell who publishes ({error}): taken for nobody");
        });
        // Not every server tells ETags.
        (lease.ok(), info.etag.map_or(PutMode::Always, PutMode::Is))
    }))
}
