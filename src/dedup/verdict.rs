//! The result of each recipient.

use crate::clock::Timestamp;
use crate::config::{Dedup, InDoubt, OnDuplicate};
use crate::journal::DecisionOutcome;
use crate::planted::{self, Bug};
use crate::smtp::reply::Reply;
use crate::store::{ClaimId, Outcome, Record, Share, State, StateName};

use super::flights::Landing;
use super::receipt::Stake;
use super::reply::bounded;

/// What became of one recipient.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Its place in the envelope.
    pub index: usize,
    /// Its address as the client wrote it.
    pub recipient: String,
    /// The result.
    pub result: Verdict,
    /// The claim that covers it.
    pub claim: Option<ClaimId>,
    /// The upstream that was asked, now or earlier.
    pub upstream: Option<String>,
    /// How many tries there were.
    pub attempt: Option<u64>,
    /// When its claim was first asked for.
    pub first_seen: Option<Timestamp>,
    /// How long the upstream took, in milliseconds.
    pub upstream_ms: Option<u64>,
    /// What the client's reply means for the claim.
    pub stake: Option<Stake>,
}

/// The result of one recipient.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How the log calls it.
    pub outcome: DecisionOutcome,
    /// The reply that its sender would receive if it were the only one.
    pub reply: Reply,
    /// Where the reply comes from.
    pub origin: Origin,
    /// Whether the recipient may or may not have the message: by this attempt,
    /// or by an earlier one that counts as sent.
    pub doubt: bool,
}

/// Where a reply comes from; it decides how much it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Sent just now, or refused before it could be.
    Fresh,
    /// Answered from a record or from a flight.
    Known,
    /// A duplicate of an accepted one, rejected because it is one: nothing went
    /// wrong, so it weighs nothing where other recipients were newly sent.
    RejectedDuplicate,
}

impl Verdict {
    /// A result of this attempt.
    pub fn fresh(outcome: DecisionOutcome, reply: Reply) -> Self {
        Self { outcome, reply, origin: Origin::Fresh, doubt: outcome == DecisionOutcome::InDoubt }
    }

    /// A result that was known before.
    pub fn known(outcome: DecisionOutcome, reply: Reply) -> Self {
        Self { outcome, reply, origin: Origin::Known, doubt: false }
    }

    /// A duplicate whose record is settled.
    pub fn of_record(dedup: &Dedup, record: &Record, conflict: bool) -> Self {
        match &record.state {
            State::Settled(outcome @ Outcome::Accepted(_)) => {
                Self::duplicate(dedup, outcome, settled_at(record), conflict)
            }
            State::Settled(Outcome::InDoubt(_)) => Self::doubtful(dedup, settled_at(record), conflict),
            // The store settles nothing else as a duplicate.
            State::Settled(outcome) => Self::known(duplicate_or(conflict), outcome.reply().clone()),
            State::Pending { .. } | State::Committing { .. } => Self::still_in_flight(),
        }
    }

    /// With one claim for a whole message: what its record says of one recipient.
    /// `None` of one that lacks the message.
    pub fn of_recipient(dedup: &Dedup, record: &Record, mark: u64, conflict: bool) -> Option<Self> {
        let at = settled_at(record);
        match (record.marks.share(mark), &record.state) {
            (Some(Share::Owed), _) => None,
            (None, _) if !record.marks.is_empty() && !planted::is(Bug::UnnamedTakenForSent) => None,
            (Some(Share::Delivered), State::Settled(outcome @ Outcome::Accepted(_)))
            | (None, State::Settled(outcome @ Outcome::Accepted(_))) => {
                Some(Self::duplicate(dedup, outcome, at, conflict))
            }
            (Some(Share::Delivered), _) => Some(Self::sent_earlier(dedup, at, conflict)),
            (Some(Share::Doubtful), _) | (None, State::Settled(Outcome::InDoubt(_))) => {
                Some(Self::doubtful(dedup, at, conflict))
            }
            (None, _) => None,
        }
    }

    /// A duplicate that waited for its flight.
    pub fn of_landing(dedup: &Dedup, landing: &Landing, conflict: bool) -> Self {
        Self::duplicate(dedup, &landing.outcome, landing.at, conflict)
    }

    /// With one claim for a whole message: what a flight's end says of one
    /// recipient, where that is another thing than of the message. It may have
    /// been for some of the recipients alone.
    pub fn of_share(dedup: &Dedup, landing: &Landing, mark: u64, conflict: bool) -> Option<Self> {
        if landing.marks.is_empty() {
            return None;
        }
        let was_tried = landing.tried.as_ref().is_some_and(|tried| tried.contains(&mark));
        match (landing.marks.share(mark), &landing.outcome) {
            (Some(Share::Delivered), Outcome::Accepted(_)) | (Some(Share::Doubtful), Outcome::InDoubt(_)) => {
                None
            }
            (Some(Share::Owed), Outcome::Deferred(_)) => None,
            // A refusal is final, for the recipients of the flight alone.
            (Some(Share::Owed), Outcome::Refused(_)) if was_tried => None,
            (Some(Share::Delivered), _) => Some(Self::sent_earlier(dedup, landing.at, conflict)),
            // Had it been tried again and accepted, it would be no doubt any more.
            (Some(Share::Doubtful), Outcome::Accepted(_)) if dedup.in_doubt == InDoubt::Resend => {
                Some(Self::still_in_flight())
            }
            (Some(Share::Doubtful), Outcome::Refused(_))
                if dedup.in_doubt == InDoubt::Resend && !was_tried =>
            {
                Some(Self::still_in_flight())
            }
            // It was tried again, and that is the reply.
            (Some(Share::Doubtful), _) if dedup.in_doubt == InDoubt::Resend => None,
            (Some(Share::Doubtful), _) => Some(Self::doubtful(dedup, landing.at, conflict)),
            (Some(Share::Owed) | None, _) => Some(Self::still_in_flight()),
        }
    }

    fn duplicate(dedup: &Dedup, outcome: &Outcome, at: Timestamp, conflict: bool) -> Self {
        match (outcome, dedup.on_duplicate) {
            (Outcome::Accepted(reply), OnDuplicate::Reject) => Self {
                origin: Origin::RejectedDuplicate,
                ..Self::known(
                    duplicate_or(conflict),
                    Reply::new(
                        554,
                        bounded(format!("5.5.0 [DUPLICATE] accepted {}: {}", at.to_rfc3339(), reply.text())),
                    ),
                )
            },
            (outcome, _) => Self {
                doubt: matches!(outcome, Outcome::InDoubt(_)),
                ..Self::known(duplicate_or(conflict), outcome.reply().clone())
            },
        }
    }

    fn doubtful(dedup: &Dedup, at: Timestamp, conflict: bool) -> Self {
        let (outcome, reply) = match (dedup.in_doubt, dedup.on_duplicate) {
            (InDoubt::Hold, _) => {
                let text =
                    "4.4.2 [IN-DOUBT] sent earlier, outcome unconfirmed; held until an operator resolves it";
                (DecisionOutcome::Held, Reply::new(451, text))
            }
            (_, OnDuplicate::Reject) => {
                let text = format!("5.5.0 [DUPLICATE] sent {}, outcome unconfirmed", at.to_rfc3339());
                (duplicate_or(conflict), Reply::new(554, text))
            }
            (_, OnDuplicate::Accept) => {
                let text = "2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed";
                (duplicate_or(conflict), Reply::new(250, text))
            }
        };
        Self { doubt: true, ..Self::known(outcome, reply) }
    }

    /// With one claim for a whole message: this recipient has it, though the
    /// record's reply is about others.
    fn sent_earlier(dedup: &Dedup, at: Timestamp, conflict: bool) -> Self {
        let reply = Reply::new(250, "2.0.0 sent to this recipient earlier");
        Self::duplicate(dedup, &Outcome::Accepted(reply), at, conflict)
    }

    /// The flight did not land in time, or was not for this recipient.
    pub fn still_in_flight() -> Self {
        let text = "4.5.0 [IN-FLIGHT] another attempt to send this e-mail is under way; try again";
        Self::known(DecisionOutcome::InFlightTimeout, Reply::new(451, text))
    }

    /// The same key with another content than that of a record in this state,
    /// settled at this time (RFC 3339).
    pub fn conflict(state: StateName, at: &str) -> Self {
        let first = match state {
            StateName::Pending | StateName::Committing => "is being sent".to_owned(),
            StateName::InDoubt => format!("was sent {at}, outcome unconfirmed"),
            StateName::Accepted | StateName::Deferred | StateName::Refused => format!("was accepted {at}"),
        };
        let text =
            format!("5.5.0 [CONFLICT] idempotency key reused with different content: the first {first}");
        Self::known(DecisionOutcome::Conflict, Reply::new(554, text))
    }
}

/// When a record was settled.
pub fn settled_at(record: &Record) -> Timestamp {
    record.settled_at.unwrap_or(record.last_seen)
}

fn duplicate_or(conflict: bool) -> DecisionOutcome {
    if conflict { DecisionOutcome::Conflict } else { DecisionOutcome::Duplicate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Marks;

    /// One claim for a whole message: the flight was for another recipient, so its
    /// acceptance says nothing of one in doubt.
    #[test]
    fn an_acceptance_for_others_is_none_for_one_in_doubt() {
        for in_doubt in [InDoubt::Suppress, InDoubt::Resend, InDoubt::Hold] {
            for on_duplicate in [OnDuplicate::Accept, OnDuplicate::Reject] {
                let dedup = Dedup { in_doubt, on_duplicate, ..Dedup::default() };
                let marks = Marks { delivered: vec![2], doubtful: vec![1], ..Marks::default() };
                let outcome = Outcome::Accepted(Reply::new(250, "2.0.0 ok"));
                let landing = Landing { outcome, at: Timestamp::default(), marks, tried: None };
                let verdict = Verdict::of_share(&dedup, &landing, 1, false).unwrap();
                assert!(verdict.origin == Origin::Known, "{verdict:?}");
                assert!(verdict.doubt || !verdict.reply.is_success(), "{verdict:?}");
                assert!(Verdict::of_share(&dedup, &landing, 2, false).is_none());
            }
        }
    }

    /// A refusal is final. Only recipients of the flight receive it.
    #[test]
    fn a_refusal_of_others_is_none_of_one_in_doubt() {
        let dedup = Dedup { in_doubt: InDoubt::Resend, ..Dedup::default() };
        let marks = Marks { owed: vec![2], doubtful: vec![1], ..Marks::default() };
        let outcome = Outcome::Refused(Reply::new(550, "5.1.1 no such user"));
        for (tried, told) in [(None, true), (Some(vec![2]), true), (Some(vec![1, 2]), false)] {
            let (outcome, marks) = (outcome.clone(), marks.clone());
            let landing = Landing { outcome, at: Timestamp::default(), marks, tried };
            let verdict = Verdict::of_share(&dedup, &landing, 1, false);
            assert_eq!(verdict.is_some_and(|verdict| verdict.reply.code() == 451), told);
        }
    }
}
