//! A message taken apart into its leaves (RFC 2046), in order and within
//! bounds. No octet of a leaf is copied. Each level of nesting is one more
//! search through what it holds, so the cost is the size times the depth, and
//! the depth is bounded.

use std::borrow::Cow;
use std::rc::Rc;

use memchr::memmem;
use sha2::{Digest, Sha256};

use super::field::{Section, Structured};
use super::manner::Why;
use crate::message::decode;

/// Containers that may lie in one another.
const MAX_DEPTH: usize = 20;
/// Multiparts that one message may have.
const MAX_MULTIPARTS: usize = 100;
/// Leaves and nested messages that one message may have.
const MAX_PARTS: usize = 1000;

/// What a message is made of, in order.
pub(super) enum Node<'a> {
    /// The fields of a message: the outer one, or one that an `Open` begins.
    Head(Rc<Section<'a>>),
    /// A nested message begins.
    Open(Face),
    /// It ends.
    Close,
    /// A part without parts.
    Leaf(Leaf<'a>),
}

/// What a part says of itself to a reader.
pub(super) struct Face {
    /// In lower case, `text/plain` where nothing is said.
    pub(super) media: String,
    /// In lower case, empty where nothing is said.
    pub(super) disposition: String,
    /// The file name, or empty.
    pub(super) name: String,
}

/// A part without parts.
pub(super) struct Leaf<'a> {
    pub(super) face: Face,
    /// Its Content-ID without the angle brackets.
    pub(super) id: Option<String>,
    charset: Option<String>,
    encoding: Encoding,
    body: &'a [u8],
}

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Identity,
    Base64,
    QuotedPrintable,
}

/// The content of a leaf.
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Octets(Octets),
    /// What is said to be base64 and is not, as it stands.
    Broken(Cow<'a, str>),
}

/// What counts of any content.
pub(super) struct Octets {
    pub(super) length: usize,
    /// Its SHA-256.
    pub(super) digest: [u8; 32],
}

impl Octets {
    fn of(octets: &[u8]) -> Self {
        Self { length: octets.len(), digest: Sha256::digest(octets).into() }
    }

    fn of_base64(body: &[u8]) -> Option<Self> {
        let (mut length, mut digest) = (0, Sha256::new());
        decode::base64_pieces(body, |piece| {
            length += piece.len();
            digest.update(piece);
        })?;
        Some(Self { length, digest: digest.finalize().into() })
    }
}

impl<'a> Leaf<'a> {
    pub(super) fn content(&self) -> Content<'a> {
        let is_text = self.face.media.split('/').next() == Some("text");
        let text = |octets| Content::Text(decode::text(octets, self.charset.as_deref()));
        let read = match (self.encoding, is_text) {
            (Encoding::Identity, true) => Some(text(Cow::Borrowed(self.body))),
            (Encoding::Identity, false) => Some(Content::Octets(Octets::of(self.body))),
            (Encoding::QuotedPrintable, true) => Some(text(decode::quoted_printable(self.body).into())),
            (Encoding::QuotedPrintable, false) => {
                Some(Content::Octets(Octets::of(&decode::quoted_printable(self.body))))
            }
            (Encoding::Base64, true) => decode::base64(self.body).map(|octets| text(octets.into())),
            (Encoding::Base64, false) => Octets::of_base64(self.body).map(Content::Octets),
        };
        read.unwrap_or_else(|| Content::Broken(decode::text(Cow::Borrowed(self.body), None)))
    }
}

/// Takes a message apart.
pub(super) fn take_apart(message: &[u8]) -> Result<Vec<Node<'_>>, Why> {
    let mut parts = Parts { nodes: Vec::new(), multiparts: 0, count: 0 };
    parts.message(message, 0)?;
    Ok(parts.nodes)
}

struct Parts<'a> {
    nodes: Vec<Node<'a>>,
    multiparts: usize,
    count: usize,
}

impl<'a> Parts<'a> {
    fn message(&mut self, message: &'a [u8], depth: usize) -> Result<(), Why> {
        let section = Rc::new(Section::split(message)?);
        self.nodes.push(Node::Head(Rc::clone(&section)));
        let kind = section.structured("content-type")?;
        self.entity(&section, kind, "text/plain", depth)
    }

    fn entity(
        &mut self,
        section: &Section<'a>,
        kind: Structured,
        default: &'static str,
        depth: usize,
    ) -> Result<(), Why> {
        if depth > MAX_DEPTH {
            return Err(Why::TooDeep);
        }
        let media = if kind.word.is_empty() { default.to_owned() } else { kind.word.clone() };
        if media.starts_with("multipart/") {
            let inner = if media == "multipart/digest" { "message/rfc822" } else { "text/plain" };
            return self.multipart(section.body, kind.machine("boundary").as_deref(), inner, depth);
        }
        self.count += 1;
        if self.count > MAX_PARTS {
            return Err(Why::TooManyParts);
        }
        let disposition = section.structured("content-disposition")?;
        let name = disposition.text("filename").filter(|name| !name.is_empty());
        let name = name.or_else(|| kind.text("name")).unwrap_or_default();
        let face = Face { media, disposition: disposition.word, name };
        let encoding = encoding(section);
        if encoding == Encoding::Identity
            && matches!(face.media.as_str(), "message/rfc822" | "message/global")
        {
            self.nodes.push(Node::Open(face));
            self.message(section.body, depth + 1)?;
            self.nodes.push(Node::Close);
            return Ok(());
        }
        let id = section.values("content-id").next().map(content_id).filter(|id| !id.is_empty());
        let charset = kind.machine("charset").map(|charset| String::from_utf8_lossy(&charset).into_owned());
        self.nodes.push(Node::Leaf(Leaf { face, id, charset, encoding, body: section.body }));
        Ok(())
    }

    fn multipart(
        &mut self,
        body: &'a [u8],
        boundary: Option<&[u8]>,
        inner: &'static str,
        depth: usize,
    ) -> Result<(), Why> {
        self.multiparts += 1;
        if self.multiparts > MAX_MULTIPARTS {
            return Err(Why::TooManyMultiparts);
        }
        let boundary = boundary.filter(|boundary| !boundary.is_empty()).ok_or(Why::NoBoundary)?;
        let mut found = false;
        for part in Delimited::new(body, boundary) {
            found = true;
            let section = Section::split(part)?;
            let kind = section.structured("content-type")?;
            self.entity(&section, kind, inner, depth + 1)?;
        }
        if found { Ok(()) } else { Err(Why::NoBoundary) }
    }
}

fn encoding(section: &Section<'_>) -> Encoding {
    let value = section.values("content-transfer-encoding").next().unwrap_or_default().trim_ascii();
    let word =
        value.split(|b| b.is_ascii_whitespace() || matches!(b, b'(' | b';')).next().unwrap_or_default();
    if word.eq_ignore_ascii_case(b"base64") {
        Encoding::Base64
    } else if word.eq_ignore_ascii_case(b"quoted-printable") {
        Encoding::QuotedPrintable
    } else {
        Encoding::Identity
    }
}

/// Without blanks and brackets; some generators make encoded words of it.
fn content_id(value: &[u8]) -> String {
    let id = decode::unstructured(value).replace(' ', "");
    let id = id.strip_prefix('<').unwrap_or(&id);
    // A comment may stand behind it.
    id.split('>').next().unwrap_or(id).to_owned()
}

/// The parts of a multipart body (RFC 2046 §5.1.1): what lies between lines of
/// `--` and the boundary. What is before the first and after the closing line
/// is not shown to readers. Where the closing line is missing, the last part
/// goes to the end.
struct Delimited<'a> {
    body: &'a [u8],
    finder: memmem::Finder<'static>,
    /// Where the next part starts, once the first delimiter is found.
    start: Option<usize>,
}

/// A delimiter line: where what is before it ends, where it ends itself, and
/// whether it closes the multipart.
struct Delimiter {
    before: usize,
    after: usize,
    closing: bool,
}

impl<'a> Delimited<'a> {
    fn new(body: &'a [u8], boundary: &[u8]) -> Self {
        let line = [b"--", boundary.trim_ascii_end()].concat();
        let finder = memmem::Finder::new(&line).into_owned();
        let mut all = Self { body, finder, start: None };
        all.start = all.delimiter(0).filter(|first| !first.closing).map(|first| first.after);
        all
    }

    fn delimiter(&self, from: usize) -> Option<Delimiter> {
        let mut at = from;
        while let Some(found) = self.finder.find(&self.body[at..]).map(|n| at + n) {
            at = found + 2;
            if found > 0 && self.body[found - 1] != b'\n' {
                continue;
            }
            let rest = &self.body[found + self.finder.needle().len()..];
            let (rest, closing) = match rest.strip_prefix(b"--") {
                Some(rest) => (rest, true),
                None => (rest, false),
            };
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |n| n + 1);
            if rest[..end].iter().all(u8::is_ascii_whitespace) {
                let before = &self.body[..found];
                let before = before.strip_suffix(b"\n").unwrap_or(before);
                let before = before.strip_suffix(b"\r").unwrap_or(before).len();
                return Some(Delimiter { before, after: self.body.len() - rest.len() + end, closing });
            }
        }
        None
    }
}

impl<'a> Iterator for Delimited<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.start.take()?;
        match self.delimiter(start) {
            Some(next) => {
                self.start = (!next.closing).then_some(next.after);
                Some(&self.body[start..next.before.max(start)])
            }
            None => Some(&self.body[start..]),
        }
    }
}
