//! Durable claims a second: `cargo bench --bench store [-- DIRECTORY]`.
//!
//! Each writer claims an id of its own and commits it, over and over; a commit
//! returns when it is on stable storage, and the times are of these two. Then
//! the claim is settled as accepted, which nobody waits for: the whole life of
//! a message, so the rate is of messages. Beside that, what the disk itself
//! does: 4 KiB written and `fdatasync`ed on the same file system, in the same
//! run. The directory must be on the disk in question (default: the working
//! directory); nothing is left in it.
//!
//! With `MAILONCE_BENCH_RECORDS=2000000` in the environment it measures instead
//! what a store of so many records does: finding by key, and how long claims
//! wait while an opening counts the records in the background.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailonce::clock::{Clock, SystemClock};
use mailonce::config::{InDoubt, OnConflict};
use mailonce::smtp::reply::Reply;
use mailonce::store::sled::SledStore;
use mailonce::store::{
    Attempt, ClaimId, ClaimRequest, Claimed, Durability, Fingerprint, Marks, Outcome, Query, Record,
    Selection, Settlement, Slot, State, Store, Token,
};

type Failure = Box<dyn std::error::Error + Send + std::marker::Sync>;

const CELL: Duration = Duration::from_secs(3);
const WRITERS: [u64; 4] = [1, 8, 64, 256];

fn main() -> Result<(), Failure> {
    // Cargo passes options such as `--bench`; a word is the directory.
    let place = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let dir = tempfile::tempdir_in(place.map_or_else(|| PathBuf::from("."), PathBuf::from))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;

    println!("{:<26} {:>9} {:>10} {:>10}", "", "per second", "p50 ms", "p99 ms");
    if let Some(records) = std::env::var("MAILONCE_BENCH_RECORDS").ok().and_then(|text| text.parse().ok()) {
        return runtime.block_on(full(&dir.path().join("full"), records));
    }
    report("fdatasync of 4 KiB", disk(&dir.path().join("disk"))?);
    for writers in WRITERS {
        // A store of its own, so that no cell depends on those before it.
        let path = dir.path().join(format!("store-{writers}"));
        let store = Arc::new(SledStore::open(&path, 0, SystemClock.now())?.0);
        let name = format!("{writers} writer{}", if writers == 1 { "" } else { "s" });
        report(&name, runtime.block_on(claims(&store, writers))?);
        runtime.block_on(store.close())?;
    }
    report("fdatasync, once more", disk(&dir.path().join("disk"))?);
    Ok(())
}

/// One line of the table, from the time that each operation took.
fn report(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let percentile = |percent: usize| {
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
    let rate = took.len() as f64 / CELL.as_secs_f64();
    println!("{name:<26} {rate:>10.0} {:>10.3} {:>10.3}", percentile(50), percentile(99));
}

/// A file that is written over in place, as a database's log is once it has
/// its size.
fn disk(path: &std::path::Path) -> Result<Vec<Duration>, Failure> {
    let mut file = File::create(path)?;
    let block = [0x55; 4096];
    for _ in 0..256 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let (begin, mut took) = (Instant::now(), Vec::new());
    while begin.elapsed() < CELL {
        let start = Instant::now();
        file.seek(SeekFrom::Start(took.len() as u64 % 256 * 4096))?;
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(start.elapsed());
    }
    Ok(took)
}

async fn claims(store: &Arc<SledStore>, writers: u64) -> Result<Vec<Duration>, Failure> {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = Arc::clone(store);
            tokio::spawn(async move { write(&store, writer, begin).await })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    Ok(took)
}

async fn write(store: &SledStore, writer: u64, begin: Instant) -> Result<Vec<Duration>, Failure> {
    let mut took = Vec::new();
    while begin.elapsed() < CELL {
        let attempt = writer << 32 | took.len() as u64;
        let (token, now) = (Token { owner: 1, attempt }, SystemClock.now());
        let slot = slot(attempt);
        let id = slot.id;
        let start = Instant::now();
        let lease_until = now.plus(Duration::from_secs(600));
        let request = ClaimRequest { token, at: now, lease_until, slots: vec![slot], tenant_cap: None };
        let claimed = store.claim(request).await?;
        if !matches!(claimed.first(), Some(Claimed::New { .. })) {
            return Err("an id was claimed twice".into());
        }
        store.commit(token, vec![id.into()], now).await?;
        took.push(start.elapsed());
        let outcome = Outcome::Accepted(Reply::new(250, "2.0.0 Ok: queued as 4Xyz123abc"));
        let settlement =
            Settlement { id, outcome, upstream: "mx.example.net:25".into(), marks: Marks::default() };
        store.settle(token, now, vec![settlement], Durability::Soon).await?;
    }
    Ok(took)
}

/// What a store with many records does.
async fn full(path: &std::path::Path, records: u64) -> Result<(), Failure> {
    let (store, begin) = (SledStore::open(path, 0, SystemClock.now())?.0, Instant::now());
    for first in (0..records).step_by(500) {
        let some = (first..records.min(first + 500)).map(record).collect();
        store.import(some, SystemClock.now()).await?;
    }
    println!("{records} records imported in {:.1} s", begin.elapsed().as_secs_f64());
    store.close().await?;

    let store = Arc::new(SledStore::open(path, 0, SystemClock.now())?.0);
    let begin = Instant::now();
    let writers = tokio::spawn({
        let store = Arc::clone(&store);
        async move { write(&store, 77, begin).await }
    });
    while !store.census().await?.complete {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("counted in {:.1} s: {:?}", begin.elapsed().as_secs_f64(), store.census().await?);
    report("1 writer meanwhile", writers.await??);
    report("1 writer afterwards", write(&store, 78, Instant::now()).await?);
    let (begin, mut took) = (Instant::now(), Vec::new());
    while begin.elapsed() < CELL {
        let key = key(splitmix(took.len() as u64) % records);
        let start = Instant::now();
        let query = Query { of: Selection::Key(key), ..Query::default() };
        let (found, _) = store.list(query, SystemClock.now()).await?;
        took.push(start.elapsed());
        if found.len() != 1 {
            return Err("a key was not found".into());
        }
    }
    report("found by key", took);
    store.close().await?;
    Ok(())
}

fn key(number: u64) -> String {
    format!("order-confirmation:{number}")
}

/// One that was accepted.
fn record(number: u64) -> Record {
    let (slot, now) = (slot(number), SystemClock.now());
    Record {
        id: slot.id,
        tenant: slot.tenant,
        strategy: slot.strategy,
        key: slot.key,
        recipient: slot.recipient,
        sender: slot.sender,
        rule: slot.rule,
        fingerprint: slot.fingerprint,
        state: State::Settled(Outcome::Accepted(Reply::new(250, "2.0.0 Ok: queued as 4Xyz123abc"))),
        upstream: "mx.example.net:25".into(),
        message_id: slot.message_id,
        date: slot.date,
        size: slot.size,
        attempts: vec![Attempt { at: now, reply: "250 2.0.0 Ok: queued as 4Xyz123abc".into() }],
        attempt_count: 1,
        first_seen: now,
        last_seen: now,
        settled_at: Some(now),
        duplicates: 0,
        window: slot.window,
        expires: now.plus(slot.window),
        marks: Marks::default(),
        suppressed: Vec::new(),
    }
}

/// Spread like a hash, so that sled's tree is written to all over.
fn slot(attempt: u64) -> Slot {
    let mut id = [0; 32];
    let mut seed = attempt;
    for chunk in id.chunks_exact_mut(8) {
        seed = splitmix(seed);
        chunk.copy_from_slice(&seed.to_be_bytes());
    }
    Slot {
        id: ClaimId(id),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: key(attempt),
        recipient: format!("customer-{attempt}@example.org"),
        sender: "shop@example.com".into(),
        client: "192.0.2.1:40000".into(),
        rule: String::new(),
        fingerprint: Fingerprint(id),
        marks: Vec::new(),
        message_id: Some(format!("<{attempt}@mail.example.com>")),
        date: Some("Sat, 21 Nov 2026 08:15:00 +0000".into()),
        size: 20_000,
        window: Duration::from_secs(7 * 24 * 3600),
        on_conflict: OnConflict::Reject,
        in_doubt: InDoubt::Suppress,
    }
}

fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
