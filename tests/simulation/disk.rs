//! A disk: what a ledger writes is seen at once, and outlives a crash once it
//! was synced; of what was not, a crash takes as much as it likes.

use std::sync::{Arc, Mutex, MutexGuard};

use mailonce::clock::Timestamp;
use mailonce::store::ledger::{Backend, IdRange};
use mailonce::store::memory::MapBackend;
use mailonce::store::{ClaimId, Count, Record, StoreFault};

use super::random::Random;

/// A write that is not on the platter yet.
#[derive(Clone, Debug)]
enum Write {
    Put(Box<Record>),
    Remove(ClaimId),
    AddExpiry(Timestamp, ClaimId),
    RemoveExpiry(Timestamp, ClaimId),
    AddKey(u64, ClaimId),
    RemoveKey(u64, ClaimId),
    PutOpen(Box<Record>),
    RemoveOpen(ClaimId),
}

impl Write {
    /// Whether it may wait for a checkpoint.
    fn is_removal(&self) -> bool {
        use Write::{Remove, RemoveExpiry, RemoveKey, RemoveOpen};
        matches!(self, Remove(_) | RemoveExpiry(..) | RemoveKey(..) | RemoveOpen(_))
    }

    /// Whether `removal` takes away what this write has brought anew.
    fn undoes(&self, removal: &Write) -> bool {
        match (self, removal) {
            (Write::Put(record), Write::Remove(id)) | (Write::PutOpen(record), Write::RemoveOpen(id)) => {
                record.id == *id
            }
            (Write::AddExpiry(at, id), Write::RemoveExpiry(old, of)) => (at, id) == (old, of),
            (Write::AddKey(mark, id), Write::RemoveKey(old, of)) => (mark, id) == (old, of),
            _ => false,
        }
    }

    fn apply(&self, to: &mut MapBackend) -> Result<(), StoreFault> {
        match self {
            Write::Put(record) => to.put(record),
            Write::Remove(id) => to.remove(id),
            Write::AddExpiry(at, id) => to.add_expiry(*at, id),
            Write::RemoveExpiry(at, id) => to.remove_expiry(*at, id),
            Write::AddKey(mark, id) => to.add_key(*mark, id),
            Write::RemoveKey(mark, id) => to.remove_key(*mark, id),
            Write::PutOpen(record) => to.put_open(record),
            Write::RemoveOpen(id) => to.remove_open(id),
        }
    }
}

/// What outlives a crash.
#[derive(Debug)]
pub struct Disk {
    platter: MapBackend,
    unsynced: Vec<Write>,
    fails: bool,
    random: Random,
}

impl Disk {
    pub fn new(random: Random) -> Arc<Mutex<Self>> {
        let platter = MapBackend::default();
        Arc::new(Mutex::new(Self { platter, unsynced: Vec::new(), fails: false, random }))
    }

    /// From now on, until a crash, nothing can be synced.
    pub fn fail(&mut self) {
        self.fails = true;
    }

    /// A crash: writes are on the platter up to one or another of them.
    pub fn crash(&mut self) {
        let kept = match self.random.chance(500) {
            true => 0,
            false => self.random.index(self.unsynced.len() + 1),
        };
        for write in self.unsynced.drain(..).take(kept) {
            write.apply(&mut self.platter).unwrap();
        }
        self.fails = false;
    }

    fn sync(&mut self, removals_too: bool) -> Result<(), StoreFault> {
        if self.fails {
            return Err(StoreFault::Failed("the disk has failed".to_owned()));
        }
        let mut waiting: Vec<Write> = Vec::new();
        for write in std::mem::take(&mut self.unsynced) {
            if write.is_removal() && !removals_too {
                waiting.push(write);
            } else {
                waiting.retain(|removal| !write.undoes(removal));
                write.apply(&mut self.platter)?;
            }
        }
        self.unsynced = waiting;
        Ok(())
    }
}

/// What a ledger writes to while it runs.
#[derive(Debug)]
pub struct Cache {
    seen: MapBackend,
    disk: Arc<Mutex<Disk>>,
}

impl Cache {
    /// What the disk has.
    pub fn over(disk: &Arc<Mutex<Disk>>) -> Self {
        let seen = disk.lock().unwrap().platter.clone();
        Self { seen, disk: disk.clone() }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    fn write(&mut self, write: Write) -> Result<(), StoreFault> {
        write.apply(&mut self.seen)?;
        self.disk().unsynced.push(write);
        Ok(())
    }
}

impl Backend for Cache {
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault> {
        self.seen.get(id)
    }

    fn put(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.write(Write::Put(Box::new(record.clone())))
    }

    /// No earlier state of it comes back from then on.
    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        if !self.disk().unsynced.is_empty() {
            self.checkpoint()?;
        }
        self.write(Write::Remove(*id))
    }

    fn range(&self, ids: IdRange, most: usize) -> Result<Vec<Record>, StoreFault> {
        self.seen.range(ids, most)
    }

    fn add_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.write(Write::AddExpiry(at, *id))
    }

    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.write(Write::RemoveExpiry(at, *id))
    }

    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault> {
        self.seen.due(now, most)
    }

    fn add_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.write(Write::AddKey(mark, *id))
    }

    fn remove_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.write(Write::RemoveKey(mark, *id))
    }

    fn keyed(&self, mark: u64, after: Option<&ClaimId>, most: usize) -> Result<Vec<ClaimId>, StoreFault> {
        self.seen.keyed(mark, after, most)
    }

    fn is_indexed(&self) -> bool {
        true
    }

    fn set_indexed(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn add_count(&mut self, delta: &Count) -> Result<(), StoreFault> {
        self.seen.add_count(delta)
    }

    fn counts(&self, from: u64, after: Option<&Count>, most: usize) -> Result<Vec<Count>, StoreFault> {
        self.seen.counts(from, after, most)
    }

    fn remove_counts(&mut self, before: u64, most: usize) -> Result<(), StoreFault> {
        self.seen.remove_counts(before, most)
    }

    fn put_open(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.write(Write::PutOpen(Box::new(record.clone())))
    }

    fn remove_open(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.write(Write::RemoveOpen(*id))
    }

    fn open(&self) -> Result<Vec<Record>, StoreFault> {
        self.seen.open()
    }

    fn sync(&mut self) -> Result<(), StoreFault> {
        self.disk().sync(false)
    }

    fn checkpoint(&mut self) -> Result<(), StoreFault> {
        self.disk().sync(true)
    }
}
