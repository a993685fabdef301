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
mod tenant_key;
#[cfg(test)]
mod tests;
mod trees;

use std::path::Path;
use std::sync::Arc;

use super::ledger::Ledger;
use super::worker::{Poison, Room};
use super::{Record, StoreFault};
use crate::clock::Timestamp;
use crate::secret::SecretKey;
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

/// A store that was opened for relaying.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SledStore,
    /// What was being committed when the last process ended, in doubt now.
    pub doubts: Vec<Record>,
    /// The key by which the passwords of tenants are hashed. It is the same as
    /// long as the store lasts.
    pub tenant_key: SecretKey,
}

/// Whether a store is opened to relay.
#[derive(Clone, Copy)]
enum Purpose {
    /// What was being committed is in doubt from then on.
    Relaying(Timestamp),
    Looking,
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
        Parts::open(path, space.into())?.start(Purpose::Relaying(at))
    }

    /// The same with the key of the store's tenants, which is made where there
    /// has never been one. Fails with [`StoreFault::Failed`] where it can't be
    /// read or made, or is another than that of the claims; what was being
    /// committed is left for the next opening then.
    pub fn open_for_relaying(
        path: &Path,
        space: impl Into<Space>,
        at: Timestamp,
    ) -> Result<Opened, StoreFault> {
        let parts = Parts::open(path, space.into())?;
        let tenant_key = parts.backend.tenant_key()?;
        let (store, doubts) = parts.start(Purpose::Relaying(at))?;
        Ok(Opened { store, doubts, tenant_key })
    }

    /// The same for looking and mending, as `keys list` does: what was being
    /// committed stays so, for the next [`SledStore::open`] to find.
    pub fn open_without_recovery(path: &Path) -> Result<Self, StoreFault> {
        Ok(Parts::open(path, Space { reserve: 0, floor: u64::MAX })?.start(Purpose::Looking)?.0)
    }
}

/// What a store is made of.
struct Parts {
    backend: SledBackend,
    poison: Arc<Poison>,
    room: Room,
}

impl Parts {
    fn open(path: &Path, space: Space) -> Result<Self, StoreFault> {
        let poison = Arc::new(Poison::default());
        let backend = SledBackend::new(open::open(path)?, path, space.floor, Arc::clone(&poison))?;
        Ok(Self { backend, poison, room: Room::on_disk(path.to_owned(), space.reserve) })
    }

    fn start(self, purpose: Purpose) -> Result<(SledStore, Vec<Record>), StoreFault> {
        let mut ledger = Ledger::new(self.backend);
        let doubtful = match purpose {
            Purpose::Relaying(at) => ledger.recover(at)?,
            Purpose::Looking => ledger.load().map(|()| Vec::new())?,
        };
        ledger.checkpoint()?;
        Ok((SledStore::over(ledger, self.poison, self.room)?, doubtful))
    }
}
