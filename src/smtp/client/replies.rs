//! Replies out of the byte stream, one at a time and within bounds
//! (RFC 5321 §4.2, §4.5.3.1.5).
//!
//! The code decides. A reply is judged by the first three octets of its lines,
//! whatever else is wrong with it: its length, what stands behind the code, or
//! a connection that ends inside it. What is beyond the bounds is read and
//! thrown away, so a reply costs bounded memory.

use std::fmt;

use crate::planted::{self, Bug};
use crate::smtp::reply::{Class, Reply};

/// The longest line that is kept, code included and line end not, in octets.
/// RFC 5321 asks for 512; real upstreams put links and whole paragraphs into
/// one line.
pub const MAX_LINE: usize = 2048;

/// The most of a reply that is kept, counted as [`MAX_LINE`] is, in octets.
pub const MAX_REPLY: usize = 4 * 1024;

/// The same for a reply to EHLO, whose late keywords count like early ones.
pub const MAX_EHLO_REPLY: usize = 16 * 1024;

/// The most lines of a reply that are kept. Of a reply to EHLO all are kept.
pub const MAX_LINES: usize = 100;

/// The most octets that are read of one reply. At this bound the code that is
/// known decides, and the connection is of no use any more.
pub const MAX_READ: usize = 1024 * 1024;

/// What a line takes beside its text: a code and a separator.
const PREFIX: usize = 4;

/// How much of a reply is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    octets: usize,
    lines: usize,
}

impl Bounds {
    /// Of a reply that a client may receive.
    pub(super) const REPLY: Self = Self { octets: MAX_REPLY, lines: MAX_LINES };
    /// Of a reply to EHLO.
    pub(super) const EHLO: Self = Self { octets: MAX_EHLO_REPLY, lines: MAX_EHLO_REPLY };
}

/// Why bytes are no reply. The client receives `451 4.4.1`, or is told of a
/// doubt where the final dot had left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// The first line does not start with a code of 200 to 599.
    NotAReply,
    /// 2yz stands beside another class, so nobody knows what was meant.
    CodesDiffer {
        /// The code that decided so far.
        first: u16,
        /// The code of a later line.
        later: u16,
    },
    /// It comes behind a reply that had no end ([`MAX_READ`]).
    Endless,
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyFault::NotAReply => f.write_str("not an SMTP reply"),
            ReplyFault::CodesDiffer { first, later } => {
                write!(f, "reply with two codes, {first} and {later}")
            }
            ReplyFault::Endless => f.write_str("reply without end"),
        }
    }
}

/// Cuts what arrives into replies.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    input: Vec<u8>,
    /// Where in `input` the first unread octet is.
    start: usize,
    draft: Draft,
    /// No more octets come.
    ended: bool,
    /// A reply had no end.
    endless: bool,
    /// A reply was malformed or cut.
    irregular: bool,
}

impl ReplyReader {
    /// Takes bytes as they come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.start);
        self.start = 0;
        if !self.endless {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Says that nothing more comes, and returns whether the code of a reply
    /// under way is known: that reply is the next one then.
    pub(super) fn end(&mut self) -> bool {
        self.ended = true;
        self.draft.code.is_some()
    }

    /// Whether every byte that came belongs to a reply already handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.input.len() && self.draft.octets == 0 && !self.endless
    }

    /// Whether every reply so far had the form of one and was kept whole.
    pub(super) fn is_regular(&self) -> bool {
        !self.irregular
    }

    /// The next reply, if there is one yet, within `bounds`. After a fault the
    /// stream has lost its meaning and must be closed.
    pub(super) fn next(&mut self, bounds: Bounds) -> Result<Option<Reply>, ReplyFault> {
        if self.endless {
            return Err(ReplyFault::Endless);
        }
        while let Some(&octet) = self.input.get(self.start) {
            self.start += 1;
            if self.draft.push(octet, bounds)? {
                return Ok(self.finish());
            }
            if self.draft.octets >= MAX_READ {
                (self.endless, self.irregular) = (true, true);
                return Ok(self.finish());
            }
        }
        if !self.ended || self.draft.code.is_none() {
            return Ok(None);
        }
        self.irregular = true;
        Ok(self.finish())
    }

    fn finish(&mut self) -> Option<Reply> {
        let draft = std::mem::take(&mut self.draft);
        self.irregular |= draft.irregular;
        if draft.irregular && planted::is(Bug::OddReplyDropped) {
            return None;
        }
        Some(Reply::from_wire(draft.code?, draft.text))
    }
}

/// The reply under way.
#[derive(Debug, Default)]
struct Draft {
    /// The code that decides so far.
    code: Option<u16>,
    text: Vec<u8>,
    /// How many octets were read of it.
    octets: usize,
    /// How much of them is kept, counted as the bounds are.
    kept: usize,
    lines: usize,
    line: Line,
    /// It is malformed, or not kept whole.
    irregular: bool,
}

/// The line under way.
#[derive(Debug, Default)]
struct Line {
    octets: usize,
    head: [u8; 3],
    has_code: bool,
    /// Another line follows.
    goes_on: bool,
    /// The last octet was a CR: the line end has begun, or it is a bare one.
    is_ending: bool,
    /// How much of it is kept, `None` where nothing is.
    kept: Option<usize>,
}

impl Draft {
    /// Takes one octet, and returns whether the reply is complete with it.
    fn push(&mut self, octet: u8, bounds: Bounds) -> Result<bool, ReplyFault> {
        self.octets += 1;
        if octet == b'\n' {
            return self.end_line(bounds);
        }
        let at = self.line.octets;
        self.line.octets += 1;
        match at {
            0 | 1 => self.line.head[at] = octet,
            2 => {
                self.line.head[2] = octet;
                self.read_head(bounds)?;
            }
            3 if self.line.has_code => self.separate(octet, bounds),
            _ => self.keep(octet, bounds),
        }
        Ok(false)
    }

    fn read_head(&mut self, bounds: Bounds) -> Result<(), ReplyFault> {
        let head = self.line.head;
        let Some(code) = code_of(head) else { return self.begin_without_code(bounds, &head) };
        self.irregular |= self.code.is_some_and(|first| first != code);
        self.code = Some(decides(self.code, code)?);
        self.line.has_code = true;
        self.begin_line(bounds);
        Ok(())
    }

    /// A line without a code is text of the reply that it is in.
    fn begin_without_code(&mut self, bounds: Bounds, text: &[u8]) -> Result<(), ReplyFault> {
        if self.code.is_none() {
            return Err(ReplyFault::NotAReply);
        }
        self.irregular = true;
        self.begin_line(bounds);
        text.iter().for_each(|&octet| self.keep(octet, bounds));
        Ok(())
    }

    fn begin_line(&mut self, bounds: Bounds) {
        self.lines += 1;
        if self.lines > bounds.lines || self.kept + PREFIX > bounds.octets {
            self.irregular = true;
            return;
        }
        if self.lines > 1 {
            self.text.push(b'\n');
        }
        self.kept += PREFIX;
        self.line.kept = Some(PREFIX);
    }

    /// The octet behind the code. A code alone is a whole last line (RFC 5321
    /// §4.2: receivers should be prepared for it).
    fn separate(&mut self, octet: u8, bounds: Bounds) {
        match octet {
            b' ' => {}
            b'-' => self.line.goes_on = true,
            b'\t' => self.irregular = true,
            _ => {
                self.irregular |= octet != b'\r';
                self.keep(octet, bounds);
            }
        }
    }

    fn keep(&mut self, octet: u8, bounds: Bounds) {
        // A CR is bare unless the line feed is next.
        self.irregular |= self.line.is_ending || octet == 0;
        self.line.is_ending = octet == b'\r';
        if matches!(octet, 0 | b'\r') {
            return;
        }
        match &mut self.line.kept {
            Some(kept) if *kept < MAX_LINE && self.kept < bounds.octets => {
                *kept += 1;
                self.kept += 1;
                self.text.push(octet);
            }
            _ => self.irregular = true,
        }
    }

    fn end_line(&mut self, bounds: Bounds) -> Result<bool, ReplyFault> {
        let octets = self.line.octets;
        if octets < PREFIX - 1 {
            let head = self.line.head;
            self.begin_without_code(bounds, &head[..octets])?;
        }
        let line = std::mem::take(&mut self.line);
        Ok(line.has_code && !line.goes_on)
    }
}

fn code_of(head: [u8; 3]) -> Option<u16> {
    let is_code = matches!(head, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']);
    is_code.then(|| head.iter().fold(0, |code, &digit| code * 10 + u16::from(digit - b'0')))
}

/// Which of two codes of one reply decides: the first of the heaviest class.
/// 4yz and 5yz together are 4yz, since the client may try again then.
fn decides(first: Option<u16>, later: u16) -> Result<u16, ReplyFault> {
    let Some(first) = first else { return Ok(later) };
    let weight = |code| match Class::of(code) {
        Class::Success => 0,
        Class::Intermediate => 1,
        Class::Permanent => 2,
        Class::Transient => 3,
    };
    match (weight(first), weight(later)) {
        (0, 0) => Ok(first),
        (0, _) | (_, 0) => Err(ReplyFault::CodesDiffer { first, later }),
        (before, after) => Ok(if after > before { later } else { first }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All replies in `bytes`, fed in two parts; the fault, or else whether
    /// nothing is left.
    fn read(bytes: &[u8], cut: usize) -> (Vec<Reply>, Result<bool, ReplyFault>) {
        let mut reader = ReplyReader::default();
        let mut replies = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            reader.feed(part);
            loop {
                match reader.next(Bounds::REPLY) {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(fault) => return (replies, Err(fault)),
                }
            }
        }
        (replies, Ok(reader.is_empty()))
    }

    #[track_caller]
    fn reads(bytes: &[u8], replies: &[&str], fault: Option<ReplyFault>) {
        for cut in 0..=bytes.len() {
            let (found, end) = read(bytes, cut);
            let found: Vec<String> = found.iter().map(Reply::to_string).collect();
            assert_eq!(found, replies, "cut at {cut}");
            assert_eq!(end, fault.clone().map_or(Ok(true), Err), "cut at {cut}");
        }
    }

    /// The one reply that begins with `bytes`, the end of the stream behind it,
    /// and whether it had the form of one.
    fn only(bytes: &[u8], bounds: Bounds) -> (Reply, bool) {
        let mut reader = ReplyReader::default();
        reader.feed(bytes);
        if let Some(reply) = reader.next(bounds).unwrap() {
            return (reply, reader.is_regular());
        }
        assert!(reader.end());
        (reader.next(bounds).unwrap().unwrap(), reader.is_regular())
    }

    #[test]
    fn replies_are_read_wherever_they_are_cut() {
        reads(b"220 hi\r\n", &["220 hi"], None);
        reads(b"250-a\r\n250-\r\n250 b\r\n354 go\r\n", &["250 a  b", "354 go"], None);
        reads(b"250\r\n", &["250 "], None);
        reads(b"250-a\r\n250\r\n", &["250 a "], None);
        reads(b"250-a\n250 b\r\n221 bye\r\n", &["250 a b", "221 bye"], None);
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
            b" 250 x\r\n",
            b"\x00250 x\r\n",
            b"\xff\xfe\xfd x\r\n",
        ] {
            reads(bytes, &[], not.clone());
        }
        reads(b"250 a\r\nHTTP/1.1\r\n", &["250 a"], not);
    }

    #[test]
    fn whatever_stands_behind_the_code_it_counts() {
        for (bytes, reply) in [
            (&b"554\r\n"[..], "554 "),
            (b"554\tno\r\n", "554 no"),
            (b"5540 no\r\n", "554 0 no"),
            (b"554_no\r\n", "554 _no"),
            (b"554 n\0o\r\n", "554 no"),
            (b"554 n\ro\r\n", "554 no"),
            (b"554 no\r\r\n", "554 no"),
            (b"554-no\r\nno code\r\n\r\nx\r\n554 end\r\n", "554 no no code  x end"),
            (b"554-no\r\n999-code\r\n554 end\r\n", "554 no 999-code end"),
        ] {
            reads(bytes, &[reply], None);
            let regular = bytes == b"554\r\n";
            assert_eq!(only(bytes, Bounds::REPLY).1, regular, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn of_different_codes_the_first_of_the_heaviest_class_counts() {
        for (lines, code) in [
            (&[250, 251][..], Some(250)),
            (&[550, 554, 551], Some(550)),
            (&[354, 554], Some(554)),
            (&[554, 354], Some(554)),
            (&[450, 354], Some(450)),
            (&[550, 451], Some(451)),
            (&[451, 550, 450], Some(451)),
            (&[421, 450, 550], Some(421)),
            (&[250, 550], None),
            (&[550, 250], None),
            (&[354, 250], None),
            (&[550, 450, 250], None),
        ] {
            let (last, others) = lines.split_last().unwrap();
            let mut bytes: String = others.iter().map(|code| format!("{code}-a\r\n")).collect();
            bytes += &format!("{last} b\r\n");
            let (replies, end) = read(bytes.as_bytes(), 0);
            match code {
                Some(code) => {
                    assert_eq!(replies[0].code(), code, "{lines:?}");
                    assert!(!only(bytes.as_bytes(), Bounds::REPLY).1);
                }
                None => assert!(matches!(end, Err(ReplyFault::CodesDiffer { .. })), "{lines:?}"),
            }
        }
    }

    #[test]
    fn a_reply_is_cut_at_the_bounds_and_read_to_its_end() {
        let line = |separator: char, octets: usize| format!("554{separator}{}\r\n", "x".repeat(octets - 4));
        let lines = |count| "554-\r\n".repeat(count - 1) + "554 \r\n";
        for (bytes, lines, octets, whole) in [
            (line(' ', MAX_LINE), 1, MAX_LINE - 4, true),
            (line(' ', MAX_LINE + 1), 1, MAX_LINE - 4, false),
            (line('-', MAX_LINE) + &line(' ', MAX_LINE), 2, 2 * (MAX_LINE - 4) + 1, true),
            (line('-', 100_000) + &line(' ', 100_000), 2, 2 * (MAX_LINE - 4) + 1, false),
            (line('-', MAX_LINE).repeat(2) + &line(' ', 4), 2, 2 * (MAX_LINE - 4) + 1, false),
            (lines(MAX_LINES), MAX_LINES, MAX_LINES - 1, true),
            (lines(MAX_LINES + 1), MAX_LINES, MAX_LINES - 1, false),
            (lines(10_000), MAX_LINES, MAX_LINES - 1, false),
        ] {
            let (reply, regular) = only((bytes.clone() + "250 next\r\n").as_bytes(), Bounds::REPLY);
            assert_eq!((reply.code(), reply.lines().count(), regular), (554, lines, whole));
            let mut text = Vec::new();
            reply.lines().for_each(|line| text.extend_from_slice(line));
            assert_eq!(text.len() + lines - 1, octets);
            let (replies, end) = read((bytes + "250 next\r\n").as_bytes(), 0);
            assert_eq!((replies.len(), replies[1].code(), end), (2, 250, Ok(true)));
        }
    }

    #[test]
    fn a_reply_without_end_counts_and_nothing_behind_it() {
        for piece in ["554-x\r\n", "554 xxxxxxxxxxxxxxxx", "554\t", "55455455\r"] {
            let mut reader = ReplyReader::default();
            let mut replies = Vec::new();
            let bytes = if piece.ends_with('\n') { piece.repeat(400_000) } else { piece.repeat(800_000) };
            let end = bytes.as_bytes().chunks(4096).find_map(|chunk| {
                reader.feed(chunk);
                assert!(reader.input.len() <= 4096 && reader.draft.text.len() <= MAX_REPLY);
                loop {
                    match reader.next(Bounds::REPLY) {
                        Ok(Some(reply)) => replies.push(reply.code()),
                        Ok(None) => break None,
                        Err(fault) => break Some(fault),
                    }
                }
            });
            assert_eq!((replies, end), (vec![554], Some(ReplyFault::Endless)), "{piece:?}");
            assert!(!reader.is_empty() && !reader.is_regular());
        }
    }

    #[test]
    fn at_the_end_of_the_stream_the_code_is_enough() {
        for (bytes, code) in [
            (&b""[..], None),
            (b"5", None),
            (b"55", None),
            (b"554", Some(554)),
            (b"554 5.7", Some(554)),
            (b"554-first\r\n", Some(554)),
            (b"554-first\r\n55", Some(554)),
            (b"554-first\r\n451", Some(451)),
            (b"250", Some(250)),
            (b"421-x\r\n", Some(421)),
        ] {
            let mut reader = ReplyReader::default();
            reader.feed(bytes);
            assert_eq!(reader.next(Bounds::REPLY), Ok(None));
            assert_eq!(reader.end(), code.is_some());
            let reply = reader.next(Bounds::REPLY).unwrap();
            assert_eq!(reply.map(|reply| reply.code()), code);
            assert_eq!(reader.is_regular(), code.is_none());
        }
    }

    #[test]
    fn the_bounds_start_anew_with_each_reply() {
        let bytes = [&b"250-\r\n".repeat(MAX_LINES - 1)[..], b"250 end\r\n"].concat().repeat(3);
        let (replies, _) = read(&bytes, 100);
        assert!(replies.len() == 3 && replies.iter().all(|reply| reply.lines().count() == MAX_LINES));
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
