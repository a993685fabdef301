//! The header section (RFC 5322 §2.2): where its fields are, and what they
//! say. Fields are found once and kept as ranges; nothing is copied.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;

use super::decode;

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

/// The fields of a message.
#[derive(Clone, Debug)]
pub struct Headers {
    section: Bytes,
    fields: Vec<Field>,
    end: usize,
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
        Self { section: Bytes::new(), fields: Vec::new(), end: 0 }
    }

    /// Finds the fields at the start of `head`. The section ends at the empty
    /// line, or at the first line that is no field.
    ///
    /// # Errors
    /// [`HeaderFault`], whose `reply` the client hears.
    pub fn parse(head: &Bytes) -> Result<Self, HeaderFault> {
        let mut fields: Vec<Field> = Vec::new();
        let mut at = 0;
        while at < head.len() {
            let end = memchr::memchr(b'\n', &head[at..]).map_or(head.len(), |n| at + n + 1);
            let line = &head[at..end];
            match (line[0], fields.last_mut()) {
                (b' ' | b'\t', Some(field)) => field.all.end = end,
                _ => match field(line, at) {
                    Some(field) => fields.push(field),
                    None => break,
                },
            }
            at = end;
            if at > MAX_SECTION {
                return Err(HeaderFault::TooLong);
            }
            if fields.len() > MAX_FIELDS {
                return Err(HeaderFault::TooMany);
            }
        }
        let headers = Self { section: head.slice(..at), fields, end: at };
        match headers.raw("received").count() {
            hops if hops > MAX_HOPS => Err(HeaderFault::Loop),
            _ => Ok(headers),
        }
    }

    /// Octets of all fields together: where the empty line starts.
    pub fn len(&self) -> usize {
        self.end
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

    /// The values of every field of that name (in any case), unfolded
    /// (RFC 5322 §2.2.3) and trimmed, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        self.raw(name).map(unfold)
    }

    /// The value of the first field of that name.
    pub fn first(&self, name: &str) -> Option<String> {
        self.values(name).next()
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
            names.extend(list.split(':').map(|name| name.trim().to_owned()));
        }
        names
    }

    /// Whether a DKIM signature names this field (in lower case) more often than
    /// the message has it, so that one more breaks it (RFC 6376 §5.4.2).
    pub fn oversigns(&self, name: &str) -> bool {
        let there = self.named(name).count();
        self.signed_lists().any(|list| list.split(':').filter(|signed| signed.trim() == name).count() > there)
    }

    /// The names that each DKIM signature covers, in lower case, with colons
    /// between them.
    fn signed_lists(&self) -> impl Iterator<Item = String> + '_ {
        self.values("dkim-signature").map(|value| {
            let list = value.split(';').find_map(|tag| {
                let (name, list) = tag.split_once('=')?;
                (name.trim() == "h").then(|| list.to_ascii_lowercase())
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

/// `name: value`, where the name is of printable ASCII (RFC 5322 §3.6.8), with
/// blanks allowed before the colon (§4.5).
fn field(line: &[u8], at: usize) -> Option<Field> {
    let colon = memchr::memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let graphic = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    graphic.then(|| Field { all: at..at + line.len(), name: at..at + name.len(), value: at + colon + 1 })
}

/// The value behind a field's colon, unfolded (RFC 5322 §2.2.3) and trimmed.
/// What is not UTF-8 is read octet by octet, so that no two values become one.
pub fn unfold(raw: &[u8]) -> String {
    let text = decode::text(Cow::Borrowed(raw), None);
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.contains('\n') { text.replace("\r\n", "") } else { text.to_owned() }
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
        assert_eq!(headers.len(), "A: one\r\nx-KEY :  two\r\n  three \r\nX-Key: four\r\n".len());
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
    }
}
