//! What `dor publish` and `dor publish status` print alike, and lines of JSON while work is done.

use std::io::{self, Write};
use std::pin::pin;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cli::output::{bytes, count};
use crate::cli::progress::TransferBar;
use crate::publish::ObjectEntry;

/// Objects that a summary names of each kind.
pub(super) const SHOWN: usize = 20;

/// Number and bytes of objects.
pub(super) fn size_of(entries: &[ObjectEntry]) -> (usize, u64) {
    (entries.len(), entries.iter().map(|entry| entry.size).sum())
}

/// Says what is published and no longer in the source, if anything.
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
        "orphaned: {objects}, {}, published before and no longer in the source; --delete removes them",
        bytes(size)
    )
}

/// The last line of JSON: what was sent and how, and `more`.
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

/// Writes lines as they come while work is done, and gives its result. The work goes on to its end
/// when nobody reads them.
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

/// Writes a line of JSON.
pub(super) fn line(out: &mut dyn Write, value: &Value) -> std::io::Result<()> {
    writeln!(out, "{value}")
}
