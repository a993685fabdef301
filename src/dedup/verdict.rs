//! What became of each recipient, and the one reply that the message has.

use crate::clock::Timestamp;
use crate::config::{Dedup, InDoubt, OnDuplicate, OnPartial};
use crate::journal::DecisionOutcome;
use crate::planted::{self, Bug};
use crate::smtp::reply::{Class, Reply};
use crate::store::{ClaimId, Outcome, Record, State};

use super::flights::Landing;

const PERHAPS_SENT: &str = "2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed";

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
}

/// The result for one recipient.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How the log calls it.
    pub outcome: DecisionOutcome,
    /// What its sender would hear if it were the only one.
    pub reply: Reply,
    /// Where the reply comes from.
    pub origin: Origin,
}

/// Where a reply comes from; it decides how much it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Sent just now, or refused before it could be.
    Fresh,
    /// Answered from a record or from a flight.
    Known,
    /// A duplicate rejected because it is one: nothing went wrong, so it weighs
    /// nothing beside recipients that were newly sent.
    RejectedDuplicate,
}

impl Verdict {
    /// A result of this attempt.
    pub fn fresh(outcome: DecisionOutcome, reply: Reply) -> Self {
        Self { outcome, reply, origin: Origin::Fresh }
    }

    /// A result that was known before.
    pub fn known(outcome: DecisionOutcome, reply: Reply) -> Self {
        Self { outcome, reply, origin: Origin::Known }
    }

    /// A duplicate whose record is settled.
    pub fn of_record(dedup: &Dedup, record: &Record, conflict: bool) -> Self {
        let at = record.settled_at.unwrap_or(record.last_seen);
        match &record.state {
            State::Settled(outcome @ Outcome::Accepted(_)) => Self::duplicate(dedup, outcome, at, conflict),
            State::Settled(Outcome::InDoubt(_)) => Self::doubtful(dedup, at, conflict),
            // The store settles nothing else as a duplicate.
            State::Settled(outcome) => Self::known(duplicate_or(conflict), outcome.reply().clone()),
            State::Pending { .. } | State::Committing { .. } => Self::still_in_flight(),
        }
    }

    /// A duplicate that waited for its flight.
    pub fn of_landing(dedup: &Dedup, landing: &Landing, conflict: bool) -> Self {
        Self::duplicate(dedup, &landing.outcome, landing.at, conflict)
    }

    fn duplicate(dedup: &Dedup, outcome: &Outcome, at: Timestamp, conflict: bool) -> Self {
        match (outcome, dedup.on_duplicate) {
            (Outcome::Accepted(reply), OnDuplicate::Reject) => Self {
                outcome: duplicate_or(conflict),
                reply: Reply::new(
                    554,
                    bounded(format!("5.5.0 [DUPLICATE] accepted {}: {}", at.to_rfc3339(), reply.text())),
                ),
                origin: Origin::RejectedDuplicate,
            },
            (outcome, _) => Self::known(duplicate_or(conflict), outcome.reply().clone()),
        }
    }

    fn doubtful(dedup: &Dedup, at: Timestamp, conflict: bool) -> Self {
        match (dedup.in_doubt, dedup.on_duplicate) {
            (InDoubt::Hold, _) => Self::known(
                DecisionOutcome::Held,
                Reply::new(
                    451,
                    "4.4.2 [IN-DOUBT] sent earlier, outcome unconfirmed; held until an operator resolves it",
                ),
            ),
            (_, OnDuplicate::Reject) => Self {
                outcome: duplicate_or(conflict),
                reply: Reply::new(
                    554,
                    format!("5.5.0 [DUPLICATE] sent {}, outcome unconfirmed", at.to_rfc3339()),
                ),
                origin: Origin::RejectedDuplicate,
            },
            (_, OnDuplicate::Accept) => Self::known(duplicate_or(conflict), Reply::new(250, PERHAPS_SENT)),
        }
    }

    /// With one claim for a whole message: this recipient has it.
    pub fn sent_earlier() -> Self {
        Self::known(DecisionOutcome::Duplicate, Reply::new(250, "2.0.0 sent to this recipient earlier"))
    }

    /// With one claim for a whole message: this recipient may have it.
    pub fn perhaps_sent_earlier() -> Self {
        Self::known(DecisionOutcome::Duplicate, Reply::new(250, PERHAPS_SENT))
    }

    /// The flight did not land in time, or was not for this recipient.
    pub fn still_in_flight() -> Self {
        let text = "4.5.0 [IN-FLIGHT] another attempt to send this e-mail is under way; try again";
        Self::known(DecisionOutcome::InFlightTimeout, Reply::new(451, text))
    }

    /// The same key with another content.
    pub fn conflict() -> Self {
        let text = "5.5.0 [CONFLICT] idempotency key reused with different content";
        Self::known(DecisionOutcome::Conflict, Reply::new(554, text))
    }
}

fn duplicate_or(conflict: bool) -> DecisionOutcome {
    if conflict { DecisionOutcome::Conflict } else { DecisionOutcome::Duplicate }
}

/// The message's one reply.
pub fn combine(fates: &[Fate], on_partial: OnPartial) -> Reply {
    let fresh = |fate: &&Fate| fate.result.origin == Origin::Fresh;
    let weighs = |fate: &&Fate| fate.result.origin != Origin::RejectedDuplicate;
    let some_fresh = fates.iter().any(|fate| fresh(&fate));
    let counted: Vec<&Fate> = fates.iter().filter(|fate| !some_fresh || weighs(fate)).collect();
    let of_class = |class| counted.iter().copied().filter(move |fate| fate.result.reply.class() == class);
    let first_of = |class| of_class(class).find(fresh).or_else(|| of_class(class).next());

    let accepted = first_of(Class::Success);
    let deferred = first_of(Class::Transient);
    let refused = first_of(Class::Permanent);
    match (accepted, deferred, refused) {
        (Some(fate), None, None) | (None, Some(fate), None) | (None, None, Some(fate)) => {
            fate.result.reply.clone()
        }
        (Some(fate), ..) if planted::is(Bug::PartialAccepted) => fate.result.reply.clone(),
        (_, Some(_), _) => partial(451, "4.5.0", &counted),
        (Some(fate), None, Some(_)) => match on_partial {
            OnPartial::Accept => fate.result.reply.clone(),
            OnPartial::Report => partial(554, "5.5.0", &counted),
        },
        (None, None, None) => Reply::new(451, "4.3.0 internal error, try again"),
    }
}

/// Octets of one line of a reply, code and CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 512;

/// Names each recipient that was not accepted, and its reply.
fn partial(code: u16, enhanced: &str, fates: &[&Fate]) -> Reply {
    let missing: Vec<_> = fates.iter().filter(|fate| !fate.result.reply.is_success()).collect();
    let got = fates.len() - missing.len();
    let mut text = format!("{enhanced} [PARTIAL] accepted for {got} of {} recipients", fates.len());
    for fate in missing {
        text.push('\n');
        text.push_str(&bounded(format!("{enhanced} <{}>: {}", fate.recipient, fate.result.reply)));
    }
    Reply::new(code, text)
}

/// Cuts what quotes others to what fits on one line of a reply.
fn bounded(mut line: String) -> String {
    line.truncate(line.floor_char_boundary(MAX_LINE - "250-\r\n".len()));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(index: usize, origin: Origin, code: u16, text: &str) -> Fate {
        Fate {
            index,
            recipient: format!("r{index}@x.example"),
            result: Verdict { outcome: DecisionOutcome::Relayed, reply: Reply::new(code, text), origin },
            claim: None,
            upstream: None,
            attempt: None,
            first_seen: None,
            upstream_ms: None,
        }
    }

    fn combined(fates: &[Fate]) -> String {
        combine(fates, OnPartial::Report).to_string()
    }

    use Origin::{Fresh, Known, RejectedDuplicate};

    #[test]
    fn one_class_gives_the_reply_of_the_first_newly_sent() {
        assert_eq!(combined(&[fate(0, Known, 250, "old"), fate(1, Fresh, 250, "new")]), "250 new");
        assert_eq!(combined(&[fate(0, Known, 250, "a"), fate(1, Known, 250, "b")]), "250 a");
        assert_eq!(combined(&[fate(0, Fresh, 450, "a"), fate(1, Known, 451, "b")]), "450 a");
    }

    #[test]
    fn a_deferral_among_them_makes_the_client_try_again() {
        let fates =
            [fate(0, Fresh, 250, "ok"), fate(1, Fresh, 550, "5.1.1 no"), fate(2, Fresh, 450, "4.2.0 busy")];
        assert_eq!(
            combined(&fates),
            "451 4.5.0 [PARTIAL] accepted for 1 of 3 recipients 4.5.0 <r1@x.example>: 550 5.1.1 no \
             4.5.0 <r2@x.example>: 450 4.2.0 busy"
        );
        assert!(combined(&fates[1..]).starts_with("451 4.5.0 [PARTIAL] accepted for 0 of 2"));
    }

    #[test]
    fn acceptance_and_refusal_are_reported_or_accepted() {
        let fates = [fate(0, Fresh, 550, "no"), fate(1, Known, 250, "old"), fate(2, Fresh, 250, "new")];
        assert!(combined(&fates).starts_with("554 5.5.0 [PARTIAL] accepted for 2 of 3"));
        assert_eq!(combine(&fates, OnPartial::Accept).to_string(), "250 new");
    }

    #[test]
    fn rejected_duplicates_weigh_nothing_beside_what_is_new() {
        let duplicate = fate(0, RejectedDuplicate, 554, "5.5.0 [DUPLICATE] x");
        assert_eq!(combined(&[duplicate.clone(), fate(1, Fresh, 250, "new")]), "250 new");
        assert_eq!(combined(std::slice::from_ref(&duplicate)), "554 5.5.0 [DUPLICATE] x");
        assert!(
            combined(&[duplicate, fate(1, Known, 451, "4.5.0 [IN-FLIGHT]")])
                .starts_with("451 4.5.0 [PARTIAL]")
        );
    }

    #[test]
    fn a_line_of_the_report_stays_within_its_bound() {
        let fates = [fate(0, Fresh, 250, "ok"), fate(1, Fresh, 550, &"ü".repeat(600))];
        let mut out = Vec::new();
        combine(&fates, OnPartial::Report).write_to(&mut out);
        assert!(out.split(|&b| b == b'\n').all(|line| line.len() < MAX_LINE));
    }
}
