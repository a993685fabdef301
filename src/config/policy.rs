//! `[dedup]`: which e-mail is the same, and what follows.

use std::fmt;
use std::time::Duration;

use crate::message::fingerprint::Exclude;

/// `[dedup]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dedup {
    /// The strategies, in order.
    pub chain: Vec<Strategy>,
    /// Fields that carry a key.
    pub headers: Vec<String>,
    /// Fields that name a template.
    pub template_headers: Vec<FieldRef>,
    /// Fields that name an event.
    pub event_headers: Vec<FieldRef>,
    /// What one claim covers.
    pub scope: Scope,
    /// How long outcomes under a header, event or Message-ID key are remembered.
    pub window: Duration,
    /// The same for content keys.
    pub content_window: Duration,
    /// How long at least, whatever the key, where the client received no final
    /// reply.
    pub unheard_window: Duration,
    /// The cap on `X-Idempotency-TTL`.
    pub max_window: Duration,
    /// What a duplicate hears.
    pub on_duplicate: OnDuplicate,
    /// What the same key with another content means.
    pub on_conflict: OnConflict,
    /// What a message hears that some recipients got and others never will.
    pub on_partial: OnPartial,
    /// What an unconfirmed attempt means to the next one.
    pub in_doubt: InDoubt,
    /// What is blanked out before the fingerprint is taken.
    pub fingerprint_exclude: Exclude,
    /// How long a duplicate waits for the attempt under way.
    pub in_flight_wait: Duration,
    /// What happens to a message without a key.
    pub unkeyed: Unkeyed,
    /// Whether to deduplicate at all.
    pub mode: Mode,
    /// What happens to a message that can't be claimed.
    pub on_store_failure: OnStoreFailure,
}

impl Dedup {
    /// Whether a message goes out although it can't be claimed.
    pub fn relays_unclaimed(&self) -> bool {
        self.on_store_failure == OnStoreFailure::Relay || self.mode == Mode::Observe
    }
}

/// How a key is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A header field that the application sets.
    Header,
    /// Template and event header fields.
    Event,
    /// The fingerprint of the message.
    Content,
    /// The Message-ID field.
    MessageId,
}

impl Strategy {
    /// As written in the configuration, logs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Header => "header",
            Strategy::Event => "event",
            Strategy::Content => "content",
            Strategy::MessageId => "message-id",
        }
    }
}

/// What one claim covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One envelope recipient.
    Recipient,
    /// The whole message.
    Message,
}

/// What a duplicate of an accepted message hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDuplicate {
    /// The stored reply of the upstream.
    Accept,
    /// `554 5.5.0 [DUPLICATE]`.
    Reject,
}

/// What the same id with another fingerprint means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// `554 5.5.0 [CONFLICT]`.
    Reject,
    /// The same as a duplicate.
    Suppress,
    /// A new attempt that takes the claim over.
    Relay,
}

/// What a message hears that is mixed of 2yz and 5yz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPartial {
    /// `554 5.5.0 [PARTIAL]`.
    Report,
    /// The reply of those accepted.
    Accept,
}

/// What an unconfirmed attempt means to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InDoubt {
    /// It counts as sent: at most once.
    Suppress,
    /// It is sent again: at least once.
    Resend,
    /// Wait for an operator.
    Hold,
}

/// What happens to a message without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unkeyed {
    /// Relayed without a claim.
    Relay,
    /// `550 5.7.0 [UNKEYED]`.
    Reject,
}

/// Whether to deduplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Yes.
    Enforce,
    /// Claims and records, but relays everything and refuses nothing: what
    /// would have been suppressed is only written down.
    Observe,
    /// No key, no claim.
    Off,
}

/// What happens to a message that can't be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreFailure {
    /// `451 4.3.0 [STORE]`.
    Defer,
    /// Relayed without a claim.
    Relay,
}

/// A header field, or one member of the JSON that it holds: `X-Event-Id`,
/// `X-SMTPAPI#/unique_args` (behind the `#` a JSON Pointer, RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRef {
    /// The field's name.
    pub name: String,
    /// Where in its JSON; `None`: its whole value.
    pub pointer: Option<String>,
}

impl FieldRef {
    /// Reads `Name` or `Name#/pointer`. The name is not checked.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('#') {
            None => Some(Self { name: text.to_owned(), pointer: None }),
            Some((name, pointer)) if pointer.starts_with('/') => {
                Some(Self { name: name.to_owned(), pointer: Some(pointer.to_owned()) })
            }
            Some(_) => None,
        }
    }
}

impl fmt::Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pointer {
            None => f.write_str(&self.name),
            Some(pointer) => write!(f, "{}#{pointer}", self.name),
        }
    }
}
