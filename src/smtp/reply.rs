//! Replies: a code, an optional enhanced status code, and text
//! (RFC 5321 §4.2, RFC 3463, RFC 2034).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The first digit of a reply code that settles something (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 2yz: done.
    Success,
    /// 3yz: go on with the data.
    Intermediate,
    /// 4yz: not now; the same command may work later.
    Transient,
    /// 5yz: no.
    Permanent,
}

impl Class {
    /// The class of a code from 200 to 599.
    pub fn of(code: u16) -> Self {
        match code / 100 {
            2 => Class::Success,
            3 => Class::Intermediate,
            4 => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

/// One reply, kept byte for byte as its sender wrote it.
///
/// `text` holds everything behind the code and its separator, lines joined by
/// LF, the enhanced status code of each line included. It never holds CR or
/// NUL, so a reply can't break the line structure it is written into.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reply {
    code: u16,
    text: Box<[u8]>,
}

impl Reply {
    /// A reply of our own, one line for each line of `text`. The enhanced
    /// status code is part of `text`: `Reply::new(250, "2.0.0 ok")`.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self::from_wire(code, text.into().into_bytes())
    }

    /// A reply as it was read: `text` without codes and line ends, lines
    /// joined by LF. Bytes that would break a reply line become spaces.
    pub fn from_wire(code: u16, mut text: Vec<u8>) -> Self {
        for byte in &mut text {
            if matches!(*byte, b'\r' | 0) {
                *byte = b' ';
            }
        }
        Self { code, text: text.into_boxed_slice() }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The class of the code.
    pub fn class(&self) -> Class {
        Class::of(self.code)
    }

    /// Whether the reply is 2yz.
    pub fn is_success(&self) -> bool {
        self.class() == Class::Success
    }

    /// The enhanced status code that the first line starts with, such as
    /// `5.1.1` (RFC 2034 §4).
    pub fn enhanced_code(&self) -> Option<&str> {
        let line = self.lines().next()?;
        let word = line.split(|&b| b == b' ').next()?;
        let word = std::str::from_utf8(word).ok()?;
        let mut parts = word.split('.');
        let class = parts.next().filter(|c| matches!(*c, "2" | "4" | "5"));
        let numbers =
            parts.clone().filter(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()));
        (class.is_some() && parts.count() == 2 && numbers.count() == 2).then_some(word)
    }

    /// The text of each line, enhanced status codes included.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|&b| b == b'\n')
    }

    /// The text with line breaks as spaces and stray bytes replaced: for logs
    /// and for quoting inside another reply.
    pub fn text(&self) -> Cow<'_, str> {
        let text = String::from_utf8_lossy(&self.text);
        if text.contains('\n') { Cow::Owned(text.replace('\n', " ")) } else { text }
    }

    /// Appends the reply as it goes over the wire.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.lines().peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { b'-' } else { b' ' };
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(separator);
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl fmt::Display for Reply {
    /// Code and text on one line: `550 5.1.1 no such user`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({:?})", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_carry_the_code_on_each() {
        let mut out = Vec::new();
        Reply::new(250, "2.0.0 one\n2.0.0 two").write_to(&mut out);
        assert_eq!(out, b"250-2.0.0 one\r\n250 2.0.0 two\r\n");
    }

    #[test]
    fn the_enhanced_code_is_found_only_where_it_is_one() {
        assert_eq!(Reply::new(550, "5.1.1 no").enhanced_code(), Some("5.1.1"));
        assert_eq!(Reply::new(550, "5.1 no").enhanced_code(), None);
        assert_eq!(Reply::new(250, "ok 2.0.0").enhanced_code(), None);
        assert_eq!(Reply::new(250, "").enhanced_code(), None);
    }

    #[test]
    fn a_carriage_return_can_not_start_a_line_of_its_own() {
        let mut out = Vec::new();
        Reply::from_wire(250, b"a\r250 b\0c".to_vec()).write_to(&mut out);
        assert_eq!(out, b"250 a 250 b c\r\n");
    }

    #[test]
    fn bytes_that_are_not_utf8_survive() {
        let mut out = Vec::new();
        Reply::from_wire(550, b"5.1.1 \xe9".to_vec()).write_to(&mut out);
        assert_eq!(out, b"550 5.1.1 \xe9\r\n");
    }
}
