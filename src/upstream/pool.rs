//! One configured upstream: its addresses in order of preference, the idle
//! connections to them, and what it was last seen to offer.
//!
//! Invariant: a connection is put back only when nothing is due on it and
//! nothing came unasked. One that is dropped, for whatever reason, leaves
//! nothing at the upstream: its message is incomplete.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::access::Access;
use super::auth::Account;
use super::connection::{Connection, Incomplete};
use super::fault::{Phase, UpstreamFault};
use super::health::Health;
use super::kept::Kept;
use super::reach::Address;
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

pub(super) type Link = Box<Connection<Wire>>;

/// One configured upstream. Clones share everything.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: config::Upstream,
    pub(super) access: Access,
    pub(super) hostname: String,
    pub(super) addresses: Vec<Address>,
    pub(super) kept: Kept,
    pub(super) capabilities: ArcSwapOption<Capabilities>,
    pub(super) health: Health,
    pub(super) metrics: Arc<Metrics>,
    /// Every connection holds one of these.
    pub(super) open: Arc<()>,
}

/// How far a message came without its last octets.
#[derive(Debug)]
pub enum Prepared {
    /// No recipient is left: all were refused or deferred, or MAIL, DATA or the
    /// content was. Nothing was completed.
    Settled {
        /// One reply per recipient, in the order of the envelope.
        replies: Vec<Reply>,
        /// `host:port` that answered.
        upstream: String,
    },
    /// The upstream has everything but the final dot.
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
}

/// What became of the last octets.
#[derive(Debug)]
pub enum Completion {
    /// The upstream's reply, 2yz, 4yz or 5yz, but not 421: it settles the
    /// message, and the client receives it verbatim. 2yz is the reply to the
    /// final dot; the others may have come before the dot has left.
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
        let addresses = settings.addresses.iter().map(|name| Address::new(name)).collect();
        let shared = Shared {
            kept: Kept::new(settings.pool_size, settings.idle_timeout),
            settings,
            access,
            hostname,
            addresses,
            capabilities: ArcSwapOption::empty(),
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
    /// MAIL, RCPT for every recipient of `envelope`, DATA, content.
    /// With the account of a client, over a connection that logged in with
    /// that; without, over one that logged in with our own, if we have one.
    ///
    /// When a connection kept from earlier turns out to be dead, all of it is
    /// done again on a fresh one.
    ///
    /// # Errors
    /// The message is certainly not sent to anyone, and the client hears
    /// [`UpstreamFault::reply`]: `451 4.4.1 [UPSTREAM]` when no address can be
    /// reached or the upstream fails on the way, 421 to anything and a refused
    /// account included; `550 5.6.7` when all that is known of it lacks SMTPUTF8;
    /// `451 4.3.0` when `content` can't be read.
    pub async fn prepare(
        &self,
        account: Option<&Account>,
        envelope: &Envelope,
        content: &Rendition,
    ) -> Result<Prepared, UpstreamFault> {
        if let Some(connection) = self.shared.reuse(account).await {
            match self.shared.attempt(connection, envelope, content).await {
                Err(failure) if failure.is_of_old_age() => {}
                result => return result.map_err(|failure| failure.fault),
            }
        }
        let connection = self.shared.connect_for(account).await?;
        self.shared.attempt(connection, envelope, content).await.map_err(|failure| failure.fault)
    }

    /// How many connections have something under way now.
    pub fn busy_connections(&self) -> usize {
        let open = Arc::strong_count(&self.shared.open) - 1;
        open.saturating_sub(self.idle_connections())
    }

    /// How many idle connections are kept now.
    pub fn idle_connections(&self) -> usize {
        self.shared.kept.len()
    }

    /// Says QUIT on connections that were idle for longer than `idle_timeout`.
    pub async fn close_idle(&self) {
        farewell(self.shared.kept.expired()).await;
    }

    /// Says QUIT on all idle connections, and keeps none from now on.
    /// Transactions under way go on.
    pub async fn close(&self) {
        farewell(self.shared.kept.close()).await;
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
        let completed = self.connection.complete().await;
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
            Ok(Standing::Ready { rejected, body }) => {
                let envelope = started.elapsed().saturating_sub(body);
                self.metrics.upstream_took(UpstreamPhase::Envelope, envelope);
                self.metrics.upstream_took(UpstreamPhase::Body, body);
                let transaction = Transaction { shared: self.clone(), connection };
                Ok(Prepared::Ready { rejected, transaction })
            }
            Err(mut failure) => {
                if let UpstreamFault::NoSmtpUtf8 { elsewhere, .. } = &mut failure.fault {
                    *elsewhere = self.lacks_smtputf8_for_a_while();
                    self.keep(connection);
                }
                Err(failure)
            }
        }
    }

    /// An idle connection of `account` that is still alive, to the address most
    /// preferred.
    async fn reuse(&self, account: Option<&Account>) -> Option<Link> {
        for address in self.by_preference(Instant::now()) {
            while let Some(mut connection) = self.kept.take(&address.name, account) {
                if connection.check_quiet(Phase::Mail).is_err() || connection.holds_part() {
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

    /// Puts a connection back, or lets it go. One that has said something
    /// unasked is closed, and one that gave a malformed reply takes its leave.
    pub(super) fn keep(&self, mut connection: Link) {
        if connection.check_quiet(Phase::Mail).is_err() {
            return;
        }
        if !connection.is_reusable() {
            return connection.dismiss();
        }
        connection.idle_since = Instant::now();
        if let Some(connection) = self.kept.put(connection) {
            connection.dismiss();
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
