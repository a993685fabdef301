//! Replies out of the byte stream, one at a time and within bounds
//! (RFC 5321 §4.2, §4.5.3.1.5).

use std::fmt;

use memchr::memchr;

use crate::smtp::reply::Reply;

/// The longest reply line, its line end included, in octets. RFC 5321 asks for
/// 512; real upstreams put links and whole paragraphs into one line.
pub const MAX_LINE: usize = 2048;

/// The longest reply, all its lines included, in octets.
pub const MAX_REPLY: usize = 4 * 1024;

/// The longest reply to EHLO, in octets.
pub const MAX_EHLO_REPLY: usize = 16 * 1024;

/// The most lines in a reply.
pub const MAX_LINES: usize = 100;

/// What is wrong with bytes that should have been a reply. The client hears
/// `451 4.4.1`, or is told of a doubt where the final dot had left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// A line longer than [`MAX_LINE`].
    LineTooLong,
    /// A reply longer than is taken for it.
    ReplyTooLong,
    /// More lines than [`MAX_LINES`].
    TooManyLines,
    /// A line that does not start with a code of 200 to 599 and a space, a
    /// hyphen or the line's end.
    NotAReply,
    /// The lines of one reply carry different codes.
    CodesDiffer {
        /// The code of the first line.
        first: u16,
        /// The code of a later one.
        later: u16,
    },
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyFault::LineTooLong => f.write_str("reply line too long"),
            ReplyFault::ReplyTooLong => f.write_str("reply too long"),
            ReplyFault::TooManyLines => f.write_str("reply of too many lines"),
            ReplyFault::NotAReply => f.write_str("not an SMTP reply"),
            ReplyFault::CodesDiffer { first, later } => {
                write!(f, "reply with two codes, {first} and {later}")
            }
        }
    }
}

/// Cuts what arrives into replies.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    input: Vec<u8>,
    /// Where in `input` the first unread line starts.
    start: usize,
    /// The reply under way: the code of its first line, its text so far.
    code: Option<u16>,
    text: Vec<u8>,
    octets: usize,
    lines: usize,
}

impl ReplyReader {
    /// Takes bytes as they come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.start);
        self.start = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Whether every byte that came belongs to a reply already handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.input.len() && self.code.is_none()
    }

    /// The next whole reply of at most `limit` octets, if there is one yet.
    /// After a fault the stream has lost its meaning and must be closed.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<Reply>, ReplyFault> {
        loop {
            let rest = &self.input[self.start..];
            let Some(line_feed) = memchr(b'\n', rest) else {
                // With its line end it would be longer still.
                return if rest.len() < MAX_LINE { Ok(None) } else { Err(ReplyFault::LineTooLong) };
            };
            let line = &rest[..line_feed];
            self.octets += line_feed + 1;
            self.lines += 1;
            if line_feed + 1 > MAX_LINE {
                return Err(ReplyFault::LineTooLong);
            }
            if self.octets > limit {
                return Err(ReplyFault::ReplyTooLong);
            }
            if self.lines > MAX_LINES {
                return Err(ReplyFault::TooManyLines);
            }
            let line = read_line(line.strip_suffix(b"\r").unwrap_or(line))?;
            let first = *self.code.get_or_insert(line.code);
            if first != line.code {
                return Err(ReplyFault::CodesDiffer { first, later: line.code });
            }
            if self.lines > 1 {
                self.text.push(b'\n');
            }
            self.text.extend_from_slice(line.text);
            let last = line.last;
            self.start += line_feed + 1;
            if last {
                return Ok(Some(self.finish(first)));
            }
        }
    }

    fn finish(&mut self, code: u16) -> Reply {
        self.code = None;
        self.octets = 0;
        self.lines = 0;
        Reply::from_wire(code, std::mem::take(&mut self.text))
    }
}

struct Line<'a> {
    code: u16,
    last: bool,
    text: &'a [u8],
}

/// Reads one line without its line end. A code alone is a whole last line
/// (RFC 5321 §4.2: receivers should be prepared for it).
fn read_line(line: &[u8]) -> Result<Line<'_>, ReplyFault> {
    let (code, rest) = line.split_first_chunk::<3>().ok_or(ReplyFault::NotAReply)?;
    if !matches!(code, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return Err(ReplyFault::NotAReply);
    }
    let code = code.iter().fold(0, |code, &digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Ok(Line { code, last: true, text: rest }),
        [b' ', text @ ..] => Ok(Line { code, last: true, text }),
        [b'-', text @ ..] => Ok(Line { code, last: false, text }),
        _ => Err(ReplyFault::NotAReply),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All replies in `bytes`, fed in two parts.
    fn read(bytes: &[u8], cut: usize) -> (Vec<String>, Option<ReplyFault>, bool) {
        let mut reader = ReplyReader::default();
        let mut replies = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            reader.feed(part);
            loop {
                match reader.next(MAX_REPLY) {
                    Ok(Some(reply)) => replies.push(reply.to_string()),
                    Ok(None) => break,
                    Err(fault) => return (replies, Some(fault), false),
                }
            }
        }
        (replies, None, reader.is_empty())
    }

    #[track_caller]
    fn reads(bytes: &[u8], replies: &[&str], fault: Option<ReplyFault>) {
        for cut in 0..=bytes.len() {
            let (found, found_fault, empty) = read(bytes, cut);
            assert_eq!(found, replies, "cut at {cut}");
            assert_eq!(found_fault, fault, "cut at {cut}");
            assert_eq!(empty, fault.is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn replies_are_read_wherever_they_are_cut() {
        reads(b"220 hi\r\n", &["220 hi"], None);
        reads(b"250-a\r\n250-\r\n250 b\r\n354 go\r\n", &["250 a  b", "354 go"], None);
        reads(b"250\r\n", &["250 "], None);
        reads(b"250-a\r\n250\r\n", &["250 a "], None);
        reads(b"250-a\n250 b\n221 bye\r\n", &["250 a b", "221 bye"], None);
        reads(b"250  two\tspaces\r\n", &["250  two\tspaces"], None);
    }

    #[test]
    fn what_is_no_reply_is_named() {
        let not = Some(ReplyFault::NotAReply);
        for bytes in [
            &b"hello\r\n"[..],
            b"25\r\n",
            b"\r\n",
            b"25a x\r\n",
            b"199 x\r\n",
            b"600 x\r\n",
            b"2500 x\r\n",
            b"250_x\r\n",
            b" 250 x\r\n",
            b"\xff\xfe\xfd x\r\n",
        ] {
            reads(bytes, &[], not.clone());
        }
        reads(b"250 a\r\nHTTP/1.1\r\n", &["250 a"], not);
        let differ = ReplyFault::CodesDiffer { first: 250, later: 550 };
        reads(b"250-a\r\n550 b\r\n", &[], Some(differ));
    }

    #[test]
    fn a_reply_is_bounded_in_lines_and_octets() {
        let line = |octets: usize| {
            let mut line = b"250-".to_vec();
            line.resize(octets - 2, b'x');
            [&line[..], b"\r\n"].concat()
        };
        let fault = |bytes: &[u8]| read(bytes, 0).1;
        assert_eq!(fault(&line(MAX_LINE)), None);
        assert_eq!(fault(&line(MAX_LINE + 1)), Some(ReplyFault::LineTooLong));
        assert_eq!(fault(&line(MAX_LINE + 1)[..MAX_LINE]), Some(ReplyFault::LineTooLong));
        assert_eq!(fault(&line(MAX_LINE).repeat(2)), None);
        assert_eq!(fault(&line(MAX_LINE).repeat(3)), Some(ReplyFault::ReplyTooLong));
        assert_eq!(fault(&b"250-\r\n".repeat(MAX_LINES)), None);
        assert_eq!(fault(&b"250-\r\n".repeat(MAX_LINES + 1)), Some(ReplyFault::TooManyLines));
    }

    #[test]
    fn the_bounds_start_anew_with_each_reply() {
        let bytes = [&b"250-\r\n".repeat(MAX_LINES - 1)[..], b"250 end\r\n"].concat().repeat(3);
        assert_eq!(read(&bytes, 100).0.len(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_replies_or_a_fault(
            bytes in prop::collection::vec(prop::sample::select(b"2450- \r\nx\x00".to_vec()), 0..60),
            cut in 0usize..60,
        ) {
            let cut = cut.min(bytes.len());
            let whole = read(&bytes, 0);
            prop_assert_eq!(read(&bytes, cut), whole);
        }
    }
}
