//! The fields of a message or of a part: where they are, and what their
//! parameters and addresses say. Everything is found in one pass, for a part
//! may have any number of them.

use std::borrow::Cow;

use super::manner::Why;
use crate::message::decode::{self, trim_blanks_end};
use crate::message::headers::{MAX_FIELDS, MAX_SECTION, is_field_name};

/// Parameters that one field may have.
const MAX_PARAMETERS: usize = 200;

/// A header section and what follows it.
pub(super) struct Section<'a> {
    fields: Vec<(&'a [u8], &'a [u8])>,
    pub(super) body: &'a [u8],
}

impl<'a> Section<'a> {
    /// Splits at the empty line, or in front of the first line that is no
    /// field: everything that is not a field is body, so that it counts.
    pub(super) fn split(entity: &'a [u8]) -> Result<Self, Why> {
        let mut fields: Vec<(&[u8], &[u8])> = Vec::new();
        let (mut at, mut start) = (0, 0);
        while at < entity.len() {
            let end = memchr::memchr(b'\n', &entity[at..]).map_or(entity.len(), |n| at + n + 1);
            let line = &entity[at..end];
            match (line[0], fields.last_mut()) {
                (b' ' | b'\t', Some((_, value))) => *value = &entity[start..end],
                _ => {
                    let Some((name, value)) = field(line) else { break };
                    start = end - value.len();
                    fields.push((name, value));
                }
            }
            at = end;
            if at > MAX_SECTION || fields.len() > MAX_FIELDS {
                return Err(Why::LongHeader);
            }
        }
        let rest = &entity[at..];
        let body = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")).unwrap_or(rest);
        Ok(Self { fields, body })
    }

    /// The values of every field of that name, as they stand.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| field.1)
    }

    /// The first field of that name with its parameters.
    pub(super) fn structured(&self, name: &str) -> Result<Structured, Why> {
        self.values(name).next().map_or(Ok(Structured::default()), Structured::parse)
    }
}

/// `name: value`, the name of printable ASCII (RFC 5322 §3.6.8).
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let name = trim_blanks_end(&line[..colon]);
    is_field_name(name).then_some((name, &line[colon + 1..]))
}

/// A field such as Content-Type (RFC 2045 §5.1): a word and its parameters.
#[derive(Default)]
pub(super) struct Structured {
    /// The word in lower case, empty if there is none.
    pub(super) word: String,
    parameters: Vec<Parameter>,
}

struct Parameter {
    /// In lower case, with the marks of RFC 2231.
    name: Vec<u8>,
    value: Vec<u8>,
    quoted: bool,
}

impl Structured {
    fn parse(value: &[u8]) -> Result<Self, Why> {
        let value = decode::unfold(value);
        let mut pieces = pieces(&value).into_iter();
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'(' | b',' | b';');
        let word = pieces.next().unwrap_or_default().trim_ascii();
        let word = word.split(ends).next().unwrap_or_default();
        let word = decode::text(Cow::Borrowed(word), None).to_ascii_lowercase();
        let mut parameters = Vec::new();
        for piece in pieces {
            let Some(equals) = memchr::memchr(b'=', piece) else { continue };
            let name = piece[..equals].trim_ascii().to_ascii_lowercase();
            let value = piece[equals + 1..].trim_ascii();
            parameters.push(Parameter { name, value: unquote(value), quoted: value.starts_with(b"\"") });
            if parameters.len() > MAX_PARAMETERS {
                return Err(Why::LongHeader);
            }
        }
        Ok(Self { word, parameters })
    }

    fn plain(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|known| known.name == name.as_bytes())
    }

    /// A parameter that is for machines, a boundary or a charset. Without
    /// quotes it is one word, and a comment may follow. Some generators cut
    /// even these by RFC 2231.
    pub(super) fn machine(&self, name: &str) -> Option<Vec<u8>> {
        let Some(Parameter { value, quoted, .. }) = self.plain(name) else {
            return self.extended(name).map(String::into_bytes);
        };
        let ends = |b: &u8| !quoted && (b.is_ascii_whitespace() || *b == b'(');
        value.split(ends).next().map(<[u8]>::to_vec)
    }

    /// A parameter as a reader sees it: by RFC 2231, continued and encoded,
    /// else with encoded words, which many generators put there;
    /// blanks as in [`decode::unstructured`].
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = match self.extended(name) {
            Some(text) => text,
            None => decode::words(&self.plain(name)?.value),
        };
        Some(decode::spaced(&text))
    }

    fn extended(&self, name: &str) -> Option<String> {
        let mut segments: Vec<(u32, bool, &[u8])> = Vec::new();
        for Parameter { name: known, value, .. } in &self.parameters {
            let Some(section) = known.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"*"))
            else {
                continue;
            };
            let (section, encoded) = match section.strip_suffix(b"*") {
                Some(section) => (section, true),
                None => (section, section.is_empty()),
            };
            let number = std::str::from_utf8(section).ok().and_then(|digits| digits.parse().ok());
            segments.push((number.unwrap_or(0), encoded, value));
        }
        segments.sort_by_key(|segment| segment.0);
        let (_, encoded, first) = *segments.first()?;
        let mut parts = first.splitn(3, |&b| b == b'\'');
        let (charset, first) = match (encoded, parts.next(), parts.next(), parts.next()) {
            (true, Some(charset), Some(_), Some(rest)) => (Some(charset), rest),
            _ => (None, first),
        };
        segments[0].2 = first;
        let octets = segments.iter().flat_map(|(_, encoded, value)| match encoded {
            true => decode::escapes(value, b'%'),
            false => value.to_vec(),
        });
        let charset = charset.map(|charset| String::from_utf8_lossy(charset).into_owned());
        Some(decode::text(Cow::Owned(octets.collect()), charset.as_deref()).into_owned())
    }
}

/// A value cut at each `;` that is not quoted.
fn pieces(value: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                pieces.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&value[start..]);
    pieces
}

/// What is inside the quotes, if there are any.
fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"") else { return value.to_vec() };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            // Some write paths in here, with backslashes that quote nothing.
            b'\\' if matches!(bytes.peek(), Some(b'"' | b'\\')) => out.extend(bytes.next()),
            byte => out.push(byte),
        }
    }
    out
}

/// Where in an address list something stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Open,
    Quoted,
    Comment(usize),
}

/// The addresses of a field such as From, in lower case, without names and
/// comments. What has no address counts as it stands.
pub(super) fn addresses(value: &[u8]) -> Vec<String> {
    let value = decode::unfold(value);
    let mut found = Vec::new();
    let mut one = Mailbox::default();
    let mut place = Place::Open;
    let mut escaped = false;
    for c in decode::text(value, None).chars() {
        if std::mem::take(&mut escaped) {
            one.push(c, place);
            continue;
        }
        match (c, place) {
            ('\\', Place::Quoted | Place::Comment(_)) => escaped = true,
            ('"', Place::Open) => place = Place::Quoted,
            ('"', Place::Quoted) => place = Place::Open,
            ('(', Place::Open) => place = Place::Comment(1),
            ('(', Place::Comment(depth)) => place = Place::Comment(depth + 1),
            (')', Place::Comment(1)) => place = Place::Open,
            (')', Place::Comment(depth)) => place = Place::Comment(depth - 1),
            ('<', Place::Open) => {
                // Where the comma between two was forgotten, both count.
                if one.closed {
                    found.extend(std::mem::take(&mut one).address());
                }
                one.route.get_or_insert_default();
            }
            ('>', Place::Open) => one.closed = true,
            (',' | ';', Place::Open) if !one.is_open() => found.extend(std::mem::take(&mut one).address()),
            // The name of a group stands in front of it.
            (':', Place::Open) if one.route.is_none() && !one.at => one = Mailbox::default(),
            _ => one.push(c, place),
        }
    }
    found.extend(one.address());
    found
}

/// What has been read of one mailbox.
#[derive(Default)]
struct Mailbox {
    plain: String,
    route: Option<String>,
    closed: bool,
    /// Whether there is an `@` in it, which is not looked for at each colon.
    at: bool,
}

impl Mailbox {
    fn is_open(&self) -> bool {
        self.route.is_some() && !self.closed
    }

    fn push(&mut self, c: char, place: Place) {
        let blank = c.is_ascii_whitespace() && place != Place::Quoted;
        if blank || matches!(place, Place::Comment(_)) {
            return;
        }
        self.at |= c == '@';
        match &mut self.route {
            Some(route) if !self.closed => route.push(c),
            _ => self.plain.push(c),
        }
    }

    fn address(self) -> Option<String> {
        let address = self.route.filter(|route| !route.is_empty()).unwrap_or(self.plain);
        (!address.is_empty()).then(|| address.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_field_is_body() {
        let split = |text: &'static str| {
            let section = Section::split(text.as_bytes()).unwrap();
            (section.fields.len(), std::str::from_utf8(section.body).unwrap())
        };
        assert_eq!(split("A: 1\r\n b\r\nC:\r\n\r\nhi\r\n"), (2, "hi\r\n"));
        assert_eq!(split("A: 1\nno field\n\nhi"), (1, "no field\n\nhi"));
        assert_eq!(split("hello\r\n"), (0, "hello\r\n"));
        assert_eq!(split("\nhello"), (0, "hello"));
        assert_eq!(split(""), (0, ""));
        assert_eq!(split("A: 1"), (1, ""));
        let folded = Section::split(b"A: 1\r\n 2\r\n 3\r\nB: 4\r\n\r\n").ok().unwrap();
        assert_eq!(folded.values("a").next(), Some(&b" 1\r\n 2\r\n 3\r\n"[..]));
    }

    #[test]
    fn parameters_are_the_same_in_every_form() {
        let same = [
            &b"attachment; filename=\"r\xc3\xa9sum\xc3\xa9 \\\"1\\\".pdf\""[..],
            b"ATTACHMENT ; x=y;FileName=\"=?utf-8?q?r=C3=A9sum=C3=A9?= =?iso-8859-1?q?_=221=22=2Epdf?=\"",
            b"attachment;\r\n filename*=utf-8''r%C3%A9sum%C3%A9%20%221%22.pdf; filename=resume.pdf",
            b"attachment; filename*1*=%E9%20; filename*0*=iso-8859-1'fr'r%E9sum;\r\n filename*2=\"\\\"1\\\".pdf\"",
            // Cut inside a character.
            b"attachment; filename*0*=utf-8''r%C3; filename*1*=%A9sum%C3%A9%20%221%22.pdf",
            b"attachment (a comment); filename=\"r\xe9sum\xe9 \\\"1\\\".pdf\"",
        ];
        for value in same {
            let parsed = Structured::parse(value).ok().unwrap();
            assert_eq!(parsed.word, "attachment");
            let shown = String::from_utf8_lossy(value);
            assert_eq!(parsed.text("filename").as_deref(), Some("r\u{e9}sum\u{e9} \"1\".pdf"), "{shown}");
        }
        let cut =
            Structured::parse(b"a; boundary*0=\"==ab\"; boundary*1=\"cd==\"; charset*=''utf-8").ok().unwrap();
        assert_eq!(cut.machine("boundary").as_deref(), Some(&b"==abcd=="[..]));
        assert_eq!(cut.machine("charset").as_deref(), Some(&b"utf-8"[..]));
        let path = Structured::parse(b"a; name=\"C:\\x;y\"; b=c d").ok().unwrap();
        assert_eq!(
            (path.text("name").unwrap().as_str(), path.text("b").unwrap().as_str()),
            ("C:\\x;y", "c d")
        );
    }

    #[test]
    fn addresses_count_without_their_names() {
        let of = |value: &str| addresses(value.as_bytes()).join(" ");
        assert_eq!(of(" App <APP@x.example>\r\n"), "app@x.example");
        assert_eq!(of("\"a, <b@c>\" (d@e) <app@x>, bob@y (Bob (jr.)), <c@z>"), "app@x bob@y c@z");
        assert_eq!(of("team: a@x, b@y; c@z"), "a@x b@y c@z");
        assert_eq!(of("\"alice\"@x"), "alice@x");
        assert_eq!(of("\"a b\"@x"), "a b@x");
        assert_eq!(of("nobody"), "nobody");
        assert_eq!(of("<>"), "");
        assert_eq!(of("x <a@b"), "a@b");
        assert_eq!(of("<a@b> <c@d>"), "a@b c@d");
        assert_eq!(of("<a@b <c@d>"), "a@bc@d");
    }
}
