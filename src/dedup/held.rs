//! Claims that an attempt holds: to be committed, then settled. Whatever
//! happens to the attempt, its claims are never simply forgotten.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::{Dedup, InDoubt};
use crate::planted::{self, Bug};
use crate::smtp::reply::Reply;
use crate::store::{
    AttemptKind, ClaimId, Commit, Durability, Fingerprint, Marks, Names, Outcome, Record, Settlement, Share,
    Slot, State, Store, StoreFault, Token,
};

use super::Heart;
use super::flights::{Flights, Landing};
use super::verdict::Verdict;

/// How long to wait before an outcome is written again, first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// One claim that a message asks for, and the recipients it covers.
#[derive(Debug)]
pub struct Claim {
    /// What the store is asked.
    pub slot: Slot,
    /// Indices into the envelope's recipients; in the order of the slot's marks,
    /// where it has some.
    pub recipients: Vec<usize>,
}

impl Claim {
    /// The mark of a recipient, where the claim is for a whole message.
    pub fn mark(&self, index: usize) -> Option<u64> {
        let place = self.recipients.iter().position(|covered| *covered == index)?;
        self.slot.marks.get(place).copied()
    }
}

/// A claim that is ours, with what was known of it before.
#[derive(Debug)]
pub struct HeldClaim {
    /// What was claimed.
    pub claim: Claim,
    /// The record that it replaces.
    pub previous: Option<Box<Record>>,
    /// What was known of the recipients of a whole message before.
    marks: Marks,
    /// The same from the commit point on.
    expected: Marks,
    /// Whether its commit point may be passed.
    committed: bool,
}

impl HeldClaim {
    /// Nothing was sent for it yet.
    pub fn new(claim: Claim, previous: Option<Box<Record>>) -> Self {
        let (marks, expected) = (Marks::default(), Marks::default());
        let mut held = Self { claim, previous, marks, expected, committed: false };
        held.marks = held.earlier().map(|record| record.marks.clone()).unwrap_or_default();
        held.expected = held.marks.clone();
        held
    }

    /// The names that a resend carries.
    pub fn names(&self) -> Option<&Names> {
        let record = self.previous.as_ref()?;
        // It goes to those who certainly lack it. For them it is the first.
        let is_first = self.leaves_doubts(record) || planted::is(Bug::NamesOfTheLast);
        record.names_for(&self.claim.slot).filter(|_| !is_first)
    }

    /// The attempt that a provider which honours keys knows the e-mail by, and
    /// the text that it knows.
    pub fn series(&self, token: Token) -> (Token, Fingerprint) {
        let slot = &self.claim.slot;
        let Some(record) = self.previous.as_deref() else { return (token, slot.fingerprint) };
        let series = if record.is_resent_as(slot) { record.series } else { token };
        (series, record.fingerprint_for(slot))
    }

    /// What was known of the recipients before.
    fn earlier(&self) -> Option<&Record> {
        self.previous.as_deref().filter(|record| self.claim.slot.continues(record))
    }

    /// Whether those whom `record` calls in doubt are not sent to again.
    fn leaves_doubts(&self, record: &Record) -> bool {
        matches!(record.state, State::Settled(Outcome::InDoubt(_)))
            && self.claim.slot.in_doubt != InDoubt::Resend
    }

    /// The result of a recipient of a whole message that is not sent to, because
    /// it has the message from an earlier attempt, or may have it.
    pub fn spared(&self, dedup: &Dedup, index: usize) -> Option<Verdict> {
        let record = self.earlier()?;
        let mark = self.claim.mark(index)?;
        let verdict = Verdict::of_recipient(dedup, record, mark, false)?;
        (!verdict.doubt || self.leaves_doubts(record)).then_some(verdict)
    }

    /// From the commit point on, those who remain are in doubt.
    fn expect(&mut self, reach: Reach<'_>) {
        self.committed = true;
        let shares = [(reach.remaining, Share::Doubtful), (reach.rejected, Share::Owed)];
        for (recipients, share) in shares {
            for mark in recipients.iter().filter_map(|index| self.claim.mark(*index)) {
                self.expected.note(mark, share);
            }
        }
    }

    /// What is known of its recipients after an attempt that brought these.
    pub fn marks_after<'o>(&self, sent: impl Iterator<Item = (usize, &'o Outcome)>) -> Marks {
        let mut marks = self.marks.clone();
        if planted::is(Bug::MarksForgotten) {
            return Marks::default();
        }
        for (index, outcome) in sent {
            if let Some(mark) = self.claim.mark(index) {
                marks.note(mark, share(outcome));
            }
        }
        marks
    }
}

fn share(outcome: &Outcome) -> Share {
    match outcome {
        Outcome::Accepted(_) => Share::Delivered,
        Outcome::Deferred(_) | Outcome::Refused(_) => Share::Owed,
        Outcome::InDoubt(_) => Share::Doubtful,
    }
}

/// Whom a transaction is for, at its commit point.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// Those who get it with the last byte.
    pub remaining: &'a [usize],
    /// Those whom the upstream has refused already.
    pub rejected: &'a [usize],
}

/// The claims of one attempt. Ends with [`HeldClaims::settle`] or
/// [`HeldClaims::release`]; one that is dropped before (its task panicked) is
/// given up in the background, and says so in the log.
#[derive(Debug)]
pub struct HeldClaims {
    claims: Vec<HeldClaim>,
    ledger: Ledger,
}

/// What is needed to write an outcome down, apart from the outcome.
#[derive(Clone)]
struct Ledger {
    store: Arc<dyn Store>,
    flights: Arc<Flights>,
    clock: Arc<dyn Clock>,
    token: Token,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({:?})", self.token)
    }
}

impl HeldClaims {
    /// Claims that `token` holds.
    pub fn new(heart: &Heart, token: Token, claims: Vec<HeldClaim>) -> Self {
        let ledger = Ledger {
            store: heart.store.clone(),
            flights: heart.flights.clone(),
            clock: heart.clock.clone(),
            token,
        };
        Self { claims, ledger }
    }

    /// The claims.
    pub fn claims(&self) -> &[HeldClaim] {
        &self.claims
    }

    /// Who holds them.
    pub fn token(&self) -> Token {
        self.ledger.token
    }

    /// The commit point of the claims that cover any who remain. Returns when
    /// it is on stable storage.
    ///
    /// # Errors
    /// [`StoreFault::Fenced`] where another attempt has taken one over, else
    /// what is wrong with the store. The last byte must not leave then.
    pub async fn commit(&mut self, reach: Reach<'_>, at: Timestamp) -> Result<(), StoreFault> {
        let mut commits = Vec::new();
        for held in &mut self.claims {
            if held.claim.recipients.iter().any(|index| reach.remaining.contains(index)) {
                held.expect(reach);
                commits.push(Commit { id: held.claim.slot.id, marks: held.expected.clone() });
            }
        }
        if commits.is_empty() {
            // All who are left get it without a claim.
            return Ok(());
        }
        self.ledger.store.commit(self.ledger.token, commits, at).await
    }

    /// Writes the outcomes down, one for each claim, and tells those who wait.
    /// Where that fails it is tried again in the background until it succeeds:
    /// an outcome is never given up, and the client hears it all the same.
    pub async fn settle(mut self, at: Timestamp, settlements: Vec<Settlement>) {
        if settlements.is_empty() {
            return;
        }
        let doubtful = |settlement: &Settlement| matches!(settlement.outcome, Outcome::InDoubt(_));
        if planted::is(Bug::CommittingReleased) && settlements.iter().all(doubtful) {
            return self.release().await;
        }
        let durability = self.durability(&settlements);
        self.claims.clear();
        let ledger = self.ledger.clone();
        if let Err(fault) = ledger.write(at, &settlements, durability).await {
            tracing::error!(%fault, "an outcome could not be written; trying again in the background");
            tokio::spawn(async move { ledger.write_until_done(at, settlements, durability).await });
        }
    }

    /// Gives the claims up as if they had never been taken.
    pub async fn release(mut self) {
        let ids = std::mem::take(&mut self.claims).iter().map(|held| held.claim.slot.id).collect();
        self.ledger.release(ids).await;
    }

    /// An acceptance need not be waited for where a crash would turn it into a
    /// doubt that suppresses just the same.
    fn durability(&self, settlements: &[Settlement]) -> Durability {
        let suppresses = self.claims.iter().all(|held| held.claim.slot.in_doubt == InDoubt::Suppress);
        let may_wait = |settlement: &Settlement| match settlement.outcome {
            Outcome::Accepted(_) | Outcome::InDoubt(_) => suppresses,
            Outcome::Deferred(_) | Outcome::Refused(_) => planted::is(Bug::ReplyBeforeSettled),
        };
        if settlements.iter().all(may_wait) { Durability::Soon } else { Durability::Now }
    }
}

impl Drop for HeldClaims {
    fn drop(&mut self) {
        let claims = std::mem::take(&mut self.claims);
        if claims.is_empty() {
            return;
        }
        tracing::error!(claims = claims.len(), "claims were dropped without an outcome; giving them up");
        let ledger = self.ledger.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { ledger.abandon(claims).await });
        }
    }
}

impl Ledger {
    async fn write(
        &self,
        at: Timestamp,
        settlements: &[Settlement],
        durability: Durability,
    ) -> Result<(), StoreFault> {
        let written = match self.store.settle(self.token, at, settlements.to_vec(), durability).await {
            Err(StoreFault::Fenced) => {
                tracing::warn!("a claim was taken over by a newer attempt; its own outcome will stand");
                Ok(())
            }
            written => written,
        };
        for settlement in settlements {
            let (outcome, marks) = (settlement.outcome.clone(), settlement.marks.clone());
            let landing = Landing { outcome, at, marks, tried: Some(settlement.tried.clone()) };
            self.flights.land(settlement.id, self.token, landing);
        }
        written
    }

    async fn write_until_done(&self, at: Timestamp, settlements: Vec<Settlement>, durability: Durability) {
        let mut pause = RETRY.0;
        loop {
            tokio::time::sleep(pause).await;
            match self.write(at, &settlements, durability).await {
                Ok(()) => return tracing::info!("the outcome is written now"),
                Err(fault) => tracing::error!(%fault, "an outcome still can't be written"),
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn release(&self, ids: Vec<ClaimId>) {
        if let Err(fault) = self.store.release(self.token, ids.clone()).await {
            tracing::warn!(%fault, "claims could not be released; their lease will run out");
        }
        for id in ids {
            self.flights.give_up(id, self.token);
        }
    }

    /// What can be said of claims whose attempt broke off: nothing was sent
    /// before the commit, and the outcome is unknown after it. Recipients that the
    /// upstream had refused before have no doubt.
    async fn abandon(&self, claims: Vec<HeldClaim>) {
        let (committed, unsent): (Vec<_>, Vec<_>) = claims.into_iter().partition(|held| held.committed);
        if !unsent.is_empty() {
            self.release(unsent.iter().map(|held| held.claim.slot.id).collect()).await;
        }
        if committed.is_empty() {
            return;
        }
        let at = self.clock.now();
        let reply = Reply::new(451, "4.4.2 [IN-DOUBT] the attempt broke off; it may have been sent");
        let doubt = |held: HeldClaim| Settlement {
            id: held.claim.slot.id,
            outcome: Outcome::InDoubt(reply.clone()),
            kind: AttemptKind::Panic,
            heard: false,
            upstream: String::new(),
            tried: held.claim.slot.marks,
            marks: held.expected,
        };
        self.write_until_done(at, committed.into_iter().map(doubt).collect(), Durability::Soon).await;
    }
}
