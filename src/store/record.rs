//! What is remembered of a claim.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::attempt::Attempt;
use super::marks::Marks;
use super::names::{Names, WrittenField};
use crate::clock::Timestamp;
pub use crate::message::fingerprint::Fingerprint;
use crate::smtp::reply::{Class, Reply};

/// How many attempts a record keeps.
pub const MAX_ATTEMPTS: usize = 8;

/// How many suppressions a record keeps.
pub const MAX_SUPPRESSED: usize = 8;

/// SHA-256 over the identity of an e-mail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimId(pub [u8; 32]);

impl ClaimId {
    /// The lowest of all.
    pub const FIRST: Self = Self([0; 32]);
    /// The highest of all.
    pub const LAST: Self = Self([0xff; 32]);

    /// The first 16 hex digits: how logs name a claim.
    pub fn short(&self) -> String {
        hex(&self.0[..8])
    }

    /// The id that these 64 hex digits write out.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimId({})", self.short())
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The 32 octets that 64 hex digits of either case write out.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let octets = digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8);
    let octets: Vec<u8> = octets.collect();
    if digits.len() == 64 { octets.try_into().ok() } else { None }
}

/// Names one attempt; unique over all processes that share a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The process: a random number drawn at its start.
    pub owner: u64,
    /// The attempt within the process.
    pub attempt: u64,
}

/// Where a claim is in its life (semantics: none, pending, committing, then
/// one of four ends).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Claimed; nothing that the upstream could act on has been sent.
    Pending {
        /// Who holds it.
        holder: Token,
        /// When it may be taken by another.
        lease_until: Timestamp,
    },
    /// The last byte may have left.
    Committing {
        /// Who holds it.
        holder: Token,
    },
    /// Ended.
    Settled(Outcome),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The upstream took responsibility: 2yz.
    Accepted(Reply),
    /// 4yz, or the upstream could not be reached; may be claimed again.
    Deferred(Reply),
    /// 5yz; may be claimed again.
    Refused(Reply),
    /// The upstream may or may not have accepted, and nobody can know. The
    /// reply is what the first client hears.
    InDoubt(Reply),
}

/// A state by its name alone, as people and programs write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Claimed, nothing sent.
    Pending,
    /// The last byte may have left.
    Committing,
    /// Accepted by the upstream.
    Accepted,
    /// 4yz; may be sent again.
    Deferred,
    /// 5yz; may be sent again.
    Refused,
    /// Nobody knows whether it was sent.
    InDoubt,
}

impl StateName {
    /// Every state, in the order of a claim's life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Committing, Self::Accepted, Self::Deferred, Self::Refused, Self::InDoubt];

    /// `pending`, `committing`, `accepted`, `deferred`, `refused` or `in_doubt`.
    pub fn as_str(self) -> &'static str {
        match self {
            StateName::Pending => "pending",
            StateName::Committing => "committing",
            StateName::Accepted => "accepted",
            StateName::Deferred => "deferred",
            StateName::Refused => "refused",
            StateName::InDoubt => "in_doubt",
        }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for StateName {
    type Err = String;

    /// Also takes `in-doubt`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.replace('-', "_");
        Self::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is no state; write one of {names}")
        })
    }
}

impl State {
    /// Its name.
    pub fn name(&self) -> StateName {
        match self {
            State::Pending { .. } => StateName::Pending,
            State::Committing { .. } => StateName::Committing,
            State::Settled(Outcome::Accepted(_)) => StateName::Accepted,
            State::Settled(Outcome::Deferred(_)) => StateName::Deferred,
            State::Settled(Outcome::Refused(_)) => StateName::Refused,
            State::Settled(Outcome::InDoubt(_)) => StateName::InDoubt,
        }
    }

    /// Who holds the claim, while it is in flight.
    pub fn holder(&self) -> Option<Token> {
        match self {
            State::Pending { holder, .. } | State::Committing { holder } => Some(*holder),
            State::Settled(_) => None,
        }
    }
}

impl Outcome {
    /// The outcome that a definite reply of the upstream means.
    pub fn of_reply(reply: Reply) -> Self {
        match reply.class() {
            Class::Success => Outcome::Accepted(reply),
            Class::Transient => Outcome::Deferred(reply),
            Class::Intermediate | Class::Permanent => Outcome::Refused(reply),
        }
    }

    /// The reply that came with it.
    pub fn reply(&self) -> &Reply {
        match self {
            Outcome::Accepted(reply)
            | Outcome::Deferred(reply)
            | Outcome::Refused(reply)
            | Outcome::InDoubt(reply) => reply,
        }
    }
}

/// A duplicate or a conflict that was answered from the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// When it came.
    pub at: Timestamp,
    /// The address of the client that sent it.
    pub client: String,
}

/// The audit trail of one claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was claimed.
    pub id: ClaimId,
    /// Whose it is.
    pub tenant: String,
    /// `header`, `event`, `content` or `message-id`.
    pub strategy: String,
    /// The key as given.
    pub key: String,
    /// Empty where one claim covers the whole message.
    pub recipient: String,
    /// The reverse-path.
    pub sender: String,
    /// The rule that matched; empty without one.
    pub rule: String,
    /// What the message meant.
    pub fingerprint: Fingerprint,
    /// Where it stands.
    pub state: State,
    /// The upstream's address; empty before one was asked.
    pub upstream: String,
    /// Of the first attempt that went in doubt, else of the latest.
    pub names: Names,
    /// The first attempt that went in doubt, else the latest. A provider that
    /// honours keys is to take all attempts of a series for one e-mail.
    pub series: Token,
    /// Octets as received.
    pub size: u64,
    /// The last [`MAX_ATTEMPTS`] tries.
    pub attempts: Vec<Attempt>,
    /// How many tries there were in all.
    pub attempt_count: u64,
    /// When the id was first claimed.
    pub first_seen: Timestamp,
    /// When the id was last asked for.
    pub last_seen: Timestamp,
    /// When it was settled last.
    pub settled_at: Option<Timestamp>,
    /// Duplicates suppressed.
    pub duplicates: u64,
    /// How long an outcome is remembered.
    pub window: Duration,
    /// How long at least, where the client received no final reply.
    pub unheard_window: Duration,
    /// Whether the client received the final reply to the last attempt.
    pub heard: bool,
    /// When it is forgotten; starts at settlement and does not slide.
    pub expires: Timestamp,
    /// With one claim for a whole message: what is known of its recipients.
    pub marks: Marks,
    /// The last [`MAX_SUPPRESSED`] duplicates and conflicts.
    pub suppressed: Vec<Suppression>,
}

impl Record {
    /// Notes that the id was asked for once more, and not given.
    pub(super) fn touch(&mut self, at: Timestamp, client: &str, kind: Touch) {
        self.last_seen = at;
        self.duplicates += u64::from(kind == Touch::Duplicate);
        if self.suppressed.len() >= MAX_SUPPRESSED {
            self.suppressed.drain(..=self.suppressed.len() - MAX_SUPPRESSED);
        }
        self.suppressed.push(Suppression { at, client: client.to_owned() });
    }

    /// The Message-ID and Date that a new attempt for `slot` is to carry: those
    /// of the attempt that went in doubt, so that a mailbox which got both
    /// shows one. `None` where none is in doubt, where it had no such fields, or
    /// where the slot is for another e-mail.
    pub fn names_for(&self, slot: &super::Slot) -> Option<&Names> {
        Some(&self.names).filter(|names| self.is_resent_as(slot) && !names.is_empty())
    }

    /// The text that the claim stands for when `slot` begins a new attempt: the
    /// first one, as long as any recipient has that or may have it and `slot` is
    /// the same e-mail.
    pub fn fingerprint_for(&self, slot: &super::Slot) -> Fingerprint {
        if self.is_out() && slot.is_same_mail(self) { self.fingerprint } else { slot.fingerprint }
    }

    /// How long the outcome of a new attempt for `slot` is remembered. A window that was made
    /// as long as the unheard one stays so: a client was told to come again, whatever other
    /// clients receive meanwhile ([`super::Reception::ComeAgain`]).
    pub fn window_for(&self, slot: &super::Slot) -> Duration {
        let comes_again = self.window == self.unheard_window && slot.is_same_mail(self);
        if comes_again { slot.window.max(self.window) } else { slot.window }
    }

    /// Whether any recipient has the message, or may have it.
    pub fn is_out(&self) -> bool {
        matches!(self.state.name(), StateName::Accepted | StateName::InDoubt)
            || !self.marks.delivered.is_empty()
    }

    /// Whether a new attempt for `slot` sends what is in doubt once more.
    pub fn is_resent_as(&self, slot: &super::Slot) -> bool {
        self.state.name() == StateName::InDoubt && slot.is_same_mail(self)
    }

    /// The Message-ID as people read it.
    pub fn message_id(&self) -> Option<String> {
        self.names.message_id.as_ref().map(WrittenField::text)
    }
}

/// Why a record answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Duplicate,
    Conflict,
}

/// A short stand-in for a recipient in [`Record::marks`].
pub fn recipient_mark(identity: &str) -> u64 {
    mark(identity)
}

/// A short stand-in for a key in the index of keys. Two keys may share one.
pub(super) fn key_mark(key: &str) -> u64 {
    mark(key)
}

fn mark(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}
