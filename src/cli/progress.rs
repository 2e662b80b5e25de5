//! Progress on standard error: one line that is drawn in place on a terminal, a line every 15 seconds elsewhere.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressState;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::output::{bytes, count, duration, eprint_line};
use super::terminal::{self, InPlace};
use crate::publish::{self, PublishError, SentObject};
use crate::research::ConversionProgress;

/// Time between two lines of progress when standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(15);
/// Time after which the rate is known well enough to estimate the remaining time.
const FIRST_ESTIMATE: Duration = Duration::from_secs(3);
/// Number of bytes whose transfer takes about as long as one request.
const BYTES_PER_REQUEST: u64 = 100_000;
/// Most failed objects that are listed.
const MAX_LISTED: usize = 20;
/// Length of a bar of any width, for its position.
const LENGTH: u64 = 10_000;
/// Columns that the bar and the characters around it take at least.
const MIN_BAR: usize = 14;

/// Work of a command: things, such as files, and their bytes.
#[derive(Debug)]
struct Work {
    /// Plural name of the things.
    things: &'static str,
    /// Number of bytes that take as long as the fixed time of one thing.
    bytes_per_thing: u64,
    /// Time at which the first thing began.
    begun: Option<Instant>,
    /// Number of things.
    all: u64,
    done: u64,
    /// Size of the things, in bytes; 0 when only the things are counted.
    bytes: u64,
    bytes_done: u64,
    /// Number of requests that were retried.
    retried: u64,
}

impl Work {
    fn new(things: &'static str, bytes_per_thing: u64) -> Self {
        let (all, done, bytes, bytes_done, retried) = (0, 0, 0, 0, 0);
        Self { things, bytes_per_thing, begun: None, all, done, bytes, bytes_done, retried }
    }

    /// Time since the first thing began; 0 before.
    fn elapsed(&self) -> Duration {
        self.begun.as_ref().map(Instant::elapsed).unwrap_or_default()
    }

    /// Bytes per second, such as `1.50 MiB/s`.
    fn rate(&self) -> String {
        let rate = self.bytes_done as f64 / self.elapsed().as_secs_f64().max(1e-3);
        format!("{}/s", bytes(rate as u64))
    }

    /// Share of the work that is done, from 0 to 1. Counts things, which take most of the time when they are
    /// small, and bytes, which take most of the time when the things are large.
    fn share(&self) -> f64 {
        let work = |things, bytes| (bytes + self.bytes_per_thing * things) as f64;
        (work(self.done, self.bytes_done) / work(self.all, self.bytes).max(1.0)).min(1.0)
    }

    /// The remaining time, such as `, 2 min 30 s left`; empty while it cannot be estimated.
    fn left(&self) -> String {
        let (elapsed, share) = (self.elapsed(), self.share());
        if elapsed < FIRST_ESTIMATE || share == 0.0 {
            return String::new();
        }
        let left = elapsed.mul_f64((1.0 - share) / share).as_secs();
        format!(", {} left", duration(Duration::from_secs(left.max(1))))
    }

    /// Number of things, such as `12/180 files`, and of retried requests: the longest text first.
    fn counts(&self) -> Vec<String> {
        let things = format!("{}/{} {}", self.done, self.all, self.things);
        match self.retried {
            0 => vec![things],
            retried => {
                let requests = usize::try_from(retried).unwrap_or(usize::MAX);
                vec![format!("{things}, {} retried", count(requests, "request")), things]
            }
        }
    }

    /// Bytes, rate and remaining time: the longest text first.
    fn figures(&self) -> Vec<String> {
        let (percent, left) = (format!("{} %", (100.0 * self.share()) as u64), self.left());
        let mut figures = Vec::new();
        if self.bytes > 0 {
            let (done, size) = (bytes(self.bytes_done), bytes(self.bytes));
            figures.push(match left.is_empty() {
                true => format!("{done} of {size}"),
                false => format!("{done} of {size}, {}{left}", self.rate()),
            });
            figures.push(format!("{percent} of {size}{left}"));
        }
        figures.extend([format!("{percent}{left}"), percent]);
        figures
    }

    /// The longest counts and figures that fit into a line of `width` columns with a bar between them.
    fn fitting(&self, width: usize) -> (String, String) {
        let (all_counts, all_figures) = (self.counts(), self.figures());
        let pairs =
            all_counts.iter().flat_map(|counts| all_figures.iter().map(move |f| (counts, f)));
        let mut fitting = (String::new(), String::new());
        for (counts, figures) in pairs {
            fitting = (counts.clone(), figures.clone());
            if counts.len() + figures.len() + MIN_BAR <= width {
                break;
            }
        }
        fitting
    }
}

/// Shows the progress of work.
struct Meter {
    work: Arc<Mutex<Work>>,
    shown: Mutex<Shown>,
}

/// What is on the terminal.
struct Shown {
    /// `None`: no work is in progress, or lines are printed instead.
    bar: Option<InPlace>,
    /// Whether to draw a bar where that is possible.
    draws: bool,
    /// Number of calls of `begin` without their call of `end`.
    open: usize,
    last_line: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    fn new(work: Work, draws: bool) -> Self {
        let shown = Shown { bar: None, draws, open: 0, last_line: Instant::now() };
        Self { work: Arc::new(Mutex::new(work)), shown: Mutex::new(shown) }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        lock(&self.work)
    }

    /// Creates the bar, whose texts are made when it is drawn.
    fn bar(&self) -> Option<InPlace> {
        let text = |choose: fn((String, String)) -> String| {
            let work = self.work.clone();
            move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let text = choose(lock(&work).fitting(terminal::width()));
                // A failure to write to a string cannot happen.
                let _ = out.write_str(&text);
            }
        };
        InPlace::bar(LENGTH, "{counts} [{wide_bar}] {figures}", |style| {
            let style = style.with_key("counts", text(|(counts, _)| counts));
            style.with_key("figures", text(|(_, figures)| figures)).progress_chars("=> ")
        })
    }

    /// Adds work. Work that has ended is forgotten when no other is in progress.
    fn begin(&self, things: usize, bytes: u64, forget: bool) {
        let mut shown = lock(&self.shown);
        let mut work = self.work();
        if forget && shown.open == 0 {
            *work = Work::new(work.things, work.bytes_per_thing);
        }
        work.begun.get_or_insert_with(Instant::now);
        work.all += things as u64;
        work.bytes += bytes;
        let is_something = work.all > 0;
        drop(work);
        shown.open += 1;
        if shown.bar.is_none() && shown.draws && is_something {
            shown.bar = self.bar();
        }
        self.show(shown);
    }

    /// Changes the amounts of work and shows them.
    fn update(&self, change: impl FnOnce(&mut Work)) {
        change(&mut self.work());
        self.show(lock(&self.shown));
    }

    /// Draws the bar. Without a bar, prints a line, at most one in [`INTERVAL`].
    fn show(&self, mut shown: MutexGuard<'_, Shown>) {
        if let Some(bar) = &shown.bar {
            let share = self.work().share();
            bar.set_position((share * LENGTH as f64) as u64);
            return;
        }
        let work = self.work();
        if shown.last_line.elapsed() < INTERVAL || work.elapsed() < INTERVAL {
            return;
        }
        shown.last_line = Instant::now();
        let (counts, figures) = work.fitting(usize::MAX);
        drop((work, shown));
        eprint_line(&format!("{counts}, {figures}"));
    }

    /// Ends the work of one call of `begin`. The bar goes with the last.
    fn end(&self) {
        let mut shown = lock(&self.shown);
        shown.open = shown.open.saturating_sub(1);
        if shown.open == 0 {
            shown.bar = None;
        }
    }
}

/// Progress of a conversion, or of other work with files.
pub(super) struct ConversionBar(Meter);

impl ConversionBar {
    /// Creates the progress of a command that works with files.
    pub fn new() -> Self {
        Self::of("files")
    }

    /// Creates the progress of a command that works with `things`.
    pub fn of(things: &'static str) -> Self {
        Self(Meter::new(Work::new(things, 1), true))
    }
}

impl ConversionProgress for ConversionBar {
    fn begin(&self, files: usize, bytes: u64) {
        self.0.begin(files, bytes, true);
    }

    fn advance(&self, bytes: u64) {
        self.0.update(|work| work.bytes_done += bytes);
    }

    fn file_done(&self) {
        self.0.update(|work| work.done += 1);
    }

    fn end(&self) {
        self.0.end();
    }
}

/// Progress of a publish, and the objects that were sent or have failed.
pub(super) struct TransferBar {
    meter: Meter,
    sent: Mutex<Vec<SentObject>>,
    /// Keys and errors of the objects that have failed.
    failed: Mutex<Vec<(String, String)>>,
    /// Receives a JSON value for each object that is sent, deleted or failed.
    lines: Option<UnboundedSender<Value>>,
}

impl TransferBar {
    /// Creates the progress of a publish. `lines` receives a JSON value for each object.
    pub fn new(lines: Option<UnboundedSender<Value>>) -> Self {
        Self::drawn(lines, true)
    }

    /// Creates the progress of a publish without a bar, for a command that has its own bar.
    pub fn without_bar() -> Self {
        Self::drawn(None, false)
    }

    fn drawn(lines: Option<UnboundedSender<Value>>, draws: bool) -> Self {
        let meter = Meter::new(Work::new("objects", BYTES_PER_REQUEST), draws);
        Self { meter, sent: Mutex::default(), failed: Mutex::default(), lines }
    }

    fn send_json(&self, value: impl FnOnce() -> Value) {
        if let Some(lines) = &self.lines {
            // The receiver is closed when standard output is.
            let _ = lines.send(value());
        }
    }

    /// Objects that were sent.
    pub fn sent(&self) -> Vec<SentObject> {
        lock(&self.sent).clone()
    }

    /// Objects that were sent after more than one attempt.
    pub fn retried(&self) -> Vec<SentObject> {
        lock(&self.sent).iter().filter(|sent| sent.attempts > 1).cloned().collect()
    }

    /// Keys and errors of the objects that could not be sent.
    pub fn failures(&self) -> Vec<(String, String)> {
        lock(&self.failed).clone()
    }

    /// Time, bytes and rate since the first transfer began.
    pub fn summary(&self) -> String {
        let work = self.meter.work();
        format!("{}, {}, {}", duration(work.elapsed()), bytes(work.bytes_done), work.rate())
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.meter.end();
    }
}

impl publish::TransferProgress for TransferBar {
    fn begin(&self, objects: usize, bytes: u64) {
        self.meter.begin(objects, bytes, false);
    }

    fn advance(&self, number: u64) {
        self.meter.update(|work| work.bytes_done += number);
    }

    fn sent(&self, sent: &SentObject) {
        lock(&self.sent).push(sent.clone());
        self.meter.update(|work| work.done += 1);
        self.send_json(|| json!({ "sent": sent }));
    }

    fn retried(&self, key: &str, error: &PublishError) {
        tracing::info!(key, %error, "retrying");
    }

    fn troubled(&self, requests: u64) {
        self.meter.update(|work| work.retried = requests);
    }

    fn failed(&self, key: &str, error: &PublishError) {
        let mut failed = lock(&self.failed);
        let error = error.to_string();
        failed.push((key.to_owned(), error.clone()));
        let number = failed.len();
        drop(failed);
        if number <= MAX_LISTED {
            eprint_line(&format!("failed: {key}: {error}"));
        } else if number == MAX_LISTED + 1 {
            eprint_line("more objects have failed; they are not listed here");
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
        let share = transfers.meter.work().share();
        assert!((share - 0.5).abs() < 0.01, "{share}");
        transfers.deleted("gone");
        let values: Vec<Value> = std::iter::from_fn(|| lines.try_recv().ok()).collect();
        assert!(values.len() == 1001 && values[0]["sent"]["key"] == "x");
        assert_eq!(values[1000], json!({ "deleted": { "key": "gone" } }));
    }

    #[test]
    fn a_line_has_the_longest_texts_that_fit() {
        let begun = Instant::now().checked_sub(Duration::from_secs(99));
        let mut work = Work {
            begun,
            all: 180,
            done: 45,
            bytes: 400 << 20,
            bytes_done: 100 << 20,
            ..Work::new("files", 1)
        };
        let fitting = |work: &Work, width| {
            let (counts, figures) = work.fitting(width);
            assert!(counts.len() + figures.len() + MIN_BAR <= width, "{counts} {figures}");
            (counts, figures)
        };
        let figures = [
            (80, "100.00 MiB of 400.00 MiB, 1.01 MiB/s, 4 min 57 s left"),
            (70, "25 % of 400.00 MiB, 4 min 57 s left"),
            (60, "25 %, 4 min 57 s left"),
            (40, "25 %"),
        ];
        for (width, figures) in figures {
            assert_eq!(fitting(&work, width), ("45/180 files".to_owned(), figures.to_owned()));
        }
        work.retried = 1;
        assert_eq!(fitting(&work, 60).0, "45/180 files, 1 request retried");
        assert_eq!(fitting(&work, 45).0, "45/180 files");
        let counted = Work { begun, all: 4, done: 1, ..Work::new("chunks", 1) };
        assert_eq!(counted.fitting(80), ("1/4 chunks".to_owned(), "25 %, 4 min 57 s left".into()));
        assert_eq!(Work::new("files", 1).fitting(80).1, "0 %");
    }
}
