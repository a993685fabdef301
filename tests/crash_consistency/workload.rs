//! What is recorded: a store in use by several tasks, which say in a journal
//! what they are about to do and what they were promised.
//!
//! Each line of the journal is one write, made before the call that it
//! announces or after the one that it acknowledges; so the recording has it in
//! its place among the writes and syncs of the store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mailonce::clock::Timestamp;
use mailonce::config::{InDoubt, OnConflict};
use mailonce::smtp::reply::Reply;
use mailonce::store::sled::{SledStore, Space};
use mailonce::store::{
    Change, ClaimId, ClaimRequest, Claimed, Durability, Fingerprint, Names, Outcome, Query, Record,
    Resolution, Settlement, Slot, State, Store, StoreFault, Token,
};
use rustix::process::{Signal, getpid, kill_process};

use crate::proc::Random;

/// Ids of one task, which nobody else touches.
const IDS: u64 = 10;

/// Ids from this number on have a short window and get swept.
const FIRST_SHORT: u64 = 1 << 40;

/// The window of these, and of all others.
const SHORT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(86_400 * 30);

/// So low that the file is written anew in the middle of a life.
const FLOOR: u64 = 64 * 1024;

/// Long enough never to be reached unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child that another test starts holds our lock, too, from its fork to its
/// exec.
pub(crate) fn open(path: &Path, at: Timestamp) -> Result<(SledStore, Vec<Record>), StoreFault> {
    let begun = Instant::now();
    loop {
        match SledStore::open(path, Space { reserve: 0, floor: FLOOR }, at) {
            Err(StoreFault::Locked(_)) if begun.elapsed() < PATIENCE => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// How a life of the store ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By SIGKILL, in the middle of everything.
    Killed,
    /// By closing.
    Closed,
}

/// One process that opens the store, uses it and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) tasks: u64,
    /// Of each task.
    pub(crate) steps: u64,
    /// Octets that each record has beside the usual ones.
    pub(crate) weight: usize,
    pub(crate) end: End,
}

impl Life {
    /// As one word, and back.
    pub(crate) fn written(&self) -> String {
        let Self { number, seed, tasks, steps, weight, end } = self;
        format!("{number},{seed},{tasks},{steps},{weight},{}", u8::from(*end == End::Killed))
    }

    pub(crate) fn read(word: &str) -> Self {
        let numbers: Vec<u64> = word.split(',').map(|number| number.parse().unwrap()).collect();
        let [number, seed, tasks, steps, weight, killed] = numbers[..] else { panic!("no life: {word}") };
        let end = if killed == 1 { End::Killed } else { End::Closed };
        Self { number, seed, tasks, steps, weight: weight as usize, end }
    }
}

/// Some moment; all of a life's are a little later than those of the one before.
pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

pub(crate) fn id(number: u64) -> ClaimId {
    let mut id = [0x5a; 32];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[24..].copy_from_slice(&number.to_be_bytes());
    ClaimId(id)
}

fn number(id: &ClaimId) -> u64 {
    u64::from_be_bytes(*id.0.last_chunk().unwrap())
}

/// The state of a record in words: those that the journal uses. What was
/// committing when the process died is in doubt.
pub(crate) fn state(record: &Record) -> String {
    let attempts = record.attempt_count;
    match &record.state {
        State::Settled(Outcome::InDoubt(_)) => format!("in_doubt {attempts}"),
        State::Settled(outcome) => settled(attempts, outcome.reply()),
        State::Pending { .. } | State::Committing { .. } => format!("open {attempts}"),
    }
}

fn settled(attempts: u64, reply: &Reply) -> String {
    format!("settled {attempts} {reply}")
}

/// Every record that the store has, with its state in words.
pub(crate) async fn everything(store: &dyn Store) -> Result<BTreeMap<ClaimId, String>, String> {
    let (mut all, mut after) = (BTreeMap::new(), None);
    loop {
        let query = Query { after, ..Query::default() };
        let (page, next) = store.list(query, at(0)).await.map_err(|fault| fault.to_string())?;
        all.extend(page.iter().map(|record| (record.id, state(record))));
        after = next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

pub(crate) fn slot(number: u64, weight: usize, window: Duration, in_doubt: InDoubt) -> Slot {
    Slot {
        id: id(number),
        former: Vec::new(),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: format!("order-{number}"),
        recipient: "ann@example.org".into(),
        sender: "s".repeat(weight),
        client: "192.0.2.1:40000".into(),
        rule: String::new(),
        fingerprint: Fingerprint([1; 32]),
        marks: Vec::new(),
        names: Names::of_texts(Some("<first@example.com>"), None),
        size: 1234,
        window,
        unheard_window: Duration::ZERO,
        on_conflict: OnConflict::Reject,
        in_doubt,
    }
}

/// Lives `life` in `directory`, and writes the journal.
pub(crate) async fn live(life: Life, directory: &Path, journal: &Path) {
    let journal = OpenOptions::new().create(true).append(true).open(journal).unwrap();
    let time = AtomicU64::new(life.number * 1_000_000);
    let (store, _) = open(directory, at(time.load(Ordering::Relaxed) / 8)).unwrap();
    let found = everything(&store).await.unwrap();
    let world = Arc::new(World { life, store, journal, time, barriers: AtomicU64::new(0) });
    world.opened(&found);
    let tasks: Vec<_> = (0..life.tasks)
        .map(|task| tokio::spawn(Task::run(Arc::clone(&world), task, found.clone())))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let barrier = world.barrier();
    world.store.close().await.unwrap();
    world.note(&format!("lasting {barrier}"));
}

struct World {
    life: Life,
    store: SledStore,
    journal: File,
    time: AtomicU64,
    barriers: AtomicU64,
}

impl World {
    fn note(&self, line: &str) {
        (&self.journal).write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// What the opening answered is durable, all of it.
    fn opened(&self, found: &BTreeMap<ClaimId, String>) {
        let mut line = "opened".to_owned();
        for (id, state) in found {
            let _ = write!(line, "\t{id} {state}");
        }
        self.note(&line);
    }

    /// Announces a call after which all that was visible before is durable.
    fn barrier(&self) -> u64 {
        let number = self.life.number << 32 | self.barriers.fetch_add(1, Ordering::Relaxed);
        self.note(&format!("barrier {number}"));
        number
    }

    /// Not always a new one: outcomes of one millisecond must keep their order.
    fn now(&self) -> Timestamp {
        at(self.time.fetch_add(1, Ordering::Relaxed) / 8)
    }
}

/// One of those who use the store at the same time.
struct Task {
    world: Arc<World>,
    random: Random,
    first: u64,
    attempts: u64,
    /// What the store says of its ids.
    states: BTreeMap<u64, String>,
    /// Ids that a sweep may take, of the first task only.
    short: Vec<u64>,
}

impl Task {
    async fn run(world: Arc<World>, task: u64, found: BTreeMap<ClaimId, String>) {
        let first = task * 1_000_000;
        let all = (first..first + IDS).filter_map(|number| Some((number, found.get(&id(number))?.clone())));
        let (states, attempts) = (all.collect(), (world.life.number << 8 | task) << 32);
        let random = Random::new(world.life.seed ^ task);
        let short = if task == 0 {
            found.keys().map(number).filter(|number| *number >= FIRST_SHORT).collect()
        } else {
            Vec::new()
        };
        let mut task = Self { world, random, first, attempts, states, short };
        for step in 0..task.world.life.steps {
            task.step(step).await;
            if task.first == 0 && task.world.life.end == End::Killed && step == task.world.life.steps / 2 {
                let _ = kill_process(getpid(), Signal::KILL);
            }
        }
    }

    async fn step(&mut self, step: u64) {
        let number = self.first + self.random.below(IDS);
        let doubtful = self.states.get(&number).is_some_and(|state| state.starts_with("in_doubt"));
        match self.random.below(40) {
            0 => self.forget(number).await,
            1 | 2 => self.release(number).await,
            3..6 if doubtful => self.resolve(number).await,
            6 if self.first == 0 => self.sweep().await,
            7..10 if self.first == 0 => {
                let number = FIRST_SHORT + (self.world.life.number << 20) + step;
                self.attempt(number, SHORT).await;
                self.short.push(number);
            }
            _ => self.attempt(number, LONG).await,
        }
    }

    async fn claim(&mut self, number: u64, window: Duration) -> (Token, Claimed) {
        self.attempts += 1;
        let token = Token { owner: 7, attempt: self.attempts };
        let in_doubt = if self.random.once_in(2) { InDoubt::Resend } else { InDoubt::Suppress };
        let slot = slot(number, self.world.life.weight, window, in_doubt);
        let (now, lease_until) = (self.world.now(), at(u64::from(u32::MAX)));
        let request = ClaimRequest { token, at: now, lease_until, slots: vec![slot], tenant_cap: None };
        (token, self.world.store.claim(request).await.unwrap().remove(0))
    }

    async fn release(&mut self, number: u64) {
        let (token, _) = self.claim(number, LONG).await;
        self.world.store.release(token, vec![id(number)]).await.unwrap();
    }

    /// The whole life of an attempt, unless it is a duplicate.
    async fn attempt(&mut self, number: u64, window: Duration) {
        let (token, claimed) = self.claim(number, window).await;
        let Claimed::New { previous } = claimed else { return };
        let attempts = previous.as_ref().map_or(0, |record| record.attempt_count) + 1;
        let is_doubt = |record: &Record| matches!(record.state, State::Settled(Outcome::InDoubt(_)));
        let outlasts = previous.as_deref().is_some_and(is_doubt);
        self.about_to(number, &format!("in_doubt {attempts}"));
        self.world.store.commit(token, vec![id(number).into()], self.world.now()).await.unwrap();
        self.done(number, &format!("in_doubt {attempts}"));

        let text = format!("{} {}", self.world.life.number, self.attempts);
        let (outcome, state) = match self.random.below(8) {
            0 => (Outcome::InDoubt(Reply::new(451, text)), format!("in_doubt {attempts}")),
            kind => {
                let reply = Reply::new([250, 451, 550][kind as usize % 3], text);
                let state = match outlasts && !reply.is_success() {
                    // It sent nothing, and the doubt of before stays.
                    true => format!("in_doubt {attempts}"),
                    false => settled(attempts, &reply),
                };
                (Outcome::of_reply(reply), state)
            }
        };
        let durability = if self.random.once_in(2) { Durability::Now } else { Durability::Soon };
        let settlement = Settlement::new(id(number), outcome, "mx:25");
        self.about_to(number, &state);
        self.world.store.settle(token, self.world.now(), vec![settlement], durability).await.unwrap();
        match durability {
            Durability::Now => self.done(number, &state),
            Durability::Soon => self.seen(number, &state),
        }
    }

    async fn forget(&mut self, number: u64) {
        self.about_to(number, "absent");
        let barrier = self.world.barrier();
        self.world.store.forget(id(number), self.world.now()).await.unwrap();
        self.done(number, "absent");
        self.world.note(&format!("lasting {barrier}"));
    }

    async fn resolve(&mut self, number: u64) {
        let attempts = self.states[&number].split(' ').nth(1).unwrap().parse().unwrap();
        let reply = Reply::new(250, "2.0.0 sent earlier, confirmed by an operator");
        let state = settled(attempts, &reply);
        self.about_to(number, &state);
        let barrier = self.world.barrier();
        let change = self.world.store.resolve(id(number), Resolution::Sent, self.world.now()).await.unwrap();
        assert!(matches!(change, Change::Done(_)), "{change:?}");
        self.done(number, &state);
        self.world.note(&format!("lasting {barrier}"));
    }

    /// Takes the short ones, at a time when all of them have expired.
    async fn sweep(&mut self) {
        let short = std::mem::take(&mut self.short);
        for number in &short {
            self.about_to(*number, "absent");
        }
        let later = self.world.now().plus(SHORT * 2);
        self.world.store.sweep(later, 1000).await.unwrap();
        for number in &short {
            self.seen(*number, "absent");
        }
    }

    /// From here on it may be so.
    fn about_to(&self, number: u64, state: &str) {
        self.world.note(&format!("try {} {state}", id(number)));
    }

    /// It is so, durably.
    fn done(&mut self, number: u64, state: &str) {
        self.world.note(&format!("sure {}", id(number)));
        self.states.insert(number, state.to_owned());
    }

    /// It is so, and durable with the next barrier.
    fn seen(&mut self, number: u64, state: &str) {
        self.world.note(&format!("seen {}", id(number)));
        self.states.insert(number, state.to_owned());
    }
}
