//! A store that fails on demand. For tests and for the demonstration that the
//! store is what keeps mail from being sent twice; never for real mail.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Census, Change, ClaimId, ClaimRequest, Claimed, Commit, Count, Durability, Heard, Imported, Query,
    Record, Resolution, Settlement, Store, StoreFault, Token,
};
use crate::clock::Timestamp;

/// When a planned fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing is done, and the caller is told so.
    Before,
    /// All is done, and the caller is told otherwise: a lost answer.
    After,
    /// Nothing is done, and the caller's own thread panics.
    Panic,
}

/// A wrapper around any store that fails at chosen calls with
/// [`StoreFault::Failed`].
///
/// Operations are named as the methods of [`Store`]: `claim`, `commit`,
/// `settle`, `note_heard`, `release`, `get`, `list`, `forget`, `resolve`, `import`, `count`,
/// `counts`, `census`, `sweep`, `close`.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Plan>,
    broken_claims: AtomicBool,
}

#[derive(Default)]
struct Plan {
    calls: HashMap<&'static str, usize>,
    faults: Vec<(&'static str, Range<usize>, Moment)>,
}

impl FaultyStore {
    /// A wrapper that passes everything on until told otherwise.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, plan: Mutex::default(), broken_claims: AtomicBool::new(false) }
    }

    /// Lets the calls of `operation` numbered by `calls` fail, counted from 0
    /// over the life of the wrapper: `3..4` is the fourth call,
    /// `0..usize::MAX` every one.
    pub fn fail(&self, operation: &'static str, calls: Range<usize>, moment: Moment) {
        self.plan().faults.push((operation, calls, moment));
    }

    /// Lets the next `count` calls of `operation` fail.
    pub fn fail_next(&self, operation: &'static str, count: usize) {
        let from = self.calls(operation);
        self.fail(operation, from..from.saturating_add(count), Moment::Before);
    }

    /// Forgets every planned fault.
    pub fn heal(&self) {
        self.plan().faults.clear();
    }

    /// How many calls of `operation` there were, failed ones included.
    pub fn calls(&self, operation: &str) -> usize {
        self.plan().calls.get(operation).copied().unwrap_or(0)
    }

    /// From now on every claim is answered [`Claimed::New`], whoever holds it,
    /// and nobody is ever fenced: a store that does not do its work. A test
    /// that still passes with it tests nothing.
    pub fn break_claims(&self) {
        self.broken_claims.store(true, Ordering::SeqCst);
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self) -> bool {
        self.broken_claims.load(Ordering::SeqCst)
    }

    /// Counts a call and answers when it is to fail, if it is.
    fn note(&self, operation: &'static str) -> Option<Moment> {
        let mut plan = self.plan();
        let calls = plan.calls.entry(operation).or_default();
        let number = *calls;
        *calls += 1;
        let hit =
            |(name, calls, _): &&(&str, Range<usize>, Moment)| *name == operation && calls.contains(&number);
        plan.faults.iter().find(hit).map(|(_, _, moment)| *moment)
    }

    async fn run<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreFault>> + Send,
    ) -> Result<T, StoreFault> {
        let fault = || Err(StoreFault::Failed(format!("planned fault of {operation}")));
        match self.note(operation) {
            None => call.await,
            Some(Moment::Before) => fault(),
            Some(Moment::After) => {
                call.await?;
                fault()
            }
            Some(Moment::Panic) => std::panic::resume_unwind(Box::new(operation)),
        }
    }

    /// With broken claims, not being the holder passes for success.
    fn unfenced(&self, result: Result<(), StoreFault>) -> Result<(), StoreFault> {
        match result {
            Err(StoreFault::Fenced) if self.broken() => Ok(()),
            result => result,
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        let claimed = self.run("claim", self.inner.claim(request)).await?;
        let new = |_| Claimed::New { previous: None };
        Ok(if self.broken() { claimed.into_iter().map(new).collect() } else { claimed })
    }

    async fn commit(&self, token: Token, commits: Vec<Commit>, at: Timestamp) -> Result<(), StoreFault> {
        let result = self.run("commit", self.inner.commit(token, commits, at)).await;
        self.unfenced(result)
    }

    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        durability: Durability,
    ) -> Result<(), StoreFault> {
        let result = self.run("settle", self.inner.settle(token, at, settlements, durability)).await;
        self.unfenced(result)
    }

    /// One that fails is lost.
    fn note_heard(&self, notes: Vec<Heard>, now: Timestamp) {
        match self.note("note_heard") {
            None | Some(Moment::After) => self.inner.note_heard(notes, now),
            Some(Moment::Before) => {}
            Some(Moment::Panic) => std::panic::resume_unwind(Box::new("note_heard")),
        }
    }

    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault> {
        self.run("release", self.inner.release(token, ids)).await
    }

    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        self.run("get", self.inner.get(id, now)).await
    }

    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        self.run("list", self.inner.list(query, now)).await
    }

    async fn forget(&self, id: ClaimId, at: Timestamp) -> Result<Change, StoreFault> {
        self.run("forget", self.inner.forget(id, at)).await
    }

    async fn resolve(&self, id: ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault> {
        self.run("resolve", self.inner.resolve(id, as_, at)).await
    }

    async fn import(&self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault> {
        self.run("import", self.inner.import(records, now)).await
    }

    async fn count(&self, deltas: Vec<Count>) -> Result<(), StoreFault> {
        self.run("count", self.inner.count(deltas)).await
    }

    async fn counts(&self, since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        self.run("counts", self.inner.counts(since)).await
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        self.run("census", self.inner.census()).await
    }

    async fn ready(&self) -> Result<(), StoreFault> {
        self.run("ready", self.inner.ready()).await
    }

    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        self.run("sweep", self.inner.sweep(now, most)).await
    }

    async fn close(&self) -> Result<(), StoreFault> {
        self.run("close", self.inner.close()).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{accepted, at, claim, is_new, send, settle, settled, slot};
    use super::super::memory::MemoryStore;
    use super::*;

    #[tokio::test]
    async fn it_fails_when_told_to_and_only_then() {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        store.fail("claim", 1..2, Moment::Before);
        assert!(is_new(&claim(&store, 1, at(0), slot(1)).await));
        let request = super::super::contract::request(2, at(0), vec![slot(2)]);
        assert!(matches!(store.claim(request.clone()).await, Err(StoreFault::Failed(_))));
        assert!(is_new(&store.claim(request).await.unwrap()[0]));
        assert_eq!(store.calls("claim"), 3);

        store.fail("settle", 0..1, Moment::After);
        assert!(settle(&store, 1, at(0), 1, accepted()).await.is_err());
        settled(claim(&store, 3, at(0), slot(1)).await);
        settle(&store, 1, at(0), 1, accepted()).await.unwrap();

        store.fail_next("get", usize::MAX);
        assert!(store.get(super::super::contract::id(1), at(0)).await.is_err());
        store.heal();
        assert!(store.get(super::super::contract::id(1), at(0)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_broken_claim_lets_everybody_send() {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        store.break_claims();
        send(&store, 1, at(0), slot(1), accepted()).await;
        send(&store, 2, at(0), slot(1), accepted()).await;
    }
}
