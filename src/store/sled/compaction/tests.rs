use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::backend::SledBackend;
use super::super::tests::known;
use super::super::{SledStore, Space, open};
use super::*;
use crate::clock::Timestamp;
use crate::store::contract::at;
use crate::store::ledger::{Backend, Progress};
use crate::store::{Attempt, AttemptKind, ClaimId, Count, Record, Store, Tally};

/// As much of the disk as anybody wants.
const PLENTY: u64 = u64::MAX;

fn backend(path: &Path) -> SledBackend {
    SledBackend::new(open::open(path).unwrap(), path, 0, Arc::default()).unwrap()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let copies = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(open::COPY));
    copies.map(|entry| entry.path()).collect()
}

/// Copies that are being made, or were left.
fn unfinished(path: &Path) -> usize {
    directories(path).iter().filter(|directory| directory.join(open::DATA).exists()).count()
}

/// What a backend should hold, written in the same way.
#[derive(Debug, Default, PartialEq)]
struct Model {
    records: BTreeMap<ClaimId, Record>,
    expiry: BTreeMap<(Timestamp, ClaimId), ()>,
    keys: BTreeMap<(u64, ClaimId), ()>,
    counts: BTreeMap<u64, u64>,
}

/// One write, to one of a few entries so that they meet.
#[derive(Clone, Copy, Debug)]
enum Write {
    Put(u8, u64),
    Remove(u8),
    AddExpiry(u8),
    RemoveExpiry(u8),
    AddKey(u8),
    RemoveKey(u8),
    Count(u8),
    RemoveCounts(u8),
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => (any::<u8>(), any::<u64>()).prop_map(|(which, size)| Write::Put(which, size)),
        2 => any::<u8>().prop_map(Write::Remove),
        2 => any::<u8>().prop_map(Write::AddExpiry),
        1 => any::<u8>().prop_map(Write::RemoveExpiry),
        2 => any::<u8>().prop_map(Write::AddKey),
        1 => any::<u8>().prop_map(Write::RemoveKey),
        1 => any::<u8>().prop_map(Write::Count),
        1 => (0_u8..40).prop_map(Write::RemoveCounts),
    ]
}

fn count(hour: u8) -> Count {
    let tally = Tally { relayed: 1, ..Tally::default() };
    Count { hour: hour.into(), tenant: "shop".into(), rule: String::new(), tally }
}

impl Write {
    fn apply(self, backend: &mut SledBackend, model: &mut Model) {
        let key = |which: u8| (u64::from(which) << 56, ClaimId([which; 32]));
        let when = |which: u8| (Timestamp::from_millis(which.into()), ClaimId([which; 32]));
        match self {
            Write::Put(which, size) => {
                let record = Record { id: ClaimId([which; 32]), size, ..known() };
                backend.put(&record).unwrap();
                model.records.insert(record.id, record);
            }
            Write::Remove(which) => {
                backend.remove(&ClaimId([which; 32])).unwrap();
                model.records.remove(&ClaimId([which; 32]));
            }
            Write::AddExpiry(which) => {
                backend.add_expiry(when(which).0, &when(which).1).unwrap();
                model.expiry.insert(when(which), ());
            }
            Write::RemoveExpiry(which) => {
                backend.remove_expiry(when(which).0, &when(which).1).unwrap();
                model.expiry.remove(&when(which));
            }
            Write::AddKey(which) => {
                backend.add_key(key(which).0, &key(which).1).unwrap();
                model.keys.insert(key(which), ());
            }
            Write::RemoveKey(which) => {
                backend.remove_key(key(which).0, &key(which).1).unwrap();
                model.keys.remove(&key(which));
            }
            Write::Count(hour) => {
                backend.add_count(&count(hour)).unwrap();
                *model.counts.entry(hour.into()).or_default() += 1;
            }
            Write::RemoveCounts(before) => {
                backend.remove_counts(before.into(), usize::MAX).unwrap();
                model.counts.retain(|hour, _| *hour >= before.into());
            }
        }
    }
}

/// All that it holds.
fn content(backend: &SledBackend) -> Model {
    let records = backend.range((Bound::Unbounded, Bound::Unbounded), usize::MAX).unwrap();
    let expiry = backend.due(Timestamp::from_millis(u64::MAX), usize::MAX).unwrap();
    let mut model = Model {
        records: records.into_iter().map(|record| (record.id, record)).collect(),
        expiry: expiry.into_iter().map(|entry| (entry, ())).collect(),
        ..Model::default()
    };
    for which in 0..=u8::MAX {
        let mark = u64::from(which) << 56;
        let ids = backend.keyed(mark, None, usize::MAX).unwrap();
        model.keys.extend(ids.into_iter().map(|id| ((mark, id), ())));
    }
    let counts = backend.counts(0, None, usize::MAX).unwrap();
    model.counts = counts.into_iter().map(|count| (count.hour, count.tally.relayed)).collect();
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is written before, behind and ahead of the copy, and after it:
    /// the new database has it, and so it is after an opening.
    #[test]
    fn what_is_written_meanwhile_is_in_the_copy(
        before in prop::collection::vec(write(), 0..120),
        meanwhile in prop::collection::vec((write(), 1_usize..9), 1..160),
        after in prop::collection::vec(write(), 0..20),
    ) {
        let dir = TempDir::new().unwrap();
        let mut model = Model::default();
        let mut ours = backend(dir.path());
        for write in before {
            write.apply(&mut ours, &mut model);
        }
        ours.checkpoint().unwrap();
        prop_assert_eq!(ours.compact(0, PLENTY, 3).unwrap(), Progress::Unfinished);
        prop_assert_eq!(unfinished(dir.path()), 1);
        let mut progress = Progress::Unfinished;
        for (write, most) in meanwhile {
            write.apply(&mut ours, &mut model);
            if progress == Progress::Unfinished {
                progress = ours.compact(0, PLENTY, most).unwrap();
            }
        }
        while progress == Progress::Unfinished {
            progress = ours.compact(0, PLENTY, 50).unwrap();
        }
        prop_assert_eq!(unfinished(dir.path()), 0);
        prop_assert_eq!(&content(&ours), &model);
        for write in after {
            write.apply(&mut ours, &mut model);
        }
        ours.checkpoint().unwrap();
        drop(ours);
        prop_assert_eq!(directories(dir.path()), Vec::<PathBuf>::new());
        let again = backend(dir.path());
        prop_assert_eq!(content(&again), model);
        prop_assert!(again.is_indexed());
        prop_assert!(!again.has_former(), "what it knows of itself moves along");
    }
}

fn filled(path: &Path, records: u8) -> (SledBackend, Model) {
    let (mut backend, mut model) = (backend(path), Model::default());
    for which in 0..records {
        Write::Put(which, 7).apply(&mut backend, &mut model);
    }
    backend.checkpoint().unwrap();
    (backend, model)
}

#[test]
fn a_full_disk_ends_a_copy_and_begins_none() {
    let dir = TempDir::new().unwrap();
    let (mut backend, model) = filled(dir.path(), 50);
    assert_eq!(backend.compact(0, PLENTY, 3).unwrap(), Progress::Unfinished);
    assert_eq!(unfinished(dir.path()), 1);
    assert_eq!(backend.compact(0, MARGIN - 1, 3).unwrap(), Progress::Complete);
    let begun = Instant::now();
    while !directories(dir.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not removed");
        thread::yield_now();
    }
    assert_eq!(backend.compact(0, PLENTY, 3).unwrap(), Progress::Complete, "not again at once");
    assert_eq!(content(&backend), model);
    drop(backend);
    let mut backend = self::backend(dir.path());
    assert_eq!(backend.compact(1, MARGIN, 3).unwrap(), Progress::Complete);
    assert_eq!(directories(dir.path()).len(), 0);
    drop(backend);
    let mut backend = self::backend(dir.path());
    assert_eq!(backend.compact(1, PLENTY, 3).unwrap(), Progress::Unfinished, "with room it is begun");
}

#[test]
fn a_file_is_left_as_it_is_while_little_of_it_is_waste() {
    let dir = TempDir::new().unwrap();
    let (mut backend, _) = filled(dir.path(), 50);
    assert_eq!(backend.compact(100_000, PLENTY, 3).unwrap(), Progress::Complete);
    assert_eq!(directories(dir.path()).len(), 0);
}

/// As they are after a crash, and after a process that compacted its store.
#[test]
fn what_is_left_of_a_copy_is_removed() {
    let dir = TempDir::new().unwrap();
    let (backend, model) = filled(dir.path(), 5);
    drop(backend);
    let (unfinished, alias) = (dir.path().join("copy-1"), dir.path().join("copy-2"));
    fs::create_dir_all(unfinished.join(open::BLOBS)).unwrap();
    fs::write(unfinished.join(open::DATA), "half").unwrap();
    fs::create_dir(&alias).unwrap();
    symlink("../blobs", alias.join(open::BLOBS)).unwrap();
    assert_eq!(content(&self::backend(dir.path())), model);
    assert_eq!(directories(dir.path()), Vec::<PathBuf>::new());
}

/// sled keeps what is larger than 128 KiB in files of their own, named after
/// places in the log, which begins anew.
#[test]
fn what_has_a_file_of_its_own_outlives_a_compaction() {
    let dir = TempDir::new().unwrap();
    let (mut backend, mut model) = filled(dir.path(), 5);
    while backend.compact(0, PLENTY, 100).unwrap() == Progress::Unfinished {}
    let attempts = vec![Attempt {
        at: Timestamp::from_millis(1),
        kind: AttemptKind::Accepted,
        reply: "x".repeat(200_000),
    }];
    let large = Record { id: ClaimId([9; 32]), attempts, ..known() };
    backend.put(&large).unwrap();
    model.records.insert(large.id, large);
    backend.checkpoint().unwrap();
    assert_eq!(fs::read_dir(dir.path().join(open::BLOBS)).unwrap().count(), 1);
    drop(backend);
    let mut backend = self::backend(dir.path());
    assert_eq!(content(&backend), model);
    // Such a one is not copied.
    while backend.compact(0, PLENTY, 100).unwrap() == Progress::Unfinished {}
    assert_eq!(content(&backend), model);
    drop(backend);
    assert_eq!(content(&self::backend(dir.path())), model);
}

/// One of many, gone after a day.
fn numbered(number: u64, settled: Timestamp) -> Record {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let expires = settled.plus(DAY);
    Record {
        id: ClaimId(id),
        key: number.to_string(),
        settled_at: Some(settled),
        window: DAY,
        expires,
        ..known()
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn the_disk_is_given_back_when_claims_become_fewer() {
    let dir = TempDir::new().unwrap();
    let (now, later) = (at(0), at(0).plus(DAY));
    let (store, _) = SledStore::open(dir.path(), Space { reserve: 0, floor: 1 << 20 }, now).unwrap();
    for first in (0..10_000).step_by(500) {
        let many = (first..first + 500).map(|number| numbered(number, now)).collect();
        store.import(many, now).await.unwrap();
    }
    let size = || fs::metadata(dir.path().join(open::DATA)).unwrap().len();
    let most = size();
    while store.sweep(later, 256).await.unwrap() > 0 {}
    let (begun, mut few) = (Instant::now(), Vec::new());
    while size() > most / 4 && begun.elapsed() < Duration::from_secs(60) {
        few.push(numbered(10_000 + few.len() as u64, later));
        store.import(few.last().cloned().into_iter().collect(), later).await.unwrap();
    }
    assert!(size() <= most / 4, "{} of {most}", size());
    store.close().await.unwrap();
    let (store, _) = SledStore::open(dir.path(), 0, later).unwrap();
    for record in few {
        assert_eq!(store.get(record.id, later).await.unwrap(), Some(record));
    }
    store.close().await.unwrap();
}
