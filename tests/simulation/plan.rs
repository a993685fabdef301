//! What a seed decides before anything happens: the policy, who sends what,
//! how bad the world is, and what befalls the proxies.

use std::time::Duration;

use super::policy::{Change, Policy};
use super::provider::Provider;
use super::random::Random;
use super::without;

/// The recipient whom the upstream never takes.
pub const GONE: usize = 9;

/// How long the world is bad.
pub const TROUBLE: Duration = Duration::from_secs(420);

/// The field that names a tenant, where one is named.
pub const TENANT_HEADER: &str = "X-Tenant";

#[derive(Clone, Debug)]
pub struct Plan {
    pub policy: Policy,
    pub proxies: usize,
    pub network: Badness,
    pub upstream: UpstreamPlan,
    /// Whether the upstream honours keys, and how.
    pub provider: Option<Provider>,
    pub disk: DiskPlan,
    pub clients: Vec<ClientPlan>,
    pub events: Vec<(Duration, Event)>,
    /// The machine dies, too, so long after so many decisions of the upstream.
    pub crash_after: Option<(usize, Duration)>,
    /// What the parts of the world draw from.
    pub random: Random,
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
    /// How often, in a thousand replies, one has an odd form; in calm, too.
    pub odd: u64,
    /// How often, in a thousand moments, it says a line unasked.
    pub strays: u64,
    /// How often, in a thousand messages, it refuses in the middle of the content.
    pub interrupts: u64,
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
    /// 0 and 1 are known by their listeners, `t0` and `t1`; 2 and 3 by a field
    /// with the name of the other listener.
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
    /// How often, in a thousand tries, it leaves before the answer to its message.
    pub leaves: u64,
    /// The shortest pause before it tries again, while the world is bad.
    pub away: Duration,
    /// Whether its Message-IDs and Dates are oddly written.
    pub odd_names: bool,
}

impl ClientPlan {
    /// The listener that it connects to.
    pub fn listener(&self) -> usize {
        match self.tenant {
            0 | 3 => 0,
            _ => 1,
        }
    }

    /// The tenant that it names.
    pub fn tenant_field(&self) -> Option<&'static str> {
        [None, None, Some("t0"), Some("t1")][self.tenant]
    }
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
    /// The configuration is read again.
    Reload(Change),
    /// An operator does something to one of the claims.
    Operate(Operation, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Release,
    ResolveSent,
    ResolveNotSent,
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
            chunking: random.chance(400),
            unwilling: 40 * worse,
            loses: random.pick(&[0, 100, 300]),
            slow: random.pick(&[0, 50, 200]),
            odd: random.pick(&[0, 0, 0, 40, 250]),
            strays: random.pick(&[0, 0, 0, 30]),
            interrupts: random.pick(&[0, 0, 0, 100]),
        };
        let provider = random.pick(&[None, None, None, Some(Provider::Accepts), Some(Provider::Repeats)]);
        let disk =
            DiskPlan { sync: random.pick(&[3, 30, 900]), stalls: if random.chance(80) { 100 } else { 0 } };
        let clients = clients(&policy, &mut random);
        let events = events(proxies, &mut random);
        let most = disk.sync * 2;
        let crash_after = random.chance(500).then(|| (random.index(4) + 1, random.millis(0, most)));
        let mut plan =
            Self { policy, proxies, network, upstream, provider, disk, clients, events, crash_after, random };
        if plan.random.chance(100) {
            plan.crowd();
        }
        plan.leave_out();
        plan
    }

    /// Takes the troubles away that this run is to be without.
    fn leave_out(&mut self) {
        for (name, trouble) in [
            ("odd", &mut self.upstream.odd),
            ("strays", &mut self.upstream.strays),
            ("interrupts", &mut self.upstream.interrupts),
        ] {
            *trouble = if without(name) { 0 } else { *trouble };
        }
        self.upstream.chunking &= !without("chunking");
        self.provider = self.provider.filter(|_| !without("provider"));
        self.events.retain(|(_, event)| match event {
            Event::Reload(_) => !without("reloads"),
            Event::Operate(..) => !without("operator"),
            _ => true,
        });
        for client in &mut self.clients {
            client.odd_names &= !without("names");
            client.tenant = if without("tenants") { client.tenant % 2 } else { client.tenant };
            if without("leaving") {
                (client.leaves, client.away) = (0, Duration::ZERO);
            }
        }
    }

    /// One client after the other asks for the same e-mail, while the disk takes
    /// its time and the machine is about to die.
    fn crowd(&mut self) {
        let random = &mut self.random;
        (self.disk.sync, self.network.latency) = (900, 2);
        (self.upstream.odd, self.upstream.strays, self.upstream.interrupts) = (0, 0, 0);
        self.provider = None;
        self.events.retain(|(_, event)| !matches!(event, Event::Reload(_) | Event::Operate(..)));
        self.crash_after = Some((1, random.millis(0, 900)));
        let first = self.clients[0].clone();
        self.clients.extend((0..6).map(|_| first.clone()));
        for client in &mut self.clients {
            *client = ClientPlan { start: random.millis(0, 3000), ..first.clone() };
        }
    }
}

fn clients(policy: &Policy, random: &mut Random) -> Vec<ClientPlan> {
    let keys = random.between(1, 2);
    let tenants: &[usize] = match random.chance(300) {
        true => random.pick(&[&[0, 1][..], &[0, 1], &[0, 2], &[1, 3], &[0, 1, 2, 3]]),
        false => &[0],
    };
    let (texts, gone) = (if random.chance(300) { 2 } else { 1 }, random.chance(150));
    let spread = random.pick(&[0, 1000, 30_000]);
    let mut all: Vec<usize> = (0..random.pick(&[1, 1, 2, 3])).collect();
    if gone {
        all.push(GONE);
    }
    let count = random.between(2, 6);
    let (leave, odd_names) = (random.chance(250), random.chance(300));
    let mut draw = |_| {
        let key = random.below(keys) as usize;
        let some = random.chance(300) && !(policy.scope == "message" && without("others"));
        let recipients = match some {
            true => vec![random.pick(&all)],
            false => all.clone(),
        };
        ClientPlan {
            tenant: random.pick(tenants),
            key,
            text: if policy.chain == "content" { key } else { random.below(texts) as usize },
            recipients,
            start: random.millis(0, spread),
            patience: if random.chance(300) { random.seconds(1, 60) } else { Duration::from_secs(900) },
            backoff: random.pick(&[2, 20, 90]) * Duration::from_secs(1),
            rounds: random.pick(&[1, 1, 2, 3]),
            chunks: random.chance(200),
            leaves: if leave { random.pick(&[0, 500, 900]) } else { 0 },
            away: Duration::from_secs(if leave { random.pick(&[0, 95, 200]) } else { 0 }),
            odd_names,
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
    if random.chance(200) {
        for _ in 0..random.between(1, 2) {
            events.push((at(random), Event::Reload(Change::draw(random))));
        }
    }
    if random.chance(200) {
        for _ in 0..random.between(1, 4) {
            let operation =
                random.pick(&[Operation::Release, Operation::ResolveSent, Operation::ResolveNotSent]);
            events.push((at(random), Event::Operate(operation, random.next())));
        }
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
