//! Going through the cases of a command, and saying how each went.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::output::{bytes, count, duration, say};
use crate::cli::progress::Terminal;
use crate::cli::signals::stop_on_signals;
use crate::cli::{Exit, report};
use crate::config::Config;
use crate::model::Case;
use crate::model::calendar::ranges;
use crate::model::case::MONTHS;
use crate::pipeline::{Pool, Stopped, memory};
use crate::vis::series::Filled;
use crate::vis::{VisError, Workshop};

/// Workers, memory, progress and the stop signal of a command.
pub(crate) fn workshop(config: &Config) -> Workshop {
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone());
    let pool = Pool::new(config.workers.value.get(), memory::to_use());
    Workshop { pool, stop, progress: Arc::new(Terminal::new()) }
}

/// Fills the part of each case. One that fails does not stop the others, unless all would fail.
pub(super) async fn each(
    cases: &[Case],
    workshop: &Workshop,
    out: &mut dyn Write,
    fill: impl AsyncFn(Case) -> Result<Filled, VisError>,
) -> anyhow::Result<Exit> {
    let mut failed = Vec::new();
    for &case in cases {
        if workshop.stop.is_cancelled() {
            say(&Stopped.to_string());
            return Ok(Exit::Interrupted);
        }
        let begun = Instant::now();
        let result = fill(case).await;
        workshop.progress.end(case);
        let error = match result {
            Ok(filled) => {
                write_filled(out, case, &filled, begun)?;
                out.flush()?;
                continue;
            }
            Err(error) => anyhow::Error::from(error),
        };
        let ends_all = matches!(Exit::of(&error), Exit::Configuration | Exit::Interrupted);
        if ends_all || cases.len() == 1 {
            return Err(error);
        }
        report(&error);
        failed.push((case, error));
    }
    if cases.len() > 1 {
        let done = cases.len() - failed.len();
        writeln!(out, "{} done, {} failed", count(done, "case"), failed.len())?;
    }
    for (case, error) in &failed {
        writeln!(out, "failed: {}: {error}", case.short())?;
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::SomeFailed })
}

fn write_filled(
    out: &mut dyn Write,
    case: Case,
    filled: &Filled,
    begun: Instant,
) -> std::io::Result<()> {
    if filled.before {
        return writeln!(out, "case {case}: done before");
    }
    write!(out, "case {case}: {}", count(filled.objects, "object"))?;
    if filled.written > 0 {
        write!(out, ", {}", bytes(filled.written))?;
    }
    write!(out, " written in {}", duration(begun.elapsed()))?;
    if filled.size > 0 {
        let share = 100.0 * filled.fetched as f64 / filled.size as f64;
        let (read, all) = (bytes(filled.fetched), bytes(filled.size));
        write!(out, "; {read} read of files of {all} ({share:.1} %)")?;
    }
    if !filled.missing.is_empty() {
        let (count, months) = (filled.missing.len(), ranges(&filled.missing));
        write!(out, "; {count} of {MONTHS} months are missing: {months}")?;
    }
    writeln!(out)
}
