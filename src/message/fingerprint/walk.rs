//! The one walk over a message. What goes into the fingerprint and what is
//! shown of it are two sinks of the same walk, so they can't drift apart.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memchr_iter;

use super::exclude::Exclude;
use super::field::{self, Section};
use super::manner::Manner;
use super::parts::{self, Content, Face, Leaf, Node, Octets};
use super::provider;
use crate::message::decode;
use crate::message::headers::mailbox_lines;

/// Where the walk pours what it finds. Places are unambiguous: a file name,
/// the only thing in them that may be anything, stands last.
pub(super) trait Sink {
    /// How the message was read; comes first.
    fn manner(&mut self, manner: Manner);
    /// A short value.
    fn short(&mut self, place: &str, value: &str);
    /// A text, which counts as its lines (see [`lines`]), and of them what
    /// `exclude` leaves.
    fn text(&mut self, place: &str, text: &str, exclude: &Exclude);
    /// Any content.
    fn octets(&mut self, place: &str, octets: &Octets);
}

/// Pours a message into a sink. Lines of a mailbox file in front of it are
/// relayed as X- fields, which do not count.
pub(super) fn walk(message: &[u8], exclude: &Exclude, sink: &mut impl Sink) {
    let message = &message[mailbox_lines(message)..];
    match parts::take_apart(message) {
        Ok(nodes) => {
            sink.manner(Manner::Parsed);
            Walk { exclude, sink, ids: ids(&nodes), part: 0, open: Vec::new() }.nodes(&nodes);
        }
        Err(why) => {
            sink.manner(Manner::Raw(why));
            raw(message, exclude, sink);
        }
    }
}

/// The body as it stands, with From and Subject as far as there are any.
fn raw(message: &[u8], exclude: &Exclude, sink: &mut impl Sink) {
    let body = match Section::split(message) {
        Ok(section) => {
            Walk { exclude, sink, ids: HashMap::new(), part: 0, open: Vec::new() }.head(&section);
            section.body
        }
        Err(_) => message,
    };
    sink.text("body as it stands", &decode::text(Cow::Borrowed(body), None), exclude);
}

/// The lines of a text without their ends and trailing blanks, joined by
/// `\n`, piece by piece. Empty lines at the end do not count.
pub(super) fn lines(text: &str, mut push: impl FnMut(&str)) {
    let (mut start, mut ends) = (0, 0);
    for end in memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
        ends += usize::from(start > 0);
        let line = text[start..end].trim_ascii_end();
        start = end + 1;
        if !line.is_empty() {
            (0..std::mem::take(&mut ends)).for_each(|_| push("\n"));
            push(line);
        }
    }
}

/// The Content-IDs of the parts and the number of the part that each names.
fn ids(nodes: &[Node<'_>]) -> HashMap<String, usize> {
    let mut ids = HashMap::new();
    let mut part = 0;
    for node in nodes {
        if let Node::Leaf(_) | Node::Open(_) = node {
            part += 1;
        }
        if let Node::Leaf(Leaf { id: Some(id), .. }) = node {
            ids.entry(id.clone()).or_insert(part);
        }
    }
    ids
}

struct Walk<'w, S> {
    exclude: &'w Exclude,
    sink: &'w mut S,
    ids: HashMap<String, usize>,
    /// How many parts there were so far.
    part: usize,
    /// The numbers of the messages that we are in.
    open: Vec<usize>,
}

impl<S: Sink> Walk<'_, S> {
    fn nodes(&mut self, nodes: &[Node<'_>]) {
        for node in nodes {
            match node {
                Node::Head(section) => self.head(section),
                Node::Open(face) => {
                    self.part += 1;
                    self.open.push(self.part);
                    self.sink.short(&place(self.part, face), "");
                }
                Node::Close => {
                    let part = self.open.pop().unwrap_or_default();
                    self.sink.short(&format!("end of part {part}"), "");
                }
                Node::Leaf(leaf) => self.leaf(leaf),
            }
        }
    }

    fn head(&mut self, section: &Section<'_>) {
        let inside = self.open.last().map(|part| format!("part {part}, ")).unwrap_or_default();
        for value in section.values("from") {
            for address in field::addresses(value) {
                self.sink.short(&format!("{inside}From"), &address);
            }
        }
        for value in section.values("subject") {
            let subject = self.exclude.apply(decode::unstructured(value).into());
            if !subject.is_empty() {
                self.sink.short(&format!("{inside}Subject"), &subject);
            }
        }
        // No provider looks into a message that is forwarded.
        if self.open.is_empty() {
            for (name, value) in provider::rendered_from(section) {
                self.sink.short(name, &value);
            }
        }
    }

    fn leaf(&mut self, leaf: &Leaf<'_>) {
        self.part += 1;
        let place = place(self.part, &leaf.face);
        match leaf.content() {
            Content::Text(text) => self.sink.text(&place, &self.numbered(&text), self.exclude),
            Content::Octets(octets) => self.sink.octets(&place, &octets),
            Content::Broken(text) => {
                self.sink.text(&format!("broken base64 in {place}"), &text, self.exclude)
            }
        }
    }

    /// The text with each `cid:` reference to a part of this message as the
    /// number of the part: generators mint new Content-IDs at each rendering.
    fn numbered<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = String::new();
        let mut copied = 0;
        if self.ids.is_empty() {
            return Cow::Borrowed(text);
        }
        for colon in memchr::memchr_iter(b':', text.as_bytes()) {
            let scheme = colon.checked_sub(3).and_then(|start| text.get(start..colon));
            if colon < copied || !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("cid")) {
                continue;
            }
            let rest = &text[colon + 1..];
            let length = rest.bytes().take(MAX_ID + 1).take_while(|b| !ends_reference(*b)).count();
            let Some(id) = rest.get(..length).filter(|id| id.len() <= MAX_ID) else { continue };
            let decoded = decode::escapes(id.as_bytes(), b'%');
            let known = std::str::from_utf8(&decoded).ok().and_then(|id| self.ids.get(id));
            if let Some(part) = known {
                out.push_str(&text[copied..=colon]);
                out.push_str(&format!("part {part}"));
                copied = colon + 1 + length;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }
}

/// The longest Content-ID that is looked for, in octets: a line's length.
const MAX_ID: usize = 998;

/// What can't stand in a URL, or stands around one (as `&quot;` too). A colon can, but no
/// generator puts it into a Content-ID, and so each octet is looked at once.
fn ends_reference(byte: u8) -> bool {
    byte <= b' ' || byte == 127 || b"\"'<>()[]{}`\\:&".contains(&byte)
}

fn place(part: usize, face: &Face) -> String {
    let Face { media, disposition, name } = face;
    match (disposition.as_str(), name.as_str()) {
        ("", "") => format!("part {part}, {media}"),
        ("", name) => format!("part {part}, {media}, (no disposition) {name}"),
        (disposition, "") => format!("part {part}, {media}, {disposition}"),
        (disposition, name) => format!("part {part}, {media}, {disposition} {name}"),
    }
}
