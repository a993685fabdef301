//! Records as earlier versions wrote them.
//!
//! They told a doubt by the words of its reply. Nothing else reads those words
//! any more: here they become data, once.

use std::time::Duration;

use serde::Deserialize;

use super::super::super::{
    Attempt, AttemptKind, ClaimId, Fingerprint, Marks, Names, Record, State, Suppression, Token, attempt,
};
use crate::clock::Timestamp;

/// One try as versions 1 and 2 wrote it.
#[derive(Deserialize)]
struct OldAttempt {
    at: Timestamp,
    reply: String,
}

impl OldAttempt {
    fn now(self) -> Attempt {
        Attempt { at: self.at, kind: AttemptKind::of_words(&self.reply), reply: self.reply }
    }
}

/// What versions 1 and 2 have in common.
#[derive(Deserialize)]
struct Common {
    id: ClaimId,
    tenant: String,
    strategy: String,
    key: String,
    recipient: String,
    sender: String,
    rule: String,
    fingerprint: Fingerprint,
    state: State,
    upstream: String,
    message_id: Option<String>,
    date: Option<String>,
    size: u64,
    attempts: Vec<OldAttempt>,
    attempt_count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    settled_at: Option<Timestamp>,
    duplicates: u64,
    window: Duration,
    expires: Timestamp,
}

impl Common {
    fn now(self, marks: Marks, suppressed: Vec<Suppression>) -> Record {
        let attempts: Vec<Attempt> = self.attempts.into_iter().map(OldAttempt::now).collect();
        Record {
            id: self.id,
            tenant: self.tenant,
            strategy: self.strategy,
            key: self.key,
            recipient: self.recipient,
            sender: self.sender,
            rule: self.rule,
            fingerprint: self.fingerprint,
            state: attempt::still_doubtful(self.state, attempts.iter().map(|attempt| attempt.kind)),
            upstream: self.upstream,
            names: Names::of_texts(self.message_id.as_deref(), self.date.as_deref()),
            series: Token { owner: 0, attempt: 0 },
            size: self.size,
            attempts,
            attempt_count: self.attempt_count,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            settled_at: self.settled_at,
            duplicates: self.duplicates,
            window: self.window,
            unheard_window: Duration::ZERO,
            heard: true,
            expires: self.expires,
            marks,
            suppressed,
        }
    }
}

/// A record as version 1 wrote it.
#[derive(Deserialize)]
pub(super) struct FirstRecord {
    common: Common,
    delivered: Vec<u64>,
}

impl FirstRecord {
    pub(super) fn now(self) -> Record {
        self.common.now(Marks { delivered: self.delivered, ..Marks::default() }, Vec::new())
    }
}

/// A record as version 2 wrote it.
#[derive(Deserialize)]
pub(super) struct SecondRecord {
    common: Common,
    marks: Marks,
    suppressed: Vec<Suppression>,
}

impl SecondRecord {
    pub(super) fn now(self) -> Record {
        self.common.now(self.marks, self.suppressed)
    }
}
