//! The clients: so many messages a second, some of them again and again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::books::Books;
use crate::letter::{Letter, scramble};
use crate::sender::{Heard, Patience, Sender};

/// Connections at once.
const CLIENTS: usize = 64;

/// Jobs that wait for a client; more are held back.
const QUEUE: usize = 4 * CLIENTS;

const TICK: Duration = Duration::from_millis(10);

/// How long what is left may take at the end.
const LAST_TRIES: Duration = Duration::from_secs(120);

/// What the clients are to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) proxy: SocketAddr,
    /// Messages a second; as fast as they go, and without any mischief, if 0.
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    /// The proxy knows a key again for at least so long.
    pub(crate) known: Duration,
    /// The proxy has forgotten a key after so long.
    pub(crate) forgotten: Duration,
}

/// Why a letter is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    First,
    /// At the same time as the first.
    Twin,
    /// After its acceptance was heard.
    Again,
    /// When it is forgotten: as another letter.
    Anew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    due: Instant,
    letter: Letter,
    role: Role,
    /// Past this the proxy may have forgotten it.
    until: Instant,
    /// Stops of the upstream before its first try.
    stops: u32,
}

impl Job {
    /// Whether its sender still waits for an acceptance or a refusal.
    fn was_begun(&self) -> bool {
        matches!(self.role, Role::First | Role::Twin)
    }
}

/// What the clients share.
struct Crowd {
    plan: Plan,
    books: Arc<Books>,
    later: Mutex<BinaryHeap<Reverse<Job>>>,
    queue: Mutex<VecDeque<Job>>,
    queued: Semaphore,
    /// Jobs that are queued or being done.
    open: AtomicUsize,
    /// Only what was begun is sent any more.
    ending: AtomicBool,
    draws: AtomicU64,
}

/// Sends for as long as planned, and then until every letter that was begun is
/// accepted or refused.
pub(crate) async fn run(plan: Plan, books: Arc<Books>) {
    let crowd = Arc::new(Crowd {
        plan,
        books,
        later: Mutex::default(),
        queue: Mutex::default(),
        queued: Semaphore::new(0),
        open: AtomicUsize::new(0),
        ending: AtomicBool::new(false),
        draws: AtomicU64::new(0),
    });
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(crowd.clone().client(number));
    }
    crowd.hand_out().await;
    crowd.finish().await;
    clients.shutdown().await;
}

impl Crowd {
    fn draw(&self, of: u64) -> u64 {
        scramble(self.draws.fetch_add(1, Ordering::Relaxed) ^ 0x0c20_77d0) % of
    }

    /// Hands out jobs at the rate of the plan: what is due, else new letters.
    async fn hand_out(&self) {
        let end = Instant::now() + self.plan.time;
        let mut tick = interval(TICK);
        let (mut allowed, mut last) = (0.0, Instant::now());
        while Instant::now() < end {
            tick.tick().await;
            let now = Instant::now();
            let most = (self.plan.rate / 10.0).max(1.0);
            allowed = most.min(allowed + self.plan.rate * (now - last).as_secs_f64());
            last = now;
            while (allowed >= 1.0 || self.plan.rate == 0.0) && self.open() < QUEUE {
                let Some(job) = self.due(now).or_else(|| self.new_letter(now)) else { break };
                self.push(job);
                allowed -= 1.0;
            }
        }
    }

    /// Only what was begun is sent, until nothing of it is left.
    async fn finish(&self) {
        let end = Instant::now() + LAST_TRIES;
        self.ending.store(true, Ordering::SeqCst);
        self.later.lock().unwrap().retain(|job| job.0.was_begun());
        while self.open() > 0 || !self.later.lock().unwrap().is_empty() {
            sleep(TICK).await;
            let now = Instant::now();
            if now > end {
                return self.books.fault(format!("{} letters are still under way", self.open()));
            }
            while let Some(job) = self.due(now) {
                self.push(job);
            }
        }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn due(&self, now: Instant) -> Option<Job> {
        let job = {
            let mut later = self.later.lock().unwrap();
            later.peek().is_some_and(|job| job.0.due <= now).then(|| later.pop()).flatten()?.0
        };
        if job.role != Role::Anew {
            return Some(job);
        }
        let letter = self.books.anew(job.letter)?;
        self.books.count("sent anew, when forgotten");
        Some(Job { letter, role: Role::First, ..self.job(job.letter, Role::First, now) })
    }

    fn new_letter(&self, now: Instant) -> Option<Job> {
        let job = self.job(self.books.letter()?, Role::First, now);
        if self.plan.rate > 0.0 && self.draw(50) == 0 {
            self.books.count("sent at the same time");
            self.push(Job { role: Role::Twin, ..job });
        }
        Some(job)
    }

    fn job(&self, letter: Letter, role: Role, due: Instant) -> Job {
        let stops = self.books.stops.load(Ordering::SeqCst);
        Job { due, letter, role, until: due + self.plan.known, stops }
    }

    fn push(&self, job: Job) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.queue.lock().unwrap().push_back(job);
        self.queued.add_permits(1);
    }

    fn schedule(&self, job: Job, least: Duration, most: Duration) {
        let span = (most.saturating_sub(least).as_millis() as u64).max(1);
        let due = Instant::now() + least + Duration::from_millis(self.draw(span));
        if self.ending.load(Ordering::SeqCst) && !job.was_begun() {
            return;
        }
        self.later.lock().unwrap().push(Reverse(Job { due, ..job }));
    }

    async fn client(self: Arc<Self>, number: usize) {
        let mut sender = Sender::new(self.plan.proxy, (number as u64) << 40);
        while let Ok(permit) = self.queued.acquire().await {
            permit.forget();
            let job = self.queue.lock().unwrap().pop_front();
            if let Some(job) = job {
                self.do_job(&mut sender, job).await;
                self.open.fetch_sub(1, Ordering::SeqCst);
            }
            if self.plan.rate > 0.0 && self.draw(50) == 0 {
                sender.leave().await;
            }
        }
    }

    async fn do_job(&self, sender: &mut Sender, job: Job) {
        if Instant::now() > job.until {
            return self.books.count("given up, since it may be forgotten");
        }
        let patience = match self.draw(1_000) {
            _ if self.plan.rate == 0.0 => Patience::Waits,
            0..5 => Patience::HandsOver,
            5..8 => Patience::LeavesBefore,
            _ => Patience::Waits,
        };
        self.books.sent.fetch_add(1, Ordering::Relaxed);
        let reply = match sender.send(job.letter, patience).await {
            Heard::Reply(reply) => reply,
            Heard::Nothing => {
                self.books.count(match patience {
                    Patience::Waits => "connection lost",
                    Patience::HandsOver => "handed over and left",
                    Patience::LeavesBefore => "left in the middle",
                });
                return self.retry(job);
            }
            Heard::Silence => {
                self.books.fault(format!("{:?}: no reply in two minutes", job.letter));
                return self.retry(job);
            }
        };
        let in_doubt = reply.contains("[IN-DOUBT]");
        // One of several recipients may be in doubt as well.
        if (in_doubt || reply.contains("[PARTIAL]")) && self.books.stops.load(Ordering::SeqCst) != job.stops {
            self.books.doubtful(job.letter);
        }
        self.books.count(&name(job.role, &reply));
        match reply.as_bytes().first() {
            Some(b'2') => {
                self.books.heard(job.letter, in_doubt);
                self.send_again(sender, job).await;
            }
            Some(b'4') => self.retry(job),
            _ => {}
        }
    }

    fn retry(&self, job: Job) {
        self.schedule(job, Duration::from_millis(500), Duration::from_secs(3));
    }

    /// What was accepted is sent again at times: at once, later, and when it is
    /// forgotten.
    async fn send_again(&self, sender: &mut Sender, job: Job) {
        if job.role != Role::First || self.plan.rate == 0.0 {
            return;
        }
        let Plan { known, forgotten, .. } = self.plan;
        let again = self.job(job.letter, Role::Again, Instant::now());
        match self.draw(100) {
            0..3 => Box::pin(self.do_job(sender, again)).await,
            3..8 => self.schedule(again, Duration::from_secs(1), known.mul_f64(0.9)),
            8..10 => {
                let anew = Job { role: Role::Anew, ..again };
                self.schedule(anew, forgotten, forgotten + Duration::from_secs(30));
            }
            _ => {}
        }
    }
}

/// What the totals call a reply.
fn name(role: Role, reply: &str) -> String {
    let role = match role {
        Role::First | Role::Anew => "first",
        Role::Twin => "twin",
        Role::Again => "again",
    };
    let word = reply.split(' ').find(|word| word.starts_with('[')).unwrap_or_default();
    format!("{role} heard {} {word}", reply.get(..3).unwrap_or(reply)).trim_end().to_owned()
}
