//! What befalls the proxies: they die and start again, clocks are set, disks
//! fail, and the configuration is read again.

use std::sync::Arc;
use std::time::Duration;

use mailonce::clock::Clock;
use mailonce::store::Store;
use tokio::time::sleep;

use super::plan::{Event, TROUBLE};
use super::policy::{Change, Policy};
use super::process::Process;
use super::store::SimulatedStore;
use super::time::Ms;
use super::world::World;

impl World {
    pub async fn trouble(self: &Arc<Self>) {
        for (at, event) in &self.plan.events {
            self.time.until(at.as_millis() as Ms).await;
            self.befall(*event);
        }
        self.time.until(TROUBLE.as_millis() as Ms).await;
        self.note(|| "it is calm".to_owned());
        self.history(|history| history.calm = Some(self.time.now()));
        let restart = self.machine(|machine| machine.store.is_none() || machine.orphans);
        if restart || self.history(|history| history.disk_was_bad) {
            self.crash(false);
            self.start();
        }
        if self.policy().change.in_doubt == "hold" {
            let world = self.clone();
            tokio::spawn(async move { world.resolve_doubts().await });
        }
    }

    fn befall(self: &Arc<Self>, event: Event) {
        self.note(|| format!("{event:?}"));
        match event {
            Event::Jump(by) => self.wall.jump(by),
            // A start on a broken disk is none.
            Event::DiskFails if self.machine(|machine| machine.store.is_none()) => {}
            Event::DiskFails => {
                self.history(|history| history.disk_was_bad = true);
                self.disk.lock().unwrap().fail();
            }
            Event::Sweep => {
                if let Some(store) = self.machine(|machine| machine.store.clone()) {
                    let now = self.wall.now();
                    // A machine that dies meanwhile never answers.
                    tokio::spawn(async move { store.sweep(now, 100).await });
                }
            }
            Event::Reload(change) => self.reload(change),
            Event::Operate(operation, which) => {
                let world = self.clone();
                tokio::spawn(async move { world.operate(operation, which).await });
            }
            Event::Crash { power, down } => {
                let crash = self.crash(power);
                self.later(down, crash, move |world| world.start());
            }
            Event::Kill { proxy, down } => {
                let crash = self.machine(|machine| {
                    machine.orphans = true;
                    machine.crashes
                });
                self.kill(proxy, false);
                self.later(down, crash, move |world| world.start_proxy(proxy));
            }
        }
    }

    fn reload(&self, change: Change) {
        let policy = Policy { change, ..self.policy() };
        self.history(|history| history.policies.push((self.time.now(), policy)));
        self.machine(|machine| machine.config = Arc::new(policy.parsed()));
        let running: Vec<_> = self.machine(|machine| machine.proxies.iter().flatten().cloned().collect());
        for process in running {
            process.reload(&self.config());
        }
    }

    /// Does something later, unless the machine crashes before.
    pub fn later(
        self: &Arc<Self>,
        after: Duration,
        crash: usize,
        then: impl FnOnce(&Arc<World>) + Send + 'static,
    ) {
        let world = self.clone();
        tokio::spawn(async move {
            sleep(after).await;
            if world.machine(|machine| machine.crashes) == crash {
                then(&world);
            }
        });
    }

    pub fn crash(&self, power: bool) -> usize {
        for proxy in 0..self.plan.proxies {
            self.kill(proxy, power);
        }
        let (store, crashes) = self.machine(|machine| {
            machine.crashes += 1;
            machine.orphans = false;
            (machine.store.take(), machine.crashes)
        });
        if let Some(store) = store {
            store.die();
            self.disk.lock().unwrap().crash();
        }
        crashes
    }

    fn kill(&self, proxy: usize, silently: bool) {
        if let Some(process) = self.machine(|machine| machine.proxies[proxy].take()) {
            let now = self.time.now();
            self.history(|history| history.deaths.insert(process.life.number, now));
            process.life.end(silently);
        }
    }

    pub fn start(self: &Arc<Self>) {
        self.note(|| "starts".to_owned());
        let random = self.machine(|machine| machine.random.fork());
        let store = SimulatedStore::open(&self.disk, self.plan.disk, random, self.wall.now());
        self.machine(|machine| machine.store = Some(store));
        self.history(|history| history.starts.push(self.time.now()));
        for proxy in 0..self.plan.proxies {
            self.start_proxy(proxy);
        }
    }

    /// Starts a proxy, unless it runs: it may have been killed twice.
    fn start_proxy(self: &Arc<Self>, proxy: usize) {
        let started = self.machine(|machine| {
            machine.started += 1;
            let store = machine.store.clone().filter(|_| machine.proxies[proxy].is_none());
            store.map(|store| (machine.started, store))
        });
        let Some((number, store)) = started else { return };
        let process = Process::start(self, number, &self.config(), store);
        self.machine(|machine| machine.proxies[proxy] = Some(process));
    }
}
