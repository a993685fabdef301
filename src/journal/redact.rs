//! What a log line shows of people.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::Decision;
use crate::config::Redact;
use crate::store::record::hex;

/// The fields of a decision that may be hidden, as they are to be shown.
pub(super) struct Shown<'a> {
    pub(super) from: Cow<'a, str>,
    pub(super) to: Cow<'a, str>,
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) message_id: Option<Cow<'a, str>>,
    pub(super) reply: Option<String>,
}

pub(super) fn shown(decision: &Decision, redact: Redact) -> Shown<'_> {
    let context = &decision.context;
    let key = decision.key.as_deref();
    let message_id = context.message_id.as_deref();
    let reply = decision.reply.as_ref();
    match redact {
        Redact::None => Shown {
            from: Cow::Borrowed(&context.from),
            to: Cow::Borrowed(&decision.to),
            key: key.map(Cow::Borrowed),
            message_id: message_id.map(Cow::Borrowed),
            reply: reply.map(ToString::to_string),
        },
        Redact::Recipient => Shown {
            from: Cow::Borrowed(&context.from),
            to: Cow::Owned(hide_local_part(&decision.to)),
            // A key often is made with the address in it.
            key: key.map(|key| Cow::Owned(hide_mentions(key, &decision.to))),
            message_id: message_id.map(Cow::Borrowed),
            reply: reply.map(|reply| hide_mentions(&hide_addresses(&reply.to_string()), &decision.to)),
        },
        Redact::All => Shown {
            from: Cow::Owned(digest(&context.from)),
            to: Cow::Owned(digest(&decision.to)),
            key: key.map(|key| Cow::Owned(digest_exactly(key))),
            message_id: message_id.map(|id| Cow::Owned(digest_exactly(id))),
            reply: reply.map(|reply| match reply.enhanced_code() {
                Some(enhanced) => format!("{} {enhanced}", reply.code()),
                None => reply.code().to_string(),
            }),
        },
    }
}

/// The first 12 hex digits of the SHA-256 of the lower-cased text: what
/// `printf %s ann | sha256sum | cut -c1-12` prints. Nothing stays nothing.
fn digest(text: &str) -> String {
    digest_exactly(&text.to_lowercase())
}

fn digest_exactly(text: &str) -> String {
    if text.is_empty() { String::new() } else { hex(&Sha256::digest(text.as_bytes())[..6]) }
}

/// The address with its local part hashed; what is no address is hashed whole.
fn hide_local_part(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}@{domain}", digest(local)),
        None => digest(address),
    }
}

/// The text with everything that looks like an address hidden: the reply for
/// one recipient may name others.
fn hide_addresses(text: &str) -> String {
    let in_address = |c: char| c.is_alphanumeric() || "!#$%&*+-/=?^_`{|}~.@".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(in_address) {
        let (before, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|c| !in_address(c)).unwrap_or(word.len()));
        out.push_str(before);
        match word.contains('@') {
            true => out.push_str(&hide_local_part(word)),
            false => out.push_str(word),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The text with the address, and its local part where it stands as a word,
/// hidden; in any case of letters.
fn hide_mentions(text: &str, address: &str) -> String {
    let text = replace_words(text, address, &hide_local_part(address));
    match address.rsplit_once('@') {
        Some((local, _)) => replace_words(&text, local, &digest(local)),
        None => text,
    }
}

fn replace_words(text: &str, word: &str, by: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let end = at + word.len();
        let found = !word.is_empty()
            && text.get(at..end).is_some_and(|part| {
                part.eq_ignore_ascii_case(word)
                    || !word.is_ascii() && part.to_lowercase() == word.to_lowercase()
            })
            && !text[..at].chars().next_back().is_some_and(char::is_alphanumeric)
            && !text[end..].chars().next().is_some_and(char::is_alphanumeric);
        if found {
            out.push_str(by);
            at = end;
        } else {
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}
