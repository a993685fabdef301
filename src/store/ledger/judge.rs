//! The decisions about one slot, as functions of values.

use super::super::record::Touch;
use super::super::{Claimed, Marks, Outcome, Record, Slot, State, Token};
use crate::clock::Timestamp;
use crate::config::{InDoubt, OnConflict};
use crate::planted::{self, Bug};

/// What becomes of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    Settled { conflict: bool },
    InFlight { conflict: bool },
    Conflict,
}

impl Verdict {
    /// How the record answers; `None` where the slot is to be claimed.
    pub(super) fn touch(self) -> Option<Touch> {
        match self {
            Verdict::New => None,
            Verdict::Settled { .. } | Verdict::InFlight { .. } => Some(Touch::Duplicate),
            Verdict::Conflict => Some(Touch::Conflict),
        }
    }

    /// The answer with the record that gave it.
    pub(super) fn answer(self, record: Record) -> Claimed {
        let record = Box::new(record);
        match self {
            Verdict::New => Claimed::New { previous: Some(record) },
            Verdict::Settled { conflict } => Claimed::Settled { record, conflict },
            Verdict::InFlight { conflict } => Claimed::InFlight { record, conflict },
            Verdict::Conflict => Claimed::Conflict { record },
        }
    }
}

/// Judges a slot by the record that stands for its id: not an expired one, nor
/// a pending one whose lease has run out.
pub(super) fn judge(record: &Record, slot: &Slot, token: Token) -> Verdict {
    match record.state {
        State::Settled(Outcome::Deferred(_)) if planted::is(Bug::DeferredSuppresses) => {
            return Verdict::Settled { conflict: false };
        }
        // Of a whole message, some may have it all the same.
        State::Settled(Outcome::Deferred(_) | Outcome::Refused(_)) if record.marks.delivered.is_empty() => {
            return Verdict::New;
        }
        // The caller asks again because the first answer never reached it.
        State::Pending { holder, .. } if holder == token => return Verdict::New,
        _ => {}
    }
    let conflict = record.fingerprint != slot.fingerprint && !planted::is(Bug::ConflictIgnored);
    match slot.on_conflict {
        OnConflict::Reject if conflict => return Verdict::Conflict,
        OnConflict::Relay if conflict => return Verdict::New,
        _ => {}
    }
    match record.state {
        State::Settled(Outcome::Deferred(_) | Outcome::Refused(_)) => Verdict::New,
        State::Settled(Outcome::InDoubt(_)) if slot.in_doubt == InDoubt::Resend => Verdict::New,
        // An operator is to look at it first, whomever it is about.
        State::Settled(Outcome::InDoubt(_)) if slot.in_doubt == InDoubt::Hold => {
            Verdict::Settled { conflict }
        }
        State::Settled(_) if slot.is_owed(record) => Verdict::New,
        State::Settled(_) => Verdict::Settled { conflict },
        State::Pending { .. } | State::Committing { .. } => Verdict::InFlight { conflict },
    }
}

/// The pending record of a new claim, with what is to be kept of `previous`.
pub(super) fn begin(
    slot: &Slot,
    token: Token,
    at: Timestamp,
    lease_until: Timestamp,
    previous: Option<&Record>,
) -> Record {
    let fresh = fresh(slot, token, at, lease_until);
    let Some(previous) = previous else { return fresh };
    // A resend stays what it was to mailboxes and providers, however often it
    // is tried. A name that the first attempt lacked is that of the next.
    let (names, series) = match previous.is_resent_as(slot) {
        true => (previous.names.or(&fresh.names), previous.series),
        false => (fresh.names, fresh.series),
    };
    Record {
        names,
        series,
        fingerprint: previous.fingerprint_for(slot),
        window: previous.window_for(slot),
        marks: if slot.continues(previous) { previous.marks.clone() } else { Marks::default() },
        upstream: previous.upstream.clone(),
        attempts: previous.attempts.clone(),
        attempt_count: previous.attempt_count,
        first_seen: previous.first_seen,
        settled_at: previous.settled_at,
        duplicates: previous.duplicates,
        suppressed: previous.suppressed.clone(),
        ..fresh
    }
}

fn fresh(slot: &Slot, token: Token, at: Timestamp, lease_until: Timestamp) -> Record {
    Record {
        id: slot.id,
        tenant: slot.tenant.clone(),
        strategy: slot.strategy.clone(),
        key: slot.key.clone(),
        recipient: slot.recipient.clone(),
        sender: slot.sender.clone(),
        rule: slot.rule.clone(),
        fingerprint: slot.fingerprint,
        state: State::Pending { holder: token, lease_until },
        upstream: String::new(),
        names: slot.names.clone(),
        series: token,
        size: slot.size,
        attempts: Vec::new(),
        attempt_count: 0,
        first_seen: at,
        last_seen: at,
        settled_at: None,
        duplicates: 0,
        window: slot.window,
        unheard_window: slot.unheard_window,
        heard: false,
        expires: at.plus(slot.window),
        marks: Marks::default(),
        suppressed: Vec::new(),
    }
}
