//! The only place where everything is wired together: builds the parts from a
//! configuration, runs them, applies reloads, and drains.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::dedup::{Heart, Services};
use crate::journal::Journal;
use crate::message::Budget;
use crate::net::{Live, Shared, gate::Gate, listener};
use crate::store::memory::MemoryStore;
use crate::store::record::Record;
use crate::store::sled::SledStore;
use crate::store::{Store, StoreFault, sweeper};
use crate::upstream::Upstream;

/// Opens the store that the configuration names. Claims whose attempt the last
/// process did not live to finish come along: they are in doubt now.
///
/// # Errors
/// [`StoreFault`] with a text that says what to do.
pub fn open_store(config: &config::Store) -> Result<(Arc<dyn Store>, Vec<Record>), StoreFault> {
    match config {
        config::Store::Memory => Ok((Arc::new(MemoryStore::new()), Vec::new())),
        config::Store::Sled { path } => {
            let (store, doubts) = SledStore::open(path, SystemClock.now())?;
            Ok((Arc::new(store), doubts))
        }
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Every connection inherits it: a reply is one write, and never waits for
    // the acknowledgement of the one before.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A running proxy.
pub struct Server {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
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
    /// Starts the proxy on sockets that are bound already. `doubts` are claims
    /// found in doubt at start; each gets its line in the log.
    ///
    /// # Errors
    /// When the machine gives no random number.
    pub fn start(
        config: Config,
        bound: Vec<Bound>,
        store: Arc<dyn Store>,
        doubts: &[Record],
    ) -> Result<Self, getrandom::Error> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let heart =
            Heart::new(store.clone(), Journal::new(config.log.redact), clock.clone(), getrandom::u64()?);
        for record in doubts {
            heart.found_in_doubt(record);
        }
        let shared = Arc::new(Shared {
            heart,
            live: ArcSwap::from_pointee(live(&config)),
            budget: Budget::new(config.limits.in_memory_total),
            gate: Arc::new(Gate::default()),
            closing: CancellationToken::new(),
        });
        let connections = TaskTracker::new();
        for (socket, name) in bound {
            connections.spawn(listener::accept(shared.clone(), socket, name, connections.clone()));
        }
        let helpers = TaskTracker::new();
        let closing = shared.closing.clone();
        let sweep = sweeper::sweep_forever(store.clone(), clock);
        helpers.spawn(async move { closing.run_until_cancelled(sweep).await });
        helpers.spawn(close_idle_upstreams(shared.clone()));
        Ok(Self { shared, store, connections, helpers, config })
    }

    /// Applies a new configuration; the addresses of listeners and the store
    /// stay as they are, and the log says so where they differ.
    pub fn reload(&mut self, mut new: Config) {
        let addresses = |config: &Config| -> Vec<(String, SocketAddr)> {
            config.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
        };
        if addresses(&new) != addresses(&self.config) {
            tracing::warn!(
                "names and addresses of listeners change only with a restart: all of them stay as they are"
            );
            new.listeners.clone_from(&self.config.listeners);
        }
        for (differs, what) in [
            (new.store != self.config.store, "the store"),
            (new.log != self.config.log, "the log"),
            (new.limits.in_memory_total != self.config.limits.in_memory_total, "limits.in_memory_total"),
        ] {
            if differs {
                tracing::warn!("{what} changes only with a restart");
            }
        }
        let old = self.shared.live.swap(Arc::new(live(&new)));
        self.helpers.spawn(async move { old.services.upstream.close().await });
        self.config = new;
        tracing::info!("the configuration was read again");
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
        self.shared.live.load().services.upstream.close().await;
        if let Err(fault) = self.store.close().await {
            tracing::error!(%fault, "the store could not be closed");
        }
    }
}

fn live(config: &Config) -> Live {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let services = Services {
        hostname: config.hostname.clone(),
        dedup: config.dedup.clone(),
        rules: config.rules.clone(),
        tenant_cap: config.limits.max_claims_per_tenant,
        upstream: Upstream::new(config.upstream.clone(), config.hostname.clone()),
        received_header: config.upstream.received_header,
        idempotency_header: config.upstream.idempotency_header.clone(),
    };
    Live { services: Arc::new(services), limits: config.limits, listeners: config.listeners.clone() }
}

/// Lets go of upstream connections that nobody has needed for a while.
async fn close_idle_upstreams(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
    while shared.closing.run_until_cancelled(tick.tick()).await.is_some() {
        let services = shared.live.load().services.clone();
        services.upstream.close_idle().await;
    }
}
