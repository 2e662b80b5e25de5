//! Output on the terminal: standard output, aligned tables, JSON, sizes and times.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use serde::Serialize;

use super::escape::{escape_controls, printable};
use super::terminal::{AboveInPlace, above};
use crate::model::Case;

/// Prints a line to standard error.
pub(super) fn eprint_line(line: &str) {
    // A failure to write to standard error cannot be reported.
    let _ = above(|| writeln!(io::stderr().lock(), "{}", printable(line)));
}

/// Writer of the log to standard error. Each event is one line.
pub(super) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        above(|| writeln!(io::stderr().lock(), "{}", printable(line)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Standard output that ignores a closed pipe, and a terminal that has hung up.
///
/// When the reader has closed the pipe (`dor ... | head`), the rest of the output is dropped. The command
/// continues, and the exit code is that of its work.
pub struct Stdout {
    writer: BufWriter<AboveInPlace>,
    /// Whether the reader is gone.
    closed: bool,
}

impl Stdout {
    /// Opens standard output.
    pub fn new() -> Self {
        Self { writer: BufWriter::new(AboveInPlace::new()), closed: false }
    }

    /// Writes the buffered output.
    ///
    /// # Errors
    /// The output cannot be written, except because the reader is gone.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }

    /// Writes a text with its colour codes. The text must not quote input.
    ///
    /// # Errors
    /// The text cannot be written, except because the reader is gone.
    pub fn write_styled(&mut self, text: &str) -> io::Result<()> {
        let written = self.writer.write_all(text.as_bytes());
        self.ignore_closed(written, ())
    }

    /// Returns `fallback` instead of an error that says that the reader is gone.
    fn ignore_closed<T>(&mut self, result: io::Result<T>, fallback: T) -> io::Result<T> {
        match result {
            Err(error) if self.writer.get_ref().is_closed(&error) => {
                self.closed = true;
                Ok(fallback)
            }
            result => result.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
            }),
        }
    }
}

impl Default for Stdout {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let written = self.writer.write_all(&escape_controls(bytes)).map(|()| bytes.len());
        self.ignore_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.writer.flush();
        self.ignore_closed(flushed, ())
    }
}

/// A table of plain text. Columns are aligned to the left, with two spaces between them.
pub(super) struct Table {
    /// Cells of each row; the first row is the header.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with a header.
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// Prints the table.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell)).max()
        };
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 2 - length(cell)));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

/// Prints a value as indented JSON.
pub(super) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    Ok(writeln!(out)?)
}

/// Returns the short names of cases, for JSON.
pub(super) fn short_names(cases: &[Case]) -> Vec<String> {
    cases.iter().map(|case| case.short()).collect()
}

/// Formats a number of things, such as `1 case` or `2 cases`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Formats a number of bytes, such as `1.50 GiB`.
pub(super) fn bytes(size: u64) -> String {
    indicatif::HumanBytes(size).to_string()
}

/// Formats a time, such as `0.4 ms`, `12.3 s`, `5 min 07 s` or `3 h 02 min`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match time.as_secs_f64() {
        s if s < 0.999_95 => format!("{:.1} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["a", "long header", "c"]);
        table.row(["wide ° cell".to_owned(), "x".to_owned(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).expect("writes to memory");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text, "a            long header  c\nwide ° cell  x\n");
    }

    #[test]
    fn control_characters_and_passwords_are_not_printed() {
        assert_eq!(printable("a\x1b[2J\u{9b}1m\r\nb\tc ä"), "a\\u001b[2J\\u009b1m\\u000d\\nb\tc ä");
        assert_eq!(printable("at https://me:pw@host/x"), "at https://***@host/x");
        let shown =
            |text: &str| String::from_utf8(escape_controls(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(
            shown("a\x1b[2J\u{9b}1m\x7f\r\nb\tc äÂ "),
            "a\\u001b[2J\\u009b1m\\u007f\\u000d\nb\tc äÂ "
        );
        // Escaped JSON is still JSON.
        let json = serde_json::to_string("\u{9b}\x7f\x1b").unwrap();
        assert_eq!(serde_json::from_str::<String>(&shown(&json)).unwrap(), "\u{9b}\x7f\x1b");
    }

    #[test]
    fn times_have_the_unit_of_their_size() {
        let cases = [(0.000_42, "0.4 ms"), (1.0, "1.0 s"), (59.9, "59.9 s"), (60.0, "1 min 00 s")];
        for (seconds, text) in
            cases.into_iter().chain([(307.2, "5 min 07 s"), (10_930.0, "3 h 02 min")])
        {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }
}
