//! The lease on a destination, `.dor/lease.json`: it names the publisher that may change objects.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::FOLDER;
use crate::store::{Liveness, Process, PutMode, PutOptions, Store, StoreError};

/// A lease expires when it is not renewed for this time.
pub(super) const EXPIRES: Duration = Duration::from_secs(600);

/// The content of the lease object at a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Random token of the holder.
    pub(super) token: String,
    /// Process and machine of the holder.
    #[serde(flatten)]
    pub(super) owner: Process,
    /// Time at which the holder took the lease.
    pub(super) since: DateTime<Utc>,
    /// Time of the last renewal.
    pub(super) renewed: DateTime<Utc>,
    /// Whether the holder has released the lease. The object stays because the publish is not
    /// complete, or to keep `dirty`.
    #[serde(default)]
    pub(super) released: bool,
    /// Number of reports, since the last complete publish, by publishers that lost their lease and
    /// may have changed objects afterwards.
    #[serde(default)]
    pub(super) dirty: u32,
}

impl Lease {
    /// A new lease of this process, with a random token.
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

    /// Key of the lease at a destination.
    pub(super) fn key() -> String {
        format!("{FOLDER}/lease.json")
    }

    /// Loads the lease of a destination. `None`: there is no lease, or it cannot be parsed.
    ///
    /// # Errors
    /// The request failed.
    pub async fn load(destination: &Store) -> Result<Option<Self>, StoreError> {
        Ok(load(destination).await?.and_then(|(lease, _)| lease))
    }

    /// Whether a publisher holds the lease. Where the state of its process is unknown (another
    /// machine or container), the lease counts as held until it expires.
    pub fn is_held(&self) -> bool {
        !self.released
            && match self.owner.life() {
                Liveness::Running => true,
                Liveness::Gone => false,
                Liveness::Unknown => self.is_fresh(),
            }
    }

    /// Whether a publisher that had lost the lease may have changed objects.
    pub fn is_dirty(&self) -> bool {
        self.dirty > 0
    }

    /// Whether the holder has certainly stopped: it released the lease, or its process is dead.
    pub(super) fn is_over(&self) -> bool {
        self.released || self.owner.life() == Liveness::Gone
    }

    /// Whether the lease was renewed in the last ten minutes. A time further in the future than that
    /// is wrong, and does not count.
    fn is_fresh(&self) -> bool {
        let age = Utc::now().signed_duration_since(self.renewed).abs();
        age.to_std().is_ok_and(|age| age < EXPIRES)
    }

    /// Writes the lease to the destination if `condition` holds.
    pub(super) async fn write(
        &self,
        destination: &Store,
        condition: PutMode,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let options = PutOptions { condition, ..PutOptions::default() };
        destination.send(&Self::key(), Bytes::from(text), &options).await.map(drop)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minute = |time: &DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC").to_string();
        write!(f, "{} since {}", self.owner, minute(&self.since))?;
        match self.is_fresh() {
            true => Ok(()),
            false => write!(
                f,
                ", which has not renewed its lease since {} and may hang",
                minute(&self.renewed)
            ),
        }
    }
}

/// Loads the lease of a destination: `None` when there is none, `Some((None, _))` when it cannot be
/// parsed. The second value is the condition for replacing it only if it is still this version.
pub(super) async fn load(
    destination: &Store,
) -> Result<Option<(Option<Lease>, PutMode)>, StoreError> {
    let found = destination.get(&Lease::key()).await?;
    Ok(found.map(|(bytes, info)| {
        let lease = serde_json::from_slice(&bytes).inspect_err(|error| {
            let url = destination.location().join(&Lease::key());
            warn!("{url} is not a valid lease ({error}); continuing as if nobody holds it");
        });
        // Without an ETag there is no version to compare.
        (lease.ok(), info.etag.map_or(PutMode::Always, PutMode::Is))
    }))
}
/// A time on two clocks: the wall clock, which counts while the machine sleeps, and the monotonic
/// clock, which cannot be set. The elapsed time is the larger of the two differences.
#[derive(Clone, Copy)]
pub(super) struct DualClock(pub DateTime<Utc>, pub Instant);

impl DualClock {
    pub fn now() -> Self {
        Self(Utc::now(), Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        let by_clock = Utc::now().signed_duration_since(self.0).abs().to_std();
        by_clock.unwrap_or_default().max(self.1.elapsed())
    }
}
