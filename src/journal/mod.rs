//! The journal: what was decided for each recipient, one line each.
//!
//! A [`Decision`] is one value; the log line is written from it, and whatever
//! else wants to know of decisions takes the same value.

pub use crate::escape;
mod format;
pub mod log;
mod queue;
mod redact;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tracing::Level;

use crate::clock::Timestamp;
use crate::config::Redact;
use crate::smtp::reply::Reply;
use crate::store::ClaimId;

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
}

impl DecisionOutcome {
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
        }
    }

    /// The level of its line: a warning where somebody should look.
    pub fn level(self) -> Level {
        match self {
            DecisionOutcome::InDoubt | DecisionOutcome::Conflict | DecisionOutcome::StoreFailure => {
                Level::WARN
            }
            _ => Level::INFO,
        }
    }
}

/// Where decisions go.
#[derive(Clone, Copy, Debug)]
pub struct Journal {
    redact: Redact,
}

/// The level of a tracing event is fixed where it stands, so there is one for
/// each level. Fields that are `None` are left out.
macro_rules! emit {
    ($level:expr, $decision:ident, $shown:ident) => {
        tracing::event!(
            target: "mailonce::journal",
            $level,
            timestamp = $decision.at.as_millis(),
            event = "message",
            session = some(&$decision.context.session),
            tenant = some(&$decision.context.tenant),
            listener = some(&$decision.context.listener),
            client = some(&$decision.context.client),
            from = &*$shown.from,
            to = &*$shown.to,
            outcome = $decision.outcome.as_str(),
            strategy = $decision.strategy,
            key = $shown.key.as_deref(),
            claim = $decision.claim.map(|claim| claim.short()).as_deref(),
            rule = $decision.rule.as_deref().and_then(some),
            reply = $shown.reply.as_deref(),
            upstream = $decision.upstream.as_deref().and_then(some),
            size = $decision.context.size,
            message_id = $shown.message_id.as_deref(),
            attempt = $decision.attempt,
            first_seen = $decision.first_seen.map(Timestamp::to_rfc3339).as_deref(),
            upstream_ms = $decision.upstream_ms,
            total_ms = $decision.total_ms,
        )
    };
}

impl Journal {
    /// A journal that hides what it is told to.
    pub fn new(redact: Redact) -> Self {
        Self { redact }
    }

    /// Writes a decision down. Never fails and never waits for a disk.
    pub fn record(&self, decision: &Decision) {
        let warning = decision.outcome.level() == Level::WARN;
        // Hiding costs hashes; spare them where nobody listens.
        let heard = match warning {
            true => tracing::enabled!(target: "mailonce::journal", Level::WARN),
            false => tracing::enabled!(target: "mailonce::journal", Level::INFO),
        };
        if !heard {
            return;
        }
        let shown = redact::shown(decision, self.redact);
        if warning {
            emit!(Level::WARN, decision, shown);
        } else {
            emit!(Level::INFO, decision, shown);
        }
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
