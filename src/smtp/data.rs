//! Message data on its way in (RFC 5321 §4.5.2, RFC 3030).
//!
//! The end of data is CRLF.CRLF and nothing else: every other way of writing a
//! line end was once somebody's way to smuggle a second message past a relay.
//! The decoder takes dots away at the start of lines that follow a CRLF, makes
//! CRLF of a bare LF and a space of a bare CR, and says that it did.

use memchr::memchr3;

/// Where the decoder stands between two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Behind a CRLF, or before the first byte.
    LineStart,
    /// Inside a line.
    Line,
    /// Behind a bare LF: the line is ended, but a dot here was never stuffed,
    /// for dots count only behind a CRLF that the client wrote.
    AfterBareLf,
    /// Behind a CR that is not written yet.
    Cr,
    /// Behind a dot that started a line and is not written yet.
    Dot,
    /// Behind that dot and a CR.
    DotCr,
}

/// What the decoder met that the message may be refused for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A CR or LF that was not part of a CRLF.
    pub bare_newline: bool,
    /// A NUL octet.
    pub nul: bool,
    /// An octet above 127.
    pub eight_bit: bool,
}

/// What a bare LF or CR inside a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewlines {
    /// LF becomes CRLF, CR a space.
    Normalize,
    /// `550 5.6.11`.
    Reject,
}

/// How the message is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// DATA: dots are stuffed, CRLF.CRLF ends.
    Dots,
    /// BDAT: the length is announced, dots are content.
    Chunks,
}

/// Turns what came over the wire into the message.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    position: Position,
    findings: Findings,
    /// Lines that ended in CRLF.
    crlfs: u64,
    /// The last octets that came, behind a line end that stands for the start.
    tail: [u8; 4],
}

impl Decoder {
    /// A decoder at the start of a message.
    pub fn new(framing: Framing) -> Self {
        let findings = Findings::default();
        Self { framing, position: Position::LineStart, findings, crlfs: 0, tail: *b"\0\0\0\n" }
    }

    /// What was met so far.
    pub fn findings(&self) -> Findings {
        self.findings
    }

    /// Whether the last line is a lone dot behind a bare LF, and no line before
    /// it ends in CRLF. A client that falls silent here means the end of data
    /// and waits for a reply, but CRLF.CRLF never comes.
    pub fn ends_in_bare_lf(&self) -> bool {
        let ends = match self.tail {
            [.., b'\n', b'.', b'\n'] => self.crlfs == 0,
            [b'\n', b'.', b'\r', b'\n'] => self.crlfs == 1,
            _ => false,
        };
        ends && self.framing == Framing::Dots
    }

    /// Decodes `input` and appends the content to `out`. Answers how many
    /// octets were used, and whether the end of data was among them; what
    /// follows it is left for the next command.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let (used, ended) = self.decode(input, out);
        // What follows the end of data is no part of the message.
        self.findings.eight_bit |= !input[..used].is_ascii();
        self.remember(&input[..used]);
        (used, ended)
    }

    fn remember(&mut self, input: &[u8]) {
        let last = &input[input.len().saturating_sub(self.tail.len())..];
        let kept = self.tail.len() - last.len();
        self.tail.copy_within(last.len().., 0);
        self.tail[kept..].copy_from_slice(last);
    }

    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let mut at = 0;
        while at < input.len() {
            if matches!(self.position, Position::Line | Position::AfterBareLf) {
                at += self.copy_lines(&input[at..], out);
                continue;
            }
            let byte = input[at];
            at += 1;
            if self.step(byte, out) {
                return (at, true);
            }
        }
        (at, false)
    }

    /// Ends a message whose length was announced: what was held back is
    /// written, and a last line without CRLF gets one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.position == Position::Cr {
            self.bare_cr(out);
        }
        if self.position == Position::Line {
            out.extend_from_slice(b"\r\n");
        }
        self.position = Position::LineStart;
    }

    /// The fast way: copies from inside a line up to the first byte that needs
    /// a second look, several plain lines at once. Answers how far it came.
    fn copy_lines(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        self.position = Position::Line;
        let mut at = 0;
        while let Some(found) = memchr3(b'\r', b'\n', 0, &input[at..]) {
            at += found;
            match input[at..] {
                [b'\r', b'\n', next, ..] if next != b'.' && next != b'\r' && next != b'\n' && next != 0 => {
                    self.crlfs += 1;
                    at += 2;
                }
                [0, ..] => {
                    self.findings.nul = true;
                    at += 1;
                }
                [b'\r', ..] => {
                    out.extend_from_slice(&input[..at]);
                    self.position = Position::Cr;
                    return at + 1;
                }
                _ => {
                    out.extend_from_slice(&input[..at]);
                    self.bare_lf(out);
                    return at + 1;
                }
            }
        }
        out.extend_from_slice(input);
        input.len()
    }

    /// One byte, everywhere but inside a line. True at the end of data.
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        match (self.position, byte) {
            (Position::LineStart, b'.') if self.framing == Framing::Dots => self.position = Position::Dot,
            (Position::Dot, b'\r') => self.position = Position::DotCr,
            (Position::DotCr, b'\n') => {
                self.position = Position::LineStart;
                return true;
            }
            // A dot that did not end the data was a stuffed one: it goes. So
            // does the one before a CR that turned out to be bare.
            (Position::DotCr, _) => {
                self.bare_cr(out);
                self.inside(byte, out);
            }
            (Position::Cr, b'\n') => {
                self.crlfs += 1;
                out.extend_from_slice(b"\r\n");
                self.position = Position::LineStart;
            }
            (Position::Cr, _) => {
                self.bare_cr(out);
                self.inside(byte, out);
            }
            (_, _) => self.inside(byte, out),
        }
        false
    }

    fn inside(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'\r' => self.position = Position::Cr,
            b'\n' => self.bare_lf(out),
            _ => {
                self.findings.nul |= byte == 0;
                out.push(byte);
                self.position = Position::Line;
            }
        }
    }

    fn bare_cr(&mut self, out: &mut Vec<u8>) {
        self.findings.bare_newline = true;
        out.push(b' ');
        self.position = Position::Line;
    }

    fn bare_lf(&mut self, out: &mut Vec<u8>) {
        self.findings.bare_newline = true;
        out.extend_from_slice(b"\r\n");
        self.position = Position::AfterBareLf;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes in pieces of `step` octets; answers content, findings and rest.
    fn decode(framing: Framing, input: &[u8], step: usize) -> (Vec<u8>, Findings, Option<Vec<u8>>) {
        let mut decoder = Decoder::new(framing);
        let mut out = Vec::new();
        let mut at = 0;
        while at < input.len() {
            let end = (at + step).min(input.len());
            let (used, done) = decoder.push(&input[at..end], &mut out);
            at += used;
            if done {
                return (out, decoder.findings(), Some(input[at..].to_vec()));
            }
        }
        if framing == Framing::Chunks {
            decoder.finish(&mut out);
        }
        (out, decoder.findings(), None)
    }

    #[track_caller]
    fn data(input: &[u8], content: &[u8], rest: Option<&[u8]>) {
        for step in 1..=input.len() {
            let (out, _, left) = decode(Framing::Dots, input, step);
            assert_eq!(
                out.escape_ascii().to_string(),
                content.escape_ascii().to_string(),
                "in steps of {step}"
            );
            assert_eq!(left.as_deref(), rest, "in steps of {step}");
        }
    }

    #[test]
    fn plain_data_ends_at_crlf_dot_crlf() {
        data(b"a\r\nb\r\n.\r\nQUIT\r\n", b"a\r\nb\r\n", Some(b"QUIT\r\n"));
        data(b".\r\nQUIT\r\n", b"", Some(b"QUIT\r\n"));
    }

    #[test]
    fn stuffed_dots_go() {
        data(b"..a\r\n..\r\n.b.\r\n.\r\n", b".a\r\n.\r\nb.\r\n", Some(b""));
    }

    #[test]
    fn what_follows_the_end_is_not_of_the_message() {
        for step in [1, 100] {
            let (_, findings, _) = decode(Framing::Dots, b"a\r\n.\r\nMAIL FROM:<\xc3\xa9@a.test>\r\n", step);
            assert_eq!(findings, Findings::default());
        }
        assert!(decode(Framing::Dots, b"\xe9\r\n.\r\n", 100).1.eight_bit);
    }

    #[test]
    fn nothing_else_ends_the_data() {
        data(b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", Some(b""));
        data(b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", Some(b""));
        data(b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n", Some(b""));
        data(b"a\r.\rb\r\n.\r\n", b"a . b\r\n", Some(b""));
        data(b"a\r\n.\rb\r\n.\r\n", b"a\r\n b\r\n", Some(b""));
        data(b"a\r\n.\r\r\nb\r\n.\r\n", b"a\r\n \r\nb\r\n", Some(b""));
        data(b"a\r\n\0.\r\nb\r\n.\r\n", b"a\r\n\0.\r\nb\r\n", Some(b""));
        data(b"a\r.\r\nb\r\n.\r\n", b"a .\r\nb\r\n", Some(b""));
        data(b"a\n.\r\n", b"a\r\n.\r\n", None);
    }

    #[test]
    fn a_message_of_bare_lf_alone_is_known_by_its_last_line() {
        for (input, known) in [
            (&b"a\nb\n.\n"[..], true),
            (b".\n", true),
            (b"\n.\n", true),
            (b"a\n.\n.\n", true),
            (b"a\n.\r\n", true),
            (b"a\n.", false),
            (b"a\n..\n", false),
            (b"a\n.\nb", false),
            (b"a\n.\n\n", false),
            (b"a\r\nb\n.\n", false),
            (b"a\r\nb\n.\r\n", false),
            (b"a\r.\r", false),
            (b"a\r\n.\n", false),
            (b"", false),
        ] {
            for step in 1..=input.len().max(1) {
                let mut decoder = Decoder::new(Framing::Dots);
                let mut out = Vec::new();
                for piece in input.chunks(step) {
                    assert_eq!(decoder.push(piece, &mut out), (piece.len(), false), "it never ends the data");
                }
                assert_eq!(decoder.ends_in_bare_lf(), known, "{} in steps of {step}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn findings_name_what_was_met() {
        let found = |input: &[u8]| decode(Framing::Dots, input, 3).1;
        assert_eq!(found(b"plain\r\n.\r\n"), Findings::default());
        assert!(found(b"a\nb\r\n.\r\n").bare_newline);
        assert!(found(b"a\rb\r\n.\r\n").bare_newline);
        assert!(found(b"a\r\n.\nb\r\n.\r\n").bare_newline);
        assert!(found(b"a\0b\r\n.\r\n").nul);
        assert!(found(b"\0\r\n.\r\n").nul);
        assert!(found(b"\xc3\xa9\r\n.\r\n").eight_bit);
    }

    #[test]
    fn chunks_keep_dots_and_get_a_last_line_end() {
        for (input, content) in [
            (&b".\r\n..\r\n"[..], &b".\r\n..\r\n"[..]),
            (b"a", b"a\r\n"),
            (b"a\r", b"a \r\n"),
            (b"a\n", b"a\r\n"),
            (b"", b""),
        ] {
            for step in 1..=input.len().max(1) {
                assert_eq!(decode(Framing::Chunks, input, step).0, content, "{input:?}");
            }
        }
    }

    proptest! {
        /// However the wire cuts the stream, the content is the same, made of
        /// whole lines, and without a bare CR or LF.
        #[test]
        fn content_is_clean_and_does_not_depend_on_the_cuts(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..60),
            step in 1usize..60,
        ) {
            let mut input = input;
            input.extend_from_slice(b"\r\n.\r\n");
            let whole = decode(Framing::Dots, &input, input.len());
            prop_assert_eq!(&decode(Framing::Dots, &input, step), &whole);
            let text = String::from_utf8(whole.0).unwrap();
            prop_assert!(text.is_empty() || text.ends_with("\r\n"));
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        }
    }
}
