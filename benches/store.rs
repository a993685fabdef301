//! Durable claims a second: `cargo bench --bench store [-- DIRECTORY]`.
//!
//! Each writer claims an id of its own and commits it, over and over; a commit
//! returns when it is on stable storage, and the times are of these two. Then
//! the claim is settled as accepted, which nobody waits for: the whole life of
//! a message, so the rate is of messages. Beside that, what the disk itself
//! does: 4 KiB written and `fdatasync`ed on the same file system, in the same
//! run. The directory must be on the disk in question (default: the working
//! directory); nothing is left in it.

mod load;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use load::{Failure, percentile, send};
use mailonce::clock::{Clock, SystemClock};
use mailonce::store::Store;
use mailonce::store::sled::SledStore;

const CELL: Duration = Duration::from_secs(3);
const WRITERS: [u64; 4] = [1, 8, 64, 256];

fn main() -> Result<(), Failure> {
    // Cargo passes options such as `--bench`; a word is the directory.
    let place = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let dir = tempfile::tempdir_in(place.map_or_else(|| PathBuf::from("."), PathBuf::from))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;

    println!("{:<26} {:>9} {:>10} {:>10}", "", "per second", "p50 ms", "p99 ms");
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
    #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
    let rate = took.len() as f64 / CELL.as_secs_f64();
    let [p50, p99] = [50, 99].map(|percent| percentile(&mut took, percent).as_secs_f64() * 1000.0);
    println!("{name:<26} {rate:>10.0} {p50:>10.3} {p99:>10.3}");
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
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let store = Arc::clone(store);
            tokio::spawn(async move { send(&*store, CELL).await })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??.iter().map(|took| took.claim + took.commit));
    }
    Ok(took)
}
