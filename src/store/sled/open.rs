//! Opening the directory, with whatever a crash left in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ::sled::{Config, Db, Error};

use super::super::StoreFault;
use super::trees::Trees;

/// sled's pages kept in memory, in octets; docs/growth.md says what it costs.
const CACHE: u64 = 32 * 1024 * 1024;

/// sled's file for its settings, which it never syncs.
const SETTINGS: &str = "conf";

/// sled's file for everything else, and its directory for what has no place in
/// that.
pub(super) const DATA: &str = "db";
pub(super) const BLOBS: &str = "blobs";

/// How the name of a copy begins; see [`super::compaction`].
pub(super) const COPY: &str = "copy-";

/// How often, and how far apart, sled's own lock is tried while we hold ours:
/// a database closed in this process lets go of its file a moment later.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An open database, its data file for `fdatasync`, and our lock.
pub(super) struct Opened {
    pub(super) db: Db,
    pub(super) data: File,
    pub(super) lock: File,
}

/// Opens or creates the database in `path`.
pub(super) fn open(path: &Path) -> Result<Opened, StoreFault> {
    let created = !path.exists();
    fs::create_dir_all(path).map_err(|error| explain(path, &error))?;
    let lock = lock(path)?;
    remove_leftovers(path).map_err(|error| explain(path, &error))?;
    let db = open_db(path)?;
    let opened = open_data(path).and_then(|data| {
        File::open(path.join(SETTINGS))?.sync_all()?;
        sync_directory(path)?;
        if created && let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
        Ok(data)
    });
    let data = opened.map_err(|error| explain(path, &error))?;
    Ok(Opened { db, data, lock })
}

/// Takes the lock that keeps a second process out. sled has one of its own,
/// but leftovers must be removed before sled opens, and only by one process.
fn lock(path: &Path) -> Result<File, StoreFault> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let file = options.open(path.join("lock")).map_err(|error| explain(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(locked(path)),
        Err(TryLockError::Error(error)) => Err(explain(path, &error)),
    }
}

fn locked(path: &Path) -> StoreFault {
    StoreFault::Locked(format!(
        "another process has the store {} open: stop it, or give this one a path of its own",
        path.display()
    ))
}

fn open_data(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path.join(DATA))
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// What a crash left half written, which sled would take for corruption at
/// every later start: snapshots, and its settings. Those are always the same
/// here, so sled writes them anew. And copies that were not completed.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    remove(path, |name| name.starts_with(COPY))?;
    remove_snapshots(path, |name| name.ends_with(".generating"))?;
    let settings = path.join(SETTINGS);
    match fs::read(&settings) {
        Ok(octets) if !are_whole(&octets) => fs::remove_file(&settings),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether sled's settings end in their checksum.
fn are_whole(settings: &[u8]) -> bool {
    let split = settings.split_last_chunk();
    split.is_some_and(|(text, checksum)| crc32fast::hash(text).to_le_bytes() == *checksum)
}

pub(super) fn remove_snapshots(path: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    remove(path, |name| name.starts_with("snap.") && which(name))
}

/// Removes what has such a name.
fn remove(path: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !which(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let is_directory = entry.file_type()?.is_dir();
        let remove = if is_directory { fs::remove_dir_all } else { fs::remove_file };
        match remove(entry.path()) {
            // This process may be at it, too, where it had the store open before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn open_db(path: &Path) -> Result<Db, StoreFault> {
    match open_sled(path) {
        Err(Error::Corruption { .. }) => {}
        result => return result.map_err(|error| explain_sled(path, error)),
    }
    let kept = set_aside(path).map_err(|error| explain(path, &error))?;
    tracing::warn!(
        path = %path.display(), copy = %kept.display(),
        "the claim store is damaged; it was copied aside and is now rebuilt from its log"
    );
    // A snapshot only saves reading the log, which holds everything.
    remove_snapshots(path, |_| true).map_err(|error| explain(path, &error))?;
    open_sled(path).map_err(|error| match error {
        Error::Corruption { .. } => StoreFault::Failed(format!(
            "the claim store in {} is damaged and could not be rebuilt from its log. A copy is in {}. Move the \
             directory away to start with an empty store (e-mails sent before would then count as new), or \
             restore a backup",
            path.display(),
            kept.display()
        )),
        error => explain_sled(path, error),
    })
}

/// A new database in a directory that is not there yet.
pub(super) fn create(path: &Path) -> Result<Trees, Error> {
    fs::create_dir(path)?;
    Trees::of(config(path).open()?, open_data(path)?)
}

fn config(path: &Path) -> Config {
    // No flusher of sled's own: it deadlocks under load, and would not reach
    // stable storage either.
    Config::new().path(path).flush_every_ms(None).cache_capacity(CACHE)
}

fn open_sled(path: &Path) -> Result<Db, Error> {
    let config = config(path);
    for _ in 1..LOCK_TRIES {
        match config.open() {
            Err(Error::Io(error)) if is_lock(&error) => thread::sleep(LOCK_PAUSE),
            result => return result,
        }
    }
    config.open()
}

fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

/// Copies the directory to a name beside it that is still free.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut number = 1;
    let copy = loop {
        let copy = path.with_file_name(format!("{name}.damaged-{number}"));
        match fs::create_dir(&copy) {
            Ok(()) => break copy,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    };
    copy_into(path, &copy)?;
    Ok(copy)
}

fn copy_into(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_into(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn explain_sled(path: &Path, error: Error) -> StoreFault {
    match error {
        Error::Io(error) if is_lock(&error) => locked(path),
        Error::Io(error) => explain(path, &error),
        error => {
            StoreFault::Failed(format!("the claim store in {} can't be opened: {error}", path.display()))
        }
    }
}

/// What is wrong with the directory, and what to do about it.
pub(super) fn explain(path: &Path, error: &io::Error) -> StoreFault {
    use io::ErrorKind::{
        AlreadyExists, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let remedy = match error.kind() {
        AlreadyExists | NotADirectory => {
            "it is not a directory: name a directory that mailonce may use alone"
        }
        PermissionDenied => "mailonce may not write there: give its user the directory",
        ReadOnlyFilesystem => "the file system is read-only: mount it writable or name another directory",
        StorageFull | QuotaExceeded => "the disk is full: free some space and start again",
        _ => "see that the path is right and the disk sound",
    };
    StoreFault::Failed(format!("the claim store can't be opened in {}: {remedy} ({error})", path.display()))
}
