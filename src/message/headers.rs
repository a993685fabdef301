//! The header section (RFC 5322 §2.2): where its fields are, and what they
//! say. Fields are found once and kept as ranges; nothing is copied.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;

use super::decode::{self, trim_blanks, trim_blanks_end};

use crate::smtp::reply::Reply;

/// The longest header section that is taken, in octets.
pub const MAX_SECTION: usize = 256 * 1024;
/// How many fields are taken.
pub const MAX_FIELDS: usize = 1000;
/// How many Received fields a message may have before it counts as looping
/// (RFC 5321 §6.3).
pub const MAX_HOPS: usize = 50;

/// Why a header section is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// Over [`MAX_SECTION`] octets; the client hears `554 5.6.0`.
    TooLong,
    /// Over [`MAX_FIELDS`] fields; the client hears `554 5.6.0`.
    TooMany,
    /// Over [`MAX_HOPS`] Received fields; the client hears `554 5.4.6`.
    Loop,
}

impl HeaderFault {
    /// What the client hears.
    pub fn reply(self) -> Reply {
        match self {
            HeaderFault::TooLong => Reply::new(554, "5.6.0 the header section is longer than 256 KiB"),
            HeaderFault::TooMany => Reply::new(554, "5.6.0 the header section has more than 1000 fields"),
            HeaderFault::Loop => Reply::new(554, "5.4.6 more than 50 Received fields: this message loops"),
        }
    }
}

/// What of a message is looked at for its header section: the longest section
/// that is taken, and the empty line.
pub const MAX_HEAD: usize = MAX_SECTION + 2;

/// The fields of a message.
#[derive(Clone, Debug)]
pub struct Headers {
    section: Bytes,
    /// Where the first field is: behind the lines of a mailbox file.
    start: usize,
    fields: Vec<Field>,
}

/// Where one field is in the header section.
#[derive(Clone, Debug)]
struct Field {
    /// All of it, line end included.
    all: Range<usize>,
    /// Its name.
    name: Range<usize>,
    /// Where its value starts, behind the colon.
    value: usize,
}

impl Headers {
    /// No fields at all.
    pub fn none() -> Self {
        Self { section: Bytes::new(), start: 0, fields: Vec::new() }
    }

    /// Finds the fields at the start of `head`, which holds the whole message
    /// or its first [`MAX_HEAD`] octets. Lines of a mailbox file may stand in
    /// front and count as fields. The section ends at the empty line, or at the
    /// first line that is no field.
    ///
    /// # Errors
    /// [`HeaderFault`], whose `reply` the client receives.
    pub fn parse(head: &Bytes) -> Result<Self, HeaderFault> {
        let head = head.slice(..head.len().min(MAX_HEAD));
        let start = mailbox_lines(&head);
        let mailbox_lines = memchr::memchr_iter(b'\n', &head[..start]).count();
        let within_bounds = |octets: usize, fields: usize| match () {
            () if octets > MAX_SECTION => Err(HeaderFault::TooLong),
            () if mailbox_lines + fields > MAX_FIELDS => Err(HeaderFault::TooMany),
            () => Ok(()),
        };
        let mut fields: Vec<Field> = Vec::new();
        let mut at = start;
        within_bounds(at, 0)?;
        while at < head.len() {
            let end = line_end(&head, at);
            let line = &head[at..end];
            match (line[0], fields.last_mut()) {
                (b' ' | b'\t', Some(field)) => field.all.end = end,
                _ => match field(line, at) {
                    Some(field) => fields.push(field),
                    None if may_become_a_field(line, end) => return Err(HeaderFault::TooLong),
                    None => break,
                },
            }
            at = end;
            within_bounds(at, fields.len())?;
        }
        let headers = Self { section: head.slice(..at), start, fields };
        match headers.raw("received").count() {
            hops if hops > MAX_HOPS => Err(HeaderFault::Loop),
            _ => Ok(headers),
        }
    }

    /// Octets of the whole section: where the empty line or the body starts.
    pub fn len(&self) -> usize {
        self.section.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether the section is one field of that name (in any case) and nothing else.
    pub fn is_only(&self, name: &str) -> bool {
        let all = |field: &Field| field.all == (0..self.section.len());
        self.fields.len() == 1 && self.named(name).next().is_some_and(all)
    }

    /// The lines of a mailbox file in front of the fields, each with its CRLF.
    pub fn mailbox_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.section[..self.start].split_inclusive(|&byte| byte == b'\n')
    }

    /// The values of every field of that name (in any case), in order: unfolded
    /// (RFC 5322 §2.2.3), with encoded words decoded (RFC 2047), and then without
    /// the blanks and tabs at their ends.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        self.raw(name).map(|raw| {
            let text = decode::words(&decode::unfold(raw));
            match trim_blanks(&text) {
                trimmed if trimmed.len() < text.len() => trimmed.to_owned(),
                _ => text,
            }
        })
    }

    /// The same without decoding: for fields that are shown, or written again.
    /// What is not UTF-8 is read octet by octet, so that no two values become one.
    pub fn as_written<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        self.raw(name).map(as_written)
    }

    /// The value of the first field of that name, as it is written.
    pub fn first(&self, name: &str) -> Option<String> {
        self.as_written(name).next()
    }

    /// The first field of that name, octet for octet, its name and its line end
    /// included.
    pub fn written(&self, name: &str) -> Option<&[u8]> {
        self.named(name).next().map(|field| &self.section[field.all.clone()])
    }

    /// The stretches of the section that remain when all fields for which
    /// `drop` says so (it is given the name in lower case) are taken out.
    pub fn without(&self, mut drop: impl FnMut(&str) -> bool) -> Vec<Range<usize>> {
        let mut kept: Vec<Range<usize>> = Vec::new();
        for field in &self.fields {
            if drop(&String::from_utf8_lossy(&self.section[field.name.clone()]).to_ascii_lowercase()) {
                continue;
            }
            match kept.last_mut() {
                Some(last) if last.end == field.all.start => last.end = field.all.end,
                _ => kept.push(field.all.clone()),
            }
        }
        kept
    }

    /// The names that a DKIM signature covers, in lower case (RFC 6376 §3.5,
    /// tag `h=`). Removing or changing one of those would break it. A set,
    /// because a hostile signature names tens of thousands.
    pub fn signed_names(&self) -> HashSet<String> {
        let mut names = HashSet::new();
        for list in self.signed_lists() {
            names.extend(list.split(':').map(|name| trim_blanks(name).to_owned()));
        }
        names
    }

    /// Whether a DKIM signature names this field (in lower case) more often than
    /// the message has it, so that one more breaks it (RFC 6376 §5.4.2).
    pub fn oversigns(&self, name: &str) -> bool {
        let there = self.named(name).count();
        self.signed_lists()
            .any(|list| list.split(':').filter(|signed| trim_blanks(signed) == name).count() > there)
    }

    /// The names that each DKIM signature covers, in lower case, with colons
    /// between them.
    fn signed_lists(&self) -> impl Iterator<Item = String> + '_ {
        self.as_written("dkim-signature").map(|value| {
            let list = value.split(';').find_map(|tag| {
                let (name, list) = tag.split_once('=')?;
                (trim_blanks(name) == "h").then(|| list.to_ascii_lowercase())
            });
            list.unwrap_or_default()
        })
    }

    fn raw<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.named(name).map(|field| &self.section[field.value..field.all.end])
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> + 'a {
        let is = |field: &&Field| self.section[field.name.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(is)
    }
}

fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |n| at + n + 1)
}

/// How many octets at the start of a message are lines of a mailbox file. They
/// stand where the first field is due, and are not part of the body.
pub fn mailbox_lines(message: &[u8]) -> usize {
    let mut at = 0;
    while is_mailbox_line(&message[at..]) {
        at = line_end(message, at);
    }
    at
}

/// `From ` or `>From `, unless it is a field with blanks before its colon.
fn is_mailbox_line(text: &[u8]) -> bool {
    let rest = text.strip_prefix(b">").unwrap_or(text).strip_prefix(b"From ");
    rest.is_some_and(|rest| rest.iter().find(|byte| !decode::is_blank(**byte)) != Some(&b':'))
}

/// `name: value`, where the name is of printable ASCII (RFC 5322 §3.6.8), with
/// blanks allowed before the colon (§4.5).
fn field(line: &[u8], at: usize) -> Option<Field> {
    let colon = memchr::memchr(b':', line)?;
    let name = trim_blanks_end(&line[..colon]);
    is_field_name(name).then(|| Field {
        all: at..at + line.len(),
        name: at..at + name.len(),
        value: at + colon + 1,
    })
}

/// The value behind a field's colon as it is written, unfolded (RFC 5322 §2.2.3)
/// and trimmed. What is not UTF-8 is read octet by octet, so that no two values
/// become one.
pub fn as_written(raw: &[u8]) -> String {
    decode::as_written(&decode::unfold(raw)).into_owned()
}

/// Whether a field can have that name.
pub fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// Whether a line was cut where the bound is, inside what may be a field's name.
fn may_become_a_field(line: &[u8], end: usize) -> bool {
    end == MAX_HEAD && !line.ends_with(b"\n") && is_field_name(trim_blanks_end(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> Headers {
        Headers::parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn values_are_unfolded_and_trimmed() {
        let headers = headers("A: one\r\nx-KEY :  two\r\n  three \r\nX-Key: four\r\n\r\nX-Key: body\r\n");
        assert_eq!(headers.values("X-Key").collect::<Vec<_>>(), ["two  three", "four"]);
        assert_eq!(headers.first("missing"), None);
        let latin = |octet: u8| {
            let head = [b"A: ", &[b'r', octet, b'f'][..], b"\r\n"].concat();
            Headers::parse(&Bytes::from(head)).unwrap().first("a").unwrap()
        };
        assert_eq!(latin(0xe9), "r\u{e9}f");
        assert_ne!(latin(0xe9), latin(0xe8), "no two octets become one character");
        // Blanks and tabs are trimmed, and nothing else is.
        for content in ["\u{c}k", "k\u{b}", "\u{feff}k", "k\u{a0}"] {
            let head = format!("A:\t{content} \r\n");
            assert_eq!(self::headers(&head).values("a").collect::<Vec<_>>(), [content]);
        }
        assert_eq!(self::headers("A\u{c}: x\r\n").len(), 0, "a form feed belongs to no name");
        assert_eq!(headers.len(), "A: one\r\nx-KEY :  two\r\n  three \r\nX-Key: four\r\n".len());
    }

    #[test]
    fn encoded_words_are_decoded_before_blanks_are_trimmed() {
        let headers = headers(
            "A: =?utf-8?q?_order-?=\r\n =?utf-8?q?7=09?= \r\nA: =?x-none?q?k?=\r\nA: =?utf-8?q?k=0D=0A?=\r\n",
        );
        assert_eq!(headers.values("a").collect::<Vec<_>>(), ["order-7", "=?x-none?q?k?=", "k\r\n"]);
        assert_eq!(headers.first("a").as_deref(), Some("=?utf-8?q?_order-?= =?utf-8?q?7=09?="));
    }

    #[test]
    fn lines_of_a_mailbox_file_stand_before_the_fields() {
        let parsed = headers("From a@b Mon Jan  1 00:00:00 2026\r\n>From c d\r\nA: 1\r\n\r\n");
        assert_eq!(parsed.mailbox_lines().count(), 2);
        assert_eq!((parsed.first("a").as_deref(), parsed.len()), (Some("1"), 52));
        // Blanks and a colon make it a field.
        assert_eq!(headers("From \t: a@b\r\n").first("from").as_deref(), Some("a@b"));
        assert_eq!(headers(">From : a@b\r\n").first(">from").as_deref(), Some("a@b"));
        for none in ["From\ta\r\nA: 1\r\n", ">>From a\r\nA: 1\r\n", "from a\r\nA: 1\r\n", " From a\r\n"] {
            assert_eq!(headers(none).len(), 0, "{none:?}");
        }
        // What folds behind it is no field.
        assert_eq!(headers("From a\r\n b\r\nA: 1\r\n").len(), 8);
    }

    #[test]
    fn the_section_ends_where_fields_end() {
        assert_eq!(headers("A: 1\r\nno field\r\nB: 2\r\n").len(), 6);
        assert_eq!(headers("\r\nA: 1\r\n").len(), 0);
        assert_eq!(headers(" A: 1\r\n").len(), 0);
        assert_eq!(headers("").len(), 0);
        assert_eq!(headers("A: 1\r\n").len(), 6);
    }

    #[test]
    fn dropped_fields_leave_the_rest_as_it_is() {
        let text = "A: 1\r\nDrop: x\r\n y\r\nB: 2\r\nC: 3\r\n";
        let kept = headers(text).without(|name| name == "drop");
        assert_eq!(
            kept.iter().map(|r| &text[r.clone()]).collect::<Vec<_>>(),
            ["A: 1\r\n", "B: 2\r\nC: 3\r\n"]
        );
    }

    #[test]
    fn signed_names_come_from_every_signature() {
        let headers =
            headers("DKIM-Signature: v=1; h=From:\r\n X-Key ; bh=x; b=y\r\nDKIM-Signature: h=date; d=x\r\n");
        assert_eq!(headers.signed_names(), ["from", "x-key", "date"].map(str::to_owned).into());
    }

    #[test]
    fn bounds_are_kept() {
        let fault = |text: String| Headers::parse(&Bytes::from(text)).unwrap_err();
        assert_eq!(fault(format!("A: {}\r\n", "x".repeat(MAX_SECTION))), HeaderFault::TooLong);
        assert_eq!(fault("A: 1\r\n".repeat(MAX_FIELDS + 1)), HeaderFault::TooMany);
        assert_eq!(fault("Received: x\r\n".repeat(MAX_HOPS + 1)), HeaderFault::Loop);
        assert_eq!(fault("From x\r\n".repeat(MAX_FIELDS + 1)), HeaderFault::TooMany);
        assert_eq!(fault(format!("From {}\r\n", "x".repeat(MAX_SECTION))), HeaderFault::TooLong);
    }

    /// Of a message in a file only the first octets are there: wherever they
    /// end, the answer is that for the whole message.
    #[test]
    fn bounds_hold_wherever_the_head_is_cut() {
        for over in 0..80 {
            for first in ["", "From x\r\n"] {
                let second = "X-Some-Quite-Long-Name : 1\r\n folded\r\n";
                let filler = MAX_SECTION - 60 + over - first.len() - "A: \r\n".len();
                let section = format!("{first}A: {}\r\n{second}", "x".repeat(filler));
                let too_long = section.len() > MAX_SECTION;
                let whole = Bytes::from(format!("{section}\r\nbody\r\n"));
                let cut = whole.slice(..MAX_HEAD.min(whole.len()));
                let (whole, cut) = (Headers::parse(&whole), Headers::parse(&cut));
                assert_eq!(
                    whole.as_ref().map(Headers::len).ok(),
                    cut.as_ref().map(Headers::len).ok(),
                    "{over}"
                );
                assert_eq!(whole.is_err(), too_long, "{over}");
            }
        }
    }
}
