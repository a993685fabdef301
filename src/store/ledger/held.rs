//! The claims that somebody holds, in memory: nothing is read back to end one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::super::{ClaimId, Record, State, Token};
use crate::clock::Timestamp;

/// Claims in state `pending` or `committing`, each lying over the record that
/// its id had before. Forgetting one uncovers that record again.
#[derive(Debug, Default)]
pub(super) struct HeldClaims {
    claims: BTreeMap<ClaimId, Held>,
    leases: BTreeSet<(Timestamp, ClaimId)>,
}

/// A claim that a token holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) record: Record,
    /// The expiry entry of the record underneath, which means nothing any more
    /// once this claim writes a record of its own.
    pub(super) stale: Option<Timestamp>,
}

/// When the lease of a pending record ends, and who holds it.
fn lease(record: &Record) -> Option<(Timestamp, Token)> {
    match record.state {
        State::Pending { holder, lease_until } => Some((lease_until, holder)),
        State::Committing { .. } | State::Settled(_) => None,
    }
}

impl HeldClaims {
    /// `stale` is the expiry entry of the record underneath, which means
    /// nothing any more once this claim writes a record of its own.
    pub(super) fn insert(&mut self, record: Record, stale: Option<Timestamp>) {
        self.remove(&record.id);
        if let Some((until, _)) = lease(&record) {
            self.leases.insert((until, record.id));
        }
        self.claims.insert(record.id, Held { record, stale });
    }

    /// The claim on `id`, if `token` holds it.
    pub(super) fn of(&self, id: &ClaimId, token: Token) -> Option<&Held> {
        let holds = |claim: &&Held| match claim.record.state {
            State::Pending { holder, .. } | State::Committing { holder } => holder == token,
            State::Settled(_) => false,
        };
        self.claims.get(id).filter(holds)
    }

    pub(super) fn remove(&mut self, id: &ClaimId) {
        let Some(claim) = self.claims.remove(id) else { return };
        if let Some((until, _)) = lease(&claim.record) {
            self.leases.remove(&(until, *id));
        }
    }

    pub(super) fn get(&self, id: &ClaimId) -> Option<&Record> {
        self.claims.get(id).map(|claim| &claim.record)
    }

    /// See [`HeldClaims::insert`].
    pub(super) fn stale(&self, id: &ClaimId) -> Option<Timestamp> {
        self.claims.get(id)?.stale
    }

    /// Notes one more request for `id`; false where nobody holds it.
    pub(super) fn touch(&mut self, id: &ClaimId, at: Timestamp, duplicate: bool) -> bool {
        let Some(Held { record, .. }) = self.claims.get_mut(id) else { return false };
        record.last_seen = at;
        record.duplicates += u64::from(duplicate);
        true
    }

    /// Whether `token` holds `id` and has not begun to commit it.
    pub(super) fn is_pending(&self, id: &ClaimId, token: Token) -> bool {
        self.get(id).and_then(lease).is_some_and(|(_, holder)| holder == token)
    }

    /// Whether the lease of `id` has run out at `at`.
    pub(super) fn lapsed(&self, id: &ClaimId, at: Timestamp) -> bool {
        self.get(id).and_then(lease).is_some_and(|(until, _)| until <= at)
    }

    /// Up to `most` records in the order of their ids, from behind `after`.
    pub(super) fn range(&self, after: Option<&ClaimId>, most: usize) -> impl Iterator<Item = &Record> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.claims.range((from, Bound::Unbounded)).map(|(_, claim)| &claim.record).take(most)
    }

    /// Forgets up to `most` claims whose lease ran out at `before` or
    /// earlier; answers how many went.
    pub(super) fn forget_abandoned(&mut self, before: Timestamp, most: usize) -> usize {
        let gone: Vec<ClaimId> = self
            .leases
            .iter()
            .take_while(|(until, _)| *until <= before)
            .take(most)
            .map(|(_, id)| *id)
            .collect();
        for id in &gone {
            self.remove(id);
        }
        gone.len()
    }
}
