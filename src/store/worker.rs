//! The thread that stands between async callers and an engine that blocks.
//!
//! It owns the ledger and carries requests out in the order in which they
//! arrive. What needs no wait for the disk is answered at once. When nothing
//! is left to do it makes everything written so far durable in one go, and
//! acknowledges all that waited (group commit). What comes meanwhile waits
//! with it and makes up the next group: under load a flush covers many
//! messages and nobody has to be woken for each.
//!
//! Every call has a deadline, answered with [`StoreFault::Stalled`]. A stalled
//! request is not withdrawn: it may still be carried out. Order is kept, so
//! whoever settles afterwards with the same token ends what a stalled commit
//! may have begun (a release would not: it leaves alone what is committing).
//! A claim whose caller is gone by the time it is taken is given up at once.
//! Commits and settlements may be repeated.

mod inbox;
mod room;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::ledger::{Backend, Ledger};
use super::{
    Census, Change, ClaimId, ClaimRequest, Claimed, Commit, Count, Durability, Heard, Imported, Query,
    Record, Resolution, Settlement, Store, StoreFault, Token,
};
use crate::clock::Timestamp;
use inbox::{Gone, Inbox, Urgency};
pub(super) use room::Room;
use writer::{COUNTS, Request, Writer};

/// How long a call may take, unless told otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Where the answer to one request goes.
type Answer<T> = oneshot::Sender<Result<T, StoreFault>>;

/// Why the store can no longer be used. Once set it stays: after a failed
/// write nobody knows what the disk holds, so nothing may be acknowledged
/// until a new start has read it.
#[derive(Debug, Default)]
pub(super) struct Poison(OnceLock<String>);

impl Poison {
    /// Ends all use of the store; the first reason stays. Answers the fault
    /// for the call that found it.
    pub(super) fn set(&self, why: String) -> StoreFault {
        tracing::error!(fault = %why, "the claim store has failed");
        let _ = self.0.set(why.clone());
        StoreFault::Failed(why)
    }

    /// The fault for every later call.
    pub(super) fn check(&self) -> Result<(), StoreFault> {
        self.0.get().map_or(Ok(()), |why| Err(StoreFault::Failed(why.clone())))
    }
}

/// The async face of a ledger on a thread of its own. Dropping it ends that in
/// the background; [`Store::close`] waits for it.
#[derive(Debug)]
pub struct Worker {
    inbox: Arc<Inbox>,
    poison: Arc<Poison>,
    deadline: Duration,
}

impl Worker {
    /// How long one call may take before it is answered with
    /// [`StoreFault::Stalled`]; 10 seconds unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts the thread. New claims are made while there is `room`.
    pub(super) fn over<B: Backend>(
        ledger: Ledger<B>,
        poison: Arc<Poison>,
        room: Room,
    ) -> Result<Self, StoreFault> {
        let inbox = Arc::new(Inbox::default());
        let writer = Writer::new(ledger, Arc::clone(&inbox), Arc::clone(&poison), room);
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreFault::Failed(format!("the store can't start a thread: {error}")))?;
        Ok(Self { inbox, poison, deadline: DEADLINE })
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<T, StoreFault> {
        self.poison.check()?;
        let (answer, mut result) = oneshot::channel();
        self.inbox.put(request(answer), Urgency::Now).map_err(|Gone| self.gone())?;
        match tokio::time::timeout(self.deadline, &mut result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => {
                // From here on the writer knows that nobody listens. A claim
                // that was answered before must not be forgotten.
                result.close();
                result.try_recv().unwrap_or(Err(StoreFault::Stalled { operation }))
            }
        }
    }

    /// Why there is no writer any more.
    fn gone(&self) -> StoreFault {
        let closed = || StoreFault::Failed("the claim store is closed; start mailonce again".into());
        self.poison.check().err().unwrap_or_else(closed)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.inbox.abandon();
    }
}

#[async_trait]
impl Store for Worker {
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        self.call("claim", |answer| Request::Claim(request, answer)).await
    }

    async fn commit(&self, token: Token, commits: Vec<Commit>, at: Timestamp) -> Result<(), StoreFault> {
        self.call("commit", |answer| Request::Commit { token, commits, at, answer }).await
    }

    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        durability: Durability,
    ) -> Result<(), StoreFault> {
        if durability == Durability::Soon {
            // Order is kept, so whoever calls next sees it; a write that fails
            // is the end of the store, and the claim stays committing on disk.
            self.poison.check()?;
            let request = Request::Settle { token, at, settlements, answer: None };
            return self.inbox.put(request, Urgency::Soon).map_err(|Gone| self.gone());
        }
        self.call("settle", |answer| Request::Settle { token, at, settlements, answer: Some(answer) }).await
    }

    fn note_heard(&self, notes: Vec<Heard>, now: Timestamp) {
        if self.poison.check().is_ok() {
            // A writer that has ended leaves the claim as it was settled.
            let _ = self.inbox.put(Request::NoteHeard(notes, now), Urgency::Soon);
        }
    }

    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault> {
        self.call("release", |answer| Request::Release { token, ids, answer }).await
    }

    async fn ready(&self) -> Result<(), StoreFault> {
        self.call("ready", Request::Ready).await
    }

    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        self.call("get", |answer| Request::Get { id, now, answer }).await
    }

    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        self.call("list", |answer| Request::List { query, now, answer }).await
    }

    async fn forget(&self, id: ClaimId, at: Timestamp) -> Result<Change, StoreFault> {
        self.call("forget", |answer| Request::Forget { id, at, answer }).await
    }

    async fn resolve(&self, id: ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault> {
        self.call("resolve", |answer| Request::Resolve { id, as_, at, answer }).await
    }

    async fn import(&self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault> {
        self.call("import", |answer| Request::Import { records, now, answer }).await
    }

    async fn count(&self, deltas: Vec<Count>) -> Result<(), StoreFault> {
        self.call("count", |answer| Request::Count { deltas, answer }).await
    }

    /// In pieces, so that the claims need not wait for all of it.
    async fn counts(&self, since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        let mut counts: Vec<Count> = Vec::new();
        loop {
            let after = counts.last().cloned();
            let piece = self.call("counts", |answer| Request::Counts { since, after, answer }).await?;
            let last = piece.len() < COUNTS;
            counts.extend(piece);
            if last {
                return Ok(counts);
            }
        }
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        self.call("census", Request::Census).await
    }

    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        self.call("sweep", |answer| Request::Sweep { now, most, answer }).await
    }

    /// Closing twice is harmless.
    async fn close(&self) -> Result<(), StoreFault> {
        let (answer, result) = oneshot::channel();
        if self.inbox.put(Request::Close(answer), Urgency::Now).is_err() {
            return self.poison.check();
        }
        match tokio::time::timeout(self.deadline, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => self.poison.check(),
            Err(_) => Err(StoreFault::Stalled { operation: "close" }),
        }
    }
}
