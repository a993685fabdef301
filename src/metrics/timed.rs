//! A store that tells the metrics how long each call took.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Metrics, Operation};
use crate::clock::Timestamp;
use crate::store::{
    Census, Change, ClaimId, ClaimRequest, Claimed, Commit, Count, Durability, Heard, Imported, Query,
    Record, Resolution, Settlement, Store, StoreFault, Token,
};

/// Passes every call on and measures it.
pub struct TimedStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for TimedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimedStore").finish_non_exhaustive()
    }
}

impl TimedStore {
    /// Measures `inner`.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn time<T>(&self, operation: Operation, call: impl Future<Output = T> + Send) -> T {
        let started = Instant::now();
        let result = call.await;
        self.metrics.store_took(operation, started.elapsed());
        result
    }
}

#[async_trait]
impl Store for TimedStore {
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        self.time(Operation::Claim, self.inner.claim(request)).await
    }

    async fn commit(&self, token: Token, commits: Vec<Commit>, at: Timestamp) -> Result<(), StoreFault> {
        self.time(Operation::Commit, self.inner.commit(token, commits, at)).await
    }

    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        durability: Durability,
    ) -> Result<(), StoreFault> {
        self.time(Operation::Settle, self.inner.settle(token, at, settlements, durability)).await
    }

    fn note_heard(&self, notes: Vec<Heard>, now: Timestamp) {
        self.inner.note_heard(notes, now);
    }

    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault> {
        self.time(Operation::Release, self.inner.release(token, ids)).await
    }

    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        self.time(Operation::Get, self.inner.get(id, now)).await
    }

    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        self.time(Operation::List, self.inner.list(query, now)).await
    }

    async fn forget(&self, id: ClaimId, at: Timestamp) -> Result<Change, StoreFault> {
        self.time(Operation::Forget, self.inner.forget(id, at)).await
    }

    async fn resolve(&self, id: ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault> {
        self.time(Operation::Resolve, self.inner.resolve(id, as_, at)).await
    }

    async fn import(&self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault> {
        self.time(Operation::Import, self.inner.import(records, now)).await
    }

    async fn count(&self, deltas: Vec<Count>) -> Result<(), StoreFault> {
        self.time(Operation::Count, self.inner.count(deltas)).await
    }

    async fn counts(&self, since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        self.time(Operation::Counts, self.inner.counts(since)).await
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        self.time(Operation::Census, self.inner.census()).await
    }

    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        self.time(Operation::Sweep, self.inner.sweep(now, most)).await
    }

    async fn ready(&self) -> Result<(), StoreFault> {
        self.inner.ready().await
    }

    async fn close(&self) -> Result<(), StoreFault> {
        self.inner.close().await
    }
}
