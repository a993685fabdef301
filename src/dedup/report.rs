//! What the heart writes into the journal.

use std::sync::Arc;

use tokio::time::Instant;

use crate::journal::{Context, Decision, DecisionOutcome};
use crate::smtp::envelope::Envelope;
use crate::smtp::session::Rejection;
use crate::store::Record;

use super::identify::Identity;
use super::message::Message;
use super::verdict::Fate;
use super::{Heart, Source, millis};

impl Heart {
    /// Writes down what the session refused on its own.
    pub fn rejected(&self, source: &Source, rejection: &Rejection) {
        let context = Arc::new(Context {
            session: source.session.clone(),
            tenant: source.listener.clone(),
            listener: source.listener.clone(),
            client: source.client.to_string(),
            from: rejection.from.clone().unwrap_or_default(),
            size: None,
            message_id: None,
        });
        let to = rejection.to.clone().unwrap_or_default();
        let mut decision = Decision::new(self.now(), DecisionOutcome::Rejected, context, to);
        decision.reply = Some(rejection.reply.clone());
        self.journal.record(&decision);
    }

    /// Writes down that a client left before its message was complete.
    pub fn aborted(&self, source: &Source, envelope: &Envelope, octets: u64) {
        let context = Arc::new(context(source, &source.listener, envelope, octets, None));
        for recipient in &envelope.recipients {
            let to = recipient.path.as_str().to_owned();
            self.journal.record(&Decision::new(self.now(), DecisionOutcome::Aborted, context.clone(), to));
        }
    }

    /// Writes down a doubt that was found at start, or when a claim was taken
    /// over.
    pub fn found_in_doubt(&self, record: &Record) {
        let context = Arc::new(Context {
            session: String::new(),
            tenant: record.tenant.clone(),
            listener: String::new(),
            client: String::new(),
            from: record.sender.clone(),
            size: Some(record.size),
            message_id: record.message_id(),
        });
        let mut decision =
            Decision::new(self.now(), DecisionOutcome::InDoubt, context, record.recipient.clone());
        decision.key = Some(record.key.clone());
        decision.claim = Some(record.id);
        decision.rule = Some(record.rule.clone());
        decision.first_seen = Some(record.first_seen);
        decision.upstream = (!record.upstream.is_empty()).then(|| record.upstream.clone());
        self.journal.record(&decision);
    }

    /// One line for each recipient, to be written with whether the client
    /// received the reply.
    pub(super) fn conclude(
        &self,
        message: &Message,
        identity: &Identity<'_>,
        fates: &[Fate],
        started: Instant,
    ) -> Vec<Decision> {
        let Message { source, envelope, content, headers, .. } = message;
        self.journal.received(content.len());
        let message_id = headers.first("message-id");
        let context = Arc::new(context(source, &identity.tenant, envelope, content.len(), message_id));
        let key = identity.key();
        let decision = |fate: &Fate| {
            let outcome = fate.result.outcome;
            let mut decision = Decision::new(self.now(), outcome, context.clone(), fate.recipient.clone());
            decision.strategy = key.map(|key| key.strategy.as_str());
            decision.key = key.map(|key| key.value.clone());
            decision.claim = fate.claim;
            decision.rule = identity.rule.map(str::to_owned);
            decision.reply = Some(fate.result.reply.clone());
            decision.upstream = fate.upstream.clone();
            decision.attempt = fate.attempt;
            decision.first_seen = fate.first_seen;
            decision.upstream_ms = fate.upstream_ms;
            decision.total_ms = Some(millis(started));
            decision
        };
        fates.iter().map(decision).collect()
    }
}

fn context(
    source: &Source,
    tenant: &str,
    envelope: &Envelope,
    size: u64,
    message_id: Option<String>,
) -> Context {
    Context {
        session: source.session.clone(),
        tenant: tenant.to_owned(),
        listener: source.listener.clone(),
        client: source.client.to_string(),
        from: envelope.reverse_path.as_str().to_owned(),
        size: Some(size),
        message_id,
    }
}
