//! What is printed: standard output, aligned tables, JSON, sizes and times. What comes from outside cannot
//! steer the terminal, nor does a URL tell its password.

use std::borrow::Cow;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use serde::Serialize;

use crate::config::redact;

/// A line that may quote what comes from outside: control characters are escaped, and users, passwords and
/// queries of URLs hidden.
pub(super) fn printable(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for c in redact(line).chars() {
        match c {
            '\t' => shown.push(c),
            '\n' => shown.push_str("\\n"),
            c if steers(c) => shown.push_str(&escaped(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// Prints a line to standard error.
pub(super) fn eprint_line(line: &str) {
    // Nowhere is left to report to when this fails.
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// Whether a character changes how a terminal shows the others: a control character, or one that
/// turns the direction of text (Unicode standard annex 9).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As in JSON.
fn escaped(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

/// Text without control characters but tabs and ends of lines. Characters of a text must not be torn.
fn harmless(text: &[u8]) -> Cow<'_, [u8]> {
    let is_control = |n: usize, byte: u8| match byte {
        b'\n' | b'\t' => false,
        // C1 in UTF-8.
        0x80..=0x9f => n > 0 && text.get(n - 1) == Some(&0xc2),
        byte => byte.is_ascii_control(),
    };
    if !text.iter().enumerate().any(|(n, byte)| is_control(n, *byte)) {
        return Cow::Borrowed(text);
    }
    let mut shown = Vec::with_capacity(2 * text.len());
    for (n, &byte) in text.iter().enumerate() {
        if !is_control(n, byte) {
            shown.push(byte);
            continue;
        }
        if !byte.is_ascii() {
            shown.pop();
        }
        shown.extend_from_slice(escaped(char::from(byte)).as_bytes());
    }
    Cow::Owned(shown)
}

/// Standard error for the log: every event is a line.
pub(super) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        writeln!(io::stderr().lock(), "{}", printable(line))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Standard output that outlives its reader.
///
/// When the other end of the pipe is gone (`dor ... | head`), the rest is dropped: a conversion goes on, and
/// the exit code tells how the work went, not how its report was read.
pub struct Stdout {
    to: BufWriter<StdoutLock<'static>>,
    closed: bool,
}

impl Stdout {
    /// Locks standard output.
    pub fn new() -> Self {
        Self { to: BufWriter::new(io::stdout().lock()), closed: false }
    }

    /// Writes out what is buffered.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }

    /// Writes a text of our own, with the colours of a terminal.
    pub fn write_styled(&mut self, text: &str) -> io::Result<()> {
        let written = self.to.write_all(text.as_bytes());
        self.unless_closed(written, ())
    }

    fn unless_closed<T>(&mut self, result: io::Result<T>, closed: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(closed)
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
        let written = self.to.write_all(&harmless(bytes)).map(|()| bytes.len());
        self.unless_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.to.flush();
        self.unless_closed(flushed, ())
    }
}

/// A table of plain text, columns aligned to the left, two spaces between them.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

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

/// A number of things such as `1 case` or `2 cases`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A size such as `1.50 GiB`.
pub(super) fn bytes(size: u64) -> String {
    indicatif::HumanBytes(size).to_string()
}

/// A time such as `0.4 ms`, `12.3 s`, `5 min 07 s` or `3 h 02 min`.
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
    fn what_comes_from_outside_steers_no_terminal() {
        assert_eq!(printable("a\x1b[2J\u{9b}1m\r\nb\tc ä"), "a\\u001b[2J\\u009b1m\\u000d\\nb\tc ä");
        assert_eq!(printable("at https://me:pw@host/x"), "at https://***@host/x");
        let shown = |text: &str| String::from_utf8(harmless(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(
            shown("a\x1b[2J\u{9b}1m\x7f\r\nb\tc äÂ "),
            "a\\u001b[2J\\u009b1m\\u007f\\u000d\nb\tc äÂ "
        );
        // JSON stays JSON.
        let json = serde_json::to_string("\u{9b}\x7f\x1b").unwrap();
        assert_eq!(serde_json::from_str::<String>(&shown(&json)).unwrap(), "\u{9b}\x7f\x1b");
    }

    #[test]
    fn times_read_well_on_every_scale() {
        let cases = [(0.000_42, "0.4 ms"), (1.0, "1.0 s"), (59.9, "59.9 s"), (60.0, "1 min 00 s")];
        for (seconds, text) in
            cases.into_iter().chain([(307.2, "5 min 07 s"), (10_930.0, "3 h 02 min")])
        {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }
}
