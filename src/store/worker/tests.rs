use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::Slot;
use super::super::contract::{
    accepted, at, claim, deferred, id, in_doubt, is_new, send, settle, settlement, slot, token,
};
use super::super::ledger::IdRange;
use super::super::memory::MapBackend;
use super::*;
use crate::config::OnConflict;
use crate::message::fingerprint::Fingerprint;

/// Long enough never to be reached unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a disk does when it is told to sync.
type Sync = Box<dyn FnMut() -> Result<(), String> + Send>;

/// Maps over such a disk.
struct Synced {
    map: MapBackend,
    sync: Sync,
}

impl Backend for Synced {
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault> {
        self.map.get(id)
    }
    fn put(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.map.put(record)
    }
    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.map.remove(id)
    }
    fn range(&self, ids: IdRange, most: usize) -> Result<Vec<Record>, StoreFault> {
        self.map.range(ids, most)
    }
    fn add_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.map.add_expiry(at, id)
    }
    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.map.remove_expiry(at, id)
    }
    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault> {
        self.map.due(now, most)
    }
    fn add_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.map.add_key(mark, id)
    }
    fn remove_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.map.remove_key(mark, id)
    }
    fn keyed(&self, mark: u64, after: Option<&ClaimId>, most: usize) -> Result<Vec<ClaimId>, StoreFault> {
        self.map.keyed(mark, after, most)
    }
    fn is_indexed(&self) -> bool {
        self.map.is_indexed()
    }
    fn set_indexed(&mut self) -> Result<(), StoreFault> {
        self.map.set_indexed()
    }
    fn add_count(&mut self, delta: &Count) -> Result<(), StoreFault> {
        self.map.add_count(delta)
    }
    fn counts(&self, from: u64, after: Option<&Count>, most: usize) -> Result<Vec<Count>, StoreFault> {
        self.map.counts(from, after, most)
    }
    fn remove_counts(&mut self, before: u64, most: usize) -> Result<(), StoreFault> {
        self.map.remove_counts(before, most)
    }
    fn put_open(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.map.put_open(record)
    }
    fn remove_open(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.map.remove_open(id)
    }
    fn open(&self) -> Result<Vec<Record>, StoreFault> {
        self.map.open()
    }
    fn sync(&mut self) -> Result<(), StoreFault> {
        (self.sync)().map_err(StoreFault::Failed)
    }
    fn checkpoint(&mut self) -> Result<(), StoreFault> {
        (self.sync)().map_err(StoreFault::Failed)
    }
}

/// A disk that syncs only when, and as, it is told to.
struct Disk {
    started: Mutex<Receiver<()>>,
    verdicts: Sender<Result<(), String>>,
}

impl Disk {
    fn new() -> (Self, Sync) {
        let (start, started) = channel();
        let (verdicts, inbox) = channel();
        let sync = move || {
            let _ = start.send(());
            // Once nobody is left to tell, all goes well.
            inbox.recv().unwrap_or(Ok(()))
        };
        (Self { started: Mutex::new(started), verdicts }, Box::new(sync))
    }

    fn wait_for_start(&self) {
        self.started.lock().unwrap().recv_timeout(PATIENCE).unwrap();
    }

    fn answer(&self, verdict: Result<(), String>) {
        self.verdicts.send(verdict).unwrap();
    }
}

fn worker(sync: Sync) -> Arc<Worker> {
    let ledger = Ledger::new(Synced { map: MapBackend::default(), sync });
    Arc::new(Worker::over(ledger, Arc::default(), Room::on_disk("/".into(), 0)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_during_a_flush_shares_the_next() {
    let (disk, sync) = Disk::new();
    let store = worker(sync);
    for number in 1..6 {
        assert!(is_new(&claim(&*store, number.into(), at(0), slot(number)).await));
    }
    let commit = |number: u8| {
        let store = Arc::clone(&store);
        async move { store.commit(token(number.into()), vec![id(number).into()], at(0)).await }
    };
    let first = tokio::spawn(commit(1));
    disk.wait_for_start();
    // The disk is busy. The first poll of each puts it into the queue.
    let mut more: Vec<_> = (2..6).map(|number| Box::pin(commit(number))).collect();
    for commit in &mut more {
        let pending =
            std::future::poll_fn(|cx| std::task::Poll::Ready(commit.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
    }
    disk.answer(Ok(()));
    first.await.unwrap().unwrap();
    disk.answer(Ok(()));
    for commit in more {
        commit.await.unwrap();
    }
    disk.wait_for_start();
    assert!(disk.started.lock().unwrap().try_recv().is_err(), "one flush for all four");
    drop(disk.verdicts);
    store.close().await.unwrap();
}

/// Of two claims one was taken over; the outcome of the other is as lasting as
/// any when that is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_fenced_hears_so_when_the_rest_is_durable() {
    let (disk, sync) = Disk::new();
    let store = worker(sync);
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    let both = vec![settlement(1, deferred()), settlement(2, deferred())];
    let mut settling = store.settle(token(1), at(0), both, Durability::Now);
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(settling.as_mut().poll(cx).is_pending()));
    assert!(poll.await);
    tokio::task::block_in_place(|| disk.wait_for_start());
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(settling.as_mut().poll(cx).is_pending()));
    assert!(poll.await, "the disk has not answered yet");
    disk.answer(Ok(()));
    assert_eq!(settling.await, Err(StoreFault::Fenced));
    drop(disk.verdicts);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_reaches_the_disk_all_the_same() {
    let (disk, sync) = Disk::new();
    let store = worker(sync);
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    let soon = vec![settlement(1, deferred())];
    store.settle(token(1), at(0), soon, Durability::Soon).await.unwrap();
    tokio::task::block_in_place(|| disk.wait_for_start());
    drop(disk.verdicts);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_disk_is_a_stall() {
    let (disk, sync) = Disk::new();
    let mut worker = Arc::into_inner(worker(sync)).unwrap();
    assert!(is_new(&claim(&worker, 1, at(0), slot(1)).await));
    worker.deadline = Duration::from_millis(20);
    let stalled = worker.commit(token(1), vec![id(1).into()], at(0)).await;
    assert_eq!(stalled, Err(StoreFault::Stalled { operation: "commit" }));
    let stalled = worker.close().await;
    assert_eq!(stalled, Err(StoreFault::Stalled { operation: "close" }));
    drop(disk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_commit_comes_through_in_order() {
    let (disk, sync) = Disk::new();
    let mut worker = Arc::into_inner(worker(sync)).unwrap();
    assert!(is_new(&claim(&worker, 1, at(0), slot(1)).await));
    worker.deadline = Duration::from_millis(20);
    let stalled = worker.commit(token(1), vec![id(1).into()], at(0)).await;
    assert!(matches!(stalled, Err(StoreFault::Stalled { .. })));
    worker.deadline = PATIENCE;
    drop(disk.verdicts);
    worker.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    settle(&worker, 1, at(1), 1, accepted()).await.unwrap();
    settle(&worker, 1, at(1), 1, accepted()).await.unwrap();
    worker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_ends_what_a_stalled_commit_began() {
    let (disk, sync) = Disk::new();
    let mut worker = Arc::into_inner(worker(sync)).unwrap();
    assert!(is_new(&claim(&worker, 1, at(0), slot(1)).await));
    worker.deadline = Duration::from_millis(20);
    let stalled = worker.commit(token(1), vec![id(1).into()], at(0)).await;
    assert!(matches!(stalled, Err(StoreFault::Stalled { .. })));
    worker.deadline = PATIENCE;
    drop(disk.verdicts);
    settle(&worker, 1, at(1), 1, deferred()).await.unwrap();
    assert!(is_new(&claim(&worker, 2, at(1), slot(1)).await));
    worker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_all_use_and_acknowledges_nothing() {
    let (disk, sync) = Disk::new();
    let store = worker(sync);
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    disk.answer(Err("the disk is full".into()));
    let full = StoreFault::Failed("the disk is full".into());
    assert_eq!(store.commit(token(1), vec![id(1).into()], at(0)).await, Err(full.clone()));
    // Even though the disk would work again.
    drop(disk.verdicts);
    assert_eq!(settle(&*store, 1, at(0), 1, accepted()).await, Err(full.clone()));
    assert_eq!(store.get(id(1), at(0)).await, Err(full.clone()));
    assert_eq!(store.sweep(at(0), 1).await, Err(full.clone()));
    assert_eq!(store.close().await, Err(full));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_does_is_answered_when_it_is_on_disk() {
    for number in 1..=3 {
        let (disk, sync) = Disk::new();
        let store = worker(sync);
        assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
        disk.answer(Ok(()));
        settle(&*store, 1, at(0), 1, in_doubt()).await.unwrap();
        let record = store.get(id(1), at(0)).await.unwrap().unwrap();
        disk.answer(Err("the disk is full".into()));
        let fault = match number {
            1 => store.forget(id(1), at(0)).await.unwrap_err(),
            2 => store.resolve(id(1), Resolution::Sent, at(0)).await.unwrap_err(),
            _ => store.import(vec![record], at(0)).await.unwrap_err(),
        };
        assert_eq!(fault, StoreFault::Failed("the disk is full".into()));
        drop(disk.verdicts);
        assert!(store.close().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_caller_is_gone_is_given_up() {
    let store = worker(Box::new(|| Ok(())));
    let (answer, result) = oneshot::channel();
    drop(result);
    let request = super::super::contract::request(1, at(0), vec![slot(1)]);
    assert!(store.inbox.put(Request::Claim(request, answer), Urgency::Now).is_ok());
    send(&*store, 2, at(0), slot(1), accepted()).await;
    store.close().await.unwrap();
}

/// The claim that it would take over was never sent, and its holder says so:
/// else that would be a doubt for good, and the e-mail lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_caller_is_gone_takes_nothing_over() {
    let store = worker(Box::new(|| Ok(())));
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    let (answer, result) = oneshot::channel();
    drop(result);
    let other = Slot { fingerprint: Fingerprint([2; 32]), on_conflict: OnConflict::Relay, ..slot(1) };
    let request = super::super::contract::request(2, at(0), vec![other]);
    assert!(store.inbox.put(Request::Claim(request, answer), Urgency::Now).is_ok());
    settle(&*store, 1, at(1), 1, deferred()).await.unwrap();
    assert!(is_new(&claim(&*store, 3, at(1), slot(1)).await));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_engine_is_a_fault_not_a_hang() {
    let store = worker(Box::new(|| panic!("planned")));
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    let commit = store.commit(token(1), vec![id(1).into()], at(0)).await;
    assert!(matches!(commit, Err(StoreFault::Failed(_))));
    assert!(store.close().await.is_err());
}
