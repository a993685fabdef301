//! The fingerprint: SHA-256 over what a message means, so that two renderings
//! of one e-mail count as the same and any change a reader could see does not.
//!
//! In it: the From addresses, the decoded Subject, and every MIME leaf in
//! order with its media type, disposition, file name and decoded content; text
//! as UTF-8 with line ends and trailing blanks normalised. Not in it: Date,
//! Message-ID, trace and X- fields, MIME boundaries, transfer encodings.

use std::fmt;

use mail_parser::{HeaderName, HeaderValue, Message, MessageParser, MessagePart, MimeHeaders, PartType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 over the meaning of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// PLACEHOLDER
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exclude(Vec<String>);

/// PLACEHOLDER
#[derive(Clone, Debug)]
pub struct ExcludeFault {
    /// x
    pub index: usize,
}

impl fmt::Display for ExcludeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("x")
    }
}

impl Exclude {
    /// PLACEHOLDER
    pub fn new(patterns: &[String]) -> Result<Self, ExcludeFault> {
        Ok(Self(patterns.to_vec()))
    }
}

/// Nested messages are parsed by recursion; deeper than this could overflow a
/// thread's stack.
const MAX_NESTED: usize = 20;
/// Text is hashed in blocks of about so many octets.
const BLOCK: usize = 16 * 1024;
/// A multipart whose boundary never appears costs a scan of the whole message.
const MAX_MULTIPARTS: usize = 100;

/// The fingerprint of a whole message. Takes about 10 µs for 5 KiB and 3 ms
/// for each MiB: large messages belong off the runtime's threads.
pub fn fingerprint(message: &[u8], _: &Exclude) -> Fingerprint {
    let mut digest = Parts::new();
    match parse(message) {
        Some(parsed) => digest.message(&parsed),
        None => digest.raw(message),
    }
    digest.finish()
}

/// The parsed message, unless its structure is broken or beyond what the
/// parser handles safely.
fn parse(message: &[u8]) -> Option<Message<'_>> {
    let count = |word: &[u8]| count_ignoring_case(message, word);
    if count(b"message/") > MAX_NESTED || count(b"multipart/") > MAX_MULTIPARTS {
        return None;
    }
    let parsed = MessageParser::default().parse(message)?;
    let broken = parsed.parts.iter().any(|part| part.is_encoding_problem);
    (!broken).then_some(parsed)
}

/// How often `word` (ending in `/`) stands in `text`, in any case.
fn count_ignoring_case(text: &[u8], word: &[u8]) -> usize {
    let at_slash = |slash: usize| {
        let start = (slash + 1).checked_sub(word.len())?;
        Some(text[start..=slash].eq_ignore_ascii_case(word))
    };
    memchr::memchr_iter(b'/', text).filter(|slash| at_slash(*slash) == Some(true)).count()
}

/// A digest over parts that can't run into each other: each has a tag and its
/// length in front.
struct Parts(Sha256);

impl Parts {
    fn new() -> Self {
        let mut parts = Self(Sha256::new());
        parts.add(b'v', b"mailonce fingerprint 1");
        parts
    }

    fn add(&mut self, tag: u8, bytes: &[u8]) {
        self.0.update([tag]);
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }

    fn message(&mut self, message: &Message<'_>) {
        for address in message.header_values(HeaderName::From).filter_map(HeaderValue::as_address) {
            for address in address.iter().filter_map(|a| a.address()) {
                self.add(b'f', address.to_lowercase().as_bytes());
            }
        }
        self.add(b's', message.subject().unwrap_or_default().trim().as_bytes());
        for part in &message.parts {
            self.part(part);
        }
    }

    fn part(&mut self, part: &MessagePart<'_>) {
        match &part.body {
            PartType::Multipart(_) => return,
            PartType::Message(message) => {
                self.add(b'n', b"");
                self.message(message);
                return self.add(b'e', b"");
            }
            PartType::Text(_) | PartType::Html(_) | PartType::Binary(_) | PartType::InlineBinary(_) => {}
        }
        self.add(b't', media_type(part).as_bytes());
        let disposition = part.content_disposition().map(|d| d.ctype().to_ascii_lowercase());
        self.add(b'd', disposition.unwrap_or_default().as_bytes());
        self.add(b'a', part.attachment_name().unwrap_or_default().as_bytes());
        match &part.body {
            PartType::Text(text) | PartType::Html(text) => self.text(text.as_bytes()),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => self.add(b'b', bytes),
            PartType::Message(_) | PartType::Multipart(_) => {}
        }
    }

    /// Lines without their ends and trailing blanks; empty lines at the end
    /// of the text do not count.
    fn text(&mut self, text: &[u8]) {
        // A digest of its own, because the length is known only at the end.
        let mut blocks = Blocks::default();
        let mut empty = 0;
        for line in text.split(|&b| b == b'\n') {
            let line = line.trim_ascii_end();
            if line.is_empty() {
                empty += 1;
                continue;
            }
            for _ in 0..std::mem::take(&mut empty) {
                blocks.push(b"\n");
            }
            blocks.push(line);
            blocks.push(b"\n");
        }
        self.add(b'l', &blocks.finish());
    }

    /// For what can't be parsed: From, Subject and the body as they stand.
    fn raw(&mut self, message: &[u8]) {
        self.add(b'r', b"");
        let headers = MessageParser::default().parse_headers(message);
        if let Some(headers) = headers {
            self.add(b'f', headers.header_raw(HeaderName::From).unwrap_or_default().trim().as_bytes());
            self.add(b's', headers.subject().unwrap_or_default().trim().as_bytes());
        }
        let body = memchr::memmem::find(message, b"\r\n\r\n").map_or(message, |at| &message[at + 4..]);
        self.text(body);
    }
}

/// Gathers small pieces for a digest, which takes large ones more cheaply.
#[derive(Default)]
struct Blocks {
    digest: Sha256,
    block: Vec<u8>,
}

impl Blocks {
    fn push(&mut self, piece: &[u8]) {
        if self.block.len() + piece.len() > BLOCK {
            self.digest.update(&self.block);
            self.block.clear();
        }
        if piece.len() > BLOCK {
            self.digest.update(piece);
        } else {
            self.block.extend_from_slice(piece);
        }
    }

    fn finish(mut self) -> [u8; 32] {
        self.digest.update(&self.block);
        self.digest.finalize().into()
    }
}

fn media_type(part: &MessagePart<'_>) -> String {
    match part.content_type() {
        Some(media) => {
            format!("{}/{}", media.ctype(), media.subtype().unwrap_or_default()).to_ascii_lowercase()
        }
        None => "text/plain".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(message: &[u8]) -> Fingerprint {
        super::fingerprint(message, &Exclude::default())
    }

    const PLAIN: &str = "From: App <app@x.example>\r\nSubject: Caf\u{e9}\r\nMessage-ID: <1@x>\r\nDate: now\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\r\nCaf\u{e9} is open  \r\nbye\r\n";

    #[test]
    fn another_rendering_of_the_same_mail_is_the_same() {
        let encoded = "Received: from a\r\nX-Try: 2\r\nDate: later\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n\
            FROM: \"Other name\" <APP@x.example>\r\nMIME-Version: 1.0\r\n\
            Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
            Caf=E9 is =\r\nopen\r\nbye\r\n\r\n";
        let base64 = "From: app@x.example\r\nSubject: =?utf-8?b?Q2Fmw6k=?=\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Transfer-Encoding: base64\r\n\r\nQ2Fmw6kgaXMgb3BlbgpieWUK\r\n";
        assert_eq!(fingerprint(PLAIN.as_bytes()), fingerprint(encoded.as_bytes()));
        assert_eq!(fingerprint(PLAIN.as_bytes()), fingerprint(base64.as_bytes()));
    }

    #[test]
    fn boundaries_do_not_count_but_attachments_do() {
        let multipart = |boundary: &str, name: &str, data: &str| {
            format!(
                "From: a@x\r\nSubject: s\r\nContent-Type: multipart/mixed; boundary={boundary}\r\n\r\n--{boundary}\r\n\r\n\
                 hello\r\n--{boundary}\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; \
                 filename={name}\r\nContent-Transfer-Encoding: base64\r\n\r\n{data}\r\n--{boundary}--\r\n"
            )
        };
        let one = fingerprint(multipart("b1", "a.pdf", "QUJD").as_bytes());
        assert_eq!(one, fingerprint(multipart("other", "a.pdf", "QUJD").as_bytes()));
        assert_ne!(one, fingerprint(multipart("b1", "b.pdf", "QUJD").as_bytes()));
        assert_ne!(one, fingerprint(multipart("b1", "a.pdf", "QUJE").as_bytes()));
    }

    #[test]
    fn any_visible_change_counts() {
        let one = fingerprint(PLAIN.as_bytes());
        for (from, to) in
            [("is open", "is closed"), ("Subject: C", "Subject: K"), ("app@x", "ap@x"), ("bye", "\r\nbye")]
        {
            assert_ne!(one, fingerprint(PLAIN.replace(from, to).as_bytes()), "{from} -> {to}");
        }
    }

    #[test]
    fn hostile_mime_is_hashed_without_being_parsed() {
        let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(50_000);
        let many = "Content-Type: Multipart/mixed; boundary=x\r\n\r\n--x\r\n".repeat(20_000);
        assert_ne!(fingerprint(nested.as_bytes()), fingerprint(many.as_bytes()));
        let changed = format!("{nested}x");
        assert_ne!(fingerprint(nested.as_bytes()), fingerprint(changed.as_bytes()));
        fingerprint(b"");
        fingerprint(b"no header at all");
    }
}
