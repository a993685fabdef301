//! The engine for one machine: claims in a sled directory.
//!
//! What has to be durable now goes into the [`log`], once for all who wait; see
//! [`super::worker`]. What is settled is in sled, and reaches stable storage
//! there by sled's `flush` and then an `fdatasync` of our own, since sled's
//! flush stops at the operating system's cache.
//!
//! A write or flush that fails ends all use of the store until the process is
//! started again: from then on nobody knows what the disk holds, and only a
//! new opening reads it. That is so after a full disk too, which is why claims
//! end before it is full; see [`Room`].

mod backend;
mod codec;
mod compaction;
mod keys;
mod log;
mod open;
#[cfg(test)]
mod tests;
mod trees;

use std::path::Path;
use std::sync::Arc;

use super::ledger::Ledger;
use super::worker::{Poison, Room};
use super::{Record, StoreFault};
use crate::clock::Timestamp;
use backend::SledBackend;

/// Claims in a directory that this process alone has open.
pub use super::worker::Worker as SledStore;

/// What a store may take of its disk.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Octets: nothing new is claimed while less is free.
    pub reserve: u64,
    /// Octets: while the file has no more, it is left alone, whatever is waste
    /// in it.
    pub floor: u64,
}

impl From<u64> for Space {
    /// The usual, with this reserve.
    fn from(reserve: u64) -> Self {
        Self { reserve, floor: compaction::FLOOR }
    }
}

impl SledStore {
    /// Opens or creates the store in `path`, for relaying, within `space`: often
    /// just what is kept free, in octets. What was being
    /// committed when the last process ended is in doubt from `at` on; those
    /// records come with the store, to be logged, and are durable.
    ///
    /// Blocks on the disk: call it outside the runtime or on a thread for
    /// blocking work. Fails with [`StoreFault::Locked`] while another process
    /// has the store open, else with [`StoreFault::Failed`] and a text that
    /// names the path and a remedy.
    pub fn open(
        path: &Path,
        space: impl Into<Space>,
        at: Timestamp,
    ) -> Result<(Self, Vec<Record>), StoreFault> {
        Self::start(path, space.into(), Some(at))
    }

    /// The same for looking and mending, as `keys list` does: what was being
    /// committed stays so, for the next [`SledStore::open`] to find.
    pub fn open_without_recovery(path: &Path) -> Result<Self, StoreFault> {
        Ok(Self::start(path, Space { reserve: 0, floor: u64::MAX }, None)?.0)
    }

    fn start(
        path: &Path,
        space: Space,
        recover_at: Option<Timestamp>,
    ) -> Result<(Self, Vec<Record>), StoreFault> {
        let poison = Arc::new(Poison::default());
        let backend = SledBackend::new(open::open(path)?, path, space.floor, Arc::clone(&poison))?;
        let mut ledger = Ledger::new(backend);
        let doubtful = match recover_at {
            Some(at) => ledger.recover(at)?,
            None => ledger.load().map(|()| Vec::new())?,
        };
        ledger.checkpoint()?;
        Ok((Self::over(ledger, poison, Room::on_disk(path.to_owned(), space.reserve))?, doubtful))
    }
}
