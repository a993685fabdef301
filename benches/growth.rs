//! What a store of many live claims costs: `bench/growth` runs this, a process
//! for each step, and makes a page of it.
//!
//!     cargo bench --bench growth -- fill DIRECTORY CLAIMS
//!     cargo bench --bench growth -- start DIRECTORY kept|cold|rebuilt|cold-rebuilt
//!     cargo bench --bench growth -- traffic DIRECTORY CLAIMS
//!     cargo bench --bench growth -- sweep DIRECTORY CLAIMS
//!     cargo bench --bench growth -- churn DIRECTORY
//!
//! `fill` makes claims that were settled evenly over the last seven days, so
//! that a seventh expires within the next. `start` opens the store until it has
//! answered a claim: `cold` with nothing of it in the kernel's cache, `rebuilt`
//! from the log alone, as the first after a long run has to. `traffic` counts
//! the store under way, and then claims, looks up and finds by key. `sweep`
//! lets a day pass at once. Each prints `name value` lines. `churn`, which
//! `bench/growth` leaves out, tells what becomes of the disk when claims become
//! fewer: for a minute 3,500 a second, then 1,000, each gone after 25 seconds.

mod load;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use load::{ACCEPTED, Failure, Took, key, percentile, request, send, send_one, slot, splitmix};
use mailonce::clock::{Clock, SystemClock, Timestamp};
use mailonce::smtp::reply::Reply;
use mailonce::store::sled::SledStore;
use mailonce::store::sweeper::sweep_forever;
use mailonce::store::{
    Attempt, AttemptKind, Claimed, Marks, Outcome, Query, Record, Selection, Slot, State, Store, Token,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const CELL: Duration = Duration::from_secs(4);
const WRITERS: [u64; 3] = [1, 8, 64];
/// Claims of an import: as many as `keys import` brings at once.
const BATCH: u64 = 500;
/// A sweep that takes longer is watched for so long only.
const WATCHED: Duration = Duration::from_secs(60);

fn main() -> Result<(), Failure> {
    // Cargo passes options such as `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match words[..] {
        ["fill", dir, claims] => runtime.block_on(fill(dir.as_ref(), claims.parse()?)),
        ["start", dir, how] => runtime.block_on(start(dir.as_ref(), how)),
        ["traffic", dir, claims] => runtime.block_on(traffic(dir.as_ref(), claims.parse()?)),
        ["sweep", dir, claims] => runtime.block_on(sweep(dir.as_ref(), claims.parse()?)),
        ["churn", dir] => runtime.block_on(churn(dir.as_ref())),
        // `cargo bench` without any.
        _ => {
            println!("run bench/growth");
            Ok(())
        }
    }
}

fn say(name: &str, value: f64) {
    println!("{name} {value:.4}");
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn number(count: u64) -> f64 {
    count as f64
}

/// p50 and p99, in milliseconds.
fn say_spread(name: &str, mut took: Vec<Duration>) {
    say(&format!("{name} p50"), millis(percentile(&mut took, 50)));
    say(&format!("{name} p99"), millis(percentile(&mut took, 99)));
}

/// Resident memory now, in MiB.
fn say_resident(name: &str) -> Result<(), Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?.parse()?;
    say(name, number(kib) / 1024.0);
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(File::open(entry.path())?);
        }
    }
    Ok(files)
}

/// What they take on the disk, in pieces of 512 octets.
fn blocks(dir: &Path) -> Result<u64, Failure> {
    files(dir)?.iter().map(|file| Ok(file.metadata()?.blocks())).sum()
}

/// A call may take as long as it takes: a figure is wanted, no fault.
fn open(dir: &Path) -> Result<SledStore, Failure> {
    Ok(SledStore::open(dir, 0, SystemClock.now())?.0.with_deadline(DAY))
}

async fn fill(dir: &Path, claims: u64) -> Result<(), Failure> {
    let (store, begin) = (open(dir)?, Instant::now());
    let now = SystemClock.now();
    for first in (0..claims).step_by(usize::try_from(BATCH)?) {
        let some = (first..claims.min(first + BATCH)).map(|number| record(number, claims, now)).collect();
        store.import(some, now).await?;
        if (first + BATCH).is_multiple_of(1_000_000) {
            eprintln!("{} filled in {:.0} s", first + BATCH, seconds(begin.elapsed()));
        }
    }
    say("fill s", seconds(begin.elapsed()));
    say_resident("fill resident MiB")?;
    store.close().await?;
    let blocks = blocks(dir)?;
    say("disk MiB", number(blocks * 512) / 1024.0 / 1024.0);
    say("disk bytes a claim", number(blocks * 512) / number(claims.max(1)));
    Ok(())
}

/// One that was accepted within the last seven days; a little later, so that
/// none expires while all this goes on.
fn record(number: u64, of: u64, now: Timestamp) -> Record {
    let slot = slot(number);
    let age = u64::try_from(slot.window.as_millis()).unwrap_or(u64::MAX);
    let late = u64::try_from(u128::from(number) * u128::from(age) / u128::from(of)).unwrap_or(0);
    let settled = Timestamp::from_millis(now.as_millis() - age + late).plus(Duration::from_secs(3600));
    let reply = Reply::new(250, ACCEPTED);
    Record {
        id: slot.id,
        tenant: slot.tenant,
        strategy: slot.strategy,
        key: slot.key,
        recipient: slot.recipient,
        sender: slot.sender,
        rule: slot.rule,
        fingerprint: slot.fingerprint,
        attempts: vec![Attempt { at: settled, kind: AttemptKind::Accepted, reply: reply.to_string() }],
        state: State::Settled(Outcome::Accepted(reply)),
        upstream: "mx.example.net:25".into(),
        names: slot.names,
        series: Token { owner: 1, attempt: number },
        size: slot.size,
        attempt_count: 1,
        first_seen: settled,
        last_seen: settled,
        settled_at: Some(settled),
        duplicates: 0,
        window: slot.window,
        unheard_window: slot.unheard_window,
        heard: true,
        expires: settled.plus(slot.window),
        marks: Marks::default(),
        suppressed: Vec::new(),
    }
}

async fn start(dir: &Path, how: &str) -> Result<(), Failure> {
    if how.ends_with("rebuilt") {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
                fs::remove_file(path)?;
            }
        }
    }
    if how.starts_with("cold") {
        for file in files(dir)? {
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    let begin = Instant::now();
    let store = open(dir)?;
    let claimed = store.claim(request(Token { owner: 1, attempt: 0 }, slot(u64::MAX))).await?;
    say(&format!("start {how} s"), seconds(begin.elapsed()));
    if !matches!(claimed.first(), Some(Claimed::New { .. })) {
        return Err("what was never claimed is not new".into());
    }
    say_resident(&format!("start {how} resident MiB"))?;
    store.close().await?;
    Ok(())
}

async fn traffic(dir: &Path, claims: u64) -> Result<(), Failure> {
    let store: Arc<dyn Store> = Arc::new(open(dir)?);
    counted(&store).await?;
    say_resident("counted resident MiB")?;
    for writers in WRITERS {
        let took = writing(&store, writers, CELL).await?;
        say_writing(&format!("{writers} writers"), took, CELL);
    }
    if claims > 0 {
        say_spread("duplicate", duplicates(&*store, claims).await?);
        say_spread("key", keys(&*store, claims).await?);
    }
    say_resident("traffic resident MiB")?;
    store.close().await?;
    Ok(())
}

/// One writer while the claims that are there already are counted.
async fn counted(store: &Arc<dyn Store>) -> Result<(), Failure> {
    let (begin, mut took) = (Instant::now(), Vec::new());
    while !store.census().await?.complete {
        took.extend(send(&**store, Duration::from_millis(20)).await?);
    }
    say("census s", seconds(begin.elapsed()));
    say_spread("census claim", took.iter().map(|took| took.claim).collect());
    say_spread("census commit", took.iter().map(|took| took.commit).collect());
    Ok(())
}

async fn writing(store: &Arc<dyn Store>, writers: u64, span: Duration) -> Result<Vec<Took>, Failure> {
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let store = Arc::clone(store);
            tokio::spawn(async move { send(&*store, span).await })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    Ok(took)
}

fn say_writing(name: &str, took: Vec<Took>, span: Duration) {
    say(&format!("{name} a second"), number(took.len() as u64) / seconds(span));
    say_spread(&format!("{name} claim"), took.iter().map(|took| took.claim).collect());
    say_spread(&format!("{name} commit"), took.iter().map(|took| took.commit).collect());
}

async fn duplicates(store: &dyn Store, claims: u64) -> Result<Vec<Duration>, Failure> {
    let (begin, mut took) = (Instant::now(), Vec::new());
    while begin.elapsed() < CELL {
        let which = splitmix(took.len() as u64) % claims;
        let request = request(Token { owner: 2, attempt: which }, slot(which));
        let start = Instant::now();
        let claimed = store.claim(request).await?;
        took.push(start.elapsed());
        if !matches!(claimed.first(), Some(Claimed::Settled { .. })) {
            return Err("a settled claim was not found".into());
        }
    }
    Ok(took)
}

async fn keys(store: &dyn Store, claims: u64) -> Result<Vec<Duration>, Failure> {
    let (begin, mut took) = (Instant::now(), Vec::new());
    while begin.elapsed() < CELL {
        let key = key(splitmix(!(took.len() as u64)) % claims);
        let start = Instant::now();
        let query = Query { of: Selection::Key(key), ..Query::default() };
        let (found, _) = store.list(query, SystemClock.now()).await?;
        took.push(start.elapsed());
        if found.len() != 1 {
            return Err("a key was not found".into());
        }
    }
    Ok(took)
}

/// The machine's clock, set forward.
struct Tomorrow;

impl Clock for Tomorrow {
    fn now(&self) -> Timestamp {
        // The hour is what `record` adds.
        SystemClock.now().plus(DAY + Duration::from_secs(3600))
    }
}

/// The sweeper as mailonce runs it, with a day's share due at once, and eight
/// writers beside it.
async fn sweep(dir: &Path, claims: u64) -> Result<(), Failure> {
    let store: Arc<dyn Store> = Arc::new(open(dir)?);
    while !store.census().await?.complete {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (share, before) = (claims / 7, store.census().await?.accepted);
    let begin = Instant::now();
    let sweeper = tokio::spawn(sweep_forever(Arc::clone(&store), Arc::new(Tomorrow)));
    let (mut took, mut came, mut gone) = (Vec::new(), 0, 0);
    while gone < share * 99 / 100 && begin.elapsed() < WATCHED {
        let sent = writing(&store, 8, Duration::from_millis(500)).await?;
        came += sent.len() as u64;
        gone = (before + came).saturating_sub(store.census().await?.accepted);
        took.extend(sent);
    }
    let span = begin.elapsed();
    sweeper.abort();
    say("sweep share", number(share));
    say("sweep gone", number(gone));
    say("sweep s", seconds(span));
    say_writing("sweep", took, span);
    say_resident("sweep resident MiB")?;
    store.close().await?;
    Ok(())
}

/// How many claims a second, and for how long.
const CHURN: [(u32, Duration); 2] = [(3500, Duration::from_secs(60)), (1000, Duration::from_secs(120))];
const CHURNERS: u32 = 16;

/// Claims that come and go, with the sweeper beside.
async fn churn(dir: &Path) -> Result<(), Failure> {
    let store: Arc<dyn Store> = Arc::new(open(dir)?);
    let sweeper = tokio::spawn(sweep_forever(Arc::clone(&store), Arc::new(SystemClock)));
    let churners = (0..CHURNERS).map(|churner| tokio::spawn(come_and_go(Arc::clone(&store), churner)));
    let churners: Vec<_> = churners.collect();
    let (begin, mut look) = (Instant::now(), tokio::time::interval(Duration::from_secs(10)));
    while !churners.iter().all(tokio::task::JoinHandle::is_finished) {
        look.tick().await;
        let claims = store.census().await?.accepted;
        println!("{:.0} s: {claims} claims, {} MiB", seconds(begin.elapsed()), blocks(dir)? / 2048);
    }
    for churner in churners {
        churner.await??;
    }
    sweeper.abort();
    store.close().await?;
    Ok(())
}

/// A sixteenth of the churn, at its rate however long one takes.
async fn come_and_go(store: Arc<dyn Store>, churner: u32) -> Result<(), Failure> {
    let mut attempt = u64::from(churner) << 48;
    for (rate, span) in CHURN {
        let (begin, mut pace) =
            (Instant::now(), tokio::time::interval(Duration::from_secs(1) * CHURNERS / rate));
        while begin.elapsed() < span {
            pace.tick().await;
            let slot = Slot { window: Duration::from_secs(25), ..slot(attempt) };
            send_one(&*store, Token { owner: 1, attempt }, slot).await?;
            attempt += 1;
        }
    }
    Ok(())
}
