//! The engine that forgets everything when the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::ledger::{Backend, IdRange, Ledger};
use super::{
    Census, Change, ClaimId, ClaimRequest, Claimed, Commit, Count, Durability, Heard, Imported, Query,
    Record, Resolution, Settlement, Store, StoreFault, Tally, Token,
};
use crate::clock::Timestamp;

/// Claims in memory. For trying things out and for tests: after a restart
/// every e-mail is new.
#[derive(Debug)]
pub struct MemoryStore {
    ledger: Mutex<Ledger<MapBackend>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let mut ledger = Ledger::new(MapBackend::default());
        // Nothing is there yet, so this counts all of it; maps never fail.
        let _ = ledger.count_some(1);
        Self { ledger: Mutex::new(ledger) }
    }

    /// A panic under the lock leaves the maps in some valid state, for every
    /// single step on them is one.
    fn ledger(&self) -> MutexGuard<'_, Ledger<MapBackend>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        self.ledger().claim(&request)
    }

    async fn commit(&self, token: Token, commits: Vec<Commit>, at: Timestamp) -> Result<(), StoreFault> {
        self.ledger().commit(token, &commits, at)
    }

    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        _durability: Durability,
    ) -> Result<(), StoreFault> {
        self.ledger().settle(token, at, &settlements)
    }

    fn note_heard(&self, notes: Vec<Heard>, now: Timestamp) {
        // Maps never fail.
        let _ = self.ledger().note_heard(&notes, now);
    }

    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault> {
        self.ledger().release(token, &ids);
        Ok(())
    }

    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        self.ledger().get(&id, now)
    }

    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        self.ledger().list(&query, now)
    }

    async fn forget(&self, id: ClaimId, at: Timestamp) -> Result<Change, StoreFault> {
        self.ledger().forget(&id, at)
    }

    async fn resolve(&self, id: ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault> {
        self.ledger().resolve(&id, as_, at)
    }

    async fn import(&self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault> {
        self.ledger().import(records, now)
    }

    async fn count(&self, deltas: Vec<Count>) -> Result<(), StoreFault> {
        self.ledger().count(&deltas)
    }

    async fn counts(&self, since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        self.ledger().counts(since, None, usize::MAX)
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        Ok(self.ledger().census())
    }

    async fn ready(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        self.ledger().sweep(now, most)
    }

    async fn close(&self) -> Result<(), StoreFault> {
        Ok(())
    }
}

/// A [`Backend`] of ordered maps.
#[derive(Clone, Debug, Default)]
pub struct MapBackend {
    records: BTreeMap<ClaimId, Record>,
    expiry: BTreeSet<(Timestamp, ClaimId)>,
    open: BTreeMap<ClaimId, Record>,
    keys: BTreeSet<(u64, ClaimId)>,
    counts: BTreeMap<(u64, String, String), Tally>,
    /// Whether a record may have an id of an earlier version.
    former: bool,
}

impl Backend for MapBackend {
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault> {
        Ok(self.records.get(id).cloned())
    }

    fn put(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.records.insert(record.id, record.clone());
        Ok(())
    }

    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.records.remove(id);
        Ok(())
    }

    fn range(&self, ids: IdRange, most: usize) -> Result<Vec<Record>, StoreFault> {
        Ok(self.records.range(ids).take(most).map(|(_, record)| record.clone()).collect())
    }

    fn add_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.expiry.insert((at, *id));
        Ok(())
    }

    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.expiry.remove(&(at, *id));
        Ok(())
    }

    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault> {
        Ok(self.expiry.iter().take_while(|(at, _)| *at <= now).take(most).copied().collect())
    }

    fn add_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.keys.insert((mark, *id));
        Ok(())
    }

    fn remove_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.keys.remove(&(mark, *id));
        Ok(())
    }

    fn keyed(&self, mark: u64, after: Option<&ClaimId>, most: usize) -> Result<Vec<ClaimId>, StoreFault> {
        let from = after.map_or(Bound::Included((mark, ClaimId::FIRST)), |id| Bound::Excluded((mark, *id)));
        let behind = self.keys.range((from, Bound::Unbounded));
        Ok(behind.take_while(|(found, _)| *found == mark).take(most).map(|(_, id)| *id).collect())
    }

    fn is_indexed(&self) -> bool {
        true
    }

    fn set_indexed(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn has_former(&self) -> bool {
        self.former
    }

    fn expect_former(&mut self) -> Result<(), StoreFault> {
        self.former = true;
        Ok(())
    }

    fn add_count(&mut self, delta: &Count) -> Result<(), StoreFault> {
        *self.counts.entry(count_key(delta)).or_default() += delta.tally;
        Ok(())
    }

    fn counts(&self, from: u64, after: Option<&Count>, most: usize) -> Result<Vec<Count>, StoreFault> {
        let first = Bound::Included((from, String::new(), String::new()));
        let from = after.map_or(first, |after| Bound::Excluded(count_key(after)));
        let behind = self.counts.range((from, Bound::Unbounded)).take(most);
        let count = |((hour, tenant, rule), tally): (&(u64, String, String), &Tally)| Count {
            hour: *hour,
            tenant: tenant.clone(),
            rule: rule.clone(),
            tally: *tally,
        };
        Ok(behind.map(count).collect())
    }

    fn remove_counts(&mut self, before: u64, most: usize) -> Result<(), StoreFault> {
        let old: Vec<_> =
            self.counts.keys().take_while(|(hour, ..)| *hour < before).take(most).cloned().collect();
        for key in old {
            self.counts.remove(&key);
        }
        Ok(())
    }

    fn put_open(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.open.insert(record.id, record.clone());
        Ok(())
    }

    fn remove_open(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.open.remove(id);
        Ok(())
    }

    fn open(&self) -> Result<Vec<Record>, StoreFault> {
        Ok(self.open.values().cloned().collect())
    }

    fn sync(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }
}

fn count_key(count: &Count) -> (u64, String, String) {
    (count.hour, count.tenant.clone(), count.rule.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::contract::{Engine, contract_suite};
    use super::*;

    struct Memory;

    #[async_trait]
    impl Engine for Memory {
        async fn open(&self, _at: Timestamp) -> (Arc<dyn Store>, Vec<Record>) {
            (Arc::new(MemoryStore::new()), Vec::new())
        }

        fn durable(&self) -> bool {
            false
        }
    }

    contract_suite!(contract, Memory);
}
