//! What a ledger needs to keep its records in.

use super::super::{ClaimId, Record, StoreFault};
use crate::clock::Timestamp;

/// Three ordered maps: the settled records by id, an index of what expires
/// when, and the records that are `committing` (the *open* ones, all that a
/// start after a crash has to read).
///
/// A write need not be durable when it returns: [`Backend::sync`] makes it so. Until then a crash may take it, but only
/// so that an open record is gone no sooner than the settled one that ends it
/// is there, and that a settled record is there no sooner than its note of
/// expiry: the ledger relies on that (see [`super::Ledger`]).
pub trait Backend: Send + 'static {
    /// The record of `id`, expired or not.
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault>;

    /// Writes a record over whatever its id had.
    fn put(&mut self, record: &Record) -> Result<(), StoreFault>;

    /// Removes the record of `id`, if there is one.
    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault>;

    /// Up to `most` records in the order of their ids, from behind `after`.
    fn range(&self, after: Option<&ClaimId>, most: usize) -> Result<Vec<Record>, StoreFault>;

    /// Notes that `id` expires at `at`. An id may have several such entries;
    /// only the one that matches its record counts.
    fn add_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault>;

    /// Takes that note back.
    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault>;

    /// Up to `most` notes for `now` or earlier, the earliest first.
    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault>;

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
}
