//! The words for what an operator does to records.

use super::Record;

/// What an operator found out about a claim in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It was sent: duplicates are answered, nothing is sent again.
    Sent,
    /// It was not: the next attempt is sent.
    NotSent,
}

/// What came of changing one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Done, and on stable storage. A forgotten record as it was, a resolved
    /// one as it is now.
    Done(Box<Record>),
    /// No unexpired record has the id.
    Absent,
    /// Its state does not allow it; nothing was changed. The record as it is.
    Refused(Box<Record>),
}

/// What came of importing records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Written.
    pub added: usize,
    /// The store has a record of the id that was last seen no earlier, or an
    /// attempt at it under way: that stays.
    pub kept: usize,
    /// Not taken: expired, or pending, which means that nothing was sent.
    pub expired: usize,
}

impl std::ops::AddAssign for Imported {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.kept += other.kept;
        self.expired += other.expired;
    }
}
