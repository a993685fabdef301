//! The world: proxies, their store, the upstream, the clients, and what befalls
//! them. All in one thread, on a time that passes only when nobody has
//! anything to do, so the seed decides everything.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailonce::config::Config;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answers::quoted;
use super::client::Client;
use super::content::{Names, is_whole};
use super::disk::Disk;
use super::history::{Answer, History, Submission, Transaction};
use super::invariants::Rules;
use super::network::{End, Link};
use super::plan::{Badness, Plan, TROUBLE};
use super::policy::Policy;
use super::process::{Life, Process};
use super::provider::{Known, Provider, key_of};
use super::random::Random;
use super::store::SimulatedStore;
use super::time::{Ms, Time, Wall};
use super::upstream;

/// Within this time after the trouble everybody has heard a final answer.
const CALM: Duration = Duration::from_secs(2400);

/// Longer than any world lives.
const AGES: Duration = Duration::from_secs(86_400);

/// By then nothing that was sent is still on its way.
pub const ARRIVED: Ms = 180_000;

/// The longest that a decision of the upstream takes to reach a client.
const ECHO: Ms = 60_000;

/// What came of a seed.
#[derive(Debug)]
pub struct Run {
    pub fault: Option<String>,
    pub hash: u64,
    pub trace: Vec<String>,
    /// How many messages the upstream took.
    pub accepted: usize,
}

#[derive(Debug)]
pub struct World {
    pub plan: Plan,
    pub time: Time,
    pub wall: Arc<Wall>,
    pub disk: Arc<Mutex<Disk>>,
    history: Mutex<History>,
    machine: Mutex<Machine>,
    /// What the provider remembers.
    known: Mutex<Known>,
    traces: bool,
}

/// What is running.
#[derive(Debug)]
pub struct Machine {
    pub random: Random,
    pub store: Option<Arc<SimulatedStore>>,
    pub proxies: Vec<Option<Arc<Process>>>,
    pub started: usize,
    /// Counts crashes, so that a restart knows whether it is still wanted.
    pub crashes: usize,
    /// A proxy has died alone: what it was committing waits for a restart.
    pub orphans: bool,
    /// What every process reads at its start.
    pub config: Arc<Config>,
}

/// Lives through what this seed decides.
pub fn run(seed: u64, traces: bool) -> Run {
    live(Plan::of(seed), traces)
}

/// Lives through this plan.
pub fn live(plan: Plan, traces: bool) -> Run {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(plan, traces);
        if timeout(AGES, world.live()).await.is_err() {
            world.fault("the world stands still".to_owned());
        }
        let mut history = world.history.lock().unwrap();
        let accepted =
            history.transactions.iter().filter(|of| of.decided.is_some_and(|(_, code)| code == 250));
        Run {
            accepted: accepted.count(),
            fault: history.fault.take(),
            hash: history.hash,
            trace: std::mem::take(&mut history.trace),
        }
    })
}

impl World {
    fn new(mut plan: Plan, traces: bool) -> Arc<Self> {
        let time = Time::begin();
        let disk = Disk::new(plan.random.fork());
        let random = plan.random.fork();
        let proxies = vec![None; plan.proxies];
        let config = Arc::new(plan.policy.parsed());
        let machine =
            Machine { random, store: None, proxies, started: 0, crashes: 0, orphans: false, config };
        let disk_was_bad = plan.disk.stalls > 0;
        let history = History { disk_was_bad, policies: vec![(0, plan.policy)], ..History::default() };
        let (history, machine, known) = (Mutex::new(history), Mutex::new(machine), Mutex::default());
        Arc::new(Self { plan, time, wall: Wall::new(time), disk, history, machine, known, traces })
    }

    async fn live(self: &Arc<Self>) {
        self.note(|| format!("{:?} {:?}", self.plan.policy, self.plan.provider));
        self.start();
        let mut clients = JoinSet::new();
        let mut random = self.plan.random.clone();
        for (number, mail) in self.plan.clients.iter().cloned().enumerate() {
            let client = Client { world: self.clone(), number, mail, random: random.fork() };
            clients.spawn(client.run());
        }
        let world = self.clone();
        let trouble = tokio::spawn(async move { world.trouble().await });
        let limit = TROUBLE + CALM;
        let ended = tokio::select! {
            biased;
            () = self.failed() => return,
            ended = timeout(limit, async { while clients.join_next().await.is_some() {} }) => ended,
        };
        if ended.is_err() {
            return self.fault("a client has heard no final answer".to_owned());
        }
        let _ = trouble.await;
        sleep(Duration::from_millis(ARRIVED)).await;
        tokio::select! {
            biased;
            () = self.failed() => {}
            () = self.long_after(random) => {}
        }
    }

    /// Something must not be: there is no need to go on.
    async fn failed(&self) {
        while self.history(|history| history.fault.is_none()) {
            sleep(Duration::from_secs(30)).await;
        }
    }

    /// When all windows are over, every e-mail is a new one.
    async fn long_after(self: &Arc<Self>, mut random: Random) {
        let Policy { window, unheard_window, .. } = self.plan.policy;
        let beyond = window.max(unheard_window) * 2 + Duration::from_secs(7200);
        self.wall.jump(beyond.as_millis() as i64);
        let since = self.time.now();
        let mut seen = Vec::new();
        for (number, mail) in self.plan.clients.iter().cloned().enumerate() {
            if seen.contains(&mail.event()) {
                continue;
            }
            seen.push(mail.event());
            let mut client = Client { world: self.clone(), number, mail, random: random.fork() };
            match timeout(CALM, client.until_final()).await {
                Ok(last) => self.judge(|rules, history| rules.is_sent_anew(history, last, since)),
                Err(_) => self.fault("a client has heard no final answer after all windows".to_owned()),
            }
        }
    }

    /// The policy that holds now.
    pub fn policy(&self) -> Policy {
        self.history(|history| history.policies.last().map_or(self.plan.policy, |(_, policy)| *policy))
    }

    /// The configuration that holds now.
    pub fn config(&self) -> Arc<Config> {
        self.machine(|machine| machine.config.clone())
    }

    pub fn is_calm(&self) -> bool {
        self.history(|history| history.calm.is_some())
    }

    /// Whether it has been calm for so long that nobody hears any more what the
    /// upstream said before.
    pub fn is_well(&self) -> bool {
        let now = self.time.now();
        self.history(|history| history.calm.is_some_and(|calm| calm + ECHO <= now))
    }

    fn badness(&self) -> Badness {
        match self.is_calm() {
            true => Badness { refused: 0, reset: 0, silent: 0, ..self.plan.network },
            false => self.plan.network,
        }
    }

    /// A client connects to one of the proxies that run.
    pub fn reach_proxy(&self, listener: usize, random: &mut Random) -> (usize, Option<End>) {
        let running: Vec<_> = self.machine(|machine| machine.proxies.iter().flatten().cloned().collect());
        if running.is_empty() {
            return (0, None);
        }
        let process = &running[random.index(running.len())];
        let lives = [None, Some(process.life.clone())];
        let [own, theirs] = Link::open(self.time, self.badness(), random.fork(), lives);
        process.serve(listener, theirs);
        (process.life.number, Some(own))
    }

    /// A proxy connects to the upstream.
    pub async fn reach_upstream(self: &Arc<Self>, life: Arc<Life>) -> io::Result<End> {
        let mut random = self.machine(|machine| machine.random.fork());
        let badness = self.badness();
        sleep(random.millis(0, badness.latency)).await;
        if random.chance(badness.refused) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let number = life.number;
        let [own, theirs] = Link::open(self.time, badness, random.fork(), [Some(life), None]);
        tokio::spawn(upstream::serve(self.clone(), theirs, number, random));
        Ok(own)
    }

    pub fn submit(&self, submission: Submission) -> usize {
        self.note(|| {
            let Submission { client, process, mail, .. } = &submission;
            let (to, key, text) = (&mail.recipients, mail.key, mail.text);
            format!("client {client} of t{} at p{process}: k{key} text {text} to {to:?}", mail.tenant)
        });
        self.history(|history| {
            history.submissions.push(submission);
            history.submissions.len() - 1
        })
    }

    pub fn completed(&self, number: usize) {
        self.note(|| format!("s{number} complete"));
        self.history(|history| history.submissions[number].complete = Some(self.time.now()));
    }

    /// A client has closed its connection; `certainly` before any answer was written.
    pub fn left(&self, number: usize, certainly: bool) {
        self.note(|| format!("s{number} leaves"));
        self.history(|history| history.submissions[number].left = certainly);
    }

    pub fn answered(&self, number: usize, answer: Option<Answer>) {
        self.note(|| match &answer {
            Some(answer) => format!("s{number} hears {} {}", answer.code, answer.lines.join(" | ")),
            None => format!("s{number} hears nothing"),
        });
        let now = self.time.now();
        self.history(|history| {
            for line in answer.iter().flat_map(|answer| &answer.lines) {
                for transaction in quoted(line) {
                    history.transactions[transaction].told.get_or_insert(now);
                }
            }
            let submission = &mut history.submissions[number];
            (submission.ended, submission.answer) = (Some(now), answer);
        });
        self.judge(|rules, history| rules.on_answer(history, number));
    }

    /// A client that waits for long has heard nothing.
    pub fn kept_waiting(&self, number: usize, link: &Link) {
        let alive = |history: &History| !history.deaths.contains_key(&history.submissions[number].process);
        if !link.is_bad() && self.history(|history| alive(history)) {
            self.fault(format!("s{number} waits for ever"));
        }
    }

    pub fn begin(&self, transaction: Transaction) -> usize {
        let submission = transaction.submission;
        let number = self.history(|history| {
            history.transactions.push(transaction);
            history.transactions.len() - 1
        });
        self.note(|| format!("#{number} begins for s{submission}"));
        number
    }

    pub fn end(&self, number: usize) {
        self.note(|| format!("#{number} ends"));
        self.history(|history| history.transactions[number].ended = Some(self.time.now()));
    }

    pub fn decide(self: &Arc<Self>, number: usize, code: u16) {
        let to = self.history(|history| history.transactions[number].recipients.clone());
        self.note(|| format!("#{number} decided: {code} for {to:?}"));
        let now = self.time.now();
        let decisions = self.history(|history| {
            history.transactions[number].decided = Some((now, code));
            history.transactions.iter().filter(|of| of.decided.is_some()).count()
        });
        if let Some((count, after)) = self.plan.crash_after
            && count == decisions
            && !self.is_calm()
        {
            let crash = self.machine(|machine| machine.crashes);
            self.later(after, crash, |world| {
                let crash = world.crash(false);
                world.note(|| "crashes".to_owned());
                world.later(Duration::from_secs(1), crash, |world| world.start());
            });
        }
        if code / 100 == 2 {
            self.judge(|rules, history| rules.on_acceptance(history, number));
        }
    }

    /// What is complete is whole, and is what was submitted, with the names that
    /// it is to have.
    pub fn check_content(&self, number: usize, content: &[u8]) {
        let text = String::from_utf8_lossy(content);
        let fits = self.history(|history| {
            let submission = history.transactions[number].submission;
            is_whole(&text, submission, &history.submissions[submission])
        });
        if !fits {
            self.fault(format!("#{number} is not what was submitted: {text}"));
        }
        let names = Names::read(&text);
        self.judge(|rules, history| rules.has_its_names(history, number, &names));
        self.history(|history| history.transactions[number].carried = Some(names));
    }

    /// The upstream takes a message. Answers the transaction whose reply it gives.
    pub fn take(&self, number: usize, content: &[u8]) -> usize {
        let Some(provider) = self.plan.provider else { return number };
        let first = match key_of(&String::from_utf8_lossy(content)) {
            Ok(key) => self.known.lock().unwrap().note(key, number),
            Err(fault) => {
                self.fault(fault);
                None
            }
        };
        if let Some(first) = first {
            self.note(|| format!("#{number} has the key of #{first}"));
        }
        self.history(|history| history.transactions[number].repeats = first);
        first.filter(|_| provider == Provider::Repeats).unwrap_or(number)
    }

    pub fn history<T>(&self, look: impl FnOnce(&mut History) -> T) -> T {
        look(&mut self.history.lock().unwrap())
    }

    pub fn machine<T>(&self, look: impl FnOnce(&mut Machine) -> T) -> T {
        look(&mut self.machine.lock().unwrap())
    }

    pub fn judge(&self, rule: impl FnOnce(&Rules<'_>, &History) -> Result<(), String>) {
        let rules = Rules { plan: &self.plan, wall: &self.wall };
        if let Err(fault) = self.history(|history| rule(&rules, history)) {
            self.fault(fault);
        }
    }

    pub fn fault(&self, fault: String) {
        self.note(|| format!("MUST NOT BE: {fault}"));
        self.history(|history| history.must_not_be(fault));
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        let now = self.time.now();
        let what = what();
        self.history(|history| history.note(now, self.traces, &what));
    }
}
