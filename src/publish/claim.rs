//! One publisher at a time: who publishes leaves a sign at the destination and renews it while it
//! lives.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{FOLDER, PublishError};
use crate::pipeline::Task;
use crate::store::{Condition, Sending, Store, StoreError, is_alive};

/// Time between two signs of life, and without one until a publisher counts as dead.
const RENEWED: Duration = Duration::from_secs(60);
const DEAD: Duration = Duration::from_secs(600);

/// Who publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// Host.
    pub host: String,
    /// Process.
    pub process: u32,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Last sign of life.
    pub renewed: DateTime<Utc>,
}

impl Sign {
    fn own() -> Self {
        let now = Utc::now();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host, process: std::process::id(), since: now, renewed: now }
    }

    fn key() -> String {
        format!("{FOLDER}/publishing.json")
    }

    /// Reads the sign at a destination, with its ETag.
    async fn load(
        destination: &Store,
    ) -> Result<Option<(Option<Self>, Option<String>)>, StoreError> {
        let found = destination.read(&Self::key()).await?;
        Ok(found.map(|(bytes, info)| (serde_json::from_slice(&bytes).ok(), info.etag)))
    }

    /// Who publishes to a destination, if somebody does.
    pub async fn find(destination: &Store) -> Result<Option<Self>, StoreError> {
        Ok(Self::load(destination).await?.and_then(|(sign, _)| sign).filter(Self::is_alive))
    }

    /// Whether the publisher still lives, as far as can be known.
    fn is_alive(&self) -> bool {
        if self.host == Self::own().host {
            return is_alive(self.process);
        }
        let age = Utc::now().signed_duration_since(self.renewed);
        age.to_std().unwrap_or_default() < DEAD
    }
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, process, since, .. } = self;
        write!(f, "process {process} on {host} since {}", since.format("%Y-%m-%d %H:%M UTC"))
    }
}

/// The claim on a destination; given up by [`Claim::release`].
pub struct Claim {
    destination: Store,
    /// Renews the sign while the claim is held.
    _renewing: Task<()>,
}

impl Claim {
    /// Claims a destination; [`PublishError::Busy`] when another publisher that lives has it.
    pub async fn take(destination: &Store) -> Result<Self, PublishError> {
        let busy = |who: String| PublishError::Busy {
            url: destination.location().to_string(),
            who,
            minutes: DEAD.as_secs() / 60,
        };
        let condition = match Sign::load(destination).await? {
            None => Condition::Absent,
            Some((Some(sign), _)) if sign.is_alive() => return Err(busy(sign.to_string())),
            Some((_, etag)) => etag.map_or(Condition::Always, Condition::Is),
        };
        let sign = Sign::own();
        match write(destination, &sign, condition).await {
            // A try whose answer was lost may have written it.
            Ok(()) | Err(StoreError::Changed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // Not every server knows conditions: of two that wrote, the later one has it.
        let found = Sign::load(destination).await?.and_then(|(found, _)| found);
        if found.as_ref() != Some(&sign) {
            return Err(busy(found.map_or("somebody".to_owned(), |s| s.to_string())));
        }
        let renewing = Task::spawn(renew(destination.clone(), sign));
        Ok(Self { destination: destination.clone(), _renewing: renewing })
    }

    /// Gives the claim up.
    pub async fn release(self) -> Result<(), StoreError> {
        self.destination.delete(&Sign::key()).await
    }
}

async fn write(destination: &Store, sign: &Sign, condition: Condition) -> Result<(), StoreError> {
    let text = serde_json::to_vec(sign).unwrap_or_default();
    let sending = Sending { condition, ..Sending::default() };
    destination.send(&Sign::key(), Bytes::from(text), &sending).await.map(drop)
}

async fn renew(destination: Store, mut sign: Sign) {
    loop {
        tokio::time::sleep(RENEWED).await;
        sign.renewed = Utc::now();
        if let Err(error) = write(&destination, &sign, Condition::Always).await {
            tracing::warn!(%error, "cannot renew the claim on the destination");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_destination_has_one_publisher_and_the_dead_are_replaced() {
        let store = Store::memory();
        let claim = Claim::take(&store).await.unwrap();
        assert!(matches!(Claim::take(&store).await, Err(PublishError::Busy { .. })));
        claim.release().await.unwrap();
        let far = Sign { host: "elsewhere".to_owned(), ..Sign::own() };
        write(&store, &far, Condition::Always).await.unwrap();
        let error = Claim::take(&store).await.err().unwrap().to_string();
        assert!(error.contains("elsewhere") && error.contains("10 min"), "{error}");
        let dead = Sign { renewed: Utc::now() - chrono::TimeDelta::hours(1), ..far };
        write(&store, &dead, Condition::Always).await.unwrap();
        assert!(Sign::find(&store).await.unwrap().is_none());
        Claim::take(&store).await.unwrap();
    }
    #[test]
    fn a_process_that_only_waits_to_be_noticed_publishes_no_more() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let sign = Sign { process: child.id(), ..Sign::own() };
        // Not waited for, it stays.
        let began = std::time::Instant::now();
        while sign.is_alive() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!sign.is_alive() && Sign::own().is_alive());
        child.wait().unwrap();
    }
}
