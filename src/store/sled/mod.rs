//! The engine for one machine: claims in a sled directory.
//!
//! What has to be durable now goes into the [`log`], once for all who wait; see
//! [`super::worker`]. What is settled is in sled, and reaches stable storage
//! there by sled's `flush` and then an `fdatasync` of our own, since sled's
//! flush stops at the operating system's cache.
//!
//! A write or flush that fails ends all use of the store until the process is
//! started again: from then on nobody knows what the disk holds, and only a
//! new opening reads it. That is so after a full disk too.

mod backend;
mod codec;
mod log;
mod open;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::ledger::Ledger;
use super::worker::{Poison, Worker};
use super::{
    ClaimId, ClaimRequest, Claimed, Durability, Query, Record, Settlement, Store, StoreFault, Token,
};
use crate::clock::Timestamp;
use backend::SledBackend;

/// Claims in a directory that this process alone has open.
///
/// A call that takes longer than the deadline is answered with
/// [`StoreFault::Stalled`], but not withdrawn: it may still be carried out,
/// before any later call. A stalled commit or settlement may be repeated. A
/// holder who gives up after a stalled commit, having sent nothing, *settles*
/// with the same token, as deferred: that ends the claim whether the commit
/// passed or not, while a release would leave it committing. A claim whose
/// caller has given up by the time it is taken is released at once.
#[derive(Debug)]
pub struct SledStore {
    worker: Worker,
}

impl SledStore {
    /// Opens or creates the store in `path`, for relaying. What was being
    /// committed when the last process ended is in doubt from `at` on; those
    /// records come with the store, to be logged, and are durable.
    ///
    /// Blocks on the disk: call it outside the runtime or on a thread for
    /// blocking work. Fails with [`StoreFault::Locked`] while another process
    /// has the store open, else with [`StoreFault::Failed`] and a text that
    /// names the path and a remedy.
    pub fn open(path: &Path, at: Timestamp) -> Result<(Self, Vec<Record>), StoreFault> {
        Self::start(path, Some(at))
    }

    /// The same for looking and mending, as `keys list` does: what was being
    /// committed stays so, for the next [`SledStore::open`] to find.
    pub fn open_without_recovery(path: &Path) -> Result<Self, StoreFault> {
        Ok(Self::start(path, None)?.0)
    }

    /// How long one call may take before it is answered with
    /// [`StoreFault::Stalled`]; 10 seconds unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker.deadline = deadline;
        self
    }

    fn start(path: &Path, recover_at: Option<Timestamp>) -> Result<(Self, Vec<Record>), StoreFault> {
        let poison = Arc::new(Poison::default());
        let mut ledger = Ledger::new(SledBackend::new(open::open(path)?, path, Arc::clone(&poison))?);
        let doubtful = match recover_at {
            Some(at) => ledger.recover(at)?,
            None => ledger.load().map(|()| Vec::new())?,
        };
        ledger.checkpoint()?;
        Ok((Self { worker: Worker::start(ledger, poison)? }, doubtful))
    }
}

#[async_trait]
impl Store for SledStore {
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        self.worker.claim(request).await
    }

    async fn commit(&self, token: Token, ids: Vec<ClaimId>, at: Timestamp) -> Result<(), StoreFault> {
        self.worker.commit(token, ids, at).await
    }

    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        durability: Durability,
    ) -> Result<(), StoreFault> {
        self.worker.settle(token, at, settlements, durability).await
    }

    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault> {
        self.worker.release(token, ids).await
    }

    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        self.worker.get(id, now).await
    }

    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        self.worker.list(query, now).await
    }

    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        self.worker.sweep(now, most).await
    }

    /// Writes everything down and lets go of the directory. Calls still under
    /// way behind it, and all later ones, are answered [`StoreFault::Failed`].
    async fn close(&self) -> Result<(), StoreFault> {
        self.worker.close().await
    }
}
