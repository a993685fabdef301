//! A decision as its line shows it: the one place that says which fields there
//! are, for the log and for followers alike.

use std::fmt;

use super::follow::Event;
use super::format::{Fields, json_object};
use super::redact::{self, Shown};
use super::{Decision, some};
use crate::clock::Timestamp;
use crate::config::Redact;

/// A decision with what is to be hidden hidden.
///
/// It travels through the log as one value, whose `{:?}` is its fields as
/// members of a JSON object, and whose `{:#?}` is its fields as text: what a
/// follower hears can't differ from what is logged.
pub(super) struct Rendering<'a> {
    decision: &'a Decision,
    shown: Shown<'a>,
}

impl<'a> Rendering<'a> {
    pub(super) fn new(decision: &'a Decision, redact: Redact) -> Self {
        Self { decision, shown: redact::shown(decision, redact) }
    }

    /// The same for a follower.
    pub(super) fn event(&self) -> Event {
        let Decision { at, outcome, context, to, .. } = self.decision;
        let json = json_object(*at, outcome.level(), None, &self.fields(true));
        Event { outcome: *outcome, tenant: context.tenant.clone(), to: to.clone(), json }
    }

    fn fields(&self, json: bool) -> Fields {
        let Self { decision, shown } = self;
        let context = &decision.context;
        let mut fields = Fields::new(json);
        fields.text("event", Some("message"));
        fields.text("session", some(&context.session));
        fields.text("tenant", some(&context.tenant));
        fields.text("listener", some(&context.listener));
        fields.text("client", some(&context.client));
        fields.text("from", Some(&shown.from));
        fields.text("to", Some(&shown.to));
        fields.text("outcome", Some(decision.outcome.as_str()));
        fields.text("strategy", decision.strategy);
        fields.text("key", shown.key.as_deref());
        fields.text("claim", decision.claim.map(|claim| claim.short()).as_deref());
        fields.text("rule", decision.rule.as_deref().and_then(some));
        fields.text("reply", shown.reply.as_deref());
        fields.text("upstream", decision.upstream.as_deref().and_then(some));
        fields.plain("size", context.size);
        fields.text("message_id", shown.message_id.as_deref());
        fields.plain("attempt", decision.attempt);
        fields.text("first_seen", decision.first_seen.map(Timestamp::to_rfc3339).as_deref());
        fields.plain("upstream_ms", decision.upstream_ms);
        fields.plain("total_ms", decision.total_ms);
        fields.plain("heard", decision.heard);
        fields
    }
}

impl fmt::Debug for Rendering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fields(!f.alternate()).text)
    }
}
