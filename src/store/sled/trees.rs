//! A database of sled, and the trees that are in it.

use std::fs::File;
use std::io;

use ::sled::{Db, Error, IVec, Tree};

/// What a database knows of itself, in the tree that has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// There where every record has its entry in the index of keys. A store that
    /// an earlier version made lacks it until all of that is entered.
    Indexed,
    /// There where no record can have an id that an earlier version gave it: a
    /// store that began with this version. Another change of the ids needs
    /// another name for this note.
    OwnIds,
    /// What the key of the tenants' passwords is known by.
    TenantKey,
}

impl Note {
    fn name(self) -> &'static [u8] {
        match self {
            Note::Indexed => b"keys indexed",
            Note::OwnIds => b"ids 2",
            Note::TenantKey => b"tenant key",
        }
    }
}

/// What a tree holds. In this order they are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// expiry in milliseconds, big-endian, then id -> nothing
    Expiry,
    /// mark of the key, big-endian, then id -> nothing
    Keys,
    /// id -> settled record
    Claims,
    /// hour, tenant, rule -> tally; see [`super::keys::count`]
    Counts,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Expiry, Self::Keys, Self::Claims, Self::Counts];

    fn name(self) -> &'static str {
        match self {
            Kind::Expiry => "expiry",
            Kind::Keys => "keys",
            Kind::Claims => "claims",
            Kind::Counts => "counts",
        }
    }
}

/// The trees of one database, its data file, and what it knows of itself.
#[derive(Debug)]
pub(super) struct Trees {
    expiry: Tree,
    keys: Tree,
    claims: Tree,
    counts: Tree,
    /// Its own tree holds what is known of the others: [`Note`].
    db: Db,
    /// sled's data file.
    data: File,
}

impl Trees {
    pub(super) fn of(db: Db, data: File) -> Result<Self, Error> {
        let tree = |kind: Kind| db.open_tree(kind.name());
        Ok(Self {
            expiry: tree(Kind::Expiry)?,
            keys: tree(Kind::Keys)?,
            claims: tree(Kind::Claims)?,
            counts: tree(Kind::Counts)?,
            db,
            data,
        })
    }

    pub(super) fn tree(&self, kind: Kind) -> &Tree {
        match kind {
            Kind::Expiry => &self.expiry,
            Kind::Keys => &self.keys,
            Kind::Claims => &self.claims,
            Kind::Counts => &self.counts,
        }
    }

    /// What is noted there, if anything.
    pub(super) fn note(&self, note: Note) -> Result<Option<IVec>, Error> {
        self.db.get(note.name())
    }

    pub(super) fn has(&self, note: Note) -> Result<bool, Error> {
        self.db.contains_key(note.name())
    }

    pub(super) fn set(&self, note: Note, value: &[u8]) -> Result<(), Error> {
        self.db.insert(note.name(), value).map(drop)
    }

    pub(super) fn take(&self, note: Note) -> Result<(), Error> {
        self.db.remove(note.name()).map(drop)
    }

    /// Notes all that `from` does.
    pub(super) fn take_notes(&self, from: &Self) -> Result<(), Error> {
        for entry in from.db.iter() {
            let (name, value) = entry?;
            self.db.insert(name, value)?;
        }
        Ok(())
    }

    /// Hands everything to the operating system, which is as far as sled goes.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.db.flush().map(|_| ())
    }

    /// Has the operating system put on stable storage what it was handed.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.data.sync_data()
    }

    /// Octets of the data file.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.data.metadata()?.len())
    }

    /// As an earlier version left it. False where that failed.
    #[cfg(test)]
    pub(super) fn forget_index(&self) -> bool {
        self.keys.clear().is_ok() && self.take(Note::Indexed).is_ok() && self.flush().is_ok()
    }
}
