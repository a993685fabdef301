//! The claims that somebody holds, in memory: nothing is read back to end one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::super::record::key_mark;
use super::super::{ClaimId, Commit, Record, State, StateName, Token};
use super::backend::IdRange;
use crate::clock::Timestamp;
use crate::planted::{self, Bug};

/// Claims in state `pending` or `committing`, each lying over the record that
/// its id had before. Forgetting one uncovers that record again.
#[derive(Debug, Default)]
pub(super) struct HeldClaims {
    claims: BTreeMap<ClaimId, Held>,
    leases: BTreeSet<(Timestamp, ClaimId)>,
    /// By the marks of their keys.
    keys: BTreeSet<(u64, ClaimId)>,
}

/// A claim that a token holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) record: Record,
    /// The mark of its key.
    pub(super) mark: u64,
    pub(super) under: Option<Under>,
}

/// What must be known of the record underneath a claim, expired or not: its
/// entries mean nothing any more once the claim writes a record of its own.
#[derive(Clone, Debug)]
pub(super) struct Under {
    /// Its entry in the expiry index.
    pub(super) expires: Timestamp,
    /// Its entry in the index of keys.
    pub(super) mark: u64,
    /// How the census counts it.
    pub(super) state: StateName,
    pub(super) tenant: String,
    /// Whether it may outlast the claim: see [`Record::is_out`].
    pub(super) lasts: bool,
    /// See [`super::ending::Before::continued`].
    pub(super) continued: bool,
}

impl Under {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            expires: record.expires,
            mark: key_mark(&record.key),
            state: record.state.name(),
            tenant: record.tenant.clone(),
            lasts: record.is_out(),
            continued: false,
        }
    }
}

impl Held {
    /// What lies underneath is `record` now.
    pub(super) fn lie_over(&mut self, record: &Record) {
        let is_same = record.fingerprint == self.record.fingerprint;
        let continued = is_same || self.under.as_ref().is_some_and(|under| under.continued);
        self.under = Some(Under { continued, ..Under::of(record) });
    }
}

/// When the lease of a pending record ends, and who holds it.
fn lease(record: &Record) -> Option<(Timestamp, Token)> {
    match record.state {
        State::Pending { holder, lease_until } => Some((lease_until, holder)),
        State::Committing { .. } | State::Settled(_) => None,
    }
}

impl HeldClaims {
    /// Nobody may hold its id.
    pub(super) fn insert(&mut self, held: Held) {
        let id = held.record.id;
        if let Some((until, _)) = lease(&held.record) {
            self.leases.insert((until, id));
        }
        self.keys.insert((held.mark, id));
        self.claims.insert(id, held);
    }

    pub(super) fn remove(&mut self, id: &ClaimId) -> Option<Held> {
        let held = self.claims.remove(id)?;
        if let Some((until, _)) = lease(&held.record) {
            self.leases.remove(&(until, *id));
        }
        self.keys.remove(&(held.mark, *id));
        Some(held)
    }

    /// Whether `token` holds `id`.
    pub(super) fn is_held_by(&self, id: &ClaimId, token: Token) -> bool {
        self.get(id).is_some_and(|record| record.state.holder() == Some(token))
    }

    pub(super) fn get(&self, id: &ClaimId) -> Option<&Record> {
        self.claims.get(id).map(|held| &held.record)
    }

    /// What lies under the claim of `id`.
    pub(super) fn under(&self, id: &ClaimId) -> Option<&Under> {
        self.claims.get(id).and_then(|held| held.under.as_ref())
    }

    /// For changes to anything but state and key.
    pub(super) fn get_mut(&mut self, id: &ClaimId) -> Option<&mut Held> {
        self.claims.get_mut(id)
    }

    /// Makes a claim committing; answers its record as it is now.
    pub(super) fn commit(&mut self, commit: &Commit, token: Token, at: Timestamp) -> Option<&Record> {
        let record = &mut self.claims.get_mut(&commit.id)?.record;
        if let Some((until, _)) = lease(record) {
            self.leases.remove(&(until, commit.id));
        }
        record.marks.clone_from(&commit.marks);
        record.state = State::Committing { holder: token };
        record.last_seen = record.last_seen.max(at);
        Some(record)
    }

    /// The record underneath `id` is gone.
    pub(super) fn bare(&mut self, id: &ClaimId) {
        if let Some(held) = self.claims.get_mut(id) {
            held.under = None;
        }
    }

    /// Whether `token` holds `id` and has not begun to commit it.
    pub(super) fn is_pending(&self, id: &ClaimId, token: Token) -> bool {
        self.get(id).and_then(lease).is_some_and(|(_, holder)| holder == token)
    }

    /// Whether the lease of `id` has run out at `at`.
    pub(super) fn lapsed(&self, id: &ClaimId, at: Timestamp) -> bool {
        let Some(record) = self.get(id) else { return false };
        let lease = match planted::is(Bug::CommittingLapses) {
            true => Some(record.first_seen.plus(std::time::Duration::from_secs(1200))),
            false => lease(record).map(|(until, _)| until),
        };
        lease.is_some_and(|until| until <= at)
    }

    /// Up to `most` records in the order of their ids.
    pub(super) fn range(&self, ids: IdRange, most: usize) -> impl Iterator<Item = &Record> {
        self.claims.range(ids).map(|(_, held)| &held.record).take(most)
    }

    /// Up to `most` ids whose keys have this mark, in their order, from behind
    /// `after`.
    pub(super) fn keyed(
        &self,
        mark: u64,
        after: Option<ClaimId>,
        most: usize,
    ) -> impl Iterator<Item = ClaimId> {
        let from = match after {
            Some(id) => Bound::Excluded((mark, id)),
            None => Bound::Included((mark, ClaimId::FIRST)),
        };
        let to = Bound::Included((mark, ClaimId::LAST));
        self.keys.range((from, to)).map(|(_, id)| *id).take(most)
    }

    /// Up to `most` claims whose lease ran out at `before` or earlier.
    pub(super) fn abandoned(&self, before: Timestamp, most: usize) -> Vec<ClaimId> {
        let due = self.leases.iter().take_while(|(until, _)| *until <= before);
        due.take(most).map(|(_, id)| *id).collect()
    }
}
