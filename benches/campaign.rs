//! A simulation of a whole campaign: `cargo bench --bench campaign -- --help`.
//!
//! `dor run` distributes 2760 cases of 180 files over nodes. The rate of a node is the lowest of its own
//! limits and of its share of the limits of archive and bucket. Nodes fail, and jobs are preempted or
//! reach their time limit; then the job waits in the queue again, and the work in flight is lost. Every
//! assumption is an option. `docs/benchmarks.md` explains the output.

#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::fmt;

use clap::Parser;
use dor_atlas::campaign::Shard;
use dor_atlas::model::Case;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MB: f64 = 1e6;
const GB: f64 = 1e9;
const HOUR: f64 = 3600.0;

/// Simulates a campaign: hours, node-hours and the limit that determines them.
#[derive(Parser)]
struct Campaign {
    /// Numbers of nodes
    #[arg(long, value_delimiter = ',', default_value = "1,16,50")]
    nodes: Vec<usize>,
    /// Months of a case
    #[arg(long, default_value_t = 180)]
    files: usize,
    /// The smallest and the largest raw file, MB; the cases lie between
    #[arg(long, num_args = 2, default_values_t = [330.0, 480.0])]
    file_mb: Vec<f64>,
    /// Raw MB per second that a core makes all products of (measured)
    #[arg(long, default_value_t = 75.0)]
    core_mb: f64,
    /// Bytes that are written for each byte that is read (measured)
    #[arg(long, default_value_t = 0.39)]
    written: f64,
    /// Write requests of a case (180 files in parts, 600 chunks of maps)
    #[arg(long, default_value_t = 3000.0)]
    puts: f64,
    /// Fraction of the work on an unfinished case that is repeated after a stop (measured)
    #[arg(long, default_value_t = 0.06)]
    again: f64,
    /// Cores of a node
    #[arg(long, default_value_t = 128)]
    cores: usize,
    /// GB per second that a node reads from the archive
    #[arg(long, default_value_t = 5.0)]
    node_read: f64,
    /// GB per second that a node writes to the bucket
    #[arg(long, default_value_t = 2.0)]
    node_write: f64,
    /// GB per second that all nodes together read from the archive
    #[arg(long, default_value_t = 50.0)]
    archive_read: f64,
    /// GB per second that all nodes together write to the bucket
    #[arg(long, default_value_t = 10.0)]
    bucket_write: f64,
    /// Requests per second that the bucket accepts
    #[arg(long, default_value_t = 3500.0)]
    bucket_puts: f64,
    /// Hours that a job may take
    #[arg(long, default_value_t = 4.0)]
    time_limit: f64,
    /// Hours that a job waits in the queue, at the start and after each stop
    #[arg(long, default_value_t = 1.0)]
    queue: f64,
    /// Mean hours between two failures of a node
    #[arg(long, default_value_t = 2000.0)]
    node_failure: f64,
    /// Mean hours between two preemptions of a job; 0: no preemption
    #[arg(long, default_value_t = 0.0)]
    preemption: f64,
    /// Simulated campaigns for each number of nodes; medians are printed
    #[arg(long, default_value_t = 101)]
    runs: usize,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Accepted because `cargo bench` adds it
    #[arg(long, hide = true)]
    bench: bool,
}

/// The limit that determines the rate of a node.
#[derive(Clone, Copy, PartialEq)]
enum Limit {
    Cores,
    NodeRead,
    NodeWrite,
    ArchiveRead,
    BucketWrite,
    BucketPuts,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cores => "cores",
            Self::NodeRead => "reading, of a node",
            Self::NodeWrite => "writing, of a node",
            Self::ArchiveRead => "reading, of the archive",
            Self::BucketWrite => "writing, of the bucket",
            Self::BucketPuts => "requests, of the bucket",
        })
    }
}

/// A job array element and its node.
#[derive(Default)]
struct Node {
    /// Raw bytes that are still to be read.
    left: f64,
    /// Bytes of the current case that are done.
    begun: f64,
    /// Time in seconds at which the job leaves the queue.
    starts: f64,
    /// Time in seconds at which a failure, a preemption or the time limit stops the job.
    stops: f64,
}

/// Result of a simulated campaign.
#[derive(Clone, Copy)]
struct Outcome {
    hours: f64,
    node_hours: f64,
    stops: usize,
    again: f64,
    bottleneck: Limit,
}

impl Campaign {
    /// Mean bytes of a raw file.
    fn file_bytes(&self) -> f64 {
        f64::midpoint(self.file_mb[0], self.file_mb[1]) * MB
    }

    /// Bytes per second of each of `working` nodes, and the limit that determines it.
    fn rate(&self, working: usize) -> (f64, Limit) {
        let share = 1.0 / working as f64;
        let limits = [
            (self.cores as f64 * self.core_mb * MB, Limit::Cores),
            (self.node_read * GB, Limit::NodeRead),
            (self.node_write * GB / self.written, Limit::NodeWrite),
            (self.archive_read * GB * share, Limit::ArchiveRead),
            (self.bucket_write * GB / self.written * share, Limit::BucketWrite),
            (
                self.bucket_puts * self.files as f64 * self.file_bytes() / self.puts * share,
                Limit::BucketPuts,
            ),
        ];
        limits.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("limits")
    }

    /// Starts a job at time `starts` and draws the time at which it stops.
    fn start_job(&self, node: &mut Node, starts: f64, random: &mut StdRng) {
        let mut after = |mean: f64| match mean > 0.0 {
            true => -(1.0 - random.random::<f64>()).ln() * mean * HOUR,
            false => f64::INFINITY,
        };
        let interrupted_after = after(self.node_failure).min(after(self.preemption));
        node.starts = starts;
        node.stops = starts + interrupted_after.min(self.time_limit * HOUR);
    }

    fn simulate(&self, nodes: usize, random: &mut StdRng) -> Outcome {
        let file = self.file_bytes();
        let mut all: Vec<Node> = (0..nodes).map(|_| Node::default()).collect();
        for (n, _) in Case::all().enumerate() {
            let size = random.random_range(self.file_mb[0]..=self.file_mb[1]) * MB;
            all[Shard::of_case(n, nodes).index].left += size * self.files as f64;
        }
        for node in &mut all {
            self.start_job(node, self.queue * HOUR, random);
        }
        let (mut now, mut node_seconds, mut stops, mut again) = (0.0, 0.0, 0, 0.0);
        let mut bound: Vec<(Limit, f64)> = Vec::new();
        while all.iter().any(|node| node.left > 0.0) {
            let works = |node: &Node| node.left > 0.0 && node.starts <= now;
            let working = all.iter().filter(|node| works(node)).count();
            let (rate, limit) = self.rate(working.max(1));
            let next = |node: &Node| match (node.left > 0.0, node.starts <= now) {
                (false, _) => f64::INFINITY,
                (true, false) => node.starts,
                (true, true) => node.stops.min(now + node.left / rate),
            };
            let until = all.iter().map(next).fold(f64::INFINITY, f64::min);
            let passed = until - now;
            node_seconds += passed * working as f64;
            match bound.iter_mut().find(|(of, _)| *of == limit) {
                Some((_, seconds)) => *seconds += passed * working as f64,
                None => bound.push((limit, passed * working as f64)),
            }
            for node in all.iter_mut().filter(|node| works(node)) {
                node.left -= rate * passed;
                node.begun = (node.begun + rate * passed) % (file * self.files as f64);
                // Less than a byte is a rounding error.
                if node.left < 1.0 {
                    node.left = 0.0;
                } else if node.stops <= until {
                    stops += 1;
                    // Half a file in each worker, and of the case what no case manifest has yet.
                    let in_flight = self.cores as f64 * file / 2.0;
                    let lost = (in_flight + node.begun * self.again).min(node.begun);
                    again += lost;
                    node.left += lost;
                    node.begun -= lost;
                    self.start_job(node, until + self.queue * HOUR, random);
                }
            }
            now = until;
        }
        let longest = bound.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("work");
        Outcome {
            hours: now / HOUR,
            node_hours: node_seconds / HOUR,
            stops,
            again,
            bottleneck: longest.0,
        }
    }
}

fn main() {
    let campaign = Campaign::parse();
    let mut random = StdRng::seed_from_u64(campaign.seed);
    println!("| nodes | hours | node-hours | stops | TB read again | mostly waits for |");
    println!("|---|---|---|---|---|---|");
    for nodes in &campaign.nodes {
        let mut outcomes: Vec<Outcome> =
            (0..campaign.runs.max(1)).map(|_| campaign.simulate(*nodes, &mut random)).collect();
        outcomes.sort_by(|a, b| a.hours.total_cmp(&b.hours));
        let Outcome { hours, node_hours, stops, again, bottleneck } = outcomes[outcomes.len() / 2];
        let (least, most) = (outcomes[0].hours, outcomes[outcomes.len() - 1].hours);
        let again = again / 1e12;
        println!(
            "| {nodes} | {hours:.1} ({least:.1} to {most:.1}) | {node_hours:.0} | {stops} | {again:.2} \
             | {bottleneck} |"
        );
    }
}
