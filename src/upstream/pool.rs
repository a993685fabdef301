//! One configured upstream: its addresses in order of preference, the idle
//! connections to them, and what it was last seen to offer.
//!
//! Invariant: a connection is put back only when nothing is due on it and
//! nothing came unasked. One that is dropped, for whatever reason, leaves
//! nothing at the upstream: its message is incomplete.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::access::Access;
use super::connection::{Connection, Incomplete};
use super::fault::{At, Phase, UpstreamFault};
use super::health::Health;
use super::open::{Opened, open};
use super::tls::Wire;
use super::transaction::{self, Failure, Standing};
use crate::config;
use crate::message::rendition::Rendition;
use crate::metrics::{Metrics, UpstreamPhase};
use crate::smtp::client::Capabilities;
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::Reply;

/// A connection idle for longer proves itself with RSET before it is used:
/// firewalls forget connections without telling either end.
const STALE: Duration = Duration::from_secs(5);

/// How long that proof, or a farewell, may take.
pub(super) const COURTESY: Duration = Duration::from_secs(5);

/// How long an address that could not be opened is tried last.
const PENALTY: Duration = Duration::from_secs(10);

pub(super) type Link = Box<Connection<Wire>>;

/// One configured upstream. Clones share everything.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: config::Upstream,
    access: Access,
    hostname: String,
    pub(super) addresses: Vec<Address>,
    /// The latest given back is at the end, and taken first.
    idle: Mutex<Vec<Link>>,
    capabilities: ArcSwapOption<Capabilities>,
    closed: AtomicBool,
    pub(super) health: Health,
    metrics: Arc<Metrics>,
    /// Every connection holds one of these.
    open: Arc<()>,
}

#[derive(Debug)]
pub(super) struct Address {
    pub(super) name: Arc<str>,
    /// Until when it is tried last.
    shunned: Mutex<Option<Instant>>,
}

/// How far a message came without its last octets.
#[derive(Debug)]
pub enum Prepared {
    /// No recipient is left: all were refused or deferred, or MAIL, DATA or
    /// BDAT was. Nothing was sent.
    Settled {
        /// One reply per recipient, in the order of the envelope.
        replies: Vec<Reply>,
        /// `host:port` that answered.
        upstream: String,
    },
    /// The upstream has everything but the final dot or the last chunk.
    Ready {
        /// Per recipient, in the order of the envelope: the refusal of its
        /// RCPT. At least one has none.
        rejected: Vec<Option<Reply>>,
        /// To be completed or aborted. Dropping it aborts.
        transaction: Transaction,
    },
}

/// A message that only lacks its last octets at the upstream.
#[derive(Debug)]
#[must_use = "the message is neither sent nor given up"]
pub struct Transaction {
    shared: Arc<Shared>,
    connection: Link,
    ending: &'static [u8],
}

/// What became of the last octets.
#[derive(Debug)]
pub enum Completion {
    /// The upstream's reply, 2yz, 4yz or 5yz, but not 421: it settles the
    /// message, and the client hears it verbatim.
    Replied(Reply),
    /// 421: the upstream did not take the message (RFC 5321 §3.8). The client
    /// hears [`UpstreamFault::reply`], `451 4.4.1 [UPSTREAM]` with its text.
    ServiceClosing(UpstreamFault),
    /// The connection was found unusable before the last octets left: the
    /// message is certainly not sent. The client hears [`UpstreamFault::reply`].
    Unsent(UpstreamFault),
    /// The last octets may have left, and nothing that could settle the message
    /// came back: nobody can know.
    InDoubt(UpstreamFault),
}

impl Upstream {
    /// An upstream that was not reached yet; introduces us as `hostname`.
    /// `access` is what [`Access::load`] makes of `settings`.
    pub fn new(settings: config::Upstream, access: Access, hostname: String) -> Self {
        Self::measured(settings, access, hostname, Metrics::new())
    }

    /// The same, which tells `metrics` how long everything took.
    pub fn measured(
        settings: config::Upstream,
        access: Access,
        hostname: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        let address = |name: &String| Address { name: name.as_str().into(), shunned: Mutex::new(None) };
        let addresses = settings.addresses.iter().map(address).collect();
        let shared = Shared {
            settings,
            access,
            hostname,
            addresses,
            idle: Mutex::default(),
            capabilities: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
            health: Health::default(),
            metrics,
            open: Arc::new(()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What the upstream was last seen to offer; `None` before it was ever
    /// reached.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.shared.capabilities.load().as_deref().cloned()
    }

    /// Brings a message to the upstream, all but its last octets: connection,
    /// MAIL, RCPT for every recipient of `envelope`, DATA or BDAT, content.
    ///
    /// When a connection kept from earlier turns out to be dead, all of it is
    /// done again on a fresh one.
    ///
    /// # Errors
    /// The message is certainly not sent to anyone, and the client hears
    /// [`UpstreamFault::reply`]: `451 4.4.1 [UPSTREAM]` when no address can be
    /// reached or the upstream fails on the way, 421 to anything included;
    /// `550 5.6.7` when it lacks SMTPUTF8; `451 4.3.0` when `content` can't be
    /// read.
    pub async fn prepare(&self, envelope: &Envelope, content: &Rendition) -> Result<Prepared, UpstreamFault> {
        if let Some(connection) = self.shared.reuse().await {
            match self.shared.attempt(connection, envelope, content).await {
                Err(failure) if failure.is_of_old_age() => {}
                result => return result.map_err(|failure| failure.fault),
            }
        }
        let connection = self.shared.connect().await?;
        self.shared.attempt(connection, envelope, content).await.map_err(|failure| failure.fault)
    }

    /// How many connections have something under way now.
    pub fn busy_connections(&self) -> usize {
        let open = Arc::strong_count(&self.shared.open) - 1;
        open.saturating_sub(self.idle_connections())
    }

    /// How many idle connections are kept now.
    pub fn idle_connections(&self) -> usize {
        lock(&self.shared.idle).len()
    }

    /// Says QUIT on connections that were idle for longer than `idle_timeout`.
    pub async fn close_idle(&self) {
        let limit = self.shared.settings.idle_timeout;
        let expired =
            lock(&self.shared.idle).extract_if(.., |link| link.idle_since.elapsed() >= limit).collect();
        farewell(expired).await;
    }

    /// Says QUIT on all idle connections, and keeps none from now on.
    /// Transactions under way go on.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let idle = std::mem::take(&mut *lock(&self.shared.idle));
        farewell(idle).await;
    }
}

impl Transaction {
    /// `host:port`, as configured, that has the message.
    pub fn upstream(&self) -> &str {
        self.connection.address()
    }

    /// Sends the last octets and waits for the reply.
    pub async fn complete(mut self) -> Completion {
        let (started, shared) = (Instant::now(), self.shared.clone());
        let completed = self.connection.complete(self.ending).await;
        shared.metrics.upstream_took(UpstreamPhase::Completion, started.elapsed());
        match completed {
            Ok(reply) => {
                shared.health.answered();
                self.connection.dirty |= !reply.is_success();
                self.shared.keep(self.connection);
                Completion::Replied(reply)
            }
            Err(Incomplete::Unsent(fault)) => Completion::Unsent(fault),
            Err(Incomplete::InDoubt(fault @ UpstreamFault::ServiceClosing { .. })) => {
                Completion::ServiceClosing(fault)
            }
            Err(Incomplete::InDoubt(fault)) => Completion::InDoubt(fault),
        }
    }

    /// Gives the message up. The connection is dropped: in the middle of a
    /// message there is no command that would not become part of it.
    pub fn abort(self) {}
}

impl Shared {
    async fn attempt(
        self: &Arc<Self>,
        mut connection: Link,
        envelope: &Envelope,
        content: &Rendition,
    ) -> Result<Prepared, Failure> {
        let started = Instant::now();
        let standing = transaction::prepare(&mut connection, envelope, content).await;
        if standing.is_ok() {
            self.health.answered();
        }
        match standing {
            Ok(Standing::Settled { replies, keep }) => {
                let upstream = connection.address().to_string();
                if keep {
                    self.keep(connection);
                }
                Ok(Prepared::Settled { replies, upstream })
            }
            Ok(Standing::Ready { rejected, ending, body }) => {
                let envelope = started.elapsed().saturating_sub(body);
                self.metrics.upstream_took(UpstreamPhase::Envelope, envelope);
                self.metrics.upstream_took(UpstreamPhase::Body, body);
                let transaction = Transaction { shared: self.clone(), connection, ending };
                Ok(Prepared::Ready { rejected, transaction })
            }
            Err(failure) => {
                if matches!(failure.fault, UpstreamFault::NoSmtpUtf8 { .. }) {
                    self.keep(connection);
                }
                Err(failure)
            }
        }
    }

    /// An idle connection that is still alive, of the address most preferred.
    async fn reuse(&self) -> Option<Link> {
        for address in self.by_preference(Instant::now()) {
            while let Some(mut connection) = self.take(&address.name) {
                if connection.check_quiet(Phase::Mail).is_err() {
                    continue;
                }
                let fresh = connection.idle_since.elapsed() <= STALE;
                if fresh || connection.reset(COURTESY).await.is_ok() {
                    return Some(connection);
                }
            }
            // Only the address that would be connected to next: a kept
            // connection to a stand-in is no reason to stay with it.
            if !address.is_shunned(Instant::now()) {
                return None;
            }
        }
        None
    }

    /// Takes the connection to `name` that was last given back and has not
    /// been idle for too long.
    fn take(&self, name: &Arc<str>) -> Option<Link> {
        let mut idle = lock(&self.idle);
        let limit = self.settings.idle_timeout;
        let fits = |link: &Link| link.address() == name && link.idle_since.elapsed() < limit;
        let at = idle.iter().rposition(fits)?;
        Some(idle.remove(at))
    }

    /// Puts a connection back, or lets it go.
    fn keep(&self, mut connection: Link) {
        if !connection.is_quiet() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut idle = lock(&self.idle);
        if idle.len() < self.settings.pool_size && !self.closed.load(Ordering::SeqCst) {
            idle.push(connection);
        } else {
            drop(idle);
            connection.dismiss();
        }
    }

    /// A fresh connection to the first address that has one for us.
    pub(super) async fn connect(&self) -> Result<Link, UpstreamFault> {
        let mut fault = None;
        for address in self.by_preference(Instant::now()) {
            let started = Instant::now();
            address.begin(started);
            match open(&address.name, &self.hostname, &self.access, self.settings.timeouts).await {
                Ok(Opened { mut connection, handshake }) => {
                    connection.counted = Some(self.open.clone());
                    self.health.answered();
                    self.opened_within(started.elapsed(), handshake);
                    *lock(&address.shunned) = None;
                    self.capabilities.store(Some(Arc::new(connection.client.capabilities().clone())));
                    return Ok(Box::new(connection));
                }
                Err(error) => {
                    *lock(&address.shunned) = Some(Instant::now() + PENALTY);
                    fault = Some(error);
                }
            }
        }
        let fault = fault.unwrap_or_else(no_address);
        self.health.is_out(fault.clone());
        Err(fault)
    }

    fn opened_within(&self, span: Duration, handshake: Option<Duration>) {
        let connect = span.saturating_sub(handshake.unwrap_or_default());
        self.metrics.upstream_took(UpstreamPhase::Connect, connect);
        if let Some(handshake) = handshake {
            self.metrics.upstream_took(UpstreamPhase::Tls, handshake);
        }
    }

    /// The addresses as configured, but those that lately failed last.
    fn by_preference(&self, now: Instant) -> Vec<&Address> {
        let mut addresses: Vec<_> = self.addresses.iter().collect();
        addresses.sort_by_key(|address| address.is_shunned(now));
        addresses
    }
}

impl Address {
    fn is_shunned(&self, now: Instant) -> bool {
        lock(&self.shunned).is_some_and(|until| now < until)
    }

    /// Before a new try of an address that failed: while it lasts, the others
    /// go elsewhere instead of waiting in the same place.
    fn begin(&self, now: Instant) {
        if let Some(until) = &mut *lock(&self.shunned) {
            *until = now + PENALTY;
        }
    }
}

async fn farewell(connections: Vec<Link>) {
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(connection.quit(COURTESY));
    }
    tasks.join_all().await;
}

fn no_address() -> UpstreamFault {
    let at = At { address: "upstream".into(), phase: Phase::Resolve };
    UpstreamFault::Unresolved { at, error: "no address is configured".to_owned() }
}

/// The values behind these locks are whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
