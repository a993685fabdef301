//! The store: the real ledger, and what `store/worker.rs` does on a thread of
//! its own done by a task. It carries out all that is there, then waits for the
//! disk once on behalf of all who have to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mailonce::clock::Timestamp;
use mailonce::store::ledger::{Ledger, Progress};
use mailonce::store::{
    Census, Change, ClaimId, ClaimRequest, Claimed, Commit, Count, Durability, Heard, Imported, Query,
    Record, Resolution, Settlement, Store, StoreFault, Token,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::disk::{Cache, Disk};
use super::plan::DiskPlan;
use super::process::Life;
use super::random::Random;

/// As in `store/worker.rs` and `worker/writer.rs`.
const DEADLINE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_millis(100);

type Answer<T> = oneshot::Sender<Result<T, StoreFault>>;
type Machine = Ledger<Cache>;
/// Who is to hear when what was done is durable, and what.
type Waiting = Option<(Answer<()>, Result<(), StoreFault>)>;
type Job = Box<dyn FnOnce(Result<&mut Machine, StoreFault>) -> Waiting + Send>;

#[derive(Debug)]
pub struct SimulatedStore {
    jobs: mpsc::UnboundedSender<Job>,
    life: Arc<Life>,
}

impl SimulatedStore {
    /// Opens what is on the disk.
    pub fn open(disk: &Arc<Mutex<Disk>>, plan: DiskPlan, random: Random, now: Timestamp) -> Arc<Self> {
        let mut ledger = Ledger::new(Cache::over(disk));
        ledger.recover(now).unwrap();
        ledger.checkpoint().unwrap();
        while ledger.count_some(1000).unwrap() == Progress::Unfinished {}
        let (jobs, inbox) = mpsc::unbounded_channel();
        let life = Life::new(0);
        let writer = Writer { ledger, plan, random, life: life.clone(), dirty: None, fault: None };
        tokio::spawn(writer.run(inbox));
        Arc::new(Self { jobs, life })
    }

    /// The machine that it runs on is no more.
    pub fn die(&self) {
        self.life.end(true);
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl FnOnce(Result<&mut Machine, StoreFault>, Answer<T>) -> Waiting + Send + 'static,
    ) -> Result<T, StoreFault> {
        let (answer, result) = oneshot::channel();
        let _ = self.jobs.send(Box::new(move |ledger| job(ledger, answer)));
        let result = timeout(DEADLINE, result).await;
        if self.life.is_dead() {
            return std::future::pending().await;
        }
        match result {
            Ok(Ok(result)) => result,
            _ => Err(StoreFault::Stalled { operation }),
        }
    }

    /// What is answered at once.
    async fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        ask: impl FnOnce(&mut Machine) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let job = move |ledger: Result<&mut Machine, StoreFault>, answer: Answer<T>| {
            let _ = answer.send(ledger.and_then(ask));
            None
        };
        self.call(operation, job).await
    }

    /// What is answered when it is durable.
    async fn write(
        &self,
        operation: &'static str,
        write: impl FnOnce(&mut Machine) -> Result<(), StoreFault> + Send + 'static,
    ) -> Result<(), StoreFault> {
        let job = move |ledger: Result<&mut Machine, StoreFault>, answer: Answer<()>| match ledger
            .and_then(write)
        {
            Ok(()) => Some((answer, Ok(()))),
            Err(fault) => {
                let _ = answer.send(Err(fault));
                None
            }
        };
        self.call(operation, job).await
    }
}

struct Writer {
    ledger: Machine,
    plan: DiskPlan,
    random: Random,
    life: Arc<Life>,
    /// Since when something is written that is not durable.
    dirty: Option<Instant>,
    /// Why the store can't be used any more.
    fault: Option<StoreFault>,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        loop {
            let flush = self.dirty.map(|since| since + IDLE);
            let job = tokio::select! {
                biased;
                job = inbox.recv() => match job {
                    Some(job) => Some(job),
                    None => return,
                },
                () = async { sleep_until(flush.unwrap_or_else(Instant::now)).await }, if flush.is_some() => None,
            };
            let mut waiting = Vec::new();
            let mut next = job;
            while let Some(job) = next {
                if self.life.is_dead() {
                    return std::future::pending().await;
                }
                let fault = self.fault.clone();
                waiting.extend(job(fault.map_or(Ok(&mut self.ledger), Err)));
                self.dirty.get_or_insert_with(Instant::now);
                next = inbox.try_recv().ok();
            }
            let is_due = self.dirty.is_some_and(|since| since.elapsed() >= IDLE);
            if is_due || !waiting.is_empty() {
                self.reach_disk(is_due, waiting).await;
            }
        }
    }

    async fn reach_disk(&mut self, lasting: bool, waiting: Vec<(Answer<()>, Result<(), StoreFault>)>) {
        let takes = match self.random.chance(self.plan.stalls) {
            true => self.random.seconds(8, 15),
            false => self.random.millis(1, self.plan.sync),
        };
        sleep(takes).await;
        if self.life.is_dead() {
            return std::future::pending().await;
        }
        let written = match &self.fault {
            Some(fault) => Err(fault.clone()),
            None if lasting => self.ledger.checkpoint(),
            None => self.ledger.sync(),
        };
        if let Err(fault) = &written {
            self.fault = Some(fault.clone());
        }
        if lasting {
            self.dirty = None;
        }
        for (answer, done) in waiting {
            let _ = answer.send(written.clone().and(done));
        }
    }
}

#[async_trait]
impl Store for SimulatedStore {
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        let job = move |ledger: Result<&mut Machine, StoreFault>, answer: Answer<Vec<Claimed>>| {
            let ledger = match ledger {
                _ if answer.is_closed() => return None,
                Ok(ledger) => ledger,
                Err(fault) => {
                    let _ = answer.send(Err(fault));
                    return None;
                }
            };
            if answer.send(ledger.claim(&request)).is_err() {
                // Nobody would ever settle these.
                let ids: Vec<ClaimId> = request.slots.iter().map(|slot| slot.id).collect();
                ledger.release(request.token, &ids);
            }
            None
        };
        self.call("claim", job).await
    }

    async fn commit(&self, token: Token, commits: Vec<Commit>, at: Timestamp) -> Result<(), StoreFault> {
        self.write("commit", move |ledger| ledger.commit(token, &commits, at)).await
    }

    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        durability: Durability,
    ) -> Result<(), StoreFault> {
        if durability == Durability::Now {
            // Some may be written though one was fenced.
            let job = move |ledger: Result<&mut Machine, StoreFault>, answer| {
                Some((answer, ledger.and_then(|ledger| ledger.settle(token, at, &settlements))))
            };
            return self.call("settle", job).await;
        }
        let job = move |ledger: Result<&mut Machine, StoreFault>| {
            let _ = ledger.and_then(|ledger| ledger.settle(token, at, &settlements));
            None
        };
        let _ = self.jobs.send(Box::new(job));
        Ok(())
    }

    fn note_heard(&self, notes: Vec<Heard>, now: Timestamp) {
        let job = move |ledger: Result<&mut Machine, StoreFault>| {
            let _ = ledger.and_then(|ledger| ledger.note_heard(&notes, now));
            None
        };
        let _ = self.jobs.send(Box::new(job));
    }

    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault> {
        let release = move |ledger: &mut Machine| {
            ledger.release(token, &ids);
            Ok(())
        };
        self.ask("release", release).await
    }

    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        self.ask("get", move |ledger| ledger.get(&id, now)).await
    }

    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        self.ask("list", move |ledger| ledger.list(&query, now)).await
    }

    async fn forget(&self, id: ClaimId, at: Timestamp) -> Result<Change, StoreFault> {
        self.ask("forget", move |ledger| lasting(ledger, |ledger| ledger.forget(&id, at))).await
    }

    async fn resolve(&self, id: ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault> {
        self.ask("resolve", move |ledger| lasting(ledger, |ledger| ledger.resolve(&id, as_, at))).await
    }

    async fn import(&self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault> {
        self.ask("import", move |ledger| lasting(ledger, |ledger| ledger.import(records, now))).await
    }

    async fn count(&self, deltas: Vec<Count>) -> Result<(), StoreFault> {
        self.ask("count", move |ledger| ledger.count(&deltas)).await
    }

    async fn counts(&self, since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        self.ask("counts", move |ledger| ledger.counts(since, None, usize::MAX)).await
    }

    async fn ready(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        self.ask("census", |ledger| Ok(ledger.census())).await
    }

    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        self.ask("sweep", move |ledger| ledger.sweep(now, most)).await
    }

    async fn close(&self) -> Result<(), StoreFault> {
        Ok(())
    }
}

/// On the disk before it is answered.
fn lasting<T>(
    ledger: &mut Machine,
    change: impl FnOnce(&mut Machine) -> Result<T, StoreFault>,
) -> Result<T, StoreFault> {
    let changed = change(ledger)?;
    ledger.checkpoint()?;
    Ok(changed)
}

/// The store in the hands of one process. What a process asked for before it
/// died is done all the same; it never hears of it.
pub struct Lent {
    pub store: Arc<SimulatedStore>,
    pub life: Arc<Life>,
}

impl Lent {
    async fn hear<T>(&self, call: impl Future<Output = T>) -> T {
        if !self.life.is_dead() {
            let answer = call.await;
            if !self.life.is_dead() {
                return answer;
            }
        }
        std::future::pending().await
    }
}

#[async_trait]
impl Store for Lent {
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        self.hear(self.store.claim(request)).await
    }

    async fn commit(&self, token: Token, commits: Vec<Commit>, at: Timestamp) -> Result<(), StoreFault> {
        self.hear(self.store.commit(token, commits, at)).await
    }

    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        durability: Durability,
    ) -> Result<(), StoreFault> {
        self.hear(self.store.settle(token, at, settlements, durability)).await
    }

    fn note_heard(&self, notes: Vec<Heard>, now: Timestamp) {
        if !self.life.is_dead() {
            self.store.note_heard(notes, now);
        }
    }

    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault> {
        self.hear(self.store.release(token, ids)).await
    }

    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        self.hear(self.store.get(id, now)).await
    }

    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        self.hear(self.store.list(query, now)).await
    }

    async fn forget(&self, id: ClaimId, at: Timestamp) -> Result<Change, StoreFault> {
        self.hear(self.store.forget(id, at)).await
    }

    async fn resolve(&self, id: ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault> {
        self.hear(self.store.resolve(id, as_, at)).await
    }

    async fn import(&self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault> {
        self.hear(self.store.import(records, now)).await
    }

    async fn count(&self, deltas: Vec<Count>) -> Result<(), StoreFault> {
        self.hear(self.store.count(deltas)).await
    }

    async fn counts(&self, since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        self.hear(self.store.counts(since)).await
    }

    async fn ready(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        self.hear(self.store.census()).await
    }

    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        self.hear(self.store.sweep(now, most)).await
    }

    async fn close(&self) -> Result<(), StoreFault> {
        self.hear(self.store.close()).await
    }
}
