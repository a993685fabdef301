//! Deterministic simulation: the real connection, session, heart, ledger and
//! upstream machine, in a network, on a disk and under a clock that are made
//! up. A seed decides who sends what under which policy, what goes wrong where,
//! and when machines die; whatever it decides, what mailonce promises holds.
//! What that is stands in `simulation/invariants.rs`, and is computed from what
//! the world itself has seen: an e-mail is delivered when the upstream, given
//! the complete message, has decided to take it, whoever hears of that.
//!
//! 10,000 seeds in every test run. One seed again, with all that happens in it:
//!
//!     MAILONCE_SIMULATION_SEED=123 cargo test --test simulation seeds -- --nocapture
//!
//! A million seeds, which take a quarter of an hour, and those behind one that was looked at:
//!
//!     MAILONCE_SIMULATION_SEEDS=1000000 cargo test --release --test simulation seeds
//!     MAILONCE_SIMULATION_FROM=99412 MAILONCE_SIMULATION_SEEDS=1000000 cargo test --release ...
//!
//! A run without some of the troubles (`odd`, `strays`, `interrupts`, `chunking`,
//! `provider`, `reloads`, `operator`, `names`, `tenants`, `leaving`, `others`) or of the
//! rules (`told`, `code`, `unheard`, `first-names`, `united`):
//!
//!     MAILONCE_SIMULATION_WITHOUT=odd,strays cargo test --test simulation seeds
//!
//! With the feature `planted-bugs` every bug of `src/planted.rs` is planted in
//! turn, and has to be found.

#![allow(unreachable_pub, reason = "the parts are used from here alone")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers are tests")]

#[path = "simulation/answers.rs"]
mod answers;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/content.rs"]
mod content;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/doubts.rs"]
mod doubts;
#[path = "simulation/forms.rs"]
mod forms;
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/invariants.rs"]
mod invariants;
#[path = "simulation/memory.rs"]
mod memory;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/operator.rs"]
mod operator;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/policy.rs"]
mod policy;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/time.rs"]
mod time;
#[path = "simulation/trouble.rs"]
mod trouble;
#[path = "simulation/upstream.rs"]
mod upstream;
#[path = "simulation/world.rs"]
mod world;

use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invariants::PATIENCE;
use plan::{Badness, ClientPlan, DiskPlan, Plan, UpstreamPlan};

/// How many seeds a test run lives through.
const SEEDS: u64 = 10_000;

fn setting(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// Whether the run is to be without this trouble, or this rule: what is left
/// of a failure shows what it takes.
fn without(name: &str) -> bool {
    static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let read = || {
        let names = std::env::var("MAILONCE_SIMULATION_WITHOUT").unwrap_or_default();
        names.split(',').map(str::to_owned).collect()
    };
    NAMES.get_or_init(read).iter().any(|one| one == name)
}

/// Lives through seeds, on all processors, until one fails. Answers that one,
/// the lowest of several, with its fault.
fn first_failure(seeds: Range<u64>, prepare: impl Fn() + Sync) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(None::<(u64, String)>));
    let work = || {
        prepare();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds.end || found.lock().unwrap().is_some() {
                return;
            }
            if let Some(fault) = world::run(seed, false).fault {
                let mut found = found.lock().unwrap();
                if found.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                    *found = Some((seed, fault));
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap()
}

#[test]
fn seeds_keep_what_is_promised() {
    if let Some(seed) = setting("MAILONCE_SIMULATION_SEED") {
        let run = world::run(seed, true);
        println!("{}", run.trace.join("\n"));
        assert_eq!(run.fault, None);
        return;
    }
    let from = setting("MAILONCE_SIMULATION_FROM").unwrap_or(0);
    let seeds = from..setting("MAILONCE_SIMULATION_SEEDS").unwrap_or(SEEDS);
    if let Some((seed, fault)) = first_failure(seeds, || {}) {
        panic!("{fault}: MAILONCE_SIMULATION_SEED={seed} cargo test --test simulation seeds -- --nocapture");
    }
}

/// A machine that dies at one instant or another around the first acceptance,
/// while one client after the other asks what became of the e-mail.
#[test]
fn no_duplicate_hears_what_a_crash_takes_back() {
    let client = ClientPlan {
        tenant: 0,
        key: 0,
        text: 0,
        recipients: vec![0],
        start: Duration::ZERO,
        patience: PATIENCE,
        backoff: Duration::from_secs(2),
        rounds: 1,
        chunks: false,
        leaves: 0,
        away: Duration::ZERO,
        odd_names: false,
    };
    let seconds = |start| ClientPlan { start: Duration::from_millis(start), ..client.clone() };
    for after in (0..1000).step_by(100) {
        let mut plan = Plan::of(after);
        plan.policy.change.in_doubt = "resend";
        (plan.policy.change.on_conflict, plan.policy.change.on_partial) = ("reject", "report");
        plan.policy.window = Duration::from_secs(86_400);
        plan.proxies = 1;
        plan.network = Badness { refused: 0, reset: 0, silent: 0, latency: 2, chops: false };
        plan.upstream = UpstreamPlan {
            unwilling: 0,
            loses: 0,
            slow: 0,
            odd: 0,
            strays: 0,
            interrupts: 0,
            ..plan.upstream
        };
        plan.provider = None;
        plan.disk = DiskPlan { sync: 900, stalls: 0 };
        plan.clients = (0..3000).step_by(100).map(seconds).collect();
        plan.events = Vec::new();
        plan.crash_after = Some((1, Duration::from_millis(after)));
        let run = world::live(plan, true);
        assert_eq!(run.fault, None, "{after} ms after the acceptance:\n{}", run.trace.join("\n"));
    }
}

#[test]
fn a_seed_decides_everything() {
    let mut accepted = 0;
    for seed in 0..60 {
        let (once, again) = (world::run(seed, true), world::run(seed, true));
        assert_eq!(once.trace, again.trace, "seed {seed}");
        assert_eq!(once.hash, again.hash);
        accepted += once.accepted;
    }
    assert!(accepted > 100, "only {accepted} messages were accepted");
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_is_found() {
    use mailonce::planted::{self, Bug};

    let finds = |bug: &Bug| {
        let Some((seed, fault)) = first_failure(0..SEEDS, || planted::plant(Some(*bug))) else {
            return false;
        };
        println!("{bug:?}: seed {seed}: {fault}");
        assert_eq!(world::run(seed, false).fault, None, "seed {seed} fails without any bug");
        true
    };
    let missed: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| !finds(bug)).collect();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
