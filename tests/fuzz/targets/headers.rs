//! The header section, what is changed of it, and what goes upstream.

use std::cell::RefCell;

use mailonce::message::edit::Edits;
use mailonce::message::{Budget, Content, Headers, Rendition, Spool};
use mailonce::smtp::data::{Decoder, Framing};
use tokio::runtime::{Builder, Runtime};

use super::choice;
use super::wire::{no_bare_newlines, reply_lines};

/// Whole messages in memory; a few in a temporary file.
const IN_MEMORY: u64 = 1 << 20;

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().build().expect("a runtime"));
}

pub(super) fn run(data: &[u8]) {
    let (choice, wire) = choice(data);
    let message = received(wire);
    let content = spooled(&message, if choice == 255 { 16 } else { IN_MEMORY });
    let headers = match Headers::parse(content.head()) {
        Ok(headers) => headers,
        Err(fault) => {
            let mut wire = Vec::new();
            fault.reply().write_to(&mut wire);
            assert_eq!(reply_lines(&wire)[0].0, 554);
            return;
        }
    };
    found(&headers, &message);
    let none = Edits::default().apply(&headers, &content, choice & 2 != 0);
    assert_eq!(none.is_eight_bit(), choice & 2 != 0);
    if mailbox_lines(&message) == 0 {
        assert_eq!(sent(&none), message, "a message that nothing is changed of");
    }
    edited(&headers, &content, &message, choice);
}

/// What the session makes of it.
pub(super) fn received(wire: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(Framing::Chunks);
    let mut message = Vec::new();
    decoder.push(wire, &mut message);
    decoder.finish(&mut message);
    message
}

/// The message as it is kept.
pub(super) fn spooled(message: &[u8], in_memory: u64) -> Content {
    let mut spool = Spool::new(Budget::new(u64::MAX), in_memory);
    let content = async {
        for piece in message.chunks(1000) {
            spool.buffer(piece.len()).extend_from_slice(piece);
            spool.settle().await?;
        }
        spool.finish().await
    };
    let content = RUNTIME.with_borrow(|runtime| runtime.block_on(content)).expect("room");
    assert_eq!(content.len(), message.len() as u64);
    content
}

fn sent(rendition: &Rendition) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = rendition.reader(&[]);
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            while let Some(block) = reader.next().await.expect("a file") {
                out.extend_from_slice(block);
            }
        });
    });
    assert_eq!(rendition.len(), out.len() as u64);
    out
}

/// A field as a plain reader finds it: its name in lower case, and all of it.
pub(super) type Field<'a> = (String, &'a [u8]);

/// Octets of the lines of a mailbox file that stand in front.
pub(super) fn mailbox_lines(message: &[u8]) -> usize {
    let is_one = |line: &&[u8]| {
        let text = String::from_utf8_lossy(line);
        let rest = text.strip_prefix('>').unwrap_or(&text).strip_prefix("From ");
        rest.is_some_and(|rest| !rest.trim_start_matches([' ', '\t']).starts_with(':'))
    };
    message.split_inclusive(|b| *b == b'\n').take_while(is_one).map(<[u8]>::len).sum()
}

/// The fields, and where they end: lines up to the first that is none.
pub(super) fn fields(message: &[u8]) -> (Vec<Field<'_>>, usize) {
    let mut found: Vec<(String, usize, usize)> = Vec::new();
    let mut at = 0;
    for line in message.split_inclusive(|b| *b == b'\n') {
        let blank = matches!(line[0], b' ' | b'\t');
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name = name.trim_end_matches([' ', '\t']);
        let is_name = !name.is_empty() && name.bytes().all(|b| matches!(b, b'!'..=b'~'));
        match found.last_mut() {
            Some((_, _, end)) if blank => *end += line.len(),
            _ if line.contains(&b':') && is_name => {
                found.push((name.to_ascii_lowercase(), at, at + line.len()));
            }
            _ => break,
        }
        at += line.len();
    }
    (found.into_iter().map(|(name, start, end)| (name, &message[start..end])).collect(), at)
}

fn found(headers: &Headers, message: &[u8]) {
    let start = mailbox_lines(message);
    let (fields, end) = fields(&message[start..]);
    let end = start + end;
    assert_eq!(headers.mailbox_lines().collect::<Vec<_>>().concat(), &message[..start]);
    assert_eq!((headers.len(), headers.is_empty()), (end, fields.is_empty()));
    let mut names = Vec::new();
    let kept = headers.without(|name| {
        names.push(name.to_owned());
        false
    });
    assert!(names.iter().eq(fields.iter().map(|(name, _)| name)));
    assert_eq!(
        kept.iter().map(|range| &message[range.clone()]).collect::<Vec<_>>().concat(),
        &message[start..end]
    );
    for name in names {
        let count = fields.iter().filter(|(other, _)| *other == name).count();
        assert_eq!((headers.values(&name).count(), headers.as_written(&name).count()), (count, count));
        for value in headers.as_written(&name) {
            assert!(!value.contains(['\r', '\n']), "{value:?} is not unfolded");
        }
        for value in headers.values(&name).chain(headers.as_written(&name)) {
            assert_eq!(value.trim_matches([' ', '\t']), value);
        }
    }
}

fn edited(headers: &Headers, content: &Content, message: &[u8], choice: u8) {
    let edits = Edits {
        late: None,
        received: "Received: from a\r\n\tby b\r\n".to_owned(),
        remove: vec!["x-idempotency-key".to_owned(), "a".to_owned()],
        replace: match choice & 1 {
            0 => Vec::new(),
            _ => vec![
                ("Message-ID".to_owned(), b"Message-Id:<first@a.test>".to_vec()),
                ("Date".to_owned(), b"Date: then\r\n (folded)".to_vec()),
            ],
        },
    };
    let out = sent(&edits.apply(headers, content, false));
    no_bare_newlines(&out);
    assert!(out.ends_with(b"\r\n"));

    let start = mailbox_lines(message);
    let (fields, end) = fields(&message[start..]);
    let end = start + end;
    let signed = headers.signed_names();
    let is_signed = |name: &str| signed.iter().any(|signed| signed == name);
    let replaced = |name: &str| edits.replace.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let forbids = headers.oversigns("received");
    let mut expected = if forbids { Vec::new() } else { edits.received.clone().into_bytes() };
    for (name, field) in &edits.replace {
        if !is_signed(&name.to_ascii_lowercase()) {
            expected.extend_from_slice(&[field, &b"\r\n"[..]].concat());
        }
    }
    for line in headers.mailbox_lines().filter(|_| !is_signed("x-mailbox-line")) {
        expected.extend([b"X-Mailbox-Line: ", line].concat());
    }
    let ours = expected.len();
    for (name, all) in &fields {
        let gone = edits.remove.contains(name) || replaced(name);
        if !gone || is_signed(name) {
            expected.extend_from_slice(all);
        }
    }
    let rest = &message[end..];
    if expected.len() == ours && !rest.is_empty() && !rest.starts_with(b"\r\n") {
        expected.extend_from_slice(b"\r\n");
    }
    expected.extend_from_slice(rest);
    assert_eq!(out, expected);
    still_itself(&out, message, end, &edits);
}

/// The upstream finds the same body, and none of the fields that were removed.
fn still_itself(out: &[u8], message: &[u8], end: usize, edits: &Edits) {
    let (fields, out_end) = fields(out);
    let (body, rest) = (&out[out_end..], &message[end..]);
    let kept_apart = body.strip_prefix(b"\r\n").filter(|body| body.len() == rest.len());
    assert_eq!(kept_apart.unwrap_or(body), rest, "the body begins elsewhere now");
    let signed = fields.iter().any(|(name, _)| name == "dkim-signature");
    assert!(signed || !fields.iter().any(|(name, _)| edits.remove.contains(name)));
}
