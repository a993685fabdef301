//! What became of a transaction, by recipient.

use crate::journal::DecisionOutcome;
use crate::smtp::reply::Reply;
use crate::store::Outcome;
use crate::upstream::UpstreamFault;

use super::held::Claim;
use super::message::Message;
use super::verdict::{Fate, Verdict};

/// What became of one recipient of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) outcome: Outcome,
    pub(super) decision: DecisionOutcome,
}

/// What became of a transaction.
pub(super) struct Transmission {
    /// One for each recipient, in order.
    pub(super) sent: Vec<Sent>,
    pub(super) upstream: String,
}

/// What became of a transaction, by recipient.
pub(super) struct Results {
    pub(super) sent: Vec<(usize, Sent)>,
    pub(super) upstream: String,
    pub(super) ms: u64,
}

impl Results {
    /// Of the recipients that `claim` covers.
    pub(super) fn of(&self, claim: &Claim) -> impl DoubleEndedIterator<Item = &(usize, Sent)> {
        self.sent.iter().filter(|(index, _)| claim.recipients.contains(index))
    }

    pub(super) fn fate(
        &self,
        message: &Message,
        index: usize,
        decision: DecisionOutcome,
        sent: &Sent,
    ) -> Fate {
        let mut fate = message.fate(index, Verdict::fresh(decision, sent.outcome.reply().clone()));
        fate.upstream = Some(self.upstream.clone()).filter(|upstream| !upstream.is_empty());
        fate.upstream_ms = Some(self.ms);
        fate
    }
}

impl Sent {
    /// What the upstream itself said.
    pub(super) fn by(outcome: Outcome) -> Self {
        let decision = match &outcome {
            Outcome::Accepted(_) => DecisionOutcome::Relayed,
            Outcome::Deferred(_) => DecisionOutcome::Deferred,
            Outcome::Refused(_) => DecisionOutcome::Refused,
            Outcome::InDoubt(_) => DecisionOutcome::InDoubt,
        };
        Self { outcome, decision }
    }
}

/// The upstream certainly does not have it.
pub(super) fn unsent(fault: &UpstreamFault) -> Sent {
    tracing::warn!(%fault, "the upstream did not take a message");
    Sent::by(Outcome::of_reply(fault.reply()))
}

/// The outcome of a claim that covers several recipients: the one that asks
/// most of a later attempt.
pub(super) fn overall<'o>(sent: impl DoubleEndedIterator<Item = &'o Outcome>) -> Outcome {
    let weight = |outcome: &&Outcome| match outcome {
        Outcome::Accepted(_) => 0,
        Outcome::Refused(_) => 1,
        Outcome::Deferred(_) => 2,
        Outcome::InDoubt(_) => 3,
    };
    let heaviest = sent.rev().max_by_key(weight);
    heaviest.cloned().unwrap_or_else(|| Outcome::Accepted(Reply::new(250, "2.0.0 sent earlier")))
}
