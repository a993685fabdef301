//! Whether the client received the reply to its message, and what follows for
//! the claims that the message asked for.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::journal::{Decision, DecisionOutcome};
use crate::smtp::reply::{Class, Reply};
use crate::store::{ClaimId, Heard, Marks, Outcome, Reception, Record, Settlement, Slot, State};

use super::Heart;
use super::flights::Landing;
use super::verdict::Fate;

/// The answer to a message.
#[derive(Debug)]
pub struct Answer {
    /// What its client is told.
    pub reply: Reply,
    /// To be given back when the reply was written.
    pub receipt: Receipt,
}

/// What waits for the news whether the client received its reply: the decisions,
/// for the log, and notes for the store. One that is dropped says that it did
/// not, so no decision goes unlogged.
#[derive(Debug)]
#[must_use = "a receipt that is dropped says that the client did not receive its reply"]
pub struct Receipt {
    heart: Arc<Heart>,
    decided: Decided,
}

/// What was decided on a message, until its reply was written.
#[derive(Debug, Default)]
pub(super) struct Decided {
    decisions: Vec<Decision>,
    /// For the store, if the client receives the reply.
    if_received: Vec<Heard>,
    /// For the store, if it does not.
    if_missed: Vec<Heard>,
}

impl Receipt {
    pub(super) fn new(heart: Arc<Heart>, decided: Decided) -> Self {
        Self { heart, decided }
    }

    /// The client is there as the reply is about to be written. Its decisions are
    /// logged now, so that no client finds its reply missing in the log.
    pub fn expected(&mut self) {
        self.log(true);
    }

    /// The client received the reply.
    pub fn received(mut self) {
        self.end(true);
    }

    /// The client had closed its connection before the reply could be written.
    pub fn missed(self) {}

    fn end(&mut self, received: bool) {
        self.log(received);
        let Decided { if_received, if_missed, .. } = std::mem::take(&mut self.decided);
        self.heart.note(if received { if_received } else { if_missed });
    }

    fn log(&mut self, received: bool) {
        for mut decision in std::mem::take(&mut self.decided.decisions) {
            decision.heard = Some(received);
            self.heart.journal.record(&decision);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Heart {
    /// What is to be done when the reply was written. Where the client is told
    /// to come again though a recipient has the message, the store is told so now.
    pub(super) fn decided(&self, fates: &[Fate], reply: &Reply, decisions: Vec<Decision>) -> Decided {
        let stakes = stakes(fates);
        let is_out = stakes.iter().any(|(_, stake)| stake.is_out);
        let notes = |note: fn(&Stake) -> Option<Reception>| {
            let noted =
                |(id, stake): &(ClaimId, Stake)| note(stake).map(|reception| Heard { id: *id, reception });
            stakes.iter().filter_map(noted).collect::<Vec<_>>()
        };
        if is_out && reply.class() == Class::Transient {
            self.note(notes(Stake::come_again));
            return Decided { decisions, ..Decided::default() };
        }
        Decided { decisions, if_received: notes(Stake::received), if_missed: notes(Stake::missed) }
    }

    fn note(&self, notes: Vec<Heard>) {
        if !notes.is_empty() {
            self.store.note_heard(notes, self.now());
        }
    }
}

/// What the reply to a message means for one claim that the message asked for.
#[derive(Clone, Copy, Debug)]
pub struct Stake {
    part: Part,
    /// The upstream has what the claim is about, or may have it.
    is_out: bool,
    /// The claim is remembered for longer where no client received the reply.
    is_short: bool,
}

/// What the message has to do with the claim.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Its own attempt settled the claim then; `heard` is how, and `alone` that
    /// no other message waited for it.
    Settled { at: Timestamp, heard: bool, alone: bool },
    /// It waited for the attempt that settled the claim then.
    Waited { at: Timestamp },
    /// It was answered from the record, or told that an attempt is under way.
    Answered,
}

impl Stake {
    /// Of the attempt that settles a claim `at` this time. `alone` says that no
    /// other message waits for it.
    pub(super) fn settled(slot: &Slot, settlement: &Settlement, at: Timestamp, alone: bool) -> Self {
        Self {
            part: Part::Settled { at, heard: settlement.heard, alone },
            is_out: is_out(&settlement.outcome, &settlement.marks),
            is_short: slot.window < slot.unheard_window,
        }
    }

    /// Of a message that waited for the attempt at `record`.
    pub(super) fn waited(record: &Record, landing: &Landing) -> Self {
        Self {
            part: Part::Waited { at: landing.at },
            is_out: is_out(&landing.outcome, &landing.marks),
            ..Self::answered(record)
        }
    }

    /// Of a message that is answered from `record`.
    pub(super) fn answered(record: &Record) -> Self {
        let is_out = match &record.state {
            State::Settled(outcome) => is_out(outcome, &record.marks),
            State::Pending { .. } | State::Committing { .. } => true,
        };
        Self { part: Part::Answered, is_out, is_short: record.window < record.unheard_window }
    }

    /// Of a recipient who is not sent to, because the claim of the whole message
    /// says that it has the message, or may have it.
    pub(super) fn spared(slot: &Slot) -> Self {
        Self { part: Part::Answered, is_out: true, is_short: slot.window < slot.unheard_window }
    }

    /// The same where the recipient was decided on so: another attempt may have
    /// taken the claim over.
    pub(super) fn decided(self, outcome: DecisionOutcome) -> Self {
        Self { is_out: self.is_out || outcome == DecisionOutcome::InFlightTimeout, ..self }
    }

    /// With one claim for a whole message: of two of its recipients.
    fn unite(&mut self, other: Self) {
        self.is_out |= other.is_out;
        if matches!(self.part, Part::Answered) {
            self.part = other.part;
        }
    }

    /// For the store where the client received a final reply.
    fn received(&self) -> Option<Reception> {
        match self.part {
            Part::Settled { at, heard: false, .. } => Some(Reception::Final { settled_at: at }),
            Part::Waited { at } if self.is_out && self.is_short => Some(Reception::Final { settled_at: at }),
            Part::Settled { .. } | Part::Waited { .. } | Part::Answered => None,
        }
    }

    /// For the store where the client had gone before such a reply. Others who
    /// waited may have received it, and what they know decides.
    fn missed(&self) -> Option<Reception> {
        match self.part {
            Part::Settled { at, heard: true, alone: true } => Some(Reception::Missed { settled_at: at }),
            Part::Settled { .. } | Part::Waited { .. } | Part::Answered => None,
        }
    }

    /// For the store where the client comes again.
    fn come_again(&self) -> Option<Reception> {
        let is_news = self.is_short || matches!(self.part, Part::Settled { heard: true, .. });
        (self.is_out && is_news).then_some(Reception::ComeAgain)
    }
}

/// How a claim is settled before its client can be answered. A crash in between
/// must leave the longer memory; where both are equally long the claim counts as
/// heard, so that its record need not be written twice.
pub(super) fn presumed_heard(slot: &Slot, settlement: &Settlement) -> bool {
    let is_doubt = matches!(settlement.outcome, Outcome::InDoubt(_)) || !settlement.marks.doubtful.is_empty();
    let is_short = slot.window < slot.unheard_window;
    !(is_doubt || is_short && is_out(&settlement.outcome, &settlement.marks))
}

/// Whether the upstream has the message for anybody, or may have it.
fn is_out(outcome: &Outcome, marks: &Marks) -> bool {
    matches!(outcome, Outcome::Accepted(_) | Outcome::InDoubt(_))
        || !marks.delivered.is_empty()
        || !marks.doubtful.is_empty()
}

/// One for each claim. Recipients whose claim is the same one follow each other:
/// it is the only claim of their message.
fn stakes(fates: &[Fate]) -> Vec<(ClaimId, Stake)> {
    let mut stakes: Vec<(ClaimId, Stake)> = Vec::new();
    for (id, stake) in fates.iter().filter_map(|fate| fate.claim.zip(fate.stake)) {
        match stakes.last_mut() {
            Some((last, known)) if *last == id => known.unite(stake),
            _ => stakes.push((id, stake)),
        }
    }
    stakes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::contract::{accepted, at, deferred, in_doubt, refused, settlement, slot};
    use Reception::{ComeAgain, Final, Missed};

    const LONG: Duration = Duration::from_secs(86_400);

    /// How an attempt settles its claim, and what it has at stake then.
    fn attempt(outcome: Outcome, unheard_window: Duration, alone: bool) -> (bool, Stake) {
        let slot = Slot { unheard_window, ..slot(1) };
        let mut settlement = settlement(1, outcome);
        settlement.heard = presumed_heard(&slot, &settlement);
        (settlement.heard, Stake::settled(&slot, &settlement, at(7), alone))
    }

    fn notes(stake: &Stake) -> [Option<Reception>; 3] {
        [stake.received(), stake.missed(), stake.come_again()]
    }

    #[test]
    fn a_short_window_is_settled_as_unheard_where_the_upstream_may_have_it() {
        let settled_at = at(7);
        let again = Some(ComeAgain);
        for (outcome, heard, expected) in [
            (accepted(), false, [Some(Final { settled_at }), None, again]),
            (in_doubt(), false, [Some(Final { settled_at }), None, again]),
            (deferred(), true, [None, Some(Missed { settled_at }), None]),
            (refused(), true, [None, Some(Missed { settled_at }), None]),
        ] {
            let (settled, stake) = attempt(outcome.clone(), LONG, true);
            assert_eq!((settled, notes(&stake)), (heard, expected), "{outcome:?}");
        }
    }

    #[test]
    fn a_long_window_is_written_once_unless_the_client_is_gone() {
        let (heard, stake) = attempt(accepted(), Duration::ZERO, true);
        assert!(heard);
        assert_eq!(notes(&stake), [None, Some(Missed { settled_at: at(7) }), Some(ComeAgain)]);
        let (_, waited_for) = attempt(accepted(), Duration::ZERO, false);
        assert_eq!(waited_for.missed(), None, "others who waited may have received it");
        assert!(!attempt(in_doubt(), Duration::ZERO, true).0, "its client receives 4yz");
    }

    #[test]
    fn a_waiting_duplicate_counts_and_a_later_one_does_not() {
        let short = Stake { part: Part::Waited { at: at(7) }, is_out: true, is_short: true };
        assert_eq!(notes(&short), [Some(Final { settled_at: at(7) }), None, Some(ComeAgain)]);
        assert_eq!(notes(&Stake { is_short: false, ..short }), [None; 3]);
        assert_eq!(notes(&Stake { is_out: false, ..short }), [None; 3]);
        assert_eq!(notes(&Stake { part: Part::Answered, ..short }), [None, None, Some(ComeAgain)]);
    }
}
