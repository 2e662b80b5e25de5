//! Who publishes to a destination: a sign that lies there, and is renewed while its publisher lives.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::FOLDER;
use crate::store::{Condition, Sending, Store, StoreError, is_alive};

/// Without a sign of life for so long, a publisher counts as dead.
pub(super) const DEAD: Duration = Duration::from_secs(600);

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
    /// Where numbers of processes mean the same: what has booted, and the container in it. Hosts of
    /// the same name may be many.
    #[serde(default)]
    pub machine: Option<String>,
    /// When the process was started, in ticks of that machine: its number may be another's by now.
    #[serde(default)]
    pub started: Option<u64>,
}

/// The machine and container that this process is in, where that can be known.
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let processes = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), processes.display()))
}

/// When a process was started.
fn started(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The fields follow the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Time since then, by the clock.
fn age(then: DateTime<Utc>) -> Duration {
    Utc::now().signed_duration_since(then).to_std().unwrap_or_default()
}

impl Sign {
    pub(super) fn own() -> Self {
        let now = Utc::now();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let process = std::process::id();
        let (machine, started) = (machine(), started(process));
        Self { host, process, since: now, renewed: now, machine, started }
    }

    /// Where it lies.
    pub(super) fn key() -> String {
        format!("{FOLDER}/publishing.json")
    }

    /// Reads the sign at a destination, with its ETag.
    pub(super) async fn load(
        destination: &Store,
    ) -> Result<Option<(Option<Self>, Option<String>)>, StoreError> {
        let found = destination.read(&Self::key()).await?;
        Ok(found.map(|(bytes, info)| {
            let sign = serde_json::from_slice(&bytes).inspect_err(|error| {
                let url = destination.location().join(&Self::key());
                warn!("{url} does not tell who publishes ({error}): taken for nobody");
            });
            (sign.ok(), info.etag)
        }))
    }

    /// Who publishes to a destination, if somebody does.
    pub async fn find(destination: &Store) -> Result<Option<Self>, StoreError> {
        Ok(Self::load(destination).await?.and_then(|(sign, _)| sign).filter(Self::is_alive))
    }

    /// Whether the publisher still lives, as far as can be known.
    pub(super) fn is_alive(&self) -> bool {
        let own = Self::own();
        match (&self.machine, &own.machine) {
            (Some(theirs), Some(ours)) if theirs == ours => {
                is_alive(self.process) && self.is_process()
            }
            (None, None) if self.host == own.host => is_alive(self.process) && self.is_fresh(),
            _ => self.is_fresh(),
        }
    }

    /// Whether the publisher is known to be gone: it was a process of this machine.
    pub(super) fn is_gone(&self) -> bool {
        self.machine.is_some() && self.machine == machine() && !self.is_alive()
    }

    /// Whether the process that has the number of the publisher now is the publisher.
    fn is_process(&self) -> bool {
        match (started(self.process), self.started) {
            (Some(now), Some(then)) => now == then,
            // A process of somebody else may be hidden.
            _ => self.is_fresh(),
        }
    }

    /// Whether there was a sign of life lately.
    fn is_fresh(&self) -> bool {
        age(self.renewed) < DEAD
    }

    /// Whether this sign still lies at a destination, with its ETag there.
    pub(super) async fn find_own(
        &self,
        destination: &Store,
    ) -> Result<Option<Option<String>>, StoreError> {
        let found = Self::load(destination).await?;
        Ok(found.and_then(|(found, etag)| found.filter(|found| found.is_of(self)).map(|_| etag)))
    }

    /// Whether two signs are of the same claim.
    fn is_of(&self, claim: &Self) -> bool {
        *self == Self { renewed: self.renewed, ..claim.clone() }
    }

    /// Leaves the sign at a destination.
    pub(super) async fn write(
        &self,
        destination: &Store,
        condition: Condition,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let sending = Sending { condition, ..Sending::default() };
        destination.send(&Self::key(), Bytes::from(text), &sending).await.map(drop)
    }
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, process, since, .. } = self;
        let told = |time: &DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC").to_string();
        write!(f, "process {process} on {host} since {}", told(since))?;
        match self.is_fresh() {
            true => Ok(()),
            false => {
                write!(f, ", which hangs: its last sign of life is of {}", told(&self.renewed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_an_earlier_version_counts_as_long_as_it_is_fresh() {
        let mut old = serde_json::to_value(Sign::own()).unwrap();
        old.as_object_mut().unwrap().retain(|name, _| name != "machine" && name != "started");
        let old: Sign = serde_json::from_value(old).unwrap();
        assert!(old.is_alive());
        assert!(!Sign { renewed: Utc::now() - chrono::TimeDelta::minutes(20), ..old }.is_alive());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_has_the_number_of_another_is_not_taken_for_it() {
        let own = Sign::own();
        let late = Sign { renewed: Utc::now() - chrono::TimeDelta::minutes(20), ..own.clone() };
        assert!(own.machine.is_some() && late.is_alive() && !late.is_gone());
        let other = Sign { started: own.started.map(|ticks| ticks + 1), ..own };
        assert!(!other.is_alive() && other.is_gone());
        assert!(!Sign { machine: Some("another".to_owned()), ..other }.is_gone());
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
