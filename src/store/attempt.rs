//! The attempts of a claim: when each ended, and how.

use serde::{Deserialize, Serialize};

use super::record::{Outcome, State};
use crate::clock::Timestamp;

/// One try at sending, or what an operator said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// How it ended.
    pub kind: AttemptKind,
    /// The reply on one line, cut to 256 characters.
    pub reply: String,
}

/// How an attempt ended. Stored by its place in this list: new ones go last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptKind {
    /// 2yz.
    Accepted,
    /// 4yz, or the upstream could not be reached.
    Deferred,
    /// 5yz.
    Refused,
    /// The final dot left, and no reply came.
    NoAnswer,
    /// The proxy ended between the commit and the outcome.
    Restart,
    /// Another text took the claim over between the commit and the outcome.
    TakenOver,
    /// The attempt panicked between the commit and the outcome.
    Panic,
    /// The record was imported while its attempt was under way elsewhere.
    Imported,
    /// An operator resolved the claim as sent.
    ResolvedSent,
    /// An operator resolved the claim as not sent.
    ResolvedNotSent,
}

impl AttemptKind {
    /// Whether the upstream may or may not have accepted the message.
    pub fn is_doubt(self) -> bool {
        use AttemptKind::{Imported, NoAnswer, Panic, Restart, TakenOver};
        matches!(self, NoAnswer | Restart | TakenOver | Panic | Imported)
    }

    /// Whether an operator decided, and no attempt was made.
    pub fn is_resolution(self) -> bool {
        matches!(self, AttemptKind::ResolvedSent | AttemptKind::ResolvedNotSent)
    }

    /// How an attempt ended of which only the reply is known: before version 3,
    /// records and exports said it in words.
    pub fn of_words(reply: &str) -> Self {
        match reply.as_bytes() {
            _ if reply.starts_with("resolved as sent") => AttemptKind::ResolvedSent,
            _ if reply.starts_with("resolved as not sent") => AttemptKind::ResolvedNotSent,
            _ if reply.contains("[IN-DOUBT]") => AttemptKind::NoAnswer,
            [b'2', ..] => AttemptKind::Accepted,
            [b'5', ..] => AttemptKind::Refused,
            _ => AttemptKind::Deferred,
        }
    }

    /// How an attempt with this outcome ended, where the upstream was asked.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted(_) => AttemptKind::Accepted,
            Outcome::Deferred(_) => AttemptKind::Deferred,
            Outcome::Refused(_) => AttemptKind::Refused,
            Outcome::InDoubt(_) => AttemptKind::NoAnswer,
        }
    }
}

/// The state of a record of before version 3. A deferral or a refusal took the place of a
/// doubt in those versions. It never ended that doubt.
pub(super) fn still_doubtful(state: State, attempts: impl DoubleEndedIterator<Item = AttemptKind>) -> State {
    let mut unresolved = attempts.rev().take_while(|kind| !kind.is_resolution());
    match state {
        State::Settled(Outcome::Deferred(reply) | Outcome::Refused(reply))
            if unresolved.any(AttemptKind::is_doubt) =>
        {
            State::Settled(Outcome::InDoubt(reply))
        }
        state => state,
    }
}
