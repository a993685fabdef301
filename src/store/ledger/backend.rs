//! What a ledger needs to keep its records in.

use std::ops::Bound;

use super::super::{ClaimId, Count, Record, StoreFault};
use super::Progress;
use crate::clock::Timestamp;

/// The ids from one bound to the other. Never one that ends before it starts.
pub type IdRange = (Bound<ClaimId>, Bound<ClaimId>);

/// Ordered maps: the settled records by id, an index of what expires when, an
/// index of keys, the records that are `committing` (the *open* ones, all that
/// a start after a crash has to read), and the counts.
///
/// A write need not be durable when it returns: [`Backend::sync`] makes it so,
/// but for removals and counts, which wait for [`Backend::checkpoint`]. Until
/// then a crash may take it, but only so that an open record is gone no sooner
/// than the settled one that ends it is there, and that a settled record is
/// there no sooner than its entries in the two indexes: the ledger relies on
/// that (see [`super::Ledger`]).
pub trait Backend: Send + 'static {
    /// The record of `id`, expired or not.
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault>;

    /// Writes a record over whatever its id had.
    fn put(&mut self, record: &Record) -> Result<(), StoreFault>;

    /// Removes the record of `id`, if there is one. No earlier state of it may
    /// come back from then on, whatever a crash does.
    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault>;

    /// Up to `most` records in the order of their ids.
    fn range(&self, ids: IdRange, most: usize) -> Result<Vec<Record>, StoreFault>;

    /// Notes that `id` expires at `at`. An id may have several such entries;
    /// only the one that matches its record counts.
    fn add_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault>;

    /// Takes that note back.
    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault>;

    /// Up to `most` notes for `now` or earlier, the earliest first.
    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault>;

    /// Notes that the key of `id` has this mark. An id may have several such
    /// entries, and an entry no record: whoever reads one looks at the record.
    fn add_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault>;

    /// Takes that note back.
    fn remove_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault>;

    /// Up to `most` ids whose keys have this mark, in their order, from behind
    /// `after`.
    fn keyed(&self, mark: u64, after: Option<&ClaimId>, most: usize) -> Result<Vec<ClaimId>, StoreFault>;

    /// Whether every record has its note of the key. What an earlier version
    /// wrote has none until the ledger has gone through it.
    fn is_indexed(&self) -> bool;

    /// From now on every record has.
    fn set_indexed(&mut self) -> Result<(), StoreFault>;

    /// Whether a record may stand under an id that an earlier version gave it.
    /// `false` spares a look for each new e-mail.
    fn has_former(&self) -> bool {
        true
    }

    /// From now on one may.
    fn expect_former(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }

    /// Adds to what was counted in an hour.
    fn add_count(&mut self, delta: &Count) -> Result<(), StoreFault>;

    /// Up to `most` counts of the hour `from` or later, the earliest first,
    /// from behind `after`.
    fn counts(&self, from: u64, after: Option<&Count>, most: usize) -> Result<Vec<Count>, StoreFault>;

    /// Removes up to `most` counts of hours before this one.
    fn remove_counts(&mut self, before: u64, most: usize) -> Result<(), StoreFault>;

    /// Writes an open record.
    fn put_open(&mut self, record: &Record) -> Result<(), StoreFault>;

    /// Removes the open record of `id`.
    fn remove_open(&mut self, id: &ClaimId) -> Result<(), StoreFault>;

    /// Every open record.
    fn open(&self) -> Result<Vec<Record>, StoreFault>;

    /// Makes everything durable that was written so far.
    fn sync(&mut self) -> Result<(), StoreFault>;

    /// The same, and does what was put off for the sake of speed; to be called
    /// now and then.
    fn checkpoint(&mut self) -> Result<(), StoreFault>;

    /// A slice of the work that gives the room of what is gone back to the disk,
    /// `most` entries at once, where it holds `claims` in all and `spare` octets
    /// of the disk may be used. A backend that has none needs none.
    fn compact(&mut self, claims: u64, spare: u64, most: usize) -> Result<Progress, StoreFault> {
        let _ = (claims, spare, most);
        Ok(Progress::Complete)
    }
}
