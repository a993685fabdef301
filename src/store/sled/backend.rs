//! The three trees.

use std::fs::File;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;

use ::sled::{IVec, Tree};

use super::super::ledger::Backend;
use super::super::worker::Poison;
use super::super::{ClaimId, Record, StoreFault};
use super::codec;
use crate::clock::Timestamp;

/// Records in sled. All trees write to one log, and after a crash sled takes
/// up the log as far as it is whole: that is the order which the ledger asks
/// for.
#[derive(Debug)]
pub(super) struct SledBackend {
    /// id -> settled record
    pub(super) claims: Tree,
    /// expiry in milliseconds, big-endian, then id -> nothing
    pub(super) expiry: Tree,
    /// id -> record
    pub(super) open: Tree,
    pub(super) path: PathBuf,
    pub(super) poison: Arc<Poison>,
    /// Held until everything above has been let go of (fields are dropped in
    /// their order).
    pub(super) _lock: File,
}

impl SledBackend {
    /// For a failed call of sled: ends all use of the store.
    fn broken(&self, error: &::sled::Error) -> StoreFault {
        self.poison.set(failure(&self.path, error))
    }

    fn write(&self, tree: &Tree, record: &Record) -> Result<(), StoreFault> {
        let bytes = codec::encode(record).map_err(|why| self.unreadable(&why))?;
        tree.insert(record.id.0, bytes).map_err(|error| self.broken(&error))?;
        Ok(())
    }

    /// For one record that can't be read; the others can.
    fn unreadable(&self, why: &str) -> StoreFault {
        StoreFault::Failed(format!("the claim store in {}: {why}", self.path.display()))
    }
}

/// What people are told of an engine that failed.
pub(super) fn failure(path: &std::path::Path, error: &dyn std::fmt::Display) -> String {
    format!(
        "the claim store in {} failed: {error}. Nothing is written or acknowledged any more. See that the disk \
         has space and no errors, then restart mailonce",
        path.display()
    )
}

fn expiry_key(at: Timestamp, id: &ClaimId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&at.as_millis().to_be_bytes());
    key[8..].copy_from_slice(&id.0);
    key
}

fn parse_expiry_key(key: &IVec) -> Option<(Timestamp, ClaimId)> {
    let (at, id) = key.split_first_chunk::<8>()?;
    Some((Timestamp::from_millis(u64::from_be_bytes(*at)), ClaimId(id.try_into().ok()?)))
}

/// From behind `after`, or from the start.
fn behind(after: Option<&ClaimId>) -> impl RangeBounds<Vec<u8>> + use<> {
    let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0.to_vec()));
    (from, Bound::Unbounded)
}

impl Backend for SledBackend {
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault> {
        let Some(bytes) = self.claims.get(id.0).map_err(|error| self.broken(&error))? else {
            return Ok(None);
        };
        codec::decode(&bytes).map(Some).map_err(|why| self.unreadable(&format!("{why} (claim {id})")))
    }

    fn put(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.write(&self.claims, record)
    }

    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.claims.remove(id.0).map_err(|error| self.broken(&error))?;
        Ok(())
    }

    fn range(&self, after: Option<&ClaimId>, most: usize) -> Result<Vec<Record>, StoreFault> {
        let mut records = Vec::new();
        for entry in self.claims.range(behind(after)) {
            if records.len() == most {
                break;
            }
            let (_, bytes) = entry.map_err(|error| self.broken(&error))?;
            match codec::decode(&bytes) {
                Ok(record) => records.push(record),
                Err(why) => tracing::warn!(path = %self.path.display(), "left out of a list: {why}"),
            }
        }
        Ok(records)
    }

    fn add_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.expiry.insert(expiry_key(at, id), &[]).map_err(|error| self.broken(&error))?;
        Ok(())
    }

    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.expiry.remove(expiry_key(at, id)).map_err(|error| self.broken(&error))?;
        Ok(())
    }

    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault> {
        let last = expiry_key(now, &ClaimId([0xff; 32]));
        let keys = self.expiry.range(..=last).keys().take(most);
        let keys: Vec<IVec> = keys.collect::<Result<_, _>>().map_err(|error| self.broken(&error))?;
        Ok(keys.iter().filter_map(parse_expiry_key).collect())
    }

    fn put_open(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.write(&self.open, record)
    }

    fn remove_open(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.open.remove(id.0).map_err(|error| self.broken(&error))?;
        Ok(())
    }

    fn open(&self) -> Result<Vec<Record>, StoreFault> {
        let mut records = Vec::new();
        for bytes in self.open.iter().values() {
            let bytes = bytes.map_err(|error| self.broken(&error))?;
            records.push(codec::decode(&bytes).map_err(|why| self.unreadable(&why))?);
        }
        Ok(records)
    }
}
