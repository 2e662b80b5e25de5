//! Progress on standard error: a bar on a terminal, a line every 15 seconds elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::output::{bytes, duration, eprint_line};
use crate::model::Case;
use crate::publish::{self, PublishError, SentObject};
use crate::research::ConversionProgress;

/// Time between two lines of progress when standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(15);
/// Number of bytes whose transfer takes about as long as one request.
const BYTES_PER_REQUEST: u64 = 100_000;
/// Most failed objects that are listed.
const MAX_LISTED: usize = 20;

/// Progress of a conversion: files and bytes read.
pub(super) struct ConversionBar {
    /// `None`: standard error is not a terminal.
    bar: Option<ProgressBar>,
    begun: Instant,
    files: AtomicU64,
    files_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    last_line: Mutex<Instant>,
}

/// Creates a progress bar; `None` when standard error is not a terminal.
fn bar() -> Option<ProgressBar> {
    let style =
        "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(style);
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    })
}

impl ConversionBar {
    /// Creates the progress of a command that begins now.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            bar: bar(),
            begun: Instant::now(),
            files: zero(),
            files_done: zero(),
            bytes: zero(),
            bytes_done: zero(),
            last_line: Mutex::new(Instant::now()),
        }
    }

    /// Prints a line to standard error, above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprint_line(text)),
            None => eprint_line(text),
        }
    }

    /// Files done and in all.
    fn message(&self) -> String {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        format!("{}/{} files", load(&self.files_done), load(&self.files))
    }

    /// Prints a line of progress, at most one in [`INTERVAL`], when there is no bar.
    fn write_line_at_intervals(&self) {
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bar.is_some() || last.elapsed() < INTERVAL {
            return;
        }
        *last = Instant::now();
        let done = self.bytes_done.load(Ordering::Relaxed);
        let total = self.bytes.load(Ordering::Relaxed);
        let rate = done as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
        let left = total.saturating_sub(done) as f64 / rate.max(1.0);
        eprint_line(&format!(
            "{}, {} of {}, {}/s, {} left",
            self.message(),
            bytes(done),
            bytes(total),
            bytes(rate as u64),
            duration(Duration::from_secs_f64(left)),
        ));
    }
}

impl ConversionProgress for ConversionBar {
    fn begin(&self, _case: Case, files: usize, bytes: u64) {
        self.files.fetch_add(files as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
            bar.set_message(self.message());
        }
    }

    fn advance(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.inc(bytes),
            None => self.write_line_at_intervals(),
        }
    }

    fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_message(self.message());
        }
    }

    fn end(&self, _case: Case) {
        if let Some(bar) = &self.bar
            && self.files_done.load(Ordering::Relaxed) == self.files.load(Ordering::Relaxed)
        {
            bar.finish_and_clear();
        }
    }
}

/// Progress of a publish, and the objects that were sent or have failed.
pub(super) struct TransferBar {
    /// `None`: standard error is not a terminal, or another bar uses it.
    bar: Option<ProgressBar>,
    /// Time at which the first transfer began.
    begun: OnceLock<Instant>,
    objects: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    sent: Mutex<Vec<SentObject>>,
    /// Keys and errors of the objects that have failed.
    failed: Mutex<Vec<(String, String)>>,
    /// Number of requests that were retried.
    retried_requests: AtomicU64,
    last_line: Mutex<Instant>,
    /// Receives a JSON value for each object that is sent, deleted or failed.
    lines: Option<UnboundedSender<Value>>,
}

impl TransferBar {
    /// Creates the progress of a publish. `lines` receives a JSON value for each object.
    pub fn new(lines: Option<UnboundedSender<Value>>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            bar: bar(),
            begun: OnceLock::new(),
            objects: zero(),
            bytes: zero(),
            bytes_done: zero(),
            sent: Mutex::default(),
            failed: Mutex::default(),
            retried_requests: zero(),
            last_line: Mutex::new(Instant::now()),
            lines,
        }
    }

    /// Creates the progress of a publish without a bar, for a command that has its own bar.
    pub fn without_bar() -> Self {
        Self { bar: None, ..Self::new(None) }
    }

    fn lock_sent(&self) -> MutexGuard<'_, Vec<SentObject>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line to standard error, above the bar.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprint_line(text)),
            None => eprint_line(text),
        }
    }

    fn send_json(&self, value: impl FnOnce() -> Value) {
        if let Some(lines) = &self.lines {
            // The receiver is closed when standard output is.
            let _ = lines.send(value());
        }
    }

    /// Share of the work that is done, from 0 to 1. Counts requests, which take most of the time of small
    /// objects, and bytes, which take most of the time of large ones.
    fn share(&self) -> f64 {
        let [objects, bytes, done] = [&self.objects, &self.bytes, &self.bytes_done]
            .map(|number| number.load(Ordering::Relaxed));
        let sent = self.lock_sent().len() as u64;
        let work = (bytes + BYTES_PER_REQUEST * objects).max(1);
        (done + BYTES_PER_REQUEST * sent) as f64 / work as f64
    }

    /// Objects that were sent.
    pub fn sent(&self) -> Vec<SentObject> {
        self.lock_sent().clone()
    }

    /// Objects that were sent after more than one attempt.
    pub fn retried(&self) -> Vec<SentObject> {
        self.lock_sent().iter().filter(|sent| sent.attempts > 1).cloned().collect()
    }

    /// Keys and errors of the objects that could not be sent.
    pub fn failures(&self) -> Vec<(String, String)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Time since the first transfer began; 0 before.
    fn elapsed(&self) -> Duration {
        self.begun.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// Time, bytes and rate since the first transfer began.
    pub fn summary(&self) -> String {
        let (elapsed, done) = (self.elapsed(), self.bytes_done.load(Ordering::Relaxed));
        let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
        format!("{}, {}, {}/s", duration(elapsed), bytes(done), bytes(rate as u64))
    }

    /// Removes the bar.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Objects sent and in all, and the number of retried requests.
    fn message(&self) -> String {
        let retried = self.retried_requests.load(Ordering::Relaxed);
        let objects =
            format!("{}/{}", self.lock_sent().len(), self.objects.load(Ordering::Relaxed));
        if retried > 0 {
            format!("{objects} objects, {retried} requests retried")
        } else {
            format!("{objects} objects")
        }
    }
}

impl publish::TransferProgress for TransferBar {
    fn begin(&self, objects: usize, bytes: u64) {
        self.begun.get_or_init(Instant::now);
        self.objects.fetch_add(objects as u64, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
        }
    }

    fn advance(&self, number: u64) {
        let done = self.bytes_done.fetch_add(number, Ordering::Relaxed) + number;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(self.message());
            return;
        }
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        // The rate of the first seconds gives no estimate of the remaining time.
        if last.elapsed() >= INTERVAL && self.elapsed() >= INTERVAL {
            *last = Instant::now();
            let done = self.share();
            let left = self.elapsed().as_secs_f64() * (1.0 - done).max(0.0) / done.max(1e-6);
            let left = Duration::from_secs_f64(left);
            let (message, so_far) = (self.message(), self.summary());
            eprint_line(&format!("{message}, {so_far}, {} left", duration(left)));
        }
    }

    fn sent(&self, sent: &SentObject) {
        self.lock_sent().push(sent.clone());
        self.send_json(|| json!({ "sent": sent }));
    }

    fn retried(&self, key: &str, error: &PublishError) {
        tracing::info!(key, %error, "retrying");
    }

    fn troubled(&self, requests: u64) {
        self.retried_requests.store(requests, Ordering::Relaxed);
    }

    fn failed(&self, key: &str, error: &PublishError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let error = error.to_string();
        failed.push((key.to_owned(), error.clone()));
        let number = failed.len();
        drop(failed);
        if number <= MAX_LISTED {
            self.line(&format!("failed: {key}: {error}"));
        } else if number == MAX_LISTED + 1 {
            self.line("more objects have failed; they are not listed here");
        }
        self.send_json(|| json!({ "failed": { "key": key, "error": error } }));
    }

    fn deleted(&self, key: &str) {
        self.send_json(|| json!({ "deleted": { "key": key } }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::TransferProgress as _;

    #[test]
    fn the_share_that_is_done_counts_requests_and_bytes() {
        let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let transfers = TransferBar::new(Some(sender));
        // The large object takes as long as the thousand small ones.
        transfers.begin(1001, 1000 + 100_000_000);
        let key = "x".to_owned();
        let sent =
            SentObject { key, bytes: 1, md5: None, etag: None, attempts: 1, milliseconds: 1 };
        for _ in 0..1000 {
            publish::TransferProgress::sent(&transfers, &sent);
        }
        assert!((transfers.share() - 0.5).abs() < 0.01, "{}", transfers.share());
        transfers.deleted("gone");
        let values: Vec<Value> = std::iter::from_fn(|| lines.try_recv().ok()).collect();
        assert!(values.len() == 1001 && values[0]["sent"]["key"] == "x");
        assert_eq!(values[1000], json!({ "deleted": { "key": "gone" } }));
    }
}
