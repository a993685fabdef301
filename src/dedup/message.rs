//! The message that is being decided on, and the claims and fates of its
//! recipients.

use crate::config::{Dedup, Scope};
use crate::identity::{self, Key, Tenant};
use crate::journal::DecisionOutcome;
use crate::message::{Content, Headers};
use crate::smtp::address::Path;
use crate::smtp::envelope::{Envelope, Recipient};
use crate::smtp::reply::Reply;
use crate::store::record::recipient_mark;
use crate::store::{Fingerprint, MAX_MARKS, Names, Record, Slot, WrittenField};

use super::Source;
use super::flights::Landing;
use super::held::Claim;
use super::identify::Identity;
use super::receipt::Stake;
use super::verdict::{Fate, Verdict};

/// A message that is being decided on.
#[derive(Debug)]
pub struct Message {
    pub(super) source: Source,
    /// Each recipient once.
    pub(super) envelope: Envelope,
    pub(super) headers: Headers,
    pub(super) content: Content,
    pub(super) eight_bit: bool,
}

impl Message {
    /// The claims it needs: one for each recipient, or one for all.
    pub(super) fn claims(
        &self,
        identity: &Identity<'_>,
        tenant: &Tenant,
        key: &Key,
        fingerprint: &Fingerprint,
    ) -> Vec<Claim> {
        let policy = identity.policy;
        let slot = |path: Option<&Path>, recipient: Option<String>| Slot {
            id: identity::claim_id(tenant, key, recipient.as_deref()),
            former: identity::former_ids(tenant, key, path),
            tenant: tenant.name().to_owned(),
            strategy: key.strategy.as_str().to_owned(),
            key: key.value.clone(),
            recipient: recipient.unwrap_or_default(),
            sender: self.envelope.reverse_path.as_str().to_owned(),
            rule: identity.rule.unwrap_or_default().to_owned(),
            client: self.source.client.to_string(),
            fingerprint: *fingerprint,
            marks: Vec::new(),
            names: Names {
                message_id: self.headers.written("message-id").and_then(WrittenField::new),
                date: self.headers.written("date").and_then(WrittenField::new),
            },
            size: self.content.len(),
            window: key.window,
            unheard_window: policy.unheard_window,
            on_conflict: policy.on_conflict,
            in_doubt: policy.in_doubt,
        };
        let recipients = self.envelope.recipients.iter().enumerate();
        match policy.scope {
            Scope::Message => {
                let mark =
                    |(i, recipient): (usize, &Recipient)| (i, recipient_mark(&recipient.path.identity()));
                let (recipients, marks) = recipients.map(mark).unzip();
                vec![Claim { slot: Slot { marks, ..slot(None, None) }, recipients }]
            }
            Scope::Recipient => recipients
                .map(|(i, recipient)| Claim {
                    slot: slot(Some(&recipient.path), Some(recipient.path.identity())),
                    recipients: vec![i],
                })
                .collect(),
        }
    }

    /// A fate with nothing but its result.
    pub(super) fn fate(&self, index: usize, result: Verdict) -> Fate {
        Fate {
            index,
            recipient: self.envelope.recipients[index].path.as_str().to_owned(),
            result,
            claim: None,
            upstream: None,
            attempt: None,
            first_seen: None,
            upstream_ms: None,
            stake: None,
        }
    }

    /// The same fate for every recipient.
    pub(super) fn everyone(&self, outcome: DecisionOutcome, reply: &Reply) -> Vec<Fate> {
        let fate = |index| self.fate(index, Verdict::fresh(outcome, reply.clone()));
        (0..self.envelope.recipients.len()).map(fate).collect()
    }

    /// The fates of those whose claim would be one too many for the tenant.
    pub(super) fn over_cap(&self, claim: &Claim) -> Vec<Fate> {
        let reply =
            Reply::new(452, "4.3.1 [QUOTA] this tenant has as many live claims as it may; try again later");
        let verdict = Verdict::fresh(DecisionOutcome::Rejected, reply);
        claim.recipients.iter().map(|index| self.fate(*index, verdict.clone())).collect()
    }

    /// The fates of a message whose recipients are more than one claim's record
    /// can tell apart. They will be as many next time: the sender must know.
    pub(super) fn too_many(&self, claim: &Claim) -> Vec<Fate> {
        let text = format!(
            "5.5.3 [QUOTA] one claim for a whole message covers at most {MAX_MARKS} recipients; use another key, \
             or a claim for each recipient"
        );
        let verdict = Verdict::fresh(DecisionOutcome::Rejected, Reply::new(554, text));
        claim.recipients.iter().map(|index| self.fate(*index, verdict.clone())).collect()
    }

    /// The fates of those who waited for a flight of their claim. One claim for
    /// a whole message may have been held for some of its recipients alone:
    /// what became of those says nothing of one that has it from an earlier
    /// flight, or still lacks it.
    pub(super) fn landed(
        &self,
        dedup: &Dedup,
        claim: &Claim,
        record: &Record,
        landing: &Landing,
        conflict: bool,
    ) -> Vec<Fate> {
        let mut fates = self.known(claim, record, &Verdict::of_landing(dedup, landing, conflict));
        for fate in &mut fates {
            let own =
                claim.mark(fate.index).and_then(|mark| Verdict::of_share(dedup, landing, mark, conflict));
            fate.result = own.unwrap_or_else(|| fate.result.clone());
            fate.stake = Some(Stake::waited(record, landing));
        }
        fates
    }

    /// The fates of those whose claim is settled.
    pub(super) fn settled(&self, dedup: &Dedup, claim: &Claim, record: &Record, conflict: bool) -> Vec<Fate> {
        let mut fates = self.known(claim, record, &Verdict::of_record(dedup, record, conflict));
        for fate in &mut fates {
            let own =
                claim.mark(fate.index).and_then(|mark| Verdict::of_recipient(dedup, record, mark, conflict));
            fate.result = own.unwrap_or_else(|| fate.result.clone());
        }
        fates
    }

    /// The fates of those whose claim is known already.
    pub(super) fn known(&self, claim: &Claim, record: &Record, verdict: &Verdict) -> Vec<Fate> {
        let fate = |index: &usize| Fate {
            claim: Some(record.id),
            upstream: (!record.upstream.is_empty()).then(|| record.upstream.clone()),
            first_seen: Some(record.first_seen),
            stake: Some(Stake::answered(record)),
            ..self.fate(*index, verdict.clone())
        };
        claim.recipients.iter().map(fate).collect()
    }
}
