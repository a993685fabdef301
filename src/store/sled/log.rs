//! The commit log: what has to be durable now, with one write and one
//! `fdatasync` for all who wait.
//!
//! sled's own flush wakes a pool of threads and waits for the disk twice,
//! which costs more than all the rest of a message. So claims that are being
//! committed go here, and outcomes go here too; sled gets the outcomes as well,
//! and puts them on stable storage in its own time.
//!
//! Two files of a fixed size, zeroed beforehand so that a write changes no
//! metadata, are filled in turn. A frame is `length, checksum, generation,
//! serial, kind, payload`: an open record, a settled record, or the end of one
//! of these, by its serial.
//!
//! # What holds at every instant, a crash included
//!
//! 1. A claim's open frame is on stable storage before its last byte leaves.
//! 2. An ended frame is written only when sled has the settled record on stable
//!    storage (or after a failed write, for what was not acknowledged), and that record is removed only when the ended frame is durable.
//!    So a settled frame without its ended one is written to sled again at the
//!    next start, and an open frame without one is either settled, or in doubt.
//! 3. A file is overwritten only when everything in it is ended, or written
//!    again at the start of the new generation, which is durable before the
//!    next overwriting.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Octets of one file: some ten thousand messages.
const CAPACITY: u64 = 8 * 1024 * 1024;

/// Octets read or zeroed at once.
const BLOCK: usize = 64 * 1024;

/// length, checksum, generation, serial, kind
const HEADER: usize = 4 + 4 + 8 + 8 + 1;

const OPEN: u8 = 1;
const ENDED: u8 = 2;
const SETTLED: u8 = 3;

/// What of the log still counts at a start, each in the order of its serials.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Records that are being committed, unless a settled one says otherwise.
    pub(super) open: BTreeMap<Serial, Vec<u8>>,
    /// Records that sled may not have.
    pub(super) settled: BTreeMap<Serial, Vec<u8>>,
}

/// Names one frame and its end; never used twice.
pub(super) type Serial = u64;

/// The log, ready to be written.
#[derive(Debug)]
pub(super) struct CommitLog {
    files: [File; 2],
    /// Which of them is being filled.
    active: usize,
    generation: u64,
    /// Where the next write goes.
    end: u64,
    next_serial: Serial,
    /// Frames that are not written yet.
    buffer: Vec<u8>,
    /// The ended frames among them.
    ending: Vec<Serial>,
    /// The open frames among them whose commit nobody has been told of.
    opening: Vec<Serial>,
}

/// What one file holds.
#[derive(Default)]
struct Contents {
    generation: u64,
    frames: Vec<(Serial, u8, Vec<u8>)>,
}

impl CommitLog {
    /// Opens or creates the log in the directory `path`. Nothing is overwritten
    /// before [`CommitLog::restart`].
    pub(super) fn open(path: &Path) -> io::Result<(Self, Left)> {
        let files = [prepared(&path.join("commits.0"))?, prepared(&path.join("commits.1"))?];
        // A file that loses its name is lost.
        File::open(path)?.sync_all()?;
        let mut contents = [read(&files[0])?, read(&files[1])?];
        let newer = usize::from(contents[1].generation > contents[0].generation);
        let generation = contents[newer].generation;

        let mut left = Left::default();
        let mut next_serial = 0;
        for file in [1 - newer, newer] {
            for (serial, kind, payload) in std::mem::take(&mut contents[file].frames) {
                next_serial = next_serial.max(serial + 1);
                match kind {
                    OPEN => drop(left.open.insert(serial, payload)),
                    SETTLED => drop(left.settled.insert(serial, payload)),
                    _ => {
                        left.open.remove(&serial);
                        left.settled.remove(&serial);
                    }
                }
            }
        }
        // Full, so that the first write goes to a new generation: what lies
        // behind a torn frame must never be taken for ours.
        let end = CAPACITY;
        let (buffer, ending, opening) = (Vec::new(), Vec::new(), Vec::new());
        Ok((Self { files, active: newer, generation, end, next_serial, buffer, ending, opening }, left))
    }

    /// Notes a record that is being committed.
    pub(super) fn append_open(&mut self, payload: &[u8]) -> Serial {
        let serial = self.append(OPEN, payload);
        self.opening.push(serial);
        serial
    }

    /// Notes a record that is settled.
    pub(super) fn append_settled(&mut self, payload: &[u8]) -> Serial {
        self.append(SETTLED, payload)
    }

    fn append(&mut self, kind: u8, payload: &[u8]) -> Serial {
        let serial = self.next_serial;
        self.next_serial += 1;
        frame(&mut self.buffer, self.generation, serial, kind, payload);
        serial
    }

    /// Ends a frame. sled must have its settled record on stable storage.
    pub(super) fn append_ended(&mut self, serial: Serial) {
        frame(&mut self.buffer, self.generation, serial, ENDED, &[]);
        self.ending.push(serial);
    }

    /// Whether the file has no room for what is waiting: then
    /// [`CommitLog::restart`] is due instead of [`CommitLog::sync`]. So it is
    /// for the first write after opening.
    pub(super) fn is_full(&self) -> bool {
        self.end + self.buffer.len() as u64 > CAPACITY
    }

    /// Makes everything appended durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = &self.files[self.active];
        let written = file.write_all_at(&self.buffer, self.end).and_then(|()| file.sync_data());
        if written.is_err() {
            self.take_back();
            return written;
        }
        self.end += self.buffer.len() as u64;
        self.buffer.clear();
        self.ending.clear();
        self.opening.clear();
        Ok(())
    }

    /// After a write that failed, the last there is. Commits in it were not
    /// acknowledged, so nothing was sent, and yet the next start may find them:
    /// they are ended, lest it takes them for doubts. That can't be relied on,
    /// and need not be.
    fn take_back(&mut self) {
        let mut ends = Vec::new();
        for serial in self.opening.drain(..) {
            frame(&mut ends, self.generation, serial, ENDED, &[]);
        }
        let behind = self.end + self.buffer.len() as u64;
        let _ = self.files[self.active].write_all_at(&ends, behind);
    }

    /// Goes on at the start of the other file, with all that is open and all
    /// that ended but is not written yet. Every other claim ever noted must be
    /// durable in sled.
    pub(super) fn restart<'a>(&mut self, open: impl Iterator<Item = (Serial, &'a [u8])>) -> io::Result<()> {
        self.active = 1 - self.active;
        self.generation += 1;
        self.end = 0;
        self.buffer.clear();
        for (serial, payload) in open {
            frame(&mut self.buffer, self.generation, serial, OPEN, payload);
        }
        for serial in &self.ending {
            frame(&mut self.buffer, self.generation, *serial, ENDED, &[]);
        }
        self.sync()
    }
}

fn frame(out: &mut Vec<u8>, generation: u64, serial: Serial, kind: u8, payload: &[u8]) {
    let start = out.len();
    let length = (HEADER + payload.len()) as u32;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(&serial.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
    let checksum = crc32fast::hash(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// Opens a file of the log; a new one is written out in full, so that later
/// writes find their blocks in place.
fn prepared(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() < CAPACITY {
        let zeros = vec![0; BLOCK];
        for at in (file.metadata()?.len()..CAPACITY).step_by(zeros.len()) {
            let room = (CAPACITY - at).min(zeros.len() as u64) as usize;
            file.write_all_at(&zeros[..room], at)?;
        }
        file.sync_all()?;
    }
    Ok(file)
}

/// The frames from the start of a file, up to the first that is damaged, is of
/// another generation, or was never written: what a crash cut off was never
/// acknowledged.
fn read(file: &File) -> io::Result<Contents> {
    let mut rest = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(BLOCK, file);
    reader.seek(SeekFrom::Start(0))?;
    let mut contents = Contents::default();
    while let Some(frame) = next_frame(&mut reader, &mut rest)? {
        let number = |at: usize| frame[at..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let (Some(generation), Some(serial)) = (number(8), number(16)) else { break };
        if !contents.frames.is_empty() && generation != contents.generation {
            break;
        }
        contents.generation = generation;
        contents.frames.push((serial, frame[24], frame[HEADER..].to_vec()));
    }
    Ok(contents)
}

/// A whole frame with the checksum it says, out of the `rest` of a file.
fn next_frame(reader: &mut impl Read, rest: &mut u64) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if *rest < HEADER as u64 {
        return Ok(None);
    }
    reader.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length) as usize;
    if size < HEADER || size as u64 > *rest {
        return Ok(None);
    }
    *rest -= size as u64;
    let mut frame = vec![0; size];
    frame[..4].copy_from_slice(&length);
    reader.read_exact(&mut frame[4..])?;
    let sound = frame[4..8] == crc32fast::hash(&frame[8..]).to_be_bytes();
    Ok(sound.then_some(frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// Every frame up to the first that is none.
    fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = bytes.len() as u64;
        std::iter::from_fn(|| next_frame(&mut bytes, &mut rest).ok().flatten()).collect()
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, length in 0_u32..200) {
            prop_assert!(frames(&bytes).is_empty());
            prop_assert!(frames(&[&length.to_be_bytes(), &bytes[..]].concat()).is_empty());
        }

        #[test]
        fn damage_ends_the_frames_where_it_is(
            payloads in prop::collection::vec(any::<Vec<u8>>(), 1..5),
            at: prop::sample::Index,
            change in 1_u8..,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for (serial, payload) in (0..).zip(&payloads) {
                frame(&mut bytes, 7, serial, OPEN, payload);
                ends.push(bytes.len());
            }
            prop_assert_eq!(frames(&bytes).len(), payloads.len());
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            let sound = ends.iter().filter(|end| **end <= at).count();
            prop_assert_eq!(frames(&bytes).len(), sound);
        }
    }

    fn open(dir: &TempDir) -> (CommitLog, Vec<(Serial, Vec<u8>)>) {
        let (mut log, Left { open, .. }) = CommitLog::open(dir.path()).unwrap();
        log.restart(open.iter().map(|(serial, payload)| (*serial, payload.as_slice()))).unwrap();
        (log, open.into_iter().collect())
    }

    #[test]
    fn what_is_open_is_there_after_any_number_of_starts() {
        let dir = TempDir::new().unwrap();
        let (mut log, found) = open(&dir);
        assert!(found.is_empty());
        let one = log.append_open(b"one");
        let two = log.append_open(b"two");
        log.sync().unwrap();
        log.append_ended(one);
        log.sync().unwrap();
        for _ in 0..3 {
            assert_eq!(open(&dir).1, [(two, b"two".to_vec())]);
        }
        let (mut log, _) = open(&dir);
        let three = log.append_open(b"three");
        assert!(three > two, "serials are never used twice");
        log.append_ended(two);
        log.sync().unwrap();
        assert_eq!(open(&dir).1, [(three, b"three".to_vec())]);
    }

    #[test]
    fn what_is_settled_is_there_until_sled_has_it() {
        let dir = TempDir::new().unwrap();
        let (mut log, _) = open(&dir);
        let (one, two) = (log.append_settled(b"one"), log.append_settled(b"two"));
        log.append_ended(one);
        log.sync().unwrap();
        let settled = CommitLog::open(dir.path()).unwrap().1.settled;
        assert_eq!(settled.into_iter().collect::<Vec<_>>(), [(two, b"two".to_vec())]);
    }

    /// As a failed `fdatasync` leaves it: the frames are in the file all the same.
    #[test]
    fn commits_that_were_not_acknowledged_are_no_doubts_at_the_next_start() {
        let dir = TempDir::new().unwrap();
        let (mut log, _) = open(&dir);
        let one = log.append_open(b"one");
        log.sync().unwrap();
        log.append_open(b"two");
        log.files[log.active].write_all_at(&log.buffer, log.end).unwrap();
        log.take_back();
        assert_eq!(open(&dir).1, [(one, b"one".to_vec())]);
    }

    #[test]
    fn what_was_not_synced_is_not_there() {
        let dir = TempDir::new().unwrap();
        let (mut log, _) = open(&dir);
        log.append_open(b"one");
        drop(log);
        assert!(open(&dir).1.is_empty());
    }

    /// Wherever a write is cut off or damaged, what was synced before is there.
    #[test]
    fn a_torn_write_takes_nothing_else_along() {
        let dir = TempDir::new().unwrap();
        let (mut log, _) = open(&dir);
        let one = log.append_open(b"one");
        log.sync().unwrap();
        let (file, start) = (dir.path().join(format!("commits.{}", log.active)), log.end);
        log.append_open(b"two");
        log.sync().unwrap();
        let whole = std::fs::read(&file).unwrap();
        for at in start..log.end {
            let mut torn = whole.clone();
            torn[at as usize] ^= 0x55;
            std::fs::write(&file, &torn).unwrap();
            let (_, found) = CommitLog::open(dir.path()).unwrap();
            assert_eq!(
                found.open.into_iter().collect::<Vec<_>>(),
                [(one, b"one".to_vec())],
                "damaged at {at}"
            );
        }
    }

    /// The files take turns; what stays open is carried along.
    #[test]
    fn full_files_take_turns() {
        let dir = TempDir::new().unwrap();
        let (mut log, _) = open(&dir);
        let kept = log.append_open(b"kept");
        let payload = vec![7; 100_000];
        let mut restarts = 0;
        for _ in 0..500 {
            let serial = log.append_open(&payload);
            if log.is_full() {
                log.restart([(kept, &b"kept"[..]), (serial, &payload)].into_iter()).unwrap();
                restarts += 1;
            }
            log.sync().unwrap();
            log.append_ended(serial);
        }
        // The last end is not written yet, and goes along.
        log.restart([(kept, &b"kept"[..])].into_iter()).unwrap();
        assert!(restarts > 4);
        assert_eq!(open(&dir).1, [(kept, b"kept".to_vec())]);
        let size = std::fs::metadata(dir.path().join("commits.0")).unwrap().len();
        assert_eq!(size, CAPACITY);
    }
}
