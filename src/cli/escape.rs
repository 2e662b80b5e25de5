//! Text that is safe to print: control characters are escaped, and secrets in URLs are hidden.

use std::borrow::Cow;

use crate::config::redact;

/// Returns a line that is safe to print: control characters are escaped, and users, passwords and queries of URLs
/// are hidden.
pub(super) fn printable(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for c in redact(line).chars() {
        match c {
            '\t' => shown.push(c),
            '\n' => shown.push_str("\\n"),
            c if controls_terminal(c) => shown.push_str(&escaped(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// Whether a character changes how a terminal shows other characters: a control character, or one that changes
/// the direction of text (Unicode standard annex 9).
fn controls_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a character as a JSON escape sequence.
fn escaped(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

/// Escapes the control characters of a UTF-8 text, except tabs and line feeds. The text must not begin or end
/// within a character.
pub(super) fn escape_controls(text: &[u8]) -> Cow<'_, [u8]> {
    let is_control = |n: usize, byte: u8| match byte {
        b'\n' | b'\t' => false,
        // The second byte of a C1 control character in UTF-8.
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
