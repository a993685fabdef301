//! Trees of sled for what is settled, and the commit log for what is open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::sled::IVec;

use super::super::ledger::{Backend, IdRange, Progress};
use super::super::record::key_mark;
use super::super::worker::Poison;
use super::super::{ClaimId, Count, Record, StoreFault};
use super::codec;
use super::compaction::{self, Compactor, Step};
use super::keys;
use super::log::{CommitLog, Serial};
use super::open::Opened;
use super::tenant_key;
use super::trees::{Kind, Note, Trees};
use crate::clock::Timestamp;
use crate::secret::SecretKey;

/// Octets that sled may be given before its file is synced. It uses a segment of
/// half a mebibyte again once what was in it is written elsewhere, without
/// waiting for the disk, and a power failure may keep the later of these writes
/// alone. At least one segment is written in between, and sled writes four to six
/// times what it is given; so a sync always comes in between, too.
const MOST_UNSYNCED: usize = 64 * 1024;

/// Octets of a key, and of what sled writes around an entry.
const ENTRY: usize = 96;

/// Records in sled, which writes all trees to one log and after a crash takes
/// that up as far as it is whole; open ones in the [`CommitLog`], from which
/// they are taken back only when sled has what ended them for good.
#[derive(Debug)]
pub(super) struct SledBackend {
    trees: Trees,
    /// Let go of after `trees`, which may know their directory by its name for it.
    compactor: Compactor,
    /// Every record has its entry in the index of keys.
    indexed: bool,
    /// No record has an id of an earlier version.
    own_ids: bool,
    /// Octets that sled was given since its data file was synced.
    unsynced: usize,
    commits: CommitLog,
    /// What the commit log holds, by id: more than one where a crash came
    /// between the end of one and the next.
    open: HashMap<ClaimId, Vec<(Serial, Vec<u8>)>>,
    /// Frames whose settled records sled may not have on stable storage yet.
    ended: Vec<Serial>,
    path: PathBuf,
    poison: Arc<Poison>,
    /// Held until everything above has been let go of (fields are dropped in
    /// their order).
    _lock: File,
}

impl SledBackend {
    /// The trees of `opened` and what the commit log in `path` has open. Its
    /// file is compacted only where it has more than `floor` octets.
    pub(super) fn new(
        opened: Opened,
        path: &Path,
        floor: u64,
        poison: Arc<Poison>,
    ) -> Result<Self, StoreFault> {
        let Opened { db, data, lock } = opened;
        let failed = |error: &dyn std::fmt::Display| StoreFault::Failed(failure(path, error));
        let (commits, left) = CommitLog::open(path).map_err(|error| failed(&error))?;
        let mut open: HashMap<_, Vec<_>> = HashMap::new();
        for (serial, bytes) in left.open {
            let id = codec::decode(&bytes).map_err(|why| failed(&why))?.id;
            open.entry(id).or_default().push((serial, bytes));
        }
        let trees = Trees::of(db, data).map_err(|error| failed(&error))?;
        let mut backend = Self {
            indexed: trees.has(Note::Indexed).map_err(|error| failed(&error))?,
            own_ids: trees.has(Note::OwnIds).map_err(|error| failed(&error))?,
            trees,
            compactor: Compactor::new(path, floor),
            unsynced: 0,
            commits,
            open,
            ended: Vec::new(),
            path: path.to_owned(),
            poison,
            _lock: lock,
        };
        if !backend.indexed && backend.trees.tree(Kind::Claims).is_empty() {
            backend.set_indexed()?;
            // What an earlier version was sending may still be open.
            if backend.open.is_empty() && left.settled.is_empty() {
                backend.set_own_ids()?;
            }
        }
        for (serial, bytes) in left.settled {
            let record = codec::decode(&bytes).map_err(|why| backend.unreadable(&why))?;
            backend.settle_again(&record, bytes)?;
            backend.ended.push(serial);
        }
        Ok(backend)
    }

    /// See [`tenant_key::read_or_make`].
    pub(super) fn tenant_key(&self) -> Result<SecretKey, StoreFault> {
        tenant_key::read_or_make(&self.path, &self.trees)
    }

    fn set_own_ids(&mut self) -> Result<(), StoreFault> {
        self.trees.set(Note::OwnIds, &[]).map_err(|error| self.broken(&error))?;
        self.own_ids = true;
        Ok(())
    }

    /// Writes a settled record that sled may have lost, unless it has a later
    /// one.
    fn settle_again(&mut self, record: &Record, bytes: Vec<u8>) -> Result<(), StoreFault> {
        // An attempt that sent nothing leaves the time of what it left standing.
        let order = |record: &Record| (record.settled_at, record.attempt_count);
        let later = |stored: &Record| order(stored) > order(record);
        if self.get(&record.id)?.as_ref().is_some_and(later) {
            return Ok(());
        }
        self.add_key(key_mark(&record.key), &record.id)?;
        self.add_expiry(record.expires, &record.id)?;
        self.insert(Kind::Claims, &record.id.0, bytes)
    }

    fn insert(&mut self, kind: Kind, key: &[u8], value: impl Into<IVec>) -> Result<(), StoreFault> {
        let value = value.into();
        self.trees.tree(kind).insert(key, &value).map_err(|error| self.broken(&error))?;
        self.compactor.insert(kind, key, &value);
        self.given(value.len())
    }

    fn take(&mut self, kind: Kind, key: &[u8]) -> Result<(), StoreFault> {
        self.trees.tree(kind).remove(key).map_err(|error| self.broken(&error))?;
        self.compactor.remove(kind, key);
        self.given(0)
    }

    /// Has sled put everything on stable storage: its flush stops at the
    /// operating system's cache.
    fn flush(&mut self) -> Result<(), StoreFault> {
        self.trees.flush().map_err(|error| self.broken(&error))?;
        self.trees.sync().map_err(|error| self.unwritable(&error))?;
        self.unsynced = 0;
        Ok(())
    }

    /// Notes that sled was given something, and syncs its file where that is due.
    fn given(&mut self, octets: usize) -> Result<(), StoreFault> {
        self.unsynced += octets + ENTRY;
        if self.unsynced > MOST_UNSYNCED { self.flush() } else { Ok(()) }
    }

    /// Writes the commit log on, or anew where its file is full: then sled must
    /// have everything that is not open any more.
    fn write_commits(&mut self) -> Result<(), StoreFault> {
        let written = if self.commits.is_full() {
            let open = self.open.values().flatten();
            self.commits.restart(open.map(|(serial, bytes)| (*serial, bytes.as_slice())))
        } else {
            self.commits.sync()
        };
        written.map_err(|error| self.unwritable(&error))
    }

    #[cfg(test)]
    pub(super) fn forget_index(&mut self) -> bool {
        self.trees.forget_index()
    }

    /// As an earlier version left it. False where that failed.
    #[cfg(test)]
    pub(super) fn forget_own_ids(&mut self) -> bool {
        self.expect_former().is_ok() && self.flush().is_ok()
    }

    #[cfg(test)]
    pub(super) fn has_entries(&self) -> bool {
        let len = |kind| self.trees.tree(kind).len();
        len(Kind::Claims) > 0 && len(Kind::Keys) == len(Kind::Claims)
    }

    /// For a failed write: ends all use of the store.
    fn unwritable(&self, error: &io::Error) -> StoreFault {
        self.poison.set(failure(&self.path, error))
    }

    /// For a failed call of sled: ends all use of the store.
    fn broken(&self, error: &::sled::Error) -> StoreFault {
        self.poison.set(failure(&self.path, error))
    }

    fn encode(&self, record: &Record) -> Result<Vec<u8>, StoreFault> {
        codec::encode(record).map_err(|why| self.unreadable(&why))
    }

    /// For one record that can't be read; the others can.
    fn unreadable(&self, why: &str) -> StoreFault {
        StoreFault::Failed(format!("the claim store in {}: {why}", self.path.display()))
    }
}

/// What people are told of an engine that failed.
fn failure(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!(
        "the claim store in {} failed: {error}. Nothing is written or acknowledged any more. See that the disk \
         has space and no errors, then restart mailonce",
        path.display()
    )
}

/// The same bounds for sled.
fn bytes((from, to): IdRange) -> (Bound<[u8; 32]>, Bound<[u8; 32]>) {
    (from.map(|id| id.0), to.map(|id| id.0))
}

impl Backend for SledBackend {
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault> {
        let Some(bytes) = self.trees.tree(Kind::Claims).get(id.0).map_err(|error| self.broken(&error))?
        else {
            return Ok(None);
        };
        codec::decode(&bytes).map(Some).map_err(|why| self.unreadable(&format!("{why} (claim {id})")))
    }

    fn put(&mut self, record: &Record) -> Result<(), StoreFault> {
        let bytes = self.encode(record)?;
        self.ended.push(self.commits.append_settled(&bytes));
        self.insert(Kind::Claims, &record.id.0, bytes)
    }

    /// Not before the commit log knows that it ended.
    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        if !self.ended.is_empty() {
            self.checkpoint()?;
        }
        self.take(Kind::Claims, &id.0)
    }

    fn range(&self, ids: IdRange, most: usize) -> Result<Vec<Record>, StoreFault> {
        let mut records = Vec::new();
        for entry in self.trees.tree(Kind::Claims).range(bytes(ids)) {
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
        self.insert(Kind::Expiry, &keys::expiry(at, id), &[])
    }

    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.take(Kind::Expiry, &keys::expiry(at, id))
    }

    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault> {
        let last = keys::expiry(now, &ClaimId([0xff; 32]));
        let keys = self.trees.tree(Kind::Expiry).range(..=last).keys().take(most);
        let keys: Vec<IVec> = keys.collect::<Result<_, _>>().map_err(|error| self.broken(&error))?;
        Ok(keys.iter().filter_map(keys::parse_expiry).collect())
    }

    fn add_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.insert(Kind::Keys, &keys::marked(mark, id), &[])
    }

    fn remove_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.take(Kind::Keys, &keys::marked(mark, id))
    }

    fn keyed(&self, mark: u64, after: Option<&ClaimId>, most: usize) -> Result<Vec<ClaimId>, StoreFault> {
        let first = Bound::Included(keys::marked(mark, &ClaimId::FIRST));
        let from = after.map_or(first, |id| Bound::Excluded(keys::marked(mark, id)));
        let to = Bound::Included(keys::marked(mark, &ClaimId::LAST));
        let found = self.trees.tree(Kind::Keys).range((from, to)).keys().take(most);
        let found: Vec<IVec> = found.collect::<Result<_, _>>().map_err(|error| self.broken(&error))?;
        Ok(found.iter().filter_map(keys::parse_marked).collect())
    }

    fn is_indexed(&self) -> bool {
        self.indexed
    }

    fn set_indexed(&mut self) -> Result<(), StoreFault> {
        self.trees.set(Note::Indexed, &[]).map_err(|error| self.broken(&error))?;
        self.indexed = true;
        Ok(())
    }

    fn has_former(&self) -> bool {
        !self.own_ids
    }

    fn expect_former(&mut self) -> Result<(), StoreFault> {
        self.trees.take(Note::OwnIds).map_err(|error| self.broken(&error))?;
        self.own_ids = false;
        Ok(())
    }

    fn add_count(&mut self, delta: &Count) -> Result<(), StoreFault> {
        let key = keys::count(delta);
        let mut tally = delta.tally;
        if let Some(before) = self.trees.tree(Kind::Counts).get(&key).map_err(|error| self.broken(&error))? {
            tally += codec::decode_tally(&before).map_err(|why| self.unreadable(&why))?;
        }
        let tally = codec::encode_tally(&tally).map_err(|why| self.unreadable(&why))?;
        self.insert(Kind::Counts, &key, tally)
    }

    fn counts(&self, from: u64, after: Option<&Count>, most: usize) -> Result<Vec<Count>, StoreFault> {
        let first = Bound::Included(from.to_be_bytes().to_vec());
        let from = after.map_or(first, |after| Bound::Excluded(keys::count(after)));
        let mut counts = Vec::new();
        for entry in self.trees.tree(Kind::Counts).range((from, Bound::Unbounded)).take(most) {
            let (key, tally) = entry.map_err(|error| self.broken(&error))?;
            let tally = codec::decode_tally(&tally).map_err(|why| self.unreadable(&why))?;
            let count = keys::parse_count(&key, tally);
            counts.push(count.ok_or_else(|| self.unreadable("a count has a damaged key"))?);
        }
        Ok(counts)
    }

    fn remove_counts(&mut self, before: u64, most: usize) -> Result<(), StoreFault> {
        let old = self.trees.tree(Kind::Counts).range(..before.to_be_bytes().to_vec()).keys().take(most);
        let old: Vec<IVec> = old.collect::<Result<_, _>>().map_err(|error| self.broken(&error))?;
        for key in old {
            self.take(Kind::Counts, &key)?;
        }
        Ok(())
    }

    fn put_open(&mut self, record: &Record) -> Result<(), StoreFault> {
        let bytes = self.encode(record)?;
        let serial = self.commits.append_open(&bytes);
        self.open.entry(record.id).or_default().push((serial, bytes));
        Ok(())
    }

    fn remove_open(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        let gone = self.open.remove(id).unwrap_or_default();
        self.ended.extend(gone.into_iter().map(|(serial, _)| serial));
        Ok(())
    }

    fn open(&self) -> Result<Vec<Record>, StoreFault> {
        let mut open: Vec<_> = self.open.values().flatten().collect();
        open.sort_unstable_by_key(|(serial, _)| *serial);
        open.iter().map(|(_, bytes)| codec::decode(bytes).map_err(|why| self.unreadable(&why))).collect()
    }

    fn sync(&mut self) -> Result<(), StoreFault> {
        if self.commits.is_full() { self.checkpoint() } else { self.write_commits() }
    }

    fn checkpoint(&mut self) -> Result<(), StoreFault> {
        self.flush()?;
        for serial in std::mem::take(&mut self.ended) {
            self.commits.append_ended(serial);
        }
        self.write_commits()
    }

    fn compact(&mut self, claims: u64, spare: u64, most: usize) -> Result<Progress, StoreFault> {
        if !self.indexed {
            return Ok(Progress::Complete);
        }
        match self.compactor.go_on(&self.trees, claims, spare, most) {
            Step::Resting => Ok(Progress::Complete),
            Step::Copying => Ok(Progress::Unfinished),
            Step::Copied(copy) => {
                let trees = self.compactor.put_in_place(*copy).map_err(|error| self.unwritable(&error))?;
                let old = std::mem::replace(&mut self.trees, trees);
                compaction::let_go(old);
                self.unsynced = 0;
                Ok(Progress::Complete)
            }
        }
    }
}
