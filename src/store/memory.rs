//! The engine that forgets everything when the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::ledger::{Backend, Ledger};
use super::{
    Census, Change, ClaimId, ClaimRequest, Claimed, Count, Durability, Imported, Query, Record, Resolution,
    Settlement, Store, StoreFault, Token,
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
        Self { ledger: Mutex::new(Ledger::new(MapBackend::default())) }
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

    async fn commit(&self, token: Token, ids: Vec<ClaimId>, at: Timestamp) -> Result<(), StoreFault> {
        self.ledger().commit(token, &ids, at)
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

    async fn forget(&self, _id: ClaimId, _at: Timestamp) -> Result<Change, StoreFault> {
        Err(StoreFault::Failed("not built yet".into()))
    }

    async fn resolve(&self, _id: ClaimId, _as: Resolution, _at: Timestamp) -> Result<Change, StoreFault> {
        Err(StoreFault::Failed("not built yet".into()))
    }

    async fn import(&self, _records: Vec<Record>, _now: Timestamp) -> Result<Imported, StoreFault> {
        Err(StoreFault::Failed("not built yet".into()))
    }

    async fn count(&self, _deltas: Vec<Count>) -> Result<(), StoreFault> {
        Err(StoreFault::Failed("not built yet".into()))
    }

    async fn counts(&self, _since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        Err(StoreFault::Failed("not built yet".into()))
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        Err(StoreFault::Failed("not built yet".into()))
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

    fn range(&self, after: Option<&ClaimId>, most: usize) -> Result<Vec<Record>, StoreFault> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self
            .records
            .range((from, Bound::Unbounded))
            .take(most)
            .map(|(_, record)| record.clone())
            .collect())
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
