//! The only place where everything is wired together: builds the parts from a
//! configuration, runs them, applies reloads, and drains.

mod opened;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminFault, Desk};
use crate::auth::Authenticator;
use crate::clock::{Clock, SteadyClock, SystemClock, Timestamp};
use crate::config::{AddressFrom, Config};
use crate::dedup::{Heart, Services};
use crate::files::FileFault;
use crate::journal::Journal;
use crate::message::Budget;
use crate::metrics::{Metrics, TimedStore};
use crate::net::port::Port;
use crate::net::{Live, Shared, gate::Gate, listener};
use crate::store::{Store, StoreFault, sweeper};
use crate::upstream::{Access, Upstream};

pub use opened::{Opened, open_store};

/// What the files hold that the configuration names: certificates, keys,
/// users, the password for the upstream.
#[derive(Clone, Debug)]
pub struct Files {
    ports: Vec<Arc<Port>>,
    access: Access,
}

impl Files {
    /// Reads them all.
    ///
    /// # Errors
    /// [`FileFault`] with a line for every listener, and the upstream, whose
    /// files can't be used.
    pub fn read(config: &Config, now: Timestamp) -> Result<Self, FileFault> {
        match (Port::all(&config.listeners, now), Access::load(&config.upstream)) {
            (Ok(ports), Ok(access)) => Ok(Self { ports, access }),
            (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => Err(fault),
            (Err(ports), Err(access)) => Err(ports.and(access)),
        }
    }

    /// What is hardly meant: certificates out of their time, secrets that
    /// everybody can read.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.ports.iter().flat_map(|port| port.warnings()).chain(self.access.warnings())
    }

    /// What it takes to be let in by the upstream.
    pub fn into_access(self) -> Access {
        self.access
    }
}

/// Connections that may wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 4096;

/// A listener's socket and name.
pub type Bound = (TcpListener, String);

/// Binds every listener.
///
/// # Errors
/// When an address can't be had; the error names it.
pub fn bind(config: &Config) -> io::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for listener in &config.listeners {
        let socket = listen(listener.address).map_err(|error| {
            io::Error::new(error.kind(), format!("listener {}: {}: {error}", listener.name, listener.address))
        })?;
        bound.push((socket, listener.name.clone()));
    }
    Ok(bound)
}

/// Takes the admin address, where there is to be one. The default one is done
/// without when it can't be had, and the log says so.
///
/// # Errors
/// When an address that was written can't be had, or its token file neither be
/// read nor be made.
pub fn bind_admin(config: &Config) -> Result<Option<admin::Bound>, AdminFault> {
    let Some(admin) = &config.admin else { return Ok(None) };
    match (admin::Bound::new(admin, listen), admin.address_from) {
        (Ok(bound), _) => Ok(Some(bound)),
        (Err(fault), AddressFrom::Operator) => Err(fault),
        (Err(fault), AddressFrom::Default) => {
            tracing::warn!(%fault, "starting without an admin address");
            Ok(None)
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Every connection inherits it: a reply is one write, and never waits for
    // the acknowledgement of the one before.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How often what was decided is added to the counts of the store.
const FLUSH: Duration = Duration::from_secs(1);

/// How long nothing may be heard of the upstream before it is probed.
const PROBE: Duration = Duration::from_secs(10);

/// How often the files of certificates and users are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How far the machine's clock may be from ours before it is told.
const CLOCK_STEP: Duration = Duration::from_secs(5);

/// A running proxy.
pub struct Server {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    journal: Journal,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    admin: Option<admin::Running>,
    connections: TaskTracker,
    helpers: TaskTracker,
    config: Config,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts the proxy on sockets that are bound already; `files` are what
    /// [`Files::read`] makes of the configuration. Each claim that was found in
    /// doubt gets its line in the log.
    ///
    /// # Errors
    /// When the machine gives no random number.
    pub fn start(
        config: Config,
        bound: Vec<Bound>,
        files: Files,
        opened: Opened,
    ) -> Result<Self, getrandom::Error> {
        let Opened { store, doubts, tenant_key } = opened;
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::starting_at(&SystemClock));
        let metrics = Metrics::new();
        let store: Arc<dyn Store> = Arc::new(TimedStore::new(store, metrics.clone()));
        let journal = Journal::new(config.log.redact, metrics.clone());
        let heart = Heart::new(store.clone(), journal.clone(), clock.clone(), getrandom::u64()?);
        for record in &doubts {
            heart.found_in_doubt(record);
        }
        let shared = Arc::new(Shared {
            heart,
            live: ArcSwap::from_pointee(live(&config, files, &metrics)),
            budget: Budget::new(config.limits.in_memory_total),
            metrics: metrics.clone(),
            authenticator: Authenticator::new(metrics.clone(), &tenant_key)?,
            gate: Arc::new(Gate::default()),
            closing: CancellationToken::new(),
        });
        let connections = TaskTracker::new();
        for (socket, name) in bound {
            connections.spawn(listener::accept(shared.clone(), socket, name, connections.clone()));
        }
        let helpers = TaskTracker::new();
        let closing = shared.closing.clone();
        let sweep = sweeper::sweep_forever(store.clone(), clock.clone());
        helpers.spawn(async move { closing.run_until_cancelled(sweep).await });
        helpers.spawn(watch_files(shared.clone()));
        helpers.spawn(watch_clock(shared.clone(), clock.clone()));
        helpers.spawn(close_idle_upstreams(shared.clone()));
        helpers.spawn(flush_counts(shared.clone(), journal.clone(), store.clone()));
        Ok(Self { shared, store, journal, metrics, clock, admin: None, connections, helpers, config })
    }

    /// Serves the admin address, and from now on probes the upstream when no
    /// mail tells whether it is there.
    pub fn serve_admin(&mut self, bound: admin::Bound) {
        let desk = Desk {
            store: self.store.clone(),
            journal: self.journal.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            proxy: self.shared.clone(),
        };
        self.admin = Some(bound.serve(desk));
        self.helpers.spawn(probe_upstream(self.shared.clone()));
    }

    /// How long attempts under way may go on once it is to end.
    pub fn drain(&self) -> Duration {
        self.config.drain
    }

    /// Applies a new configuration; the addresses of listeners and the store
    /// stay as they are, and the log says so where they differ. Certificates,
    /// keys and the password are read again.
    ///
    /// # Errors
    /// [`FileFault`] where they can't be used; then nothing has changed.
    pub fn reload(&mut self, mut new: Config) -> Result<(), FileFault> {
        let addresses = |config: &Config| -> Vec<(String, SocketAddr)> {
            config.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
        };
        if addresses(&new) != addresses(&self.config) {
            tracing::warn!(
                "names and addresses of listeners change only with a restart: all of them stay as they are"
            );
            new.listeners.clone_from(&self.config.listeners);
        }
        let files = Files::read(&new, SystemClock.now())?;
        for (differs, what) in [
            (new.store != self.config.store, "the store"),
            (new.log != self.config.log, "the log"),
            (new.admin != self.config.admin, "the admin address or its token file"),
            (new.limits.in_memory_total != self.config.limits.in_memory_total, "limits.in_memory_total"),
        ] {
            if differs {
                tracing::warn!("{what} changes only with a restart");
            }
        }
        let old = self.shared.live.swap(Arc::new(live(&new, files, &self.metrics)));
        self.helpers.spawn(async move { old.services.upstream.close().await });
        self.config = new;
        tracing::info!("the configuration was read again");
        Ok(())
    }

    /// Ends politely: no new connections, `421` between transactions, attempts
    /// under way finish unless that takes longer than `drain` or `at_once` is
    /// cancelled; then the store is closed.
    pub async fn stop(self, at_once: CancellationToken) {
        self.shared.closing.cancel();
        self.connections.close();
        self.helpers.close();
        tokio::select! {
            () = self.connections.wait() => tracing::info!("every session has ended"),
            () = tokio::time::sleep(self.config.drain) => {
                tracing::warn!(sessions = self.shared.gate.len(), "not every session ended in time");
            }
            () = at_once.cancelled() => tracing::warn!("ending at once"),
        }
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        if let Err(fault) = self.journal.flush(&*self.store, self.clock.now()).await {
            tracing::warn!(%fault, "the last figures of stats could not be written");
        }
        self.shared.live.load().services.upstream.close().await;
        if let Err(fault) = self.store.close().await {
            tracing::error!(%fault, "the store could not be closed");
        }
    }
}

fn live(config: &Config, files: Files, metrics: &Arc<Metrics>) -> Live {
    for warning in config.warnings().iter().chain(files.warnings()) {
        tracing::warn!("{warning}");
    }
    let Files { ports, access } = files;
    let hostname = config.hostname.clone();
    let services = Services {
        hostname: config.hostname.clone(),
        dedup: config.dedup.clone(),
        rules: config.rules.clone(),
        tenant_cap: config.limits.max_claims_per_tenant,
        upstream: Upstream::measured(config.upstream.clone(), access, hostname, metrics.clone()),
        received_header: config.upstream.received_header,
        idempotency_header: config.upstream.idempotency_header.clone(),
    };
    Live { services: Arc::new(services), limits: config.limits, ports }
}

/// Lets go of upstream connections that nobody has needed for a while.
async fn close_idle_upstreams(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while shared.closing.run_until_cancelled(tick.tick()).await.is_some() {
        let services = shared.live.load().services.clone();
        services.upstream.close_idle().await;
    }
}

/// Says when somebody sets the machine's clock: claims do not follow it.
async fn watch_clock(shared: Arc<Shared>, clock: Arc<dyn Clock>) {
    let mut tick = tokio::time::interval(LOOK);
    let mut known = Duration::ZERO;
    while shared.closing.run_until_cancelled(tick.tick()).await.is_some() {
        let (ours, machine) = (clock.now(), SystemClock.now());
        let apart = machine.apart_from(ours);
        if apart.abs_diff(known) > CLOCK_STEP {
            known = apart;
            tracing::warn!(
                ours = ours.to_rfc3339(),
                machine = machine.to_rfc3339(),
                "the machine's clock was set: windows go on as if it had not been. Where it was wrong at the start, \
                 restart mailonce"
            );
        }
    }
}

/// Reads certificates and users again when their files change.
async fn watch_files(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(LOOK);
    while shared.closing.run_until_cancelled(tick.tick()).await.is_some() {
        let live = shared.live.load_full();
        if !live.ports.iter().any(|port| port.has_files()) {
            continue;
        }
        let now = SystemClock.now();
        let look = move || live.ports.iter().for_each(|port| port.refresh(now));
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "certificates and users could not be looked at");
        }
    }
}

impl admin::Proxy for Shared {
    fn sessions(&self) -> usize {
        self.gate.len()
    }

    fn upstream(&self) -> Upstream {
        self.live.load().services.upstream.clone()
    }

    fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }
}

/// Adds what was decided to the counts of the store.
async fn flush_counts(shared: Arc<Shared>, journal: Journal, store: Arc<dyn Store>) {
    let mut tick = tokio::time::interval(FLUSH);
    let mut failing = false;
    while shared.closing.run_until_cancelled(tick.tick()).await.is_some() {
        let flushed = journal.flush(&*store, shared.heart.now()).await;
        // A full disk is told once, by the store.
        if let Err(fault) = &flushed
            && !failing
            && !matches!(fault, StoreFault::Full(_))
        {
            tracing::warn!(%fault, "the figures of stats can't be written; they are kept in memory");
        }
        failing = flushed.is_err();
    }
}

/// Keeps the answer to "is the upstream there?" fresh.
async fn probe_upstream(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shared.closing.run_until_cancelled(tick.tick()).await.is_some() {
        let upstream = shared.live.load().services.upstream.clone();
        let probe = upstream.probe_if_silent(PROBE);
        if shared.closing.run_until_cancelled(probe).await.is_none() {
            return;
        }
    }
}
