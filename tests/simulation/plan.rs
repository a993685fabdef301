//! What a seed decides before anything happens: the policy, who sends what,
//! how bad the world is, and what befalls the proxies.

use std::time::Duration;

use super::random::Random;

/// The recipient whom the upstream never takes.
pub const GONE: usize = 9;

/// How long the world is bad.
pub const TROUBLE: Duration = Duration::from_secs(420);

#[derive(Clone, Debug)]
pub struct Plan {
    pub policy: Policy,
    pub proxies: usize,
    pub network: Badness,
    pub upstream: UpstreamPlan,
    pub disk: DiskPlan,
    pub clients: Vec<ClientPlan>,
    pub events: Vec<(Duration, Event)>,
    /// The machine dies, too, so long after so many decisions of the upstream.
    pub crash_after: Option<(usize, Duration)>,
    /// What the parts of the world draw from.
    pub random: Random,
}

#[derive(Clone, Debug)]
pub struct Policy {
    pub scope: &'static str,
    pub in_doubt: &'static str,
    pub on_duplicate: &'static str,
    pub on_conflict: &'static str,
    pub on_partial: &'static str,
    /// `header`, or `content` where no client sends a key.
    pub chain: &'static str,
    pub window: Duration,
    pub in_flight_wait: Duration,
}

/// How often, in a thousand connections.
#[derive(Clone, Copy, Debug)]
pub struct Badness {
    pub refused: u64,
    pub reset: u64,
    pub silent: u64,
    /// The longest way of a segment, in milliseconds.
    pub latency: u64,
    /// Whether writes are taken in pieces.
    pub chops: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct UpstreamPlan {
    pub pipelining: bool,
    pub chunking: bool,
    /// How often, in a thousand commands, it does not do as asked.
    pub unwilling: u64,
    /// How often, in a thousand messages, the answer to one is lost.
    pub loses: u64,
    /// How often, in a thousand commands, it takes its time.
    pub slow: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct DiskPlan {
    /// The longest wait for the disk, in milliseconds.
    pub sync: u64,
    /// How often, in a thousand waits, it takes longer than the store's deadline.
    pub stalls: u64,
}

#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub tenant: usize,
    pub key: usize,
    pub text: usize,
    pub recipients: Vec<usize>,
    pub start: Duration,
    /// How long it waits for the answer to a message.
    pub patience: Duration,
    /// The longest pause before it tries again; the next may be twice as long.
    pub backoff: Duration,
    /// How many times it wants its mail accepted.
    pub rounds: usize,
    pub chunks: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The machine with the store and all proxies dies.
    Crash { power: bool, down: Duration },
    /// One of the proxies dies alone.
    Kill { proxy: usize, down: Duration },
    /// The wall clock is set.
    Jump(i64),
    /// Expired records are swept.
    Sweep,
    /// The disk fails at the next wait, until a restart.
    DiskFails,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let policy = Policy::draw(&mut random);
        let proxies = if random.chance(300) { 2 } else { 1 };
        let bad = random.pick(&[0, 1, 1, 3]);
        let network = Badness {
            refused: 30 * bad,
            reset: 60 * bad,
            silent: 30 * bad,
            latency: random.pick(&[2, 40, 400]),
            chops: random.chance(300),
        };
        let worse = random.pick(&[0, 1, 2, 4]);
        let pipelining = random.chance(700);
        let upstream = UpstreamPlan {
            pipelining,
            chunking: pipelining && random.chance(400),
            unwilling: 40 * worse,
            loses: random.pick(&[0, 100, 300]),
            slow: random.pick(&[0, 50, 200]),
        };
        let disk =
            DiskPlan { sync: random.pick(&[3, 30, 900]), stalls: if random.chance(80) { 100 } else { 0 } };
        let clients = clients(&policy, &mut random);
        let events = events(proxies, &mut random);
        let most = disk.sync * 2;
        let crash_after = random.chance(500).then(|| (random.index(4) + 1, random.millis(0, most)));
        let mut plan =
            Self { policy, proxies, network, upstream, disk, clients, events, crash_after, random };
        if plan.random.chance(100) {
            plan.crowd();
        }
        plan
    }

    /// One client after the other asks for the same e-mail, while the disk takes
    /// its time and the machine is about to die.
    fn crowd(&mut self) {
        let random = &mut self.random;
        (self.disk.sync, self.network.latency) = (900, 2);
        self.crash_after = Some((1, random.millis(0, 900)));
        let first = self.clients[0].clone();
        self.clients.extend((0..6).map(|_| first.clone()));
        for client in &mut self.clients {
            *client = ClientPlan { start: random.millis(0, 3000), ..first.clone() };
        }
    }
}

impl Policy {
    fn draw(random: &mut Random) -> Self {
        Self {
            scope: random.pick(&["recipient", "recipient", "message"]),
            in_doubt: random.pick(&["suppress", "suppress", "resend", "hold"]),
            on_duplicate: random.pick(&["accept", "accept", "reject"]),
            on_conflict: random.pick(&["reject", "reject", "suppress", "relay"]),
            on_partial: random.pick(&["report", "report", "accept"]),
            chain: random.pick(&["header", "header", "header", "content"]),
            window: Duration::from_secs(random.pick(&[86_400, 86_400, 86_400, 90])),
            in_flight_wait: random.seconds(5, 90),
        }
    }

    /// As a configuration for one proxy.
    pub fn config(&self) -> String {
        let Self { scope, in_doubt, on_duplicate, on_conflict, on_partial, chain, .. } = self;
        let (window, wait) = (self.window.as_secs(), self.in_flight_wait.as_millis());
        format!(
            "hostname = \"proxy.test\"\n\
             [[listener]]\nname = \"t0\"\naddress = \"127.0.0.1:2525\"\n\
             [[listener]]\nname = \"t1\"\naddress = \"127.0.0.1:2526\"\n\
             [upstream]\naddress = \"127.0.0.1:25\"\nidle_timeout = \"20s\"\n\
             [upstream.timeouts]\nconnect = \"10s\"\ngreeting = \"20s\"\nenvelope = \"20s\"\ndata = \"20s\"\n\
             block = \"20s\"\ncompletion = \"30s\"\n\
             [store]\nengine = \"memory\"\n\
             [dedup]\nchain = [\"{chain}\"]\nscope = \"{scope}\"\nwindow = \"{window}s\"\n\
             content_window = \"{window}s\"\non_duplicate = \"{on_duplicate}\"\n\
             on_conflict = \"{on_conflict}\"\non_partial = \"{on_partial}\"\nin_doubt = \"{in_doubt}\"\n\
             in_flight_wait = \"{wait}ms\"\n"
        )
    }
}

fn clients(policy: &Policy, random: &mut Random) -> Vec<ClientPlan> {
    let keys = random.between(1, 2);
    let tenants = if random.chance(300) { 2 } else { 1 };
    let (texts, gone) = (if random.chance(300) { 2 } else { 1 }, random.chance(150));
    let spread = random.pick(&[0, 1000, 30_000]);
    let mut all: Vec<usize> = (0..random.pick(&[1, 1, 2, 3])).collect();
    if gone {
        all.push(GONE);
    }
    let count = random.between(2, 6);
    let mut draw = |_| {
        let key = random.below(keys) as usize;
        // One claim covers the message: whoever sends it sends it to all.
        let some = policy.scope == "recipient" && random.chance(300);
        let recipients = match some {
            true => vec![random.pick(&all)],
            false => all.clone(),
        };
        ClientPlan {
            tenant: random.below(tenants) as usize,
            key,
            text: if policy.chain == "content" { key } else { random.below(texts) as usize },
            recipients,
            start: random.millis(0, spread),
            patience: if random.chance(300) { random.seconds(1, 60) } else { Duration::from_secs(900) },
            backoff: random.pick(&[2, 20, 90]) * Duration::from_secs(1),
            rounds: random.pick(&[1, 1, 2, 3]),
            chunks: random.chance(200),
        }
    };
    (0..count).map(&mut draw).collect()
}

fn events(proxies: usize, random: &mut Random) -> Vec<(Duration, Event)> {
    let (crashes, jumps, fails) = (random.pick(&[0, 1, 1, 3]), random.pick(&[0, 0, 1, 2]), random.chance(60));
    let mut events = Vec::new();
    // Early, where most is going on, or at any time.
    let at = |random: &mut Random| match random.chance(600) {
        true => random.millis(0, 15_000),
        false => random.millis(0, TROUBLE.as_millis() as u64),
    };
    for _ in 0..crashes {
        let down = random.millis(500, 20_000);
        let event = match proxies > 1 && random.chance(400) {
            true => Event::Kill { proxy: random.index(proxies), down },
            false => Event::Crash { power: random.chance(300), down },
        };
        events.push((at(random), event));
    }
    for _ in 0..jumps {
        let seconds = random.pick(&[-600, -5, 5, 120, 1300, 1300]);
        events.push((at(random), Event::Jump(seconds * 1000)));
    }
    if fails {
        events.push((at(random), Event::DiskFails));
    }
    if random.chance(200) {
        events.push((at(random), Event::Sweep));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
