//! One publisher at a time: who publishes leaves a sign at the destination and renews it while it
//! lives.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{FOLDER, PublishError};
use crate::pipeline::{Stop, Task};
use crate::store::{Condition, Sending, Store, StoreError, is_alive};

/// Time between two signs of life, and without one until a publisher counts as dead.
const RENEWED: Duration = Duration::from_secs(60);
const DEAD: Duration = Duration::from_secs(600);
/// How often it is looked whether it is time: the clock goes on while a machine sleeps, timers do not.
const LOOK: Duration = Duration::from_secs(5);
/// How long giving a claim up waits for a server.
const GRACE: Duration = Duration::from_secs(10);

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
    fn own() -> Self {
        let now = Utc::now();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let process = std::process::id();
        let (machine, started) = (machine(), started(process));
        Self { host, process, since: now, renewed: now, machine, started }
    }

    fn key() -> String {
        format!("{FOLDER}/publishing.json")
    }

    /// Reads the sign at a destination, with its ETag.
    async fn load(
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
    fn is_alive(&self) -> bool {
        let own = Self::own();
        match (&self.machine, &own.machine) {
            (Some(theirs), Some(ours)) if theirs == ours => {
                is_alive(self.process) && self.is_process()
            }
            (None, None) if self.host == own.host => is_alive(self.process) && self.is_fresh(),
            _ => self.is_fresh(),
        }
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

    /// Whether two signs are of the same claim.
    fn is_of(&self, claim: &Self) -> bool {
        *self == Self { renewed: self.renewed, ..claim.clone() }
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

/// The claim on a destination; given up by [`Claim::release`].
pub struct Claim {
    destination: Store,
    sign: Sign,
    /// Whether somebody else has it by now.
    lost: Arc<AtomicBool>,
    /// Renews the sign while the claim is held.
    renewing: Task<()>,
}

impl Claim {
    /// Claims a destination; [`PublishError::Busy`] when another publisher that lives has it.
    /// When it is lost later, `stop` is asked for.
    pub async fn take(destination: &Store, stop: &Stop) -> Result<Self, PublishError> {
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
        let (destination, lost) = (destination.clone(), Arc::new(AtomicBool::new(false)));
        let renewing = renew(destination.clone(), sign.clone(), lost.clone(), stop.clone());
        Ok(Self { destination, sign, lost, renewing: Task::spawn(renewing) })
    }

    /// [`PublishError::Overtaken`] when somebody else has it by now.
    pub async fn confirm(&self) -> Result<(), PublishError> {
        confirm(&self.destination, &self.sign).await
    }

    /// Gives the claim up after what was done under it, of which `done` is the result. A claim that was
    /// lost is somebody else's to give up, and why the work was stopped.
    pub async fn release(self, done: Result<(), PublishError>) -> Result<(), PublishError> {
        let Self { destination, sign, lost, renewing } = self;
        drop(renewing);
        let give_up = async {
            confirm(&destination, &sign).await?;
            Ok(destination.delete(&Sign::key()).await?)
        };
        let released = match lost.load(Ordering::Relaxed) {
            true => Err(overtaken(&destination)),
            false => tokio::time::timeout(GRACE, give_up).await.unwrap_or(Ok(())),
        };
        match (done, released) {
            // Why the work was stopped.
            (Err(PublishError::Stopped(_)), Err(lost @ PublishError::Overtaken { .. })) => {
                Err(lost)
            }
            // It was done before.
            (Ok(()), Err(PublishError::Overtaken { .. })) => Ok(()),
            (done, released) => done.and(released),
        }
    }
}

fn overtaken(destination: &Store) -> PublishError {
    PublishError::Overtaken { url: destination.location().to_string() }
}

/// [`PublishError::Overtaken`] when a sign is no longer the one that lies there.
async fn confirm(destination: &Store, sign: &Sign) -> Result<(), PublishError> {
    let found = Sign::load(destination).await?.and_then(|(found, _)| found);
    match found.is_some_and(|found| found.is_of(sign)) {
        true => Ok(()),
        false => Err(overtaken(destination)),
    }
}

async fn write(destination: &Store, sign: &Sign, condition: Condition) -> Result<(), StoreError> {
    let text = serde_json::to_vec(sign).unwrap_or_default();
    let sending = Sending { condition, ..Sending::default() };
    destination.send(&Sign::key(), Bytes::from(text), &sending).await.map(drop)
}

async fn renew(destination: Store, sign: Sign, lost: Arc<AtomicBool>, stop: Stop) {
    let mut last = sign.renewed;
    loop {
        tokio::time::sleep(LOOK).await;
        if age(last) >= RENEWED && !renew_once(&destination, &sign, &mut last).await {
            warn!("the claim on {} is lost: stopping", destination.location());
            lost.store(true, Ordering::Relaxed);
            return stop.request();
        }
    }
}

/// Gives a sign of life, of which the `last` was then; whether the claim is held, as far as is known.
async fn renew_once(destination: &Store, sign: &Sign, last: &mut DateTime<Utc>) -> bool {
    let now = Utc::now();
    match renewed(destination, sign).await {
        Ok(is_held) => {
            *last = now;
            is_held
        }
        Err(error) => {
            warn!(%error, "cannot renew the claim on the destination");
            // Soon it is anybody's.
            age(*last) < DEAD - RENEWED
        }
    }
}

/// Renews a sign where it is still the one that lies there; whether it is.
async fn renewed(destination: &Store, sign: &Sign) -> Result<bool, StoreError> {
    let is_ours = |found: &Option<Sign>| found.as_ref().is_some_and(|found| found.is_of(sign));
    let etag = match Sign::load(destination).await? {
        Some((found, etag)) if is_ours(&found) => etag,
        _ => return Ok(false),
    };
    let sign = Sign { renewed: Utc::now(), ..sign.clone() };
    match write(destination, &sign, etag.map_or(Condition::Always, Condition::Is)).await {
        // A try whose answer was lost may have written it.
        Err(StoreError::Changed { .. }) => {
            let found = Sign::load(destination).await?;
            Ok(found.is_some_and(|(found, _)| is_ours(&found)))
        }
        written => written.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_destination_has_one_publisher_and_the_dead_are_replaced() {
        let store = Store::memory();
        let stop = Stop::default();
        let claim = Claim::take(&store, &stop).await.unwrap();
        assert!(matches!(Claim::take(&store, &stop).await, Err(PublishError::Busy { .. })));
        claim.release(Ok(())).await.unwrap();
        let far = Sign { host: "elsewhere".to_owned(), machine: None, ..Sign::own() };
        write(&store, &far, Condition::Always).await.unwrap();
        let error = Claim::take(&store, &stop).await.err().unwrap().to_string();
        assert!(error.contains("elsewhere") && error.contains("10 min"), "{error}");
        let dead = Sign { renewed: Utc::now() - chrono::TimeDelta::hours(1), ..far };
        write(&store, &dead, Condition::Always).await.unwrap();
        assert!(Sign::find(&store).await.unwrap().is_none());
        Claim::take(&store, &stop).await.unwrap();
    }

    #[tokio::test]
    async fn a_container_of_the_same_name_is_another_machine() {
        let store = Store::memory();
        let before = Sign { machine: Some("another".to_owned()), ..Sign::own() };
        write(&store, &before, Condition::Always).await.unwrap();
        let taken = Claim::take(&store, &Stop::default()).await;
        assert!(matches!(taken, Err(PublishError::Busy { .. })));
        let dead = Sign { renewed: Utc::now() - chrono::TimeDelta::minutes(20), ..before };
        write(&store, &dead, Condition::Always).await.unwrap();
        Claim::take(&store, &Stop::default()).await.unwrap();
    }

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
        assert!(own.machine.is_some() && late.is_alive());
        assert!(!Sign { started: own.started.map(|ticks| ticks + 1), ..own }.is_alive());
    }

    #[tokio::test]
    async fn a_claim_that_is_lost_is_noticed_and_left_to_whom_has_it() {
        let other = Sign { process: 1, host: "elsewhere".to_owned(), ..Sign::own() };
        for other in [Some(other), None] {
            let store = Store::memory();
            let sign = Sign::own();
            let mut last = sign.renewed;
            write(&store, &sign, Condition::Always).await.unwrap();
            assert!(renew_once(&store, &sign, &mut last).await && last > sign.renewed);
            let (found, _) = Sign::load(&store).await.unwrap().unwrap();
            assert!(found.is_some_and(|found| found.renewed > sign.renewed && found.is_of(&sign)));
            match &other {
                Some(other) => write(&store, other, Condition::Always).await.unwrap(),
                None => store.delete(&Sign::key()).await.unwrap(),
            }
            // Since then by the clock, while timers may have stood still.
            let (late, lost, stop) =
                (Utc::now() - chrono::TimeDelta::minutes(2), Arc::default(), Stop::default());
            let part = stop.child();
            let old = Sign { renewed: late, ..sign.clone() };
            renew(store.clone(), old, Arc::clone(&lost), part.clone()).await;
            assert!(lost.load(Ordering::Relaxed) && part.is_requested() && !stop.is_requested());
            let renewing = Task::spawn(std::future::pending());
            // Even when that has not been noticed yet.
            let claim = Claim { destination: store.clone(), sign, lost: Arc::default(), renewing };
            assert!(matches!(claim.confirm().await, Err(PublishError::Overtaken { .. })));
            let ended = claim.release(Err(crate::pipeline::Stopped.into())).await;
            assert!(matches!(ended, Err(PublishError::Overtaken { .. })));
            let found = Sign::load(&store).await.unwrap().and_then(|(found, _)| found);
            assert_eq!(found, other);
        }
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
