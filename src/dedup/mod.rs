//! The heart: a message that was received whole becomes an identity, claims,
//! one transaction with the upstream, outcomes, and one reply.
//!
//! This file is the way through. Its parts: [`held`] claims that are ours and
//! must be settled, [`identify`] which e-mail it is and under which policy,
//! [`attempt`] the transaction, [`flights`] who waits for whom, [`verdict`] the result of each
//! recipient, `reply` the one reply of them all.

pub mod attempt;
pub mod flights;
pub mod held;
mod identify;
mod large;
mod message;
mod receipt;
mod reply;
mod report;
mod sent;
pub mod trace;
pub mod verdict;

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use crate::clock::{Clock, Timestamp};
use crate::config::{self, InDoubt, Mode};
use crate::crash;
use crate::identity::{self, Tenant};
use crate::journal::{DecisionOutcome, Journal};
use crate::message::{Content, Headers};
use crate::planted::{self, Bug};
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::Reply;
use crate::smtp::session::ClientName;
use crate::store::{AttemptKind, ClaimRequest, Claimed, Outcome, Record, State, Store, StoreFault, Token};
use crate::upstream::{Account, Upstream};

use attempt::{Attempt, Beside};
use flights::{Flights, Landing};
use held::{Claim, HeldClaim};
use identify::{Course, Identity};
use large::Large;
use message::Message;
use receipt::Decided;
pub use receipt::{Answer, Receipt};

use verdict::{Fate, Verdict};

/// A claim that never got past `pending` may be taken by another attempt after
/// this long. An attempt that is merely slow then finds itself fenced at its
/// commit, and sends nothing.
const LEASE: Duration = Duration::from_secs(20 * 60);

/// What a reload of the configuration may change.
#[derive(Debug)]
pub struct Services {
    /// Our name.
    pub hostname: String,
    /// Which e-mail is the same, and what follows.
    pub dedup: config::Dedup,
    /// What holds for some of the mail instead.
    pub rules: Vec<config::Rule>,
    /// Live claims of one tenant; `None`: as many as it wants.
    pub tenant_cap: Option<u64>,
    /// Where mail goes.
    pub upstream: Upstream,
    /// Whether to add our Received field.
    pub received_header: bool,
    /// Send the key upstream under this name.
    pub idempotency_header: Option<String>,
}

/// Where a message came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The session's name in the log.
    pub session: String,
    /// The listener's name.
    pub listener: String,
    /// Whether it came under TLS.
    pub channel: Channel,
    /// Whom the client has proved to be: the tenant, before any field.
    pub user: Option<Tenant>,
    /// What the upstream knows the client by: its mail goes there in its own
    /// name. `None`: in the proxy's.
    pub account: Option<Account>,
    /// The field that names the tenant, where the listener has one.
    pub tenant_header: Option<String>,
    /// The client's address.
    pub client: SocketAddr,
    /// How the client introduced itself.
    pub name: ClientName,
}

/// What a message came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Anybody on the way could read and change it.
    Clear,
    /// TLS.
    Encrypted,
}

/// A message that was received whole.
#[derive(Debug)]
pub struct Incoming {
    /// Where it came from.
    pub source: Source,
    /// From whom and to whom.
    pub envelope: Envelope,
    /// Its bytes.
    pub content: Content,
    /// Whether they hold octets above 127.
    pub eight_bit: bool,
}

/// What lives as long as the process: the store, the journal, and who waits
/// for whom.
pub struct Heart {
    store: Arc<dyn Store>,
    journal: Journal,
    clock: Arc<dyn Clock>,
    flights: Arc<Flights>,
    owner: u64,
    attempts: AtomicU64,
    sessions: AtomicU64,
    large: Large,
}

impl std::fmt::Debug for Heart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heart").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Heart {
    /// A heart over `store`. `owner` is a random number that names this
    /// process among all that ever share the store.
    pub fn new(store: Arc<dyn Store>, journal: Journal, clock: Arc<dyn Clock>, owner: u64) -> Arc<Self> {
        let flights = Arc::default();
        let (attempts, sessions) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { store, journal, clock, flights, owner, attempts, sessions, large: Large::default() })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A name for a new session in the log, unique over restarts.
    pub fn next_session(&self) -> String {
        let count = self.sessions.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-{count:x}", self.owner >> 32)
    }

    /// Decides on a message and gives the answer for its client. A panic on the way
    /// gives the claims up; the client hears `451 4.3.0`. It is no reason to
    /// stop waiting that the client does: the upstream may have it (RFC 1047).
    pub async fn deliver(self: &Arc<Self>, services: &Services, incoming: Incoming) -> Answer {
        // On the heap for as long as it lasts: an idle connection should not
        // have to hold room for it.
        let work = AssertUnwindSafe(Box::pin(self.decide(services, incoming)));
        let (reply, decided) = work.catch_unwind().await.unwrap_or_else(|panic| {
            let panic = said(&*panic);
            tracing::error!(panic, "a message's attempt panicked; its claims are given up; report this");
            (Reply::new(451, "4.3.0 internal error, try again"), Decided::default())
        });
        Answer { reply, receipt: Receipt::new(self.clone(), decided) }
    }

    async fn decide(&self, services: &Services, incoming: Incoming) -> (Reply, Decided) {
        let started = Instant::now();
        let Incoming { source, envelope, content, eight_bit } = incoming;
        let (headers, fault) = match Headers::parse(content.head()) {
            Ok(headers) => (headers, None),
            Err(fault) => (Headers::none(), Some(fault)),
        };
        let message = Message { source, envelope: identity::distinct(envelope), headers, content, eight_bit };
        let identity = match fault {
            Some(fault) => Identity::refused(&services.dedup, DecisionOutcome::Rejected, fault.reply()),
            None => self.identify(services, &message).await,
        };
        let fates = self.fates(services, &message, &identity, started).await;
        let decisions = self.conclude(&message, &identity, &fates, started);
        let reply = reply::combine(&fates, identity.policy.on_partial);
        let decided = self.decided(&fates, &reply, decisions);
        (reply, decided)
    }

    /// What becomes of each recipient, in the order of RCPT.
    async fn fates(
        &self,
        services: &Services,
        message: &Message,
        identity: &Identity<'_>,
        started: Instant,
    ) -> Vec<Fate> {
        let policy = identity.policy;
        let attempt = |key| Attempt { heart: self, services, policy, message, key };
        let (tenant, key, fingerprint) = match &identity.course {
            Course::Refuse(outcome, reply) => return message.everyone(*outcome, reply),
            Course::Unclaimed(accepted) => return attempt(None).unclaimed(*accepted).await,
            Course::Claim { tenant, key, fingerprint } => (tenant, key, fingerprint),
        };
        let claims = message.claims(identity, tenant, key, fingerprint);
        let token = Token { owner: self.owner, attempt: self.attempts.fetch_add(1, Ordering::Relaxed) };
        let at = self.now();
        let slots = claims.iter().map(|claim| claim.slot.clone()).collect();
        let (lease_until, tenant_cap) = (at.plus(LEASE), services.tenant_cap);
        match self.store.claim(ClaimRequest { token, at, lease_until, slots, tenant_cap }).await {
            Ok(answers) => {
                crash::point("after-claim");
                let records = answers.iter().filter_map(|answer| taken_over(answer, at));
                records.for_each(|record| self.found_in_doubt(record));
                self.resolve(attempt(Some(key)), token, claims, answers, started).await
            }
            Err(fault) => {
                // A full disk is told once, by the store.
                if !matches!(fault, StoreFault::Full(_)) {
                    tracing::warn!(%fault, "the claim failed");
                }
                if policy.relays_unclaimed() {
                    attempt(Some(key)).unclaimed(DecisionOutcome::Unclaimed).await
                } else {
                    message.everyone(DecisionOutcome::StoreFailure, &store_reply())
                }
            }
        }
    }

    /// Sends to those newly claimed, meanwhile waits for those in flight
    /// elsewhere, and answers the rest from their records. The wait never
    /// holds the sending up, so two messages with overlapping recipients can't
    /// wait for each other in a circle.
    async fn resolve(
        &self,
        attempt: Attempt<'_>,
        token: Token,
        claims: Vec<Claim>,
        answers: Vec<Claimed>,
        started: Instant,
    ) -> Vec<Fate> {
        let dedup = attempt.policy;
        let (mut held, mut beside) = (Vec::new(), Vec::new());
        let (mut waiting, mut known) = (Vec::new(), Vec::new());
        let mut fates = Vec::new();
        for (claim, answer) in claims.into_iter().zip(answers) {
            match answer {
                answer if dedup.mode == Mode::Observe && !matches!(answer, Claimed::New { .. }) => {
                    beside.push(Beside::observed(claim, answer));
                }
                Claimed::New { previous } => held.push(HeldClaim::new(claim, previous)),
                Claimed::InFlight { record, conflict } => waiting.push((claim, record, conflict)),
                Claimed::Settled { record, conflict } => known.push((claim, record, conflict)),
                Claimed::Conflict { record } => {
                    let at = verdict::settled_at(&record).to_rfc3339();
                    let verdict = Verdict::conflict(record.state.name(), &at);
                    // It was another e-mail.
                    let known = attempt.message.known(&claim, &record, &verdict);
                    fates.extend(known.into_iter().map(|fate| Fate { stake: None, ..fate }));
                }
                Claimed::OverCap => fates.extend(attempt.message.over_cap(&claim)),
                Claimed::TooMany => fates.extend(attempt.message.too_many(&claim)),
            }
        }
        let held = attempt.sets(token, held);
        let deadline = started + dedup.in_flight_wait;
        let wait = async {
            let mut fates = Vec::new();
            // Where a crash would have it sent again, nobody hears of an
            // acceptance that the crash could take back.
            let written = match dedup.in_doubt {
                InDoubt::Resend | InDoubt::Hold if !known.is_empty() => self.written(token).await,
                _ => Ok(()),
            };
            for (claim, record, conflict) in known {
                fates.extend(match &written {
                    Ok(()) => attempt.message.settled(dedup, &claim, &record, conflict),
                    Err(verdict) => attempt.message.known(&claim, &record, verdict),
                });
            }
            for (claim, record, conflict) in waiting {
                fates.extend(match self.wait(token, &record, deadline).await {
                    Ok(landing) => attempt.message.landed(dedup, &claim, &record, &landing, conflict),
                    Err(verdict) => attempt.message.known(&claim, &record, &verdict),
                });
            }
            fates
        };
        let (sent, waited) = tokio::join!(attempt.claimed(held, beside), wait);
        fates.extend(sent);
        fates.extend(waited);
        fates.sort_by_key(|fate| fate.index);
        fates
    }

    /// Waits for the flight of `record` and takes its outcome, whatever it is:
    /// a refusing or throttling upstream is not asked a second time. Where a
    /// newer attempt at the same e-mail has begun meanwhile, waits for that.
    /// Without a landing, the verdict.
    async fn wait(&self, token: Token, record: &Record, deadline: Instant) -> Result<Landing, Verdict> {
        let mut holder = record.state.holder();
        while let Some(expected) = holder {
            let mut flight = self.flights.subscribe(record.id, expected);
            let now = match self.store.get(record.id, self.now()).await {
                // Taken over by another text: its outcome says nothing of ours.
                Ok(now) => now.filter(|now| now.fingerprint == record.fingerprint),
                Err(fault) => {
                    tracing::warn!(%fault, "a record can't be read");
                    return Err(Verdict::fresh(DecisionOutcome::StoreFailure, store_reply()));
                }
            };
            let Some(now) = now else { break };
            // Taken over, and under way still: its end will be told.
            let is_overtaken =
                record.state == State::Committing { holder: expected } && now.attempts == record.attempts;
            if let Some(landing) = landing_of(&now).filter(|_| !is_overtaken) {
                self.written(token).await?;
                return Ok(landing);
            }
            holder = now.state.holder();
            if is_overtaken || holder == Some(expected) {
                let landing = timeout_at(deadline, flight.landed()).await.ok().flatten();
                return landing.ok_or_else(Verdict::still_in_flight);
            }
        }
        Err(Verdict::still_in_flight())
    }

    /// Waits until what the store has shown is on stable storage.
    async fn written(&self, token: Token) -> Result<(), Verdict> {
        if planted::is(Bug::DuplicateBeforeDurable) {
            return Ok(());
        }
        self.store.commit(token, Vec::new(), self.now()).await.map_err(|fault| {
            tracing::warn!(%fault, "a duplicate can't be answered");
            Verdict::fresh(DecisionOutcome::StoreFailure, store_reply())
        })
    }
}

/// The record of an attempt whose claim the message took over `at` this time, though
/// it may have been sent. A doubt of before was told when it came.
fn taken_over(answer: &Claimed, at: Timestamp) -> Option<&Record> {
    let Claimed::New { previous: Some(record) } = answer else { return None };
    let is_doubt = matches!(record.state, State::Settled(Outcome::InDoubt(_)));
    let last = record.attempts.last()?;
    (is_doubt && last.kind == AttemptKind::TakenOver && last.at == at).then_some(record)
}

fn landing_of(record: &Record) -> Option<Landing> {
    match &record.state {
        State::Settled(outcome) => {
            let at = record.settled_at.unwrap_or(record.last_seen);
            Some(Landing { outcome: outcome.clone(), at, marks: record.marks.clone(), tried: None })
        }
        _ => None,
    }
}

/// What the client hears when nothing can be claimed.
fn store_reply() -> Reply {
    Reply::new(451, "4.3.0 [STORE] the claim store is not available, try again")
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nothing that is text")
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_said_is_told() {
        for (panic, told) in [
            (Box::new("plain") as Box<dyn Any + Send>, "plain"),
            (Box::new(String::from("formatted")), "formatted"),
            (Box::new(7), "nothing that is text"),
        ] {
            assert_eq!(said(&*panic), told);
        }
    }
}
