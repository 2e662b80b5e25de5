//! Output of the plan of a publish, before the first object is sent.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::lines::{MAX_LISTED, line, size_of, write_orphaned};
use crate::cli::output::{Table, bytes};
use crate::publish::{Audit, ChangeKind, PublishPlan};
use crate::store::SkipReason;

/// Objects that are not published for one reason: the reason, their number, and the first key.
pub(super) type LeftOut = (SkipReason, usize, String);

/// Prints a plan. A dry run gives `left_out`; each object is then listed.
pub(super) fn write_plan(
    out: &mut dyn Write,
    plan: &PublishPlan,
    left_out: Option<&[LeftOut]>,
    json: bool,
) -> io::Result<()> {
    if json {
        return line(out, &json!({ "plan": document(plan, left_out) }));
    }
    let [source, destination] = [&plan.source, &plan.destination].map(|store| store.location());
    writeln!(out, "from {source}\nto   {destination}")?;
    write_totals(out, plan)?;
    if let Some(audit) = &plan.audit {
        write_audit(out, audit)?;
    }
    match left_out {
        None => Ok(()),
        Some(left_out) => write_objects(out, plan, left_out),
    }
}

/// Returns the number and the bytes of the objects of each kind of change.
fn totals(plan: &PublishPlan) -> [(&'static str, (usize, u64)); 4] {
    let changes = &plan.changes;
    [
        ("new", changes.count(ChangeKind::New)),
        ("changed", changes.count(ChangeKind::Changed)),
        ("same", (changes.same, changes.same_bytes)),
        ("to delete", size_of(&changes.deletes)),
    ]
}

/// Returns a plan as JSON.
fn document(plan: &PublishPlan, left_out: Option<&[LeftOut]>) -> Map<String, Value> {
    let total = |(objects, bytes): (usize, u64)| json!({ "objects": objects, "bytes": bytes });
    let totals = totals(plan).into_iter();
    let mut document: Map<String, Value> =
        totals.map(|(name, size)| (name.replace(' ', "_"), total(size))).collect();
    document.insert("orphaned".to_owned(), total(size_of(&plan.orphans)));
    document.insert("not_complete".to_owned(), json!(plan.inventory.unfinished_cases));
    document.insert("audit".to_owned(), json!(plan.audit));
    if let Some(left_out) = left_out {
        document.extend(objects(plan, left_out));
    }
    document
}

/// Returns the keys of a plan as JSON, for a dry run.
fn objects(plan: &PublishPlan, left_out: &[LeftOut]) -> [(String, Value); 3] {
    let changes = &plan.changes;
    let send: Vec<_> = changes.send.iter().map(|(entry, _)| &entry.key).collect();
    let delete: Vec<_> = changes.deletes.iter().map(|entry| &entry.key).collect();
    let left_out = left_out.iter().map(
        |(reason, number, first)| json!({ "reason": reason, "number": number, "first": first }),
    );
    [
        ("send".to_owned(), json!(send)),
        ("delete".to_owned(), json!(delete)),
        ("left_out".to_owned(), left_out.collect()),
    ]
}

/// Prints the number and the bytes of the objects of each kind of change, and the incomplete cases.
fn write_totals(out: &mut dyn Write, plan: &PublishPlan) -> io::Result<()> {
    let mut table = Table::new(["", "objects", "bytes"]);
    for (name, (n, size)) in totals(plan) {
        table.row([name.to_owned(), n.to_string(), bytes(size)]);
    }
    table.write(out)?;
    write_orphaned(out, size_of(&plan.orphans))?;
    let pending = &plan.inventory.unfinished_cases;
    if !pending.is_empty() {
        writeln!(out, "not complete, so not sent: {}", pending.join(", "))?;
    }
    Ok(())
}

/// Prints the comparison with the listing of the destination.
fn write_audit(out: &mut dyn Write, audit: &Audit) -> io::Result<()> {
    let [missing, wrong, unmanaged] = [&audit.missing, &audit.wrong, &audit.unmanaged];
    writeln!(
        out,
        "at the destination: {} correct{}, {} missing, {} wrong, {} not managed by dor",
        audit.right,
        match audit.by_size {
            0 => String::new(),
            number => format!(" ({number} compared by size only; --verify all reads them)"),
        },
        missing.len(),
        wrong.len(),
        unmanaged.len()
    )?;
    for (name, keys) in [("missing", missing), ("wrong", wrong), ("unmanaged", unmanaged)] {
        keys.iter().take(MAX_LISTED).try_for_each(|key| writeln!(out, "  {name}: {key}"))?;
        if keys.len() > MAX_LISTED {
            writeln!(out, "  and {} more; --json lists all", keys.len() - MAX_LISTED)?;
        }
    }
    Ok(())
}

/// Prints what is not published, then the keys of the objects to send and to delete.
fn write_objects(out: &mut dyn Write, plan: &PublishPlan, left_out: &[LeftOut]) -> io::Result<()> {
    for (reason, number, first) in left_out {
        writeln!(out, "not published: {number} {} (such as {first})", reason.describe())?;
    }
    for (entry, _) in &plan.changes.send {
        writeln!(out, "send {}", entry.key)?;
    }
    for entry in &plan.changes.deletes {
        writeln!(out, "delete {}", entry.key)?;
    }
    Ok(())
}
