//! Writing the database anew, while it is in use, once most of it is waste.
//!
//! sled frees a segment of its log when every page in it was written elsewhere,
//! and hurries that for a segment half empty by one page for each page it
//! replaces. That is enough while claims come as fast as they go. When they
//! become fewer nearly every segment is half empty, and the log grows all the
//! same. So what lives is copied into a second database in slices, between the
//! requests; what is written meanwhile goes to both where the copy has come
//! that far. Then a rename puts the new file in the place of the old one. A
//! crash before that leaves the old one, which lacks nothing, a crash after it
//! the new one; the next opening removes what is left of the other.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::sled::{Error, IVec};

use super::open::{self, sync_directory};
use super::trees::{Kind, Trees};

/// A smaller file is left as it is.
pub(super) const FLOOR: u64 = 32 * 1024 * 1024;

/// A file is left as it is while it has no more than so many times what its
/// entries have. A new one has three to four times that, one in use five.
const FACTOR: u64 = 6;

/// Records whose sizes are looked at: ids are hashes, so the first are as good
/// as any.
const SAMPLE: usize = 64;

/// Octets of a record's entries in both indexes.
const INDEXED: u64 = 2 * 40;

/// After a compaction that came to nothing.
const REST: Duration = Duration::from_secs(600);

/// How long entries are copied at once, at least and at most: a third of what
/// went by since the last time, so that it comes to an end under load, too.
const SLICE: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(4)];

/// Octets that the copy is given before its file is synced. All of sled
/// writes in one queue, so that the store waits for what the copy has in it.
const UNSYNCED: usize = 256 * 1024;

/// Octets of the disk that a compaction leaves to others.
const MARGIN: u64 = 16 * 1024 * 1024;

/// Compacts one database, again and again.
#[derive(Debug)]
pub(super) struct Compactor {
    path: PathBuf,
    floor: u64,
    stage: Stage,
    last: Last,
    /// By this name the database in use knows its directory.
    alias: Option<PathBuf>,
}

/// What came of the last time.
#[derive(Debug, Default)]
struct Last {
    /// Octets of the file then.
    size: u64,
    /// Octets that would have been enough.
    enough: u64,
}

#[derive(Debug)]
enum Stage {
    /// Until then at least; a time that is past is as good as none.
    Resting(Instant),
    Copying(Box<Copy>),
}

/// What one slice came to.
pub(super) enum Step {
    /// There is nothing to do.
    Resting,
    /// There is more to copy.
    Copying,
    /// All is there, on stable storage, and waits for its place.
    Copied(Box<Copy>),
}

/// A second database, as far as it has come.
#[derive(Debug)]
pub(super) struct Copy {
    to: Trees,
    place: PathBuf,
    /// The tree that is being copied, and its last key that was.
    kind: Kind,
    passed: Option<IVec>,
    /// Octets that were written since the last sync.
    unsynced: usize,
    begun: Instant,
    /// When the last slice ended.
    paused: Instant,
    /// Octets of the file that it is to take the place of, and that would have
    /// been enough for that.
    before: u64,
    enough: u64,
}

impl Compactor {
    /// For the database in `path`, once its file has more than `floor` octets.
    pub(super) fn new(path: &Path, floor: u64) -> Self {
        let stage = Stage::Resting(Instant::now());
        Self { path: path.to_owned(), floor, stage, last: Last::default(), alias: None }
    }

    /// Notes in the copy what `from` was given, where it has come that far.
    pub(super) fn insert(&mut self, kind: Kind, key: &[u8], value: &IVec) {
        self.also(kind, key, |copy| copy.to.tree(kind).insert(key, value).map(drop));
    }

    /// The same for what was taken out.
    pub(super) fn remove(&mut self, kind: Kind, key: &[u8]) {
        self.also(kind, key, |copy| copy.to.tree(kind).remove(key).map(drop));
    }

    fn also(&mut self, kind: Kind, key: &[u8], write: impl FnOnce(&Copy) -> Result<(), Error>) {
        let Stage::Copying(copy) = &self.stage else { return };
        if copy.has_passed(kind, key)
            && let Err(error) = write(copy)
        {
            self.give_up(&error);
        }
    }

    /// Copies up to `most` entries more of `from`, for a [`SLICE`], or sees
    /// whether there is a reason to begin: it holds `claims`. May use `spare`
    /// octets of the disk.
    pub(super) fn go_on(&mut self, from: &Trees, claims: u64, spare: u64, most: usize) -> Step {
        let done = match &mut self.stage {
            Stage::Resting(until) if *until > Instant::now() => return Step::Resting,
            Stage::Resting(_) => return self.look(from, claims, spare),
            Stage::Copying(_) if spare < MARGIN => Err(no_room()),
            Stage::Copying(copy) => copy.some(from, most),
        };
        match done.and_then(|all| if all { self.complete(from) } else { Ok(Step::Copying) }) {
            Ok(step) => step,
            Err(error) => {
                self.give_up(&error);
                Step::Resting
            }
        }
    }

    fn look(&mut self, from: &Trees, claims: u64, spare: u64) -> Step {
        match self.begin(from, claims, spare) {
            Ok(Some(copy)) => {
                self.stage = Stage::Copying(copy.into());
                Step::Copying
            }
            Ok(None) => Step::Resting,
            Err(error) => {
                self.give_up(&error);
                Step::Resting
            }
        }
    }

    /// A copy with nothing in it yet, where there is a reason for one.
    fn begin(&mut self, from: &Trees, claims: u64, spare: u64) -> Result<Option<Copy>, Error> {
        let before = from.size()?;
        if before <= self.floor {
            return Ok(None);
        }
        let enough = FACTOR.saturating_mul(claims).saturating_mul(octets(from)?);
        // Where the estimate is too low, it is not to be done again and again.
        let as_last = before / 3 * 2 < self.last.size && enough >= self.last.enough / 2;
        if before - self.floor <= enough || as_last {
            return Ok(None);
        }
        if spare.saturating_sub(MARGIN) < enough.min(before) {
            return Err(no_room());
        }
        let copy = Copy::create(&self.path, before, enough)?;
        let (path, mebibytes) = (self.path.display(), before >> 20);
        tracing::info!(%path, claims, mebibytes, "most of the claim store's file is waste: it is written anew");
        Ok(Some(copy))
    }

    /// Takes the copy, with all of it on stable storage. The old file's
    /// snapshots, which sled would take for the new one's, are gone then; they
    /// only save reading its log.
    fn complete(&mut self, from: &Trees) -> Result<Step, Error> {
        let Stage::Copying(copy) = &mut self.stage else { return Ok(Step::Resting) };
        copy.to.take_notes(from)?;
        copy.sync()?;
        copy.share_blobs()?;
        open::remove_snapshots(&self.path, |_| true)?;
        sync_directory(&self.path)?;
        match std::mem::replace(&mut self.stage, Stage::Resting(Instant::now())) {
            Stage::Copying(copy) => Ok(Step::Copied(copy)),
            Stage::Resting(_) => Ok(Step::Resting),
        }
    }

    /// Puts a copy's file in the place of the one that was copied. After an
    /// error nobody knows which one a crash would leave.
    pub(super) fn put_in_place(&mut self, copy: Copy) -> io::Result<Trees> {
        let Copy { to, place, begun, before, enough, .. } = copy;
        fs::rename(place.join(open::DATA), self.path.join(open::DATA))?;
        sync_directory(&self.path)?;
        self.last = Last { size: to.size().unwrap_or(before), enough };
        // The new one may use the names of the old one's blobs.
        let tidied = remove_files(&self.path.join(open::BLOBS));
        if let Some(last) = self.alias.replace(place) {
            // The next opening tries again.
            let _ = fs::remove_dir_all(last);
        }
        let (path, seconds) = (self.path.display(), begun.elapsed().as_secs());
        let (mebibytes, before) = (self.last.size >> 20, before >> 20);
        tracing::info!(%path, mebibytes, before, seconds, "the claim store's file was written anew");
        if let Err(error) = tidied {
            tracing::warn!(%path, %error, "what the old file of the claim store had beside it can't be removed");
        }
        Ok(to)
    }

    fn give_up(&mut self, error: &Error) {
        tracing::warn!(
            path = %self.path.display(), %error,
            "the claim store's file can't be written anew, so it stays larger than it need be; trying again in \
             ten minutes"
        );
        let rest = Stage::Resting(Instant::now() + REST);
        if let Stage::Copying(copy) = std::mem::replace(&mut self.stage, rest) {
            elsewhere(|| copy.abandon());
        }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        if let Stage::Copying(copy) = std::mem::replace(&mut self.stage, Stage::Resting(Instant::now())) {
            copy.abandon();
        }
        if let Some(alias) = &self.alias {
            // The next opening tries again.
            let _ = fs::remove_dir_all(alias);
        }
    }
}

impl Copy {
    /// An empty one beside the database in `path`.
    fn create(path: &Path, before: u64, enough: u64) -> Result<Self, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = path.join(format!("{}{number}", open::COPY));
        let to = open::create(&place).inspect_err(|_| drop(fs::remove_dir_all(&place)))?;
        let (kind, passed, unsynced, now) = (Kind::ALL[0], None, 0, Instant::now());
        Ok(Self { to, place, kind, passed, unsynced, begun: now, paused: now, before, enough })
    }

    /// Writes everything to stable storage.
    fn sync(&mut self) -> Result<(), Error> {
        self.unsynced = 0;
        self.to.flush()?;
        Ok(self.to.sync()?)
    }

    /// From here on its blobs are where those of the database in use are: it
    /// goes on under the name of its own directory, and is opened by another.
    fn share_blobs(&self) -> Result<(), Error> {
        let blobs = self.place.join(open::BLOBS);
        if fs::read_dir(&blobs)?.next().is_some() {
            // It takes a page of 17 records of nearly 8 KiB each.
            return Err(Error::Unsupported("a page of it is too large to be moved".into()));
        }
        fs::remove_dir(&blobs)?;
        Ok(symlink(Path::new("..").join(open::BLOBS), blobs)?)
    }

    /// Whether what happens to this entry must happen in the copy, too: it will
    /// not be looked at again.
    fn has_passed(&self, kind: Kind, key: &[u8]) -> bool {
        kind < self.kind || kind == self.kind && self.passed.as_ref().is_some_and(|passed| key <= &passed[..])
    }

    /// Copies up to `most` entries. Whether that was all.
    fn some(&mut self, from: &Trees, most: usize) -> Result<bool, Error> {
        let (begun, slice) = (Instant::now(), (self.paused.elapsed() / 3).clamp(SLICE[0], SLICE[1]));
        let begin = self.passed.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries = from.tree(self.kind).range((begin, Bound::Unbounded));
        for _ in 0..most {
            let Some(entry) = entries.next() else { return Ok(self.next_tree()) };
            let (key, value) = entry?;
            self.unsynced += key.len() + value.len();
            self.to.tree(self.kind).insert(&key, value)?;
            self.passed = Some(key);
            if begun.elapsed() >= slice {
                break;
            }
        }
        if self.unsynced > UNSYNCED {
            self.sync()?;
        }
        self.paused = Instant::now();
        Ok(false)
    }

    /// Whether there was none left.
    fn next_tree(&mut self) -> bool {
        let next = Kind::ALL.into_iter().find(|kind| *kind > self.kind);
        if let Some(kind) = next {
            (self.kind, self.passed) = (kind, None);
        }
        next.is_none()
    }

    fn abandon(self) {
        // The next opening tries again. The rest may take long, or panic where
        // the disk has failed.
        let _ = fs::remove_dir_all(&self.place);
        drop(self);
    }
}

/// Octets of a claim, on average.
fn octets(from: &Trees) -> Result<u64, Error> {
    let (mut octets, mut records) = (0, 0);
    for entry in from.tree(Kind::Claims).iter().take(SAMPLE) {
        let (key, value) = entry?;
        octets += (key.len() + value.len()) as u64 + INDEXED;
        records += 1;
    }
    Ok(octets / records.max(1))
}

fn remove_files(directory: &Path) -> io::Result<()> {
    for file in fs::read_dir(directory)? {
        fs::remove_file(file?.path())?;
    }
    Ok(())
}

fn no_room() -> Error {
    let why =
        "the disk has too little room for it; free some, or use `mailonce keys export` and `keys import`";
    Error::Io(io::Error::new(io::ErrorKind::StorageFull, why))
}

/// Closes a database that nobody uses any more, which takes its time where it
/// has many pages in memory.
pub(super) fn let_go(trees: Trees) {
    elsewhere(move || drop(trees));
}

/// Away from those who wait. Where there is no thread to be had, what it would
/// use is dropped here and now.
fn elsewhere(work: impl FnOnce() + Send + 'static) {
    let _ = thread::Builder::new().name("store-closing".into()).spawn(work);
}
