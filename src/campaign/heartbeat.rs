//! Heartbeats of shards: each shard renews one object beside the plan while it works, and writes a log.
//! Heartbeats do not say whether a case is done; the manifests and records of its products do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{CampaignPlan, Product, Shard};
use crate::executor::spawn_abort_on_drop;
use crate::model::Case;
use crate::store::{Process, Store, StoreError};

/// Time between two renewals of a heartbeat.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);
/// Age of a heartbeat from which its shard counts as dead.
const DEAD_AFTER: TimeDelta = TimeDelta::seconds(180);
/// Shortest time between two writes.
const WRITE_PAUSE: Duration = Duration::from_secs(2);
/// Time that the last write may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeats that are read at the same time.
const CONCURRENT_READS: usize = 32;

/// The state of a shard when it last renewed its heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// SHA-256 of the plan, in hexadecimal.
    pub plan: String,
    /// Index of the shard, from 0.
    pub shard: usize,
    /// Number of shards.
    pub shards: usize,
    /// The process that works on the shard; JSON has its fields beside the others.
    #[serde(flatten)]
    pub process: Process,
    /// Start of the process's work.
    pub began: DateTime<Utc>,
    /// Last renewal.
    pub renewed: DateTime<Utc>,
    /// Regular end of the work; `None` while it goes on and after a crash.
    pub ended: Option<DateTime<Utc>>,
    /// Bytes read from the archive since `began`.
    pub bytes_read: u64,
    /// Bytes written since `began`.
    pub bytes_written: u64,
    /// Short names of the cases in work.
    pub running: BTreeSet<String>,
    /// Failures of the last attempt, by short name of the case.
    pub failed: BTreeMap<String, Vec<Failure>>,
}

/// Products of a case that failed together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One product, or those that share the failed step.
    pub products: Vec<Product>,
    /// The cause, in one line.
    pub error: String,
    /// Whether another run fails as well until the input or the configuration changes.
    pub permanent: bool,
}

impl Heartbeat {
    /// The first heartbeat of this process for a shard.
    fn new(plan: &CampaignPlan, shard: Shard) -> Self {
        let now = Utc::now().trunc_subsecs(0);
        Self {
            plan: plan.sha256.clone(),
            shard: shard.index,
            shards: shard.count,
            process: Process::own(),
            began: now,
            renewed: now,
            ended: None,
            bytes_read: 0,
            bytes_written: 0,
            running: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Whether the shard works: it has not ended, and its last renewal is less than 180 seconds old.
    pub fn is_alive(&self) -> bool {
        self.ended.is_none() && Utc::now() - self.renewed < DEAD_AFTER
    }

    /// Bytes read per second, on average since `began`.
    pub fn rate(&self) -> f64 {
        let seconds = (self.ended.unwrap_or(self.renewed) - self.began).as_seconds_f64();
        if seconds > 0.0 { self.bytes_read as f64 / seconds } else { 0.0 }
    }

    fn key(folder: &str, shard: Shard) -> String {
        let Shard { index, count } = shard;
        format!("{folder}/shard-{index:04}-of-{count:04}.json")
    }

    /// Reads a heartbeat. An object that is not one counts as absent.
    async fn load(store: &Store, key: &str) -> Result<Option<Self>, StoreError> {
        let object = store.get(key).await?;
        Ok(object.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok()))
    }

    /// Reads the heartbeats of all shards of the plan at `key`.
    ///
    /// # Errors
    /// The state folder cannot be listed, or a heartbeat cannot be read.
    pub async fn all(
        store: &Store,
        key: &str,
        plan: &CampaignPlan,
    ) -> Result<Vec<Self>, StoreError> {
        let folder = folder(key);
        let objects = store.list_with_delimiter(&folder).await?.into_iter();
        let keys = objects.map(|object| object.key).filter(|key| key.ends_with(".json"));
        let heartbeats = stream::iter(keys).map(async |key| Self::load(store, &key).await);
        let heartbeats: Vec<Option<Self>> =
            heartbeats.buffered(CONCURRENT_READS).try_collect().await?;
        let of_plan = |heartbeat: &Self| heartbeat.plan == plan.sha256;
        Ok(heartbeats.into_iter().flatten().filter(of_plan).collect())
    }
}

/// The state folder beside the plan at the key `plan`: heartbeats and logs of its shards.
pub fn folder(plan: &str) -> String {
    format!("{}.state", plan.strip_suffix(".json").unwrap_or(plan))
}

/// Writes the heartbeat and the log of a shard while it works.
pub struct HeartbeatWriter {
    state: Arc<WriterState>,
    writing: AbortOnDropHandle<()>,
}

/// What the shard and the background task of a [`HeartbeatWriter`] share.
struct WriterState {
    store: Store,
    heartbeat_key: String,
    log_key: String,
    content: Mutex<HeartbeatLog>,
    /// Wakes the background task.
    changed: Notify,
    /// Held during a write, so that an earlier state never replaces a later one.
    write_lock: tokio::sync::Mutex<()>,
}

/// Contents of both objects.
struct HeartbeatLog {
    heartbeat: Heartbeat,
    /// JSON lines, one for each event.
    log: Vec<u8>,
}

impl HeartbeatWriter {
    /// Writes the first heartbeat of a shard of the plan at `key`, and renews it from then on.
    /// Failures of an earlier run of the shard stay in it until their cases begin again.
    ///
    /// # Errors
    /// The earlier heartbeat cannot be read, or nothing can be written beside the plan.
    pub async fn begin(
        store: Store,
        key: &str,
        plan: &CampaignPlan,
        shard: Shard,
    ) -> Result<Self, StoreError> {
        let folder = folder(key);
        let mut heartbeat = Heartbeat::new(plan, shard);
        let heartbeat_key = Heartbeat::key(&folder, shard);
        if let Some(earlier) = Heartbeat::load(&store, &heartbeat_key).await?
            && earlier.plan == heartbeat.plan
        {
            heartbeat.failed = earlier.failed;
        }
        let (began, Shard { index, count }) = (heartbeat.began.format("%Y%m%dT%H%M%SZ"), shard);
        let process = heartbeat.process.process;
        let log_key = format!("{folder}/log/{index:04}-of-{count:04}-{began}-{process}.jsonl");
        let state = Arc::new(WriterState {
            store,
            heartbeat_key,
            log_key,
            content: Mutex::new(HeartbeatLog { heartbeat, log: Vec::new() }),
            changed: Notify::new(),
            write_lock: tokio::sync::Mutex::default(),
        });
        state.event("begun", |heartbeat| {
            let (plan, host) = (&heartbeat.plan, &heartbeat.process.host);
            json!({ "plan": plan, "host": host, "version": crate::VERSION })
        });
        state.write().await?;
        let writing = spawn_abort_on_drop(WriterState::keep_writing(state.clone()));
        Ok(Self { state, writing })
    }

    /// Records that a case begins.
    pub fn case_begun(&self, case: Case) {
        self.state.event("case begun", |heartbeat| {
            heartbeat.failed.remove(&case.short());
            heartbeat.running.insert(case.short());
            json!({ "case": case.short() })
        });
    }

    /// Records that a case has ended, with the bytes read and written for it.
    pub fn case_ended(
        &self,
        case: Case,
        (read, written): (u64, u64),
        failures: &[Failure],
        seconds: f64,
    ) {
        self.state.event("case ended", |heartbeat| {
            heartbeat.running.remove(&case.short());
            heartbeat.bytes_read += read;
            heartbeat.bytes_written += written;
            if !failures.is_empty() {
                heartbeat.failed.insert(case.short(), failures.to_vec());
            }
            json!({
                "case": case.short(),
                "bytes_read": read,
                "bytes_written": written,
                "seconds": (seconds * 1e3).round() / 1e3,
                "failures": failures,
            })
        });
    }

    /// Records that the shard has ended, with the exit code of the process. When the last write
    /// fails, the shard counts as working for another 180 seconds.
    pub async fn end(self, exit: u8) {
        let Self { state, writing } = self;
        state.event("ended", |heartbeat| {
            heartbeat.running.clear();
            heartbeat.ended = Some(heartbeat.renewed);
            json!({ "exit": exit })
        });
        let written = match tokio::time::timeout(END_TIMEOUT, state.write()).await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer for {} seconds", END_TIMEOUT.as_secs())),
        };
        drop(writing);
        if let Err(error) = written {
            tracing::warn!(
                %error,
                "cannot write the last heartbeat of this shard; `dor status` shows it at work for 180 seconds"
            );
        }
    }
}

impl WriterState {
    fn content(&self) -> MutexGuard<'_, HeartbeatLog> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the heartbeat and appends a line to the log: time, name, shard, and what `change`
    /// returns.
    fn event(&self, name: &str, change: impl FnOnce(&mut Heartbeat) -> Value) {
        let mut content = self.content();
        let now = Utc::now();
        content.heartbeat.renewed = now.trunc_subsecs(0);
        let details = change(&mut content.heartbeat);
        let shard = content.heartbeat.shard;
        let mut line = json!({ "time": now.to_rfc3339(), "event": name, "shard": shard });
        for (key, value) in details.as_object().into_iter().flatten() {
            line[key] = value.clone();
        }
        content.log.extend_from_slice(line.to_string().as_bytes());
        content.log.push(b'\n');
        drop(content);
        self.changed.notify_one();
    }

    /// Writes the log, then the heartbeat.
    async fn write(&self) -> Result<(), StoreError> {
        let _lock = self.write_lock.lock().await;
        let (heartbeat, log) = {
            let mut content = self.content();
            if content.heartbeat.ended.is_none() {
                content.heartbeat.renewed = Utc::now().trunc_subsecs(0);
            }
            // Text and numbers always have a JSON form.
            let heartbeat = serde_json::to_vec_pretty(&content.heartbeat).unwrap_or_default();
            (heartbeat, content.log.clone())
        };
        self.store.put(&self.log_key, Bytes::from(log)).await?;
        self.store.put(&self.heartbeat_key, Bytes::from(heartbeat)).await?;
        Ok(())
    }

    /// Writes after each change, and when a renewal is due. Never returns.
    async fn keep_writing(self: Arc<Self>) {
        loop {
            let _ = tokio::time::timeout(RENEWAL_INTERVAL, self.changed.notified()).await;
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "cannot write the heartbeat of this shard");
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Locations;

    #[tokio::test]
    async fn a_heartbeat_keeps_the_failures_of_earlier_runs_until_their_cases_begin_again() {
        let store = Store::memory();
        let plan = CampaignPlan::new(Product::ALL.to_vec(), Locations::default(), Vec::new());
        let shard = Shard { index: 3, count: 7 };
        let case: Case = "112-04".parse().unwrap();
        let failures =
            [Failure { products: vec![Product::Store2], error: "bad".to_owned(), permanent: true }];
        for again in [false, true] {
            let writer =
                HeartbeatWriter::begin(store.clone(), "p.json", &plan, shard).await.unwrap();
            let heartbeats = Heartbeat::all(&store, "p.json", &plan).await.unwrap();
            assert_eq!(heartbeats.len(), 1);
            assert_eq!(heartbeats[0].process, Process::own());
            assert!(heartbeats[0].is_alive());
            assert_eq!(heartbeats[0].failed.contains_key("112-04"), again);
            writer.case_begun(case);
            assert!(!writer.state.content().heartbeat.failed.contains_key("112-04"));
            writer.case_ended(case, (10, 5), &failures, 1.0);
            writer.end(1).await;
        }
        let heartbeats = Heartbeat::all(&store, "p.json", &plan).await.unwrap();
        assert!(!heartbeats[0].is_alive() && heartbeats[0].bytes_read == 10);
        assert_eq!(heartbeats[0].failed["112-04"], failures);
        let logs = store.list("p.state/log").await.unwrap();
        let (log, _) = store.get(&logs[0].key).await.unwrap().unwrap();
        let lines: Vec<Value> =
            log.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[2]["failures"][0]["error"], "bad");
        let other = CampaignPlan::new(vec![Product::Research], Locations::default(), Vec::new());
        assert!(Heartbeat::all(&store, "p.json", &other).await.unwrap().is_empty());
    }
}
