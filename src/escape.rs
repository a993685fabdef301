//! Text from outside, made fit for one line of a log or a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character could end a line, move a cursor, or change the order
/// in which a terminal shows the rest: control characters, Unicode's line and
/// paragraph separators, and what steers bidirectional or hides text.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text with unsafe characters written out, for people.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_safe(&mut out, c);
    }
    Cow::Owned(out)
}

/// Appends a value of the text format: as it is where it is one plain word,
/// else between quotes.
pub fn push_text(out: &mut String, text: &str) {
    let special = |c: char| is_unsafe(c) || c.is_whitespace() || matches!(c, '=' | '"' | '\'' | '\\' | '`');
    if !text.is_empty() && !text.contains(special) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        push_safe(out, c);
    }
    out.push('"');
}

fn push_safe(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_unsafe(c) => {
            // Writing to a String can't fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// Appends a JSON string (RFC 8259 §7), with everything unsafe as an escape.
pub fn push_json(out: &mut String, text: &str) {
    out.push('"');
    // Nearly all text is plain from end to end, and is taken in one piece.
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let plain = text.bytes().position(|byte| !is_plain(&byte)).unwrap_or(text.len());
    out.push_str(&text[..plain]);
    for c in text[plain..].chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) => push_json_escape(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// JSON text with unsafe characters inside its strings as escapes; the value
/// stays the same.
pub fn json_for_terminal(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if is_unsafe(c) => push_json_escape(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

fn push_json_escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a String can't fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}
