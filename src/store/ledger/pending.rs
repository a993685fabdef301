//! The claims that have sent nothing yet, kept in memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::super::{ClaimId, Record, State, Token};
use crate::clock::Timestamp;

/// Claims in state `pending`, each lying over the record that its id had
/// before. Forgetting one uncovers that record again.
#[derive(Debug, Default)]
pub(super) struct PendingClaims {
    records: BTreeMap<ClaimId, Record>,
    leases: BTreeSet<(Timestamp, ClaimId)>,
}

/// When the lease of a pending record ends, and who holds it.
fn lease(record: &Record) -> Option<(Timestamp, Token)> {
    match record.state {
        State::Pending { holder, lease_until } => Some((lease_until, holder)),
        State::Committing { .. } | State::Settled(_) => None,
    }
}

impl PendingClaims {
    pub(super) fn insert(&mut self, record: Record) {
        self.remove(&record.id);
        if let Some((until, _)) = lease(&record) {
            self.leases.insert((until, record.id));
            self.records.insert(record.id, record);
        }
    }

    pub(super) fn remove(&mut self, id: &ClaimId) -> Option<Record> {
        let record = self.records.remove(id)?;
        if let Some((until, _)) = lease(&record) {
            self.leases.remove(&(until, *id));
        }
        Some(record)
    }

    pub(super) fn get(&self, id: &ClaimId) -> Option<&Record> {
        self.records.get(id)
    }

    /// Notes one more request for `id`; false where it is not pending.
    pub(super) fn touch(&mut self, id: &ClaimId, at: Timestamp, duplicate: bool) -> bool {
        let Some(record) = self.records.get_mut(id) else { return false };
        record.last_seen = at;
        record.duplicates += u64::from(duplicate);
        true
    }

    pub(super) fn held_by(&self, id: &ClaimId, token: Token) -> bool {
        self.get(id).and_then(lease).is_some_and(|(_, holder)| holder == token)
    }

    /// Whether the lease of `id` has run out at `at`.
    pub(super) fn lapsed(&self, id: &ClaimId, at: Timestamp) -> bool {
        self.get(id).and_then(lease).is_some_and(|(until, _)| until <= at)
    }

    /// Up to `most` records in the order of their ids, from behind `after`.
    pub(super) fn range(&self, after: Option<&ClaimId>, most: usize) -> impl Iterator<Item = &Record> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range((from, Bound::Unbounded)).map(|(_, record)| record).take(most)
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
