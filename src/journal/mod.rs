//! The journal: what was decided for each recipient, one line each.
//!
//! A [`Decision`] is one value, which feeds the log, the metrics, the figures
//! of `stats`, and everybody who follows decisions as they are made.

pub use crate::escape;
mod follow;
mod format;
pub mod log;
mod queue;
mod redact;
mod render;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tracing::Level;

use crate::clock::Timestamp;
use crate::config::Redact;
use crate::metrics::Metrics;
use crate::smtp::reply::Reply;
use crate::store::{ClaimId, Store, StoreFault};

use follow::Followers;
pub use follow::{Event, Follower, Lagged};
use render::Rendering;
use tally::Tallies;

/// What all recipients of a message share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Names the client's connection; empty for doubts found at start.
    pub session: String,
    /// Whose mail it is; empty where that was not settled yet.
    pub tenant: String,
    /// The listener's name.
    pub listener: String,
    /// The client's address.
    pub client: String,
    /// The reverse-path without brackets; empty for a bounce.
    pub from: String,
    /// Octets as received; unknown for a message that never was complete.
    pub size: Option<u64>,
    /// The Message-ID field.
    pub message_id: Option<String>,
}

/// What became of a message for one recipient, and why.
#[derive(Clone, Debug)]
pub struct Decision {
    /// When it was decided.
    pub at: Timestamp,
    /// What was decided.
    pub outcome: DecisionOutcome,
    /// What all recipients share.
    pub context: Arc<Context>,
    /// The forward-path without brackets.
    pub to: String,
    /// The strategy that yielded the key.
    pub strategy: Option<&'static str>,
    /// The key as given.
    pub key: Option<String>,
    /// The claim it is about.
    pub claim: Option<ClaimId>,
    /// The rule that matched.
    pub rule: Option<String>,
    /// The result for this recipient.
    pub reply: Option<Reply>,
    /// The upstream's address.
    pub upstream: Option<String>,
    /// Which attempt it was, counted from 1.
    pub attempt: Option<u64>,
    /// When the claim was first asked for.
    pub first_seen: Option<Timestamp>,
    /// How long the upstream took.
    pub upstream_ms: Option<u64>,
    /// How long the client waited since the end of data.
    pub total_ms: Option<u64>,
    /// Whether the client was still there for the reply; unknown for a message
    /// that never was complete.
    pub heard: Option<bool>,
}

impl Decision {
    /// A decision of which nothing more is known yet.
    pub fn new(
        at: Timestamp,
        outcome: DecisionOutcome,
        context: Arc<Context>,
        to: impl Into<String>,
    ) -> Self {
        Self {
            at,
            outcome,
            context,
            to: to.into(),
            strategy: None,
            key: None,
            claim: None,
            rule: None,
            reply: None,
            upstream: None,
            attempt: None,
            first_seen: None,
            upstream_ms: None,
            total_ms: None,
            heard: None,
        }
    }
}

/// What was decided for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecisionOutcome {
    /// Sent, and accepted by the upstream.
    Relayed,
    /// Answered from the store, or from the flight it waited for.
    Duplicate,
    /// The same key with another content.
    Conflict,
    /// The attempt under way took longer than the wait.
    InFlightTimeout,
    /// 4yz, or the upstream can't be reached.
    Deferred,
    /// 5yz of the upstream.
    Refused,
    /// The upstream may or may not have it.
    InDoubt,
    /// Waits for an operator.
    Held,
    /// Relayed without a key.
    Unkeyed,
    /// Relayed although the store failed.
    Unclaimed,
    /// The key, tenant or lifetime that was given can't be used.
    BadKey,
    /// Refused by our own policy or limits.
    Rejected,
    /// The store failed, nothing was relayed.
    StoreFailure,
    /// The client left before the message was complete.
    Aborted,
    /// Relayed in observe mode; enforcing would have answered it as a
    /// duplicate.
    ObservedDuplicate,
    /// Relayed in observe mode; enforcing would have met a conflict.
    ObservedConflict,
    /// Relayed in observe mode; enforcing would have refused its key, tenant or
    /// lifetime.
    ObservedBadKey,
}

impl DecisionOutcome {
    /// Every outcome.
    pub const ALL: [Self; 17] = [
        Self::Relayed,
        Self::Duplicate,
        Self::Conflict,
        Self::InFlightTimeout,
        Self::Deferred,
        Self::Refused,
        Self::InDoubt,
        Self::Held,
        Self::Unkeyed,
        Self::ObservedDuplicate,
        Self::ObservedConflict,
        Self::ObservedBadKey,
        Self::Unclaimed,
        Self::BadKey,
        Self::Rejected,
        Self::StoreFailure,
        Self::Aborted,
    ];

    /// The outcome that [`Self::as_str`] writes so.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }

    /// As logs and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            DecisionOutcome::Relayed => "relayed",
            DecisionOutcome::Duplicate => "duplicate",
            DecisionOutcome::Conflict => "conflict",
            DecisionOutcome::InFlightTimeout => "in_flight_timeout",
            DecisionOutcome::Deferred => "deferred",
            DecisionOutcome::Refused => "refused",
            DecisionOutcome::InDoubt => "in_doubt",
            DecisionOutcome::Held => "held",
            DecisionOutcome::Unkeyed => "unkeyed",
            DecisionOutcome::Unclaimed => "unclaimed",
            DecisionOutcome::BadKey => "bad_key",
            DecisionOutcome::Rejected => "rejected",
            DecisionOutcome::StoreFailure => "store_failure",
            DecisionOutcome::Aborted => "aborted",
            DecisionOutcome::ObservedDuplicate => "observed_duplicate",
            DecisionOutcome::ObservedConflict => "observed_conflict",
            DecisionOutcome::ObservedBadKey => "observed_bad_key",
        }
    }

    /// The level of its line: a warning where somebody should look.
    pub fn level(self) -> Level {
        match self {
            DecisionOutcome::InDoubt
            | DecisionOutcome::Conflict
            | DecisionOutcome::ObservedConflict
            | DecisionOutcome::StoreFailure => Level::WARN,
            _ => Level::INFO,
        }
    }
}

/// What the events of decisions are known by among all events of the program.
const TARGET: &str = "mailonce::journal";

/// Where decisions go. Clones share everything.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    redact: Redact,
    metrics: Arc<Metrics>,
    tallies: Tallies,
    followers: Followers,
}

/// The level of a tracing event is fixed where it stands, so there is one for
/// each level.
macro_rules! emit {
    ($level:expr, $decision:ident, $rendering:ident) => {
        tracing::event!(
            target: TARGET,
            $level,
            timestamp = $decision.at.as_millis(),
            decision = ?$rendering,
        )
    };
}

impl Journal {
    /// A journal that hides what it is told to, in the log and from followers.
    pub fn new(redact: Redact, metrics: Arc<Metrics>) -> Self {
        for outcome in DecisionOutcome::ALL {
            metrics.expect_outcome(outcome.as_str());
        }
        let (tallies, followers) = (Tallies::default(), Followers::default());
        Self { shared: Arc::new(Shared { redact, metrics, tallies, followers }) }
    }

    /// Writes a decision down. Never fails and never waits, neither for a disk
    /// nor for a reader.
    pub fn record(&self, decision: &Decision) {
        let Shared { redact, metrics, tallies, followers } = &*self.shared;
        let rule = decision.rule.as_deref().unwrap_or_default();
        metrics.decided(decision.outcome.as_str(), decision.strategy.unwrap_or_default(), rule);
        tallies.add(decision);
        let warning = decision.outcome.level() == Level::WARN;
        let logged = match warning {
            true => tracing::enabled!(target: TARGET, Level::WARN),
            false => tracing::enabled!(target: TARGET, Level::INFO),
        };
        let followed = followers.any();
        // Hiding costs hashes; spare them where nobody listens.
        if !logged && !followed {
            return;
        }
        let rendering = Rendering::new(decision, *redact);
        match (logged, warning) {
            (false, _) => {}
            (true, true) => emit!(Level::WARN, decision, rendering),
            (true, false) => emit!(Level::INFO, decision, rendering),
        }
        if followed {
            followers.tell(rendering.event());
        }
    }

    /// Notes that a message was received whole.
    pub fn received(&self, octets: u64) {
        self.shared.metrics.received(octets);
    }

    /// Follows every decision from now on.
    pub fn follow(&self) -> Follower {
        self.shared.followers.join()
    }

    /// Adds what was decided so far to the counts of the store: whoever reads
    /// them afterwards sees all of it. Must run to its end: when it is dropped
    /// on the way, a part may be lost.
    ///
    /// # Errors
    /// What is wrong with the store; the counts are brought again with the next
    /// call.
    pub async fn flush(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreFault> {
        self.shared.tallies.flush(store, now).await
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
