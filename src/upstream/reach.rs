//! A fresh connection, at the first address that has one for us.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::auth::{Account, Party};
use super::deadline::Deadline;
use super::fault::{At, Phase, UpstreamFault};
use super::open::{Opened, Opening, Unopened};
use super::pool::{Link, Shared};
use crate::metrics::UpstreamPhase;
use crate::smtp::reply::{Class, Reply};

/// How long an address that could not be opened is tried last.
const PENALTY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Address {
    pub(super) name: Arc<str>,
    /// Until when it is tried last.
    shunned: Mutex<Option<Instant>>,
    /// Whether it offered SMTPUTF8 when it last had a connection for us.
    smtputf8: AtomicBool,
}

impl Shared {
    /// A fresh connection for mail of `account`, or of the proxy's own.
    pub(super) async fn connect_for(&self, account: Option<&Account>) -> Result<Link, UpstreamFault> {
        let party = match (account, &self.access.account) {
            (Some(account), _) => Party::Client(account),
            (None, Some(own)) => Party::Proxy(own),
            (None, None) => Party::Nobody,
        };
        Ok(self.connect(party, Deadline::NONE).await?.connection)
    }

    /// A fresh connection to the first address that has one for us.
    pub(super) async fn connect(&self, party: Party<'_>, deadline: Deadline) -> Result<Opened, Unopened> {
        let (mut fault, mut answered) = (None, false);
        let addresses = self.by_preference(Instant::now());
        for (index, address) in addresses.iter().enumerate() {
            match self.enter(address, party, deadline.share(addresses.len() - index)).await {
                Err(Unopened::Fault(error)) => {
                    answered |= is_of_client(party, &error);
                    fault = Some(error);
                }
                result => {
                    self.health.answered();
                    return result;
                }
            }
        }
        let fault = fault.unwrap_or_else(no_address);
        if answered {
            self.health.answered();
        } else {
            self.health.is_out(fault.clone());
        }
        Err(fault.into())
    }

    /// Tries one address, and remembers whether it is worth another try.
    async fn enter(
        &self,
        address: &Address,
        party: Party<'_>,
        deadline: Deadline,
    ) -> Result<Opened, Unopened> {
        let started = Instant::now();
        address.begin(started);
        let mut result = self.opening(address, party, deadline).open().await;
        match &mut result {
            Ok(opened) => {
                opened.connection.counted = Some(self.open.clone());
                self.opened_within(started.elapsed(), opened.handshake);
                let offered = opened.connection.client.capabilities();
                address.smtputf8.store(offered.smtputf8, Ordering::Relaxed);
                address.serves();
            }
            Err(Unopened::Refused(refusal)) => {
                self.let_go(party, &refusal.reply);
                address.serves();
            }
            Err(Unopened::Fault(fault)) if is_of_client(party, fault) => address.serves(),
            Err(Unopened::Fault(_)) => address.shun(),
        }
        result
    }

    fn opening<'a>(&'a self, address: &'a Address, party: Party<'a>, deadline: Deadline) -> Opening<'a> {
        Opening {
            address: &address.name,
            hostname: &self.hostname,
            access: &self.access,
            timeouts: self.settings.timeouts,
            party,
            deadline,
            seen: &self.capabilities,
        }
    }

    /// An account that was refused for good has no use for what is kept.
    fn let_go(&self, party: Party<'_>, reply: &Reply) {
        if let Some(account) = party.account().filter(|_| reply.class() == Class::Permanent) {
            self.kept.of(account).into_iter().for_each(|connection| connection.dismiss());
        }
    }

    fn opened_within(&self, span: Duration, handshake: Option<Duration>) {
        let connect = span.saturating_sub(handshake.unwrap_or_default());
        self.metrics.upstream_took(UpstreamPhase::Connect, connect);
        if let Some(handshake) = handshake {
            self.metrics.upstream_took(UpstreamPhase::Tls, handshake);
        }
    }

    /// Whether an address that was last seen to offer SMTPUTF8 is away now.
    pub(super) fn lacks_smtputf8_for_a_while(&self) -> bool {
        let now = Instant::now();
        let is_away = |address: &Address| address.is_shunned(now);
        self.addresses.iter().any(|address| address.smtputf8.load(Ordering::Relaxed) && is_away(address))
    }

    /// The addresses as configured, but those that lately failed last.
    pub(super) fn by_preference(&self, now: Instant) -> Vec<&Address> {
        let mut addresses: Vec<_> = self.addresses.iter().collect();
        addresses.sort_by_key(|address| address.is_shunned(now));
        addresses
    }
}

impl Address {
    /// One that was not tried yet; `name` is `host:port`.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), shunned: Mutex::new(None), smtputf8: AtomicBool::new(false) }
    }

    pub(super) fn is_shunned(&self, now: Instant) -> bool {
        lock(&self.shunned).is_some_and(|until| now < until)
    }

    /// It failed, and is tried last for a while.
    fn shun(&self) {
        *lock(&self.shunned) = Some(Instant::now() + PENALTY);
    }

    /// It has answered.
    fn serves(&self) {
        *lock(&self.shunned) = None;
    }

    /// Before a new try of an address that failed: while it lasts, the others
    /// go elsewhere instead of waiting in the same place.
    fn begin(&self, now: Instant) {
        if let Some(until) = &mut *lock(&self.shunned) {
            *until = now + PENALTY;
        }
    }
}

/// Whether it came of the AUTH of a client. That says nothing of the address,
/// which has greeted us; or else any client could put it in a bad light.
fn is_of_client(party: Party<'_>, fault: &UpstreamFault) -> bool {
    party.account().is_some() && fault.at().phase == Phase::Auth
}

fn no_address() -> UpstreamFault {
    let at = At { address: "upstream".into(), phase: Phase::Resolve };
    UpstreamFault::Unresolved { at, error: "no address is configured".to_owned() }
}

/// The values behind these locks are whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
