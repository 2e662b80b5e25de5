//! The options `--json` and `--dry-run`, and the report of a command as text or JSON.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::output::write_json;

/// The option of a command that only reads.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl JsonArgs {
    /// Prints a value as JSON, or else with `text`.
    pub fn print<T: Serialize>(
        self,
        out: &mut dyn Write,
        value: &T,
        text: impl FnOnce(&mut dyn Write, &T) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        match self.json {
            true => write_json(out, value),
            false => Ok(text(out, value)?),
        }
    }
}

/// The options of a command that writes.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct ReportArgs {
    /// Check everything, print what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document at the end, and no text
    #[arg(long)]
    pub json: bool,
}

impl ReportArgs {
    /// Creates the report of the command, which prints to `out`.
    pub fn report<'a>(self, out: &'a mut dyn Write) -> Report<'a> {
        let document = [("dry_run".to_owned(), json!(self.dry_run))];
        let document = self.json.then(|| document.into_iter().collect());
        Report { out, document, dry_run: self.dry_run }
    }
}

/// The report of a command. Text is printed as it is written. For JSON, text is dropped, and the values are
/// printed together at the end.
pub(super) struct Report<'a> {
    out: &'a mut dyn Write,
    /// Values of the JSON document. `None`: the report is text.
    document: Option<Map<String, Value>>,
    dry_run: bool,
}

impl<'a> Report<'a> {
    /// Creates a report that is text.
    pub fn text(out: &'a mut dyn Write) -> Self {
        Self { out, document: None, dry_run: false }
    }

    /// Whether the command writes nothing.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Sets a value of the JSON document.
    pub fn set(&mut self, key: &str, value: Value) {
        if let Some(document) = &mut self.document {
            document.insert(key.to_owned(), value);
        }
    }

    /// Adds a value to a list of the JSON document.
    pub fn push(&mut self, key: &str, value: Value) {
        let Some(document) = &mut self.document else { return };
        if let Value::Array(list) = document.entry(key).or_insert_with(|| json!([])) {
            list.push(value);
        }
    }

    /// Creates a report with the document of this one, whose text goes to `text`. Give it to
    /// [`Self::restore`] when the text is complete.
    pub fn redirect<'b>(&mut self, text: &'b mut dyn Write) -> Report<'b> {
        Report { out: text, document: self.document.take(), dry_run: self.dry_run }
    }

    /// Takes the document back.
    pub fn restore(&mut self, redirected: Report<'_>) {
        self.document = redirected.document;
    }

    /// Prints the JSON document, if the report is one.
    pub fn end(self) -> anyhow::Result<()> {
        match &self.document {
            Some(document) => write_json(self.out, document),
            None => Ok(()),
        }
    }
}

impl Write for Report<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.document {
            Some(_) => Ok(bytes.len()),
            None => self.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_text_or_one_document() {
        for (json, expected) in [
            (false, "made a\n".to_owned()),
            (true, format!("{:#}\n", json!({ "dry_run": true, "made": ["a", "b"], "all": 2 }))),
        ] {
            let mut out = Vec::new();
            let mut report = ReportArgs { dry_run: true, json }.report(&mut out);
            writeln!(report, "made a").unwrap();
            report.push("made", json!("a"));
            report.push("made", json!("b"));
            report.set("all", json!(2));
            report.end().unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
