//! One attempt to send a message to some of its recipients: the transaction
//! with the upstream, with the commit point before its last byte.

use tokio::time::Instant;

use crate::clock::{Clock, SystemClock};
use crate::config::{Dedup, Mode};
use crate::crash;
use crate::identity::{self, Key};
use crate::journal::DecisionOutcome;
use crate::message::Rendition;
use crate::message::rendition::Late;
use crate::planted::{self, Bug};
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::Reply;
use crate::store::{Claimed, Names, Outcome, Record, Settlement, StoreFault, Token};
use crate::upstream::{Completion, Prepared, Transaction};

use super::held::{Claim, HeldClaim, HeldClaims, Reach};
use super::message::Message;
use super::receipt::{self, Stake};
use super::sent::{Results, Sent, Transmission, overall, unsent};
use super::trace::{self, Identifiers};
use super::verdict::{Fate, Verdict};
use super::{Heart, Services, millis, store_reply};

/// What an attempt works with.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The store, the clock.
    pub heart: &'a Heart,
    /// The upstream, and what is written into messages.
    pub services: &'a Services,
    /// What holds for this message.
    pub policy: &'a Dedup,
    /// What is sent.
    pub message: &'a Message,
    /// The key, where it has one.
    pub key: Option<&'a Key>,
}

/// Recipients who get the message without a claim of this attempt: in observe
/// mode, those whom enforcing would have spared.
#[derive(Debug)]
pub struct Beside {
    claim: Claim,
    record: Option<Box<Record>>,
    /// What enforcing would have made of them.
    outcome: DecisionOutcome,
}

impl Beside {
    /// What the store answered to `claim`, only looked at.
    pub fn observed(claim: Claim, answer: Claimed) -> Self {
        let (record, outcome) = match answer {
            Claimed::Settled { record, conflict: false } | Claimed::InFlight { record, conflict: false } => {
                (Some(record), DecisionOutcome::ObservedDuplicate)
            }
            Claimed::Settled { record, .. }
            | Claimed::InFlight { record, .. }
            | Claimed::Conflict { record } => (Some(record), DecisionOutcome::ObservedConflict),
            Claimed::New { .. } | Claimed::OverCap | Claimed::TooMany => (None, DecisionOutcome::Unclaimed),
        };
        Self { claim, record, outcome }
    }
}

impl Attempt<'_> {
    /// Sends to every recipient without a claim. `accepted` is how the log
    /// calls an acceptance.
    pub async fn unclaimed(&self, accepted: DecisionOutcome) -> Vec<Fate> {
        let started = Instant::now();
        let all: Vec<usize> = (0..self.message.envelope.recipients.len()).collect();
        let Transmission { sent, upstream } = self.transmit(&all, Identifiers::default(), None).await;
        let fate = |(index, sent): (usize, Sent)| {
            let observed =
                accepted == DecisionOutcome::ObservedBadKey && sent.decision != DecisionOutcome::InDoubt;
            let outcome =
                if observed || sent.outcome.reply().is_success() { accepted } else { sent.decision };
            let mut fate = self.message.fate(index, Verdict::fresh(outcome, sent.outcome.reply().clone()));
            fate.upstream = Some(upstream.clone());
            fate.upstream_ms = Some(millis(started));
            fate
        };
        all.into_iter().zip(sent).map(fate).collect()
    }

    /// The claims that are ours, sorted by the names that they are sent under, and
    /// by the attempt that a provider knows them by: each set is a transaction.
    pub fn sets(&self, token: Token, held: Vec<HeldClaim>) -> Vec<(Option<Names>, HeldClaims)> {
        let observes = self.policy.mode == Mode::Observe;
        let has_key = self.services.idempotency_header.is_some() && !observes;
        let mut sets: Vec<(_, Option<Names>, Vec<HeldClaim>)> = Vec::new();
        for one in held {
            let names = one.names().filter(|_| !observes);
            let series = has_key.then(|| one.series(token).0);
            match sets.iter_mut().find(|(by, of, _)| *by == series && of.as_ref() == names) {
                Some((.., set)) => set.push(one),
                None => sets.push((series, names.cloned(), vec![one])),
            }
        }
        sets.into_iter().map(|(_, names, set)| (names, HeldClaims::new(self.heart, token, set))).collect()
    }

    /// Sends to the recipients of the claims that are ours and to those that get
    /// it without one, and settles the claims.
    pub async fn claimed(
        &self,
        mut sets: Vec<(Option<Names>, HeldClaims)>,
        mut beside: Vec<Beside>,
    ) -> Vec<Fate> {
        if sets.is_empty() && !beside.is_empty() {
            return self.beside(&beside).await;
        }
        let mut fates = Vec::new();
        for (names, held) in sets.drain(..) {
            fates.extend(self.send(names, held, std::mem::take(&mut beside)).await);
        }
        fates
    }

    /// Sends where no claim is ours.
    async fn beside(&self, beside: &[Beside]) -> Vec<Fate> {
        let started = Instant::now();
        let mut targets: Vec<usize> =
            beside.iter().flat_map(|beside| &beside.claim.recipients).copied().collect();
        targets.sort_unstable();
        let Transmission { sent, upstream } = self.transmit(&targets, Identifiers::default(), None).await;
        let sent = Results { sent: targets.into_iter().zip(sent).collect(), upstream, ms: millis(started) };
        beside.iter().flat_map(|beside| self.fates_beside(beside, &sent)).collect()
    }

    /// One transaction.
    async fn send(&self, names: Option<Names>, mut held: HeldClaims, beside: Vec<Beside>) -> Vec<Fate> {
        let started = Instant::now();
        let (mut targets, spared) = self.targets(held.claims());
        targets.extend(beside.iter().flat_map(|beside| &beside.claim.recipients));
        targets.sort_unstable();
        let key = self.key_for_upstream(&held, &targets, &beside);
        if targets.is_empty() {
            // Whoever this message is for has it. That says nothing of the
            // others that the record is about.
            held.release().await;
            return spared;
        }
        let Transmission { sent, upstream } =
            self.transmit(&targets, Identifiers { names, key }, Some(&mut held)).await;
        let sent = Results { sent: targets.into_iter().zip(sent).collect(), upstream, ms: millis(started) };

        let mut fates = spared;
        let (mut settlements, at) = (Vec::new(), self.heart.now());
        for one in held.claims() {
            let ours = || sent.of(&one.claim).map(|(index, sent)| (*index, &sent.outcome));
            let outcome = overall(ours().map(|(_, outcome)| outcome));
            let slot = &one.claim.slot;
            let mut settlement = Settlement {
                marks: one.marks_after(ours()),
                tried: ours().filter_map(|(index, _)| one.claim.mark(index)).collect(),
                ..Settlement::new(slot.id, outcome, sent.upstream.clone())
            };
            settlement.heard = receipt::presumed_heard(slot, &settlement);
            let alone = !self.heart.flights.is_awaited(slot.id, held.token());
            fates.extend(self.fates_of(one, &sent, Stake::settled(slot, &settlement, at, alone)));
            settlements.push(settlement);
        }
        fates.extend(beside.iter().flat_map(|beside| self.fates_beside(beside, &sent)));
        held.settle(at, settlements).await;
        crash::point("after-outcome");
        fates
    }

    fn fates_of(&self, held: &HeldClaim, sent: &Results, stake: Stake) -> Vec<Fate> {
        let HeldClaim { claim, previous, .. } = held;
        let fate = |(index, one): &(usize, Sent)| {
            let again = self.policy.mode == Mode::Observe
                && held.spared(self.policy, *index).is_some()
                && !matches!(one.outcome, Outcome::InDoubt(_));
            let decision = if again { DecisionOutcome::ObservedDuplicate } else { one.decision };
            Fate {
                claim: Some(claim.slot.id),
                attempt: Some(previous.as_ref().map_or(0, |record| record.attempt_count) + 1),
                first_seen: previous.as_ref().map(|record| record.first_seen),
                stake: Some(stake.decided(one.decision)),
                ..sent.fate(self.message, *index, decision, one)
            }
        };
        sent.of(claim).map(fate).collect()
    }

    fn fates_beside(&self, beside: &Beside, sent: &Results) -> Vec<Fate> {
        let fate = |(index, one): &(usize, Sent)| {
            let decision = match (beside.outcome, &one.outcome) {
                // A doubt must be seen, and so must what was merely sent.
                (_, Outcome::InDoubt(_)) => one.decision,
                (DecisionOutcome::Unclaimed, outcome) if !outcome.reply().is_success() => one.decision,
                (observed, _) => observed,
            };
            Fate {
                claim: Some(beside.claim.slot.id),
                first_seen: beside.record.as_ref().map(|record| record.first_seen),
                ..sent.fate(self.message, *index, decision, one)
            }
        };
        sent.of(&beside.claim).map(fate).collect()
    }

    /// Who gets it now. With one claim for a whole message, some are spared (see
    /// [`HeldClaim::spared`]); their fates come along. Observing spares nobody.
    fn targets(&self, held: &[HeldClaim]) -> (Vec<usize>, Vec<Fate>) {
        let mut targets = Vec::new();
        let mut spared = Vec::new();
        for one in held {
            let claim = &one.claim;
            for &index in &claim.recipients {
                match one.spared(self.policy, index).filter(|_| self.policy.mode != Mode::Observe) {
                    Some(verdict) => {
                        let mut fate = self.message.fate(index, verdict);
                        fate.claim = Some(claim.slot.id);
                        fate.stake = Some(Stake::spared(&claim.slot));
                        spared.push(fate);
                    }
                    None => targets.push(index),
                }
            }
        }
        (targets, spared)
    }

    /// The transaction: everything but the last byte, the commit point, the
    /// last byte, the outcome of each of `targets`.
    async fn transmit(
        &self,
        targets: &[usize],
        identifiers: Identifiers,
        held: Option<&mut HeldClaims>,
    ) -> Transmission {
        let envelope = self.message.envelope_of(targets);
        let rendition = self.rendition(&identifiers);
        let account = self.message.source.account.as_ref();
        let same = |sent: Sent, upstream: String| Transmission { sent: vec![sent; targets.len()], upstream };
        let prepare = self.services.upstream.prepare(account, &envelope, &rendition);
        let (rejected, transaction) = match prepare.await {
            Err(fault) => return same(unsent(&fault), String::new()),
            Ok(Prepared::Settled { replies, upstream }) => {
                let sent = replies.into_iter().map(|reply| Sent::by(Outcome::of_reply(reply))).collect();
                return Transmission { sent, upstream };
            }
            Ok(Prepared::Ready { rejected, transaction }) => (rejected, transaction),
        };
        let mut rejected = rejected;
        if planted::is(Bug::RefusalOfAnother) {
            rejected.rotate_right(1);
        }
        crash::point("after-body");
        let upstream = transaction.upstream().to_owned();
        let of = |is_rejected: bool| {
            let of = targets.iter().zip(&rejected).filter(move |(_, reply)| reply.is_some() == is_rejected);
            of.map(|(index, _)| *index).collect::<Vec<_>>()
        };
        let reach = Reach { remaining: &of(false), rejected: &of(true) };
        let result = self.complete(transaction, reach, held).await;
        let sent = |rejected: Option<Reply>| match rejected {
            Some(reply) => Sent::by(Outcome::of_reply(reply)),
            None => result.clone(),
        };
        Transmission { sent: rejected.into_iter().map(sent).collect(), upstream }
    }

    /// The commit point, then the last byte.
    async fn complete(
        &self,
        transaction: Transaction,
        reach: Reach<'_>,
        held: Option<&mut HeldClaims>,
    ) -> Sent {
        let mut accepted = DecisionOutcome::Relayed;
        if planted::is(Bug::CommitAfterDot) {
            let completion = transaction.complete().await;
            if let Some(held) = held {
                let _ = held.commit(reach, self.heart.now()).await;
            }
            return Self::completed(completion, accepted);
        }
        if let Some(held) = held
            && let Err(fault) = held.commit(reach, self.heart.now()).await
        {
            tracing::warn!(%fault, "the commit failed");
            match fault {
                _ if self.policy.mode == Mode::Observe => accepted = DecisionOutcome::Unclaimed,
                StoreFault::Fenced => {
                    transaction.abort();
                    let verdict = Verdict::still_in_flight();
                    return Sent { outcome: Outcome::Deferred(verdict.reply), decision: verdict.outcome };
                }
                _ if self.policy.relays_unclaimed() || planted::is(Bug::SendWithoutCommit) => {
                    accepted = DecisionOutcome::Unclaimed;
                }
                _ => {
                    transaction.abort();
                    let outcome = Outcome::Deferred(store_reply());
                    return Sent { outcome, decision: DecisionOutcome::StoreFailure };
                }
            }
        }
        crash::point("after-commit");
        Self::completed(transaction.complete().await, accepted)
    }

    fn completed(completion: Completion, accepted: DecisionOutcome) -> Sent {
        match completion {
            Completion::Replied(reply) if reply.is_success() => {
                Sent { outcome: Outcome::Accepted(reply), decision: accepted }
            }
            Completion::Replied(reply) => Sent::by(Outcome::of_reply(reply)),
            Completion::ServiceClosing(fault) | Completion::Unsent(fault) => unsent(&fault),
            Completion::InDoubt(fault) if planted::is(Bug::DoubtTakenForDeferred) => unsent(&fault),
            Completion::InDoubt(fault) => {
                tracing::warn!(%fault, "the answer to a message was lost");
                let text =
                    format!("4.4.2 [IN-DOUBT] handed over, but the answer was lost: {}", fault.quoted());
                Sent::by(Outcome::InDoubt(Reply::new(451, text)))
            }
        }
    }

    /// The key that a provider gets which honours one: as fine as what is sent.
    /// `None` where a recipient has no claim of ours, or is only observed.
    fn key_for_upstream(&self, held: &HeldClaims, targets: &[usize], beside: &[Beside]) -> Option<Late> {
        self.services.idempotency_header.as_ref()?;
        if !beside.is_empty() || self.policy.mode == Mode::Observe {
            return None;
        }
        if planted::is(Bug::BareKeyUpstream) {
            let key = self.key.map_or_else(String::new, |key| key.value.clone());
            return Some(Late::new(key.len(), move |_| key.clone()));
        }
        let part = |index: &usize| {
            let one = held.claims().iter().find(|one| one.claim.recipients.contains(index))?;
            let (series, fingerprint) = one.series(held.token());
            let recipient = self.message.envelope.recipients[*index].path.identity();
            Some(identity::Sent { id: one.claim.slot.id, fingerprint, recipient, series })
        };
        let sent: Vec<_> = targets.iter().filter_map(part).collect();
        let key = move |taken: &[usize]| {
            identity::key_of_sent(taken.iter().filter_map(|place| sent.get(*place)).collect())
        };
        Some(Late::new(identity::SENT_KEY, key))
    }

    fn rendition(&self, identifiers: &Identifiers) -> Rendition {
        let Message { headers, content, eight_bit, .. } = self.message;
        let edits = trace::edits(self.services, self.message, identifiers, SystemClock.now());
        edits.apply(headers, content, *eight_bit)
    }
}

impl Message {
    /// The envelope with only these recipients.
    fn envelope_of(&self, targets: &[usize]) -> Envelope {
        let recipients = targets.iter().map(|index| self.envelope.recipients[*index].clone()).collect();
        Envelope { recipients, ..self.envelope.clone() }
    }
}
