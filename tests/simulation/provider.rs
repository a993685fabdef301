//! A provider that honours keys: the second message with a value that it knows
//! is answered with 250 and delivered to nobody.

use std::collections::BTreeMap;

use super::content::values;

/// The field that it reads (`idempotency_header`).
pub const HEADER: &str = "X-Provider-Key";

/// What it answers to a value that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// A 250 of its own.
    Accepts,
    /// The reply to the first.
    Repeats,
}

/// What it remembers, longer than any window: which transaction was accepted
/// with which value.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<String, usize>);

impl Known {
    /// Notes the acceptance of a transaction, or answers the one before it.
    pub fn note(&mut self, key: String, transaction: usize) -> Option<usize> {
        match self.0.get(&key) {
            Some(first) => Some(*first),
            None => {
                self.0.insert(key, transaction);
                None
            }
        }
    }
}

/// The one value in a message.
///
/// # Errors
/// What is wrong where there is not exactly one, of 64 hex digits.
pub fn key_of(content: &str) -> Result<String, String> {
    let keys = values(content, HEADER);
    let is_key = |key: &str| key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit());
    match &keys[..] {
        [key] if is_key(key.trim()) => Ok(key.trim().to_owned()),
        keys => Err(format!("the provider gets the keys {keys:?}")),
    }
}
