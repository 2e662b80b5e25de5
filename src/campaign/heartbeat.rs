//! What each shard tells of itself while it works: one object beside the plan that it renews, and a log.
//! Whether a case is done is not told here but by its records.

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
use crate::executor::begin;
use crate::model::Case;
use crate::store::{Store, StoreError};

/// Time between two signs of life, and without one until a shard counts as dead.
const RENEWED: Duration = Duration::from_secs(30);
const DEAD: TimeDelta = TimeDelta::seconds(180);
/// Time between two writes at least.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the end waits to be told.
const GRACE: Duration = Duration::from_secs(10);
/// Marks that are read at the same time.
const READS: usize = 32;

/// A shard, as it told of itself last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// SHA-256 of the plan.
    pub plan: String,
    /// Which shard, from 0.
    pub shard: usize,
    /// Of how many.
    pub shards: usize,
    /// Host.
    pub host: String,
    /// Process.
    pub process: u32,
    /// When it began.
    pub began: DateTime<Utc>,
    /// Last sign of life.
    pub renewed: DateTime<Utc>,
    /// When it ended by itself.
    pub ended: Option<DateTime<Utc>>,
    /// Bytes read from the archive.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Cases that are being worked on.
    pub running: BTreeSet<String>,
    /// Cases that failed last time, and why.
    pub failed: BTreeMap<String, Vec<Failure>>,
}

/// Products of a case that were not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The products.
    pub stages: Vec<Product>,
    /// Why not.
    pub error: String,
    /// Whether the input or the configuration must be mended first.
    pub permanent: bool,
}

impl Heartbeat {
    fn new(plan: &CampaignPlan, shard: Shard) -> Self {
        let now = Utc::now().trunc_subsecs(0);
        Self {
            plan: plan.sha256.clone(),
            shard: shard.index,
            shards: shard.of,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            process: std::process::id(),
            began: now,
            renewed: now,
            ended: None,
            bytes_read: 0,
            bytes_written: 0,
            running: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Whether the shard is at work, as far as can be known.
    pub fn is_alive(&self) -> bool {
        self.ended.is_none() && Utc::now() - self.renewed < DEAD
    }

    /// Bytes read a second.
    pub fn rate(&self) -> f64 {
        let seconds = (self.ended.unwrap_or(self.renewed) - self.began).as_seconds_f64();
        if seconds > 0.0 { self.bytes_read as f64 / seconds } else { 0.0 }
    }

    fn key(folder: &str, shard: Shard) -> String {
        let Shard { index, of } = shard;
        format!("{folder}/shard-{index:04}-of-{of:04}.json")
    }

    async fn load(store: &Store, key: &str) -> Result<Option<Self>, StoreError> {
        let found = store.get(key).await?;
        Ok(found.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok()))
    }

    /// The marks of all shards of a plan; `key` is that of the plan.
    pub async fn all(
        store: &Store,
        key: &str,
        plan: &CampaignPlan,
    ) -> Result<Vec<Self>, StoreError> {
        let folder = folder(key);
        let found = store.list_with_delimiter(&folder).await?.into_iter();
        let keys = found.map(|object| object.key).filter(|key| key.ends_with(".json"));
        let marks = stream::iter(keys).map(async |key| Self::load(store, &key).await);
        let marks: Vec<Option<Self>> = marks.buffered(READS).try_collect().await?;
        Ok(marks.into_iter().flatten().filter(|mark| mark.plan == plan.sha256).collect())
    }
}

/// Folder beside a plan for what its shards tell.
pub fn folder(plan: &str) -> String {
    format!("{}.state", plan.strip_suffix(".json").unwrap_or(plan))
}

/// Tells of a shard while it works.
pub struct HeartbeatWriter {
    state: Arc<WriterState>,
    writing: AbortOnDropHandle<()>,
}

struct WriterState {
    store: Store,
    mark_key: String,
    log_key: String,
    told: Mutex<HeartbeatLog>,
    changed: Notify,
    /// One writes at a time.
    turn: tokio::sync::Mutex<()>,
}

struct HeartbeatLog {
    mark: Heartbeat,
    log: Vec<u8>,
}

impl HeartbeatWriter {
    /// Begins to tell, of a shard of the plan at `key`. Earlier failures of the shard are told until their cases
    /// are begun again.
    pub async fn begin(
        store: Store,
        key: &str,
        plan: &CampaignPlan,
        shard: Shard,
    ) -> Result<Self, StoreError> {
        let folder = folder(key);
        let mut mark = Heartbeat::new(plan, shard);
        let mark_key = Heartbeat::key(&folder, shard);
        if let Some(earlier) = Heartbeat::load(&store, &mark_key).await?
            && earlier.plan == mark.plan
        {
            mark.failed = earlier.failed;
        }
        let (began, Shard { index, of }) = (mark.began.format("%Y%m%dT%H%M%SZ"), shard);
        let process = mark.process;
        let log_key = format!("{folder}/log/{index:04}-of-{of:04}-{began}-{process}.jsonl");
        let told = Mutex::new(HeartbeatLog { mark, log: Vec::new() });
        let (changed, turn) = (Notify::new(), tokio::sync::Mutex::default());
        let state = Arc::new(WriterState { store, mark_key, log_key, told, changed, turn });
        state.event(
            "begun",
            |mark| json!({ "plan": mark.plan, "host": mark.host, "version": crate::VERSION }),
        );
        state.write().await?;
        let writing = begin(WriterState::keep_writing(state.clone()));
        Ok(Self { state, writing })
    }

    /// A case is begun.
    pub fn case_begun(&self, case: Case) {
        self.state.event("case begun", |mark| {
            mark.failed.remove(&case.short());
            mark.running.insert(case.short());
            json!({ "case": case.short() })
        });
    }

    /// A case has ended.
    pub fn case_ended(
        &self,
        case: Case,
        (read, written): (u64, u64),
        failures: &[Failure],
        seconds: f64,
    ) {
        self.state.event("case ended", |mark| {
            mark.running.remove(&case.short());
            mark.bytes_read += read;
            mark.bytes_written += written;
            if !failures.is_empty() {
                mark.failed.insert(case.short(), failures.to_vec());
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

    /// The shard has ended, by itself or because it was told to. Where that cannot be told, it counts as at
    /// work for a while.
    pub async fn end(self, exit: u8) {
        let Self { state, writing } = self;
        state.event("ended", |mark| {
            mark.running.clear();
            mark.ended = Some(mark.renewed);
            json!({ "exit": exit })
        });
        let told = match tokio::time::timeout(GRACE, state.write()).await {
            Ok(told) => told.map_err(|error| error.to_string()),
            Err(_) => Err("it takes too long".to_owned()),
        };
        drop(writing);
        if let Err(error) = told {
            tracing::warn!(%error, "cannot tell that this shard has ended");
        }
    }
}

impl WriterState {
    fn told(&self) -> MutexGuard<'_, HeartbeatLog> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, name: &str, change: impl FnOnce(&mut Heartbeat) -> Value) {
        let mut told = self.told();
        let now = Utc::now();
        told.mark.renewed = now.trunc_subsecs(0);
        let more = change(&mut told.mark);
        let mut line = json!({ "time": now.to_rfc3339(), "event": name, "shard": told.mark.shard });
        for (key, value) in more.as_object().into_iter().flatten() {
            line[key] = value.clone();
        }
        told.log.extend_from_slice(line.to_string().as_bytes());
        told.log.push(b'\n');
        drop(told);
        self.changed.notify_one();
    }

    async fn write(&self) -> Result<(), StoreError> {
        // What was told earlier must not land later.
        let _turn = self.turn.lock().await;
        let (mark, log) = {
            let mut told = self.told();
            if told.mark.ended.is_none() {
                told.mark.renewed = Utc::now().trunc_subsecs(0);
            }
            // Text and numbers: this does not fail.
            let mark = serde_json::to_vec_pretty(&told.mark).unwrap_or_default();
            (mark, told.log.clone())
        };
        self.store.put(&self.log_key, Bytes::from(log)).await?;
        self.store.put(&self.mark_key, Bytes::from(mark)).await?;
        Ok(())
    }

    async fn keep_writing(self: Arc<Self>) {
        loop {
            // Woken, or when a sign of life is due.
            let _ = tokio::time::timeout(RENEWED, self.changed.notified()).await;
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "cannot tell how far this shard is");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Locations;

    #[tokio::test]
    async fn a_shard_is_seen_and_its_failures_stay_until_they_are_tried_again() {
        let store = Store::memory();
        let plan = CampaignPlan::new(Product::ALL.to_vec(), Locations::default(), Vec::new());
        let shard = Shard { index: 3, of: 7 };
        let case: Case = "112-04".parse().unwrap();
        let failures =
            [Failure { stages: vec![Product::Store2], error: "bad".to_owned(), permanent: true }];
        for again in [false, true] {
            let reporter =
                HeartbeatWriter::begin(store.clone(), "p.json", &plan, shard).await.unwrap();
            let marks = Heartbeat::all(&store, "p.json", &plan).await.unwrap();
            assert_eq!(marks.len(), 1);
            assert!(marks[0].is_alive());
            assert_eq!(marks[0].failed.contains_key("112-04"), again);
            reporter.case_begun(case);
            assert!(!reporter.state.told().mark.failed.contains_key("112-04"));
            reporter.case_ended(case, (10, 5), &failures, 1.0);
            reporter.end(1).await;
        }
        let marks = Heartbeat::all(&store, "p.json", &plan).await.unwrap();
        assert!(!marks[0].is_alive() && marks[0].bytes_read == 10);
        assert_eq!(marks[0].failed["112-04"], failures);
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
