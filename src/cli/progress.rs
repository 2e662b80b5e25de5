//! How far a run is: bars on a terminal, a line now and then elsewhere. To standard error.

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

/// Time between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(15);
/// A request costs about as much as this many bytes.
const REQUEST: u64 = 100_000;
/// Objects that failed of which a line is printed.
const SHOWN: usize = 20;

/// Progress of a command on standard error.
pub(super) struct ConversionBar {
    bar: Option<ProgressBar>,
    begun: Instant,
    files: AtomicU64,
    files_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    last_line: Mutex<Instant>,
}

/// A bar, where there is a terminal.
fn bar() -> Option<ProgressBar> {
    let style =
        "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(style);
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    })
}

impl ConversionBar {
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

    /// Prints a line without breaking the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprint_line(text)),
            None => eprint_line(text),
        }
    }

    fn message(&self) -> String {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        format!("{}/{} files", load(&self.files_done), load(&self.files))
    }

    fn line_now_and_then(&self) {
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
            None => self.line_now_and_then(),
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

/// Progress of a publish on standard error, and what there is to tell afterwards.
pub(super) struct TransferBar {
    bar: Option<ProgressBar>,
    /// When the first of them was begun.
    begun: OnceLock<Instant>,
    objects: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    sent: Mutex<Vec<SentObject>>,
    failed: Mutex<Vec<(String, String)>>,
    troubled: AtomicU64,
    last_line: Mutex<Instant>,
    /// Where each object is told of as JSON.
    lines: Option<UnboundedSender<Value>>,
}

impl TransferBar {
    /// With a line of JSON for each object to `lines`, if there is one.
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
            troubled: zero(),
            last_line: Mutex::new(Instant::now()),
            lines,
        }
    }

    /// Without a bar: another has the terminal.
    pub fn beside() -> Self {
        Self { bar: None, ..Self::new(None) }
    }

    fn guard(&self) -> MutexGuard<'_, Vec<SentObject>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprint_line(text)),
            None => eprint_line(text),
        }
    }

    fn tell(&self, line: impl FnOnce() -> Value) {
        if let Some(lines) = &self.lines {
            // Nobody may be reading any more.
            let _ = lines.send(line());
        }
    }

    /// How much of the work is done. Of many small objects the requests take the time, of few large
    /// ones the bytes.
    fn share(&self) -> f64 {
        let [objects, bytes, done] = [&self.objects, &self.bytes, &self.bytes_done]
            .map(|number| number.load(Ordering::Relaxed));
        let sent = self.guard().len() as u64;
        (done + REQUEST * sent) as f64 / (bytes + REQUEST * objects).max(1) as f64
    }

    /// Objects that have arrived.
    pub fn sent(&self) -> Vec<SentObject> {
        self.guard().clone()
    }

    /// Those of them that took more than one try.
    pub fn retried(&self) -> Vec<SentObject> {
        self.guard().iter().filter(|sent| sent.attempts > 1).cloned().collect()
    }

    /// Those that failed for good, and why.
    pub fn failures(&self) -> Vec<(String, String)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn elapsed(&self) -> Duration {
        self.begun.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// Time, bytes and rate so far.
    pub fn summary(&self) -> String {
        let (elapsed, done) = (self.elapsed(), self.bytes_done.load(Ordering::Relaxed));
        let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
        format!("{}, {}, {}/s", duration(elapsed), bytes(done), bytes(rate as u64))
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn message(&self) -> String {
        let again = self.troubled.load(Ordering::Relaxed);
        let objects = format!("{}/{}", self.guard().len(), self.objects.load(Ordering::Relaxed));
        if again > 0 {
            format!("{objects} objects, {again} requests sent again")
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
        // What has only just begun does not tell how long it will take.
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
        self.guard().push(sent.clone());
        self.tell(|| json!({ "sent": sent }));
    }

    fn retried(&self, key: &str, error: &PublishError) {
        tracing::info!(key, %error, "trying again");
    }

    fn troubled(&self, requests: u64) {
        self.troubled.store(requests, Ordering::Relaxed);
    }

    fn failed(&self, key: &str, error: &PublishError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let error = error.to_string();
        failed.push((key.to_owned(), error.clone()));
        let number = failed.len();
        drop(failed);
        if number <= SHOWN {
            self.line(&format!("failed: {key}: {error}"));
        } else if number == SHOWN + 1 {
            self.line("more have failed, which are not shown here");
        }
        self.tell(|| json!({ "failed": { "key": key, "error": error } }));
    }

    fn deleted(&self, key: &str) {
        self.tell(|| json!({ "deleted": { "key": key } }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::TransferProgress as _;

    #[test]
    fn what_is_left_is_known_of_small_and_large_objects_together() {
        let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let transfers = TransferBar::new(Some(sender));
        // A thousand small ones and a large one that takes as long as they.
        transfers.begin(1001, 1000 + 100_000_000);
        let key = "x".to_owned();
        let sent =
            SentObject { key, bytes: 1, md5: None, etag: None, attempts: 1, milliseconds: 1 };
        for _ in 0..1000 {
            publish::TransferProgress::sent(&transfers, &sent);
        }
        assert!((transfers.share() - 0.5).abs() < 0.01, "{}", transfers.share());
        transfers.deleted("gone");
        let told: Vec<Value> = std::iter::from_fn(|| lines.try_recv().ok()).collect();
        assert!(told.len() == 1001 && told[0]["sent"]["key"] == "x");
        assert_eq!(told[1000], json!({ "deleted": { "key": "gone" } }));
    }
}
