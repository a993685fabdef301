//! The fingerprint: one for every rendering, another for another text.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailonce::message::fingerprint::{
    Exclude, Ingredients, Manner, Why, fingerprint, first_difference, ingredients,
};

use super::choice;
use super::headers::{mailbox_lines, received};
use super::wire::Dice;

static EXCLUDE: LazyLock<Exclude> = LazyLock::new(|| {
    let patterns = [r"\d\d:\d\d", r"id=[a-z0-9]+", r"^-- $", r"x.*y"];
    Exclude::new(&patterns.map(str::to_owned)).expect("patterns")
});

pub(super) fn run(data: &[u8]) {
    let (choice, message) = choice(data);
    let none = Exclude::default();
    // `explain` reads files as they are, the proxy what it received.
    let normal = if choice & 1 == 0 { received(message) } else { message.to_vec() };
    let exclude = if choice & 2 == 0 { &none } else { &*EXCLUDE };
    listed(&normal, exclude);
    both_agree(&normal, &changed(&normal, &mut Dice::new(choice)), exclude);
    match choice & 4 {
        0 => what_does_not_count(&normal, exclude),
        _ => renderings(message, exclude),
    }
}

/// What is listed is bounded by the message.
fn listed(message: &[u8], exclude: &Exclude) {
    let all = ingredients(message, exclude);
    let octets: usize = all.list.iter().map(|one| one.place.len() + one.value.len()).sum();
    assert!(octets <= 32 * message.len() + 4096, "{octets} of {}", message.len());
    assert_eq!(fingerprint(message, exclude), fingerprint(message, exclude));
}

/// The hash and the list are two sinks of one walk: they see the same.
fn both_agree(one: &[u8], other: &[u8], exclude: &Exclude) {
    let same = fingerprint(one, exclude) == fingerprint(other, exclude);
    let (one, other) = (ingredients(one, exclude), ingredients(other, exclude));
    assert_eq!(same, one == other, "{:?}", first_difference(&one, &other));
    assert_eq!(same, first_difference(&one, &other).is_none());
    if let Some(difference) = first_difference(&one, &other) {
        let shown = difference.first.iter().chain(&difference.second);
        assert!(shown.into_iter().all(|text| !text.contains(['\n', '\r'])));
    }
}

/// An octet is left out, doubled, or another one.
fn changed(message: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut changed = message.to_vec();
    if !changed.is_empty() {
        let at = dice.below(changed.len());
        match dice.below(3) {
            0 => drop(changed.remove(at)),
            1 => changed.insert(at, changed[at]),
            _ => changed[at] ^= 1 << dice.below(8),
        }
    }
    changed
}

const TRACE: &[u8] =
    b"Received: from a\r\n\tby b; today\r\nDate: now\r\nMessage-ID: <1@b>\r\nX-Mailer: m\r\n\
DKIM-Signature: v=1; h=from\r\nMIME-Version: 1.0\r\nTo: c@c.test\r\n";

/// Fields that hops and generators add are not in it.
fn what_does_not_count(message: &[u8], exclude: &Exclude) {
    // They would be the start of a line that goes on.
    if matches!(message.first(), Some(b' ' | b'\t')) || mailbox_lines(message) > 0 {
        return;
    }
    let added = [TRACE, message].concat();
    let (before, after) = (ingredients(message, exclude), ingredients(&added, exclude));
    // There may have been as many fields as are taken.
    if after.manner == Manner::Raw(Why::LongHeader) {
        return;
    }
    assert_eq!(first_difference(&before, &after), None);
    assert_eq!(fingerprint(message, exclude), fingerprint(&added, exclude));
}

/// One content in every transfer encoding and between other boundaries.
fn renderings(content: &[u8], exclude: &Exclude) {
    for media in ["application/octet-stream", "text/plain; charset=utf-8"] {
        let plain = rendered(media, content, Encoding::Identity, "=_one");
        let first = ingredients(&plain, exclude);
        assert_eq!((first.manner, first.list.len()), (Manner::Parsed, 3));
        for (encoding, boundary) in
            [(Encoding::Identity, "two"), (Encoding::Base64, "3"), (Encoding::QuotedPrintable, "f o u r")]
        {
            let other = rendered(media, content, encoding, boundary);
            same(&first, &ingredients(&other, exclude), encoding);
            assert_eq!(fingerprint(&plain, exclude), fingerprint(&other, exclude));
        }
        let more = rendered(media, &[content, b"x"].concat(), Encoding::Base64, "=_one");
        let none = Exclude::default();
        assert_ne!(fingerprint(&plain, &none), fingerprint(&more, &none), "an octet does not count");
    }
}

#[track_caller]
fn same(one: &Ingredients, other: &Ingredients, encoding: Encoding) {
    assert_eq!(first_difference(one, other), None, "{encoding:?}");
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Identity,
    Base64,
    QuotedPrintable,
}

fn rendered(media: &str, content: &[u8], encoding: Encoding, boundary: &str) -> Vec<u8> {
    let (name, body) = match encoding {
        Encoding::Identity => ("binary", content.to_vec()),
        Encoding::Base64 => {
            let text = BASE64.encode(content);
            let lines: Vec<&[u8]> = text.as_bytes().chunks(76).collect();
            ("BASE64", lines.join(&b"\r\n"[..]))
        }
        Encoding::QuotedPrintable => {
            let escaped: Vec<String> = content.iter().map(|byte| format!("={byte:02X}")).collect();
            let lines: Vec<String> = escaped.chunks(25).map(<[String]>::concat).collect();
            ("quoted-printable", lines.join("=\r\n").into_bytes())
        }
    };
    // No content that was ever generated holds this.
    let boundary = format!("{boundary}-4f9a1c07d2");
    let head = format!(
        "From: a@a.test\r\nSubject: s\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: {name}\r\n\r\n"
    );
    [head.as_bytes(), &body, format!("\r\n--{boundary}--\r\n").as_bytes()].concat()
}
