//! Many clients, one upstream, and a proxy that is killed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::checker::Logs;
use crate::proc::client::{Client, Letter};
use crate::proc::upstream::{Trigger, Upstream};
use crate::proc::{Home, Random, within};

const CLIENTS: usize = 16;

/// A try that the proxy answers for ever with 4xx is a fault of its own.
const MAX_TRIES: usize = 1000;

/// What is left when the storm is over: the proxy has ended politely.
pub(crate) struct Storm {
    pub(crate) home: Home,
    pub(crate) upstream: Upstream,
    pub(crate) kills: usize,
    policy: &'static str,
    heard: BTreeMap<String, Vec<String>>,
    deferred: BTreeMap<String, usize>,
    took: Duration,
}

impl Storm {
    /// For the checker.
    pub(crate) fn logs(&self, in_doubt: BTreeSet<String>) -> Logs {
        Logs { heard: self.heard.clone(), accepted: self.upstream.counts(), in_doubt }
    }

    /// How much happened; `doubts` is how many e-mails were in doubt.
    pub(crate) fn report(&self, doubts: usize) {
        println!(
            "{}: {} kills, {} e-mails, {} accepted upstream, {doubts} in doubt, deferred {:?}, in {:.1} s",
            self.policy,
            self.kills,
            self.heard.len(),
            self.upstream.mails().len(),
            self.deferred,
            self.took.as_secs_f64()
        );
    }
}

/// One life of the proxy.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    number: usize,
    address: Option<SocketAddr>,
}

/// What all clients share.
struct Shared {
    life: watch::Receiver<Life>,
    over: AtomicBool,
    heard: Mutex<BTreeMap<String, Vec<String>>>,
    deferred: Mutex<BTreeMap<String, usize>>,
}

/// Runs the whole storm under one policy.
pub(crate) async fn run(policy: &'static str, mut random: Random) -> Storm {
    let kills = std::env::var("MAILONCE_CRASH_KILLS").map_or(100, |kills| kills.parse().expect("a number"));
    let began = Instant::now();
    let upstream = Upstream::start().await;
    let home = Home::new(upstream.address, &format!("[dedup]\nin_doubt = \"{policy}\""));
    let (life, lives) = watch::channel(Life::default());
    let shared = Arc::new(Shared {
        life: lives,
        over: AtomicBool::new(false),
        heard: Mutex::default(),
        deferred: Mutex::default(),
    });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(number, shared.clone(), random.fork()));
    }

    for _ in 0..kills {
        one_life(&home, &upstream, &life, &mut random).await;
    }
    let proxy = home.start(None).await;
    life.send_modify(|life| *life = Life { number: life.number + 1, address: Some(proxy.address) });
    shared.over.store(true, Ordering::SeqCst);
    while let Some(ended) = within("every client gets its acknowledgement", clients.join_next()).await {
        ended.expect("a client");
    }
    proxy.stop().await;
    let heard = std::mem::take(&mut *shared.heard.lock().unwrap());
    let deferred = std::mem::take(&mut *shared.deferred.lock().unwrap());
    Storm { home, upstream, kills, policy, heard, deferred, took: began.elapsed() }
}

/// Starts the proxy and kills it at a random instant.
async fn one_life(home: &Home, upstream: &Upstream, life: &watch::Sender<Life>, random: &mut Random) {
    if random.once_in(8) {
        // Before it is ready, or soon after: while it reads what the last left.
        let starting = home.spawn(None);
        // Time is what is drawn here, not waited for.
        let _ = timeout(Duration::from_micros(random.below(60_000)), std::future::pending::<()>()).await;
        return starting.kill().await;
    }
    let proxy = home.start(None).await;
    life.send_modify(|life| *life = Life { number: life.number + 1, address: Some(proxy.address) });
    match random.below(3) {
        0 => {
            let instant = Duration::from_micros(random.below(150_000));
            let _ = timeout(instant, std::future::pending::<()>()).await;
        }
        1 => upstream.until(Trigger::Octets { more: 1 + random.below(30_000) }).await,
        _ => {
            let hold = random.once_in(2);
            upstream.until(Trigger::Accepted { more: 1 + random.below(60), hold }).await;
        }
    }
    proxy.kill().await;
}

/// Sends one e-mail after the other until the storm is over.
async fn client(number: usize, shared: Arc<Shared>, mut random: Random) {
    let mut session = Session { shared: shared.clone(), life: 0, client: None };
    let mut rival = Session { shared: shared.clone(), life: 0, client: None };
    let mut count = 0;
    while !shared.over.load(Ordering::SeqCst) {
        count += 1;
        let letter = Letter::new(&format!("client-{number}-{count}"));
        match random.below(12) {
            // Another worker sends the same at the same time.
            0 => {
                tokio::join!(session.deliver(letter.clone()), rival.deliver(letter));
            }
            // Gives up waiting after the end of data, and tries again.
            1 => {
                session.hand_over_and_leave(&letter).await;
                session.deliver(letter.again()).await;
            }
            _ => session.deliver(letter).await,
        }
    }
}

/// A connection that is made anew whenever the proxy is.
struct Session {
    shared: Arc<Shared>,
    life: usize,
    client: Option<Client>,
}

impl Session {
    /// Sends the letter until it is acknowledged.
    async fn deliver(&mut self, mut letter: Letter) {
        for _ in 0..MAX_TRIES {
            match self.once(&letter).await {
                Ok(reply) if reply.starts_with('2') => {
                    let mut heard = self.shared.heard.lock().unwrap();
                    return heard.entry(letter.key).or_default().push(reply);
                }
                Ok(reply) => {
                    assert!(reply.starts_with('4'), "{}: {reply}", letter.key);
                    let word = reply.split(' ').nth(2).unwrap_or_default().to_owned();
                    *self.shared.deferred.lock().unwrap().entry(word).or_default() += 1;
                }
                Err(_) => self.client = None,
            }
            letter = letter.again();
        }
        panic!("{} is never acknowledged", letter.key);
    }

    async fn once(&mut self, letter: &Letter) -> std::io::Result<String> {
        let key = &letter.key;
        within(&format!("a reply or the end of the connection ({key})"), self.client().await?.send(letter))
            .await
    }

    async fn hand_over_and_leave(&mut self, letter: &Letter) {
        if let Ok(client) = self.client().await {
            let _ = client.hand_over(letter, "ann@user.test").await;
        }
        self.client = None;
    }

    /// The connection; a new one where it was lost, as soon as a proxy is
    /// there that was not tried yet or has not failed.
    async fn client(&mut self) -> std::io::Result<&mut Client> {
        if self.client.is_none() {
            let life = *within(
                "a proxy is ready",
                self.shared.life.clone().wait_for(|life| life.number >= self.life),
            )
            .await
            .expect("the killer lives");
            let address = life.address.filter(|_| life.number > 0);
            let connected = match address {
                Some(address) => Client::connect(address).await,
                None => Err(std::io::ErrorKind::NotConnected.into()),
            };
            // A proxy that does not let us in is dead; the next one is waited for.
            self.life = if connected.is_ok() { life.number } else { life.number + 1 };
            self.client = Some(connected?);
        }
        Ok(self.client.as_mut().expect("just made"))
    }
}
