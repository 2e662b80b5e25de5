//! Output that `dor publish` and `dor publish status` share, and lines of JSON during a publish.

use std::io::{self, Write};
use std::pin::pin;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cli::output::{bytes, count};
use crate::cli::progress::TransferBar;
use crate::publish::ObjectEntry;

/// Most objects of each kind that a summary lists.
pub(super) const MAX_LISTED: usize = 20;

/// Returns the number of objects and their bytes.
pub(super) fn size_of(entries: &[ObjectEntry]) -> (usize, u64) {
    (entries.len(), entries.iter().map(|entry| entry.size).sum())
}

/// Prints the number of objects that are published and no longer in the source, unless it is 0.
pub(super) fn write_orphaned(
    out: &mut dyn Write,
    (objects, size): (usize, u64),
) -> std::io::Result<()> {
    if objects == 0 {
        return Ok(());
    }
    let objects = count(objects, "object");
    writeln!(
        out,
        "orphaned: {objects}, {}, published before but no longer in the source; --delete removes them",
        bytes(size)
    )
}

/// Prints the last line of JSON: the numbers of sent, retried and failed objects, and the fields of `more`.
pub(super) fn write_summary(
    out: &mut dyn Write,
    progress: &TransferBar,
    more: &Value,
) -> std::io::Result<()> {
    let mut summary = json!({
        "sent": progress.sent().len(),
        "retried": progress.retried().len(),
        "failed": progress.failures().len(),
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        summary[key] = value.clone();
    }
    line(out, &json!({ "summary": summary }))
}

/// Prints lines of JSON as they arrive while `work` runs, and returns its result. The work continues to its end
/// when a line cannot be written.
pub(super) async fn write_meanwhile<T>(
    out: &mut dyn Write,
    mut lines: UnboundedReceiver<Value>,
    work: impl Future<Output = T>,
) -> io::Result<T> {
    let mut work = pin!(work);
    let mut written = Ok(());
    let result = loop {
        tokio::select! {
            biased;
            Some(value) = lines.recv() => {
                if written.is_ok() {
                    written = line(out, &value).and_then(|()| out.flush());
                }
            }
            result = &mut work => break result,
        }
    };
    written?;
    while let Ok(value) = lines.try_recv() {
        line(out, &value)?;
    }
    out.flush()?;
    Ok(result)
}

/// Prints a line of JSON.
pub(super) fn line(out: &mut dyn Write, value: &Value) -> std::io::Result<()> {
    writeln!(out, "{value}")
}
