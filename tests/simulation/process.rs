//! A proxy process: the real heart, connections and upstream machine, until it
//! is killed.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use mailonce::auth::Authenticator;
use mailonce::clock::Timestamp;
use mailonce::config::{Config, Redact};
use mailonce::dedup::{Heart, Services};
use mailonce::duplex::Duplex;
use mailonce::journal::Journal;
use mailonce::message::Budget;
use mailonce::metrics::Metrics;
use mailonce::net::gate::Gate;
use mailonce::net::peer::{Names, Peer};
use mailonce::net::port::Port;
use mailonce::net::wire::Wire;
use mailonce::net::{Live, Shared, connection};
use mailonce::secret::SecretKey;
use mailonce::upstream::{Access, Dial, Upstream};
use tokio_util::sync::CancellationToken;

use super::network::{End, Link};
use super::provider;
use super::store::{Lent, SimulatedStore};
use super::world::World;

/// Whether a process, or a store, is alive. A dead one goes on as a task that
/// never hears from anybody again and reaches nobody.
#[derive(Debug, Default)]
pub struct Life {
    pub number: usize,
    dead: AtomicBool,
    links: Mutex<Vec<(Weak<Link>, usize)>>,
}

impl Life {
    pub fn new(number: usize) -> Arc<Self> {
        Arc::new(Self { number, ..Self::default() })
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub fn holds(&self, link: Arc<Link>, side: usize) {
        self.links.lock().unwrap().push((Arc::downgrade(&link), side));
    }

    /// Ends it. Its connections end, or are just silent after a power failure.
    pub fn end(&self, silently: bool) {
        self.dead.store(true, Ordering::SeqCst);
        for (link, side) in self.links.lock().unwrap().drain(..) {
            if let Some(link) = link.upgrade() {
                link.abandon(side, silently);
            }
        }
    }
}

/// What it takes from a process to reach the upstream.
#[derive(Debug)]
struct Road {
    world: Weak<World>,
    life: Arc<Life>,
}

#[async_trait]
impl Dial for Road {
    async fn dial(&self, _: &str) -> io::Result<Box<dyn Duplex>> {
        let world = self.world.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        if self.life.is_dead() {
            return std::future::pending().await;
        }
        let end = world.reach_upstream(self.life.clone()).await?;
        Ok(Box::new(end))
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Process {
    pub life: Arc<Life>,
    shared: Arc<Shared>,
}

impl Process {
    pub fn start(
        world: &Arc<World>,
        number: usize,
        config: &Config,
        store: Arc<SimulatedStore>,
    ) -> Arc<Self> {
        let life = Life::new(number);
        let metrics = Metrics::new();
        let road = Road { world: Arc::downgrade(world), life: life.clone() };
        let access = Access::over(Arc::new(road));
        let hostname = config.hostname.clone();
        let upstream = Upstream::measured(config.upstream.clone(), access, hostname, metrics.clone());
        let key = world.plan.provider.map(|_| provider::HEADER.to_owned());
        let store = Arc::new(Lent { store, life: life.clone() });
        let journal = Journal::new(Redact::None, metrics.clone());
        let shared = Arc::new(Shared {
            heart: Heart::new(store, journal, world.wall.clone(), number as u64),
            live: ArcSwap::from_pointee(live(config, upstream, key)),
            authenticator: Authenticator::new(metrics.clone(), &SecretKey::new([7; 32])).unwrap(),
            budget: Budget::new(config.limits.in_memory_total),
            metrics,
            gate: Arc::new(Gate::default()),
            closing: CancellationToken::new(),
        });
        Arc::new(Self { life, shared })
    }

    /// Takes another policy over. The connections to the upstream stay.
    pub fn reload(&self, config: &Config) {
        let services = self.shared.live.load().services.clone();
        let next = live(config, services.upstream.clone(), services.idempotency_header.clone());
        self.shared.live.store(Arc::new(next));
    }

    /// Serves a client at this listener.
    pub fn serve(&self, listener: usize, end: End) {
        let shared = self.shared.clone();
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let live = shared.live.load_full();
        let port = live.ports[listener].clone();
        let peer = Peer { address: loopback(40_000), local: loopback(2525), names: Names::Client, port };
        tokio::spawn(async move { connection::serve(shared, &live, Wire::Made(Box::new(end)), peer).await });
    }
}

fn live(config: &Config, upstream: Upstream, idempotency_header: Option<String>) -> Live {
    let services = Services {
        hostname: config.hostname.clone(),
        dedup: config.dedup.clone(),
        rules: Vec::new(),
        tenant_cap: None,
        upstream,
        received_header: true,
        idempotency_header,
    };
    let ports = Port::all(&config.listeners, Timestamp::default()).unwrap();
    Live { services: Arc::new(services), limits: config.limits, ports }
}
