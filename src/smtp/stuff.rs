//! Dot-stuffing of what goes out after DATA (RFC 5321 §4.5.2).

use memchr::memmem;

/// Doubles the dot at the start of each line, block by block.
///
/// A line starts at the start of the message and after CRLF, nowhere else: a
/// dot after a bare LF or CR is left alone, as the receiver leaves it.
#[derive(Debug)]
pub struct Stuffer {
    line: Line,
    finder: memmem::Finder<'static>,
}

/// Where in a line the last block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Before its first octet.
    Start,
    /// Behind a CR that may be the first half of its CRLF.
    Cr,
    /// Anywhere else.
    Middle,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    /// A stuffer at the start of a message.
    pub fn new() -> Self {
        Self { line: Line::Start, finder: memmem::Finder::new(b"\r\n.") }
    }

    /// Appends `block` to `out`, stuffed. The result does not depend on how
    /// the message is cut into blocks.
    pub fn push(&mut self, block: &[u8], out: &mut Vec<u8>) {
        let mut rest = block;
        if self.line == Line::Cr && rest.first() == Some(&b'\n') {
            out.push(b'\n');
            rest = &rest[1..];
            self.line = Line::Start;
        }
        if rest.is_empty() {
            return;
        }
        if self.line == Line::Start && rest[0] == b'.' {
            out.push(b'.');
        }
        let mut copied = 0;
        for at in self.finder.find_iter(rest) {
            out.extend_from_slice(&rest[copied..at + 2]);
            out.push(b'.');
            copied = at + 2;
        }
        out.extend_from_slice(&rest[copied..]);
        self.line = match rest {
            [.., b'\r', b'\n'] => Line::Start,
            [.., b'\r'] => Line::Cr,
            _ => Line::Middle,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuffed(blocks: &[&[u8]]) -> Vec<u8> {
        let mut stuffer = Stuffer::new();
        let mut out = Vec::new();
        for block in blocks {
            stuffer.push(block, &mut out);
        }
        out
    }

    /// The rule, octet by octet.
    fn plainly(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, &byte) in message.iter().enumerate() {
            if byte == b'.' && (at == 0 || message[..at].ends_with(b"\r\n")) {
                out.push(b'.');
            }
            out.push(byte);
        }
        out
    }

    #[test]
    fn only_dots_at_the_start_of_a_line_are_doubled() {
        assert_eq!(stuffed(&[b".\r\n.a\r\n..\r\na.\r\n"]), b"..\r\n..a\r\n...\r\na.\r\n");
        assert_eq!(stuffed(&[b"a\n.\r.\r\r\n.\n"]), b"a\n.\r.\r\r\n..\n");
        assert_eq!(stuffed(&[b"a\r\n.\r\n.\r\n"]), b"a\r\n..\r\n..\r\n");
        assert_eq!(stuffed(&[b"", b""]), b"");
    }

    #[test]
    fn the_border_between_blocks_does_not_hide_a_line() {
        assert_eq!(stuffed(&[b"a\r", b"\n", b"", b".b"]), b"a\r\n..b");
        assert_eq!(stuffed(&[b"a\r", b"\n.b"]), b"a\r\n..b");
        assert_eq!(stuffed(&[b"a\r", b".b", b".c"]), b"a\r.b.c");
    }

    proptest! {
        #[test]
        fn blocks_make_no_difference(
            blocks in prop::collection::vec(
                prop::collection::vec(prop::sample::select(b"\r\n.a".to_vec()), 0..7), 0..8)
        ) {
            let slices: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(stuffed(&slices), plainly(&blocks.concat()));
        }
    }
}
