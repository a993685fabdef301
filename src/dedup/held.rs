//! Claims that an attempt holds: to be committed, then settled. Whatever
//! happens to the attempt, its claims are never simply forgotten.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::InDoubt;
use crate::smtp::reply::Reply;
use crate::store::{ClaimId, Durability, Outcome, Record, Settlement, Slot, Store, StoreFault, Token};

use super::Heart;
use super::flights::{Flights, Landing};
use super::trace::Names;

/// How long to wait before an outcome is written again, first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// One claim that a message asks for, and the recipients it covers.
#[derive(Debug)]
pub struct Claim {
    /// What the store is asked.
    pub slot: Slot,
    /// Indices into the envelope's recipients.
    pub recipients: Vec<usize>,
}

/// A claim that is ours, with what was known of it before.
#[derive(Debug)]
pub struct HeldClaim {
    /// What was claimed.
    pub claim: Claim,
    /// The record that it replaces.
    pub previous: Option<Box<Record>>,
}

impl HeldClaim {
    /// The names that a resend carries.
    pub fn names(&self) -> Option<Names> {
        let (message_id, date) = self.previous.as_ref()?.names_for(&self.claim.slot)?;
        Some(Names { message_id: message_id.to_owned(), date: date.map(str::to_owned) })
    }

    /// What was known of this e-mail before; another text under the same key is
    /// another e-mail.
    pub fn earlier(&self) -> Option<&Record> {
        self.previous.as_deref().filter(|record| self.claim.slot.is_same_mail(record))
    }
}

impl HeldClaim {
    /// Marks of the recipients who have this e-mail from an earlier attempt.
    pub fn delivered(&self) -> &[u64] {
        self.earlier().map_or(&[], |record| &record.delivered)
    }
}

/// The claims of one attempt. Ends with [`HeldClaims::settle`] or
/// [`HeldClaims::release`]; one that is dropped before (its task panicked) is
/// given up in the background, and says so in the log.
#[derive(Debug)]
pub struct HeldClaims {
    claims: Vec<HeldClaim>,
    ledger: Ledger,
    committed: bool,
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
        Self { claims, ledger, committed: false }
    }

    /// The claims.
    pub fn claims(&self) -> &[HeldClaim] {
        &self.claims
    }

    /// The commit point of the claims that cover any of `recipients`. Returns
    /// when it is on stable storage.
    ///
    /// # Errors
    /// [`StoreFault::Fenced`] where another attempt has taken one over, else
    /// what is wrong with the store. The last byte must not leave then.
    pub async fn commit(&mut self, recipients: &[usize], at: Timestamp) -> Result<(), StoreFault> {
        let covers = |held: &&HeldClaim| held.claim.recipients.iter().any(|index| recipients.contains(index));
        let ids: Vec<_> = self.claims.iter().filter(covers).map(|held| held.claim.slot.id).collect();
        if ids.is_empty() {
            // All who are left get it without a claim.
            return Ok(());
        }
        self.committed = true;
        self.ledger.store.commit(self.ledger.token, ids, at).await
    }

    /// Writes the outcomes down, one for each claim, and tells those who wait.
    /// Where that fails it is tried again in the background until it succeeds:
    /// an outcome is never given up, and the client hears it all the same.
    pub async fn settle(mut self, at: Timestamp, settlements: Vec<Settlement>) {
        if settlements.is_empty() {
            return;
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
            Outcome::Deferred(_) | Outcome::Refused(_) => false,
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
        let committed = self.committed;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { ledger.abandon(claims, committed).await });
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
            let landing = Landing { outcome: settlement.outcome.clone(), at };
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
    /// before the commit, and nobody knows after it.
    async fn abandon(&self, claims: Vec<HeldClaim>, committed: bool) {
        let ids = claims.iter().map(|held| held.claim.slot.id);
        if !committed {
            return self.release(ids.collect()).await;
        }
        let at = self.clock.now();
        let reply = Reply::new(451, "4.4.2 [IN-DOUBT] the attempt broke off; it may have been sent");
        let doubt = |id| Settlement {
            id,
            outcome: Outcome::InDoubt(reply.clone()),
            upstream: String::new(),
            delivered: Vec::new(),
        };
        self.write_until_done(at, ids.map(doubt).collect(), Durability::Soon).await;
    }
}
