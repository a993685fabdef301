//! Which e-mail is this, and which policy holds for it?

use crate::config::{self, Exclude, Mode, Unkeyed};
use crate::identity::rules::{self, Facts};
use crate::identity::{self, IdentityFault, Key, Tenant};
use crate::journal::DecisionOutcome;
use crate::message::Content;
use crate::message::fingerprint::{Fingerprint, fingerprint};
use crate::smtp::reply::Reply;

use super::message::Message;
use super::{Heart, Services, Source};

/// Messages up to this size are fingerprinted where they are.
const SMALL: u64 = 64 * 1024;

/// Whose e-mail it is, what holds for it, and what to do with it.
#[derive(Debug)]
pub(super) struct Identity<'s> {
    /// The tenant's name; empty where it was not settled.
    pub(super) tenant: String,
    /// The rule that matched.
    pub(super) rule: Option<&'s str>,
    /// `[dedup]`, or the rule's form of it.
    pub(super) policy: &'s config::Dedup,
    pub(super) course: Course,
}

/// What is done with a message.
#[derive(Debug)]
pub(super) enum Course {
    /// It has a key: claim it for each recipient.
    Claim { tenant: Tenant, key: Key, fingerprint: Fingerprint },
    /// It is relayed without a claim; the log calls an acceptance so.
    Unclaimed(DecisionOutcome),
    /// It is refused before there was anything to claim.
    Refuse(DecisionOutcome, Reply),
}

impl<'s> Identity<'s> {
    /// Refused whoever sent it.
    pub(super) fn refused(policy: &'s config::Dedup, outcome: DecisionOutcome, reply: Reply) -> Self {
        Self { tenant: String::new(), rule: None, policy, course: Course::Refuse(outcome, reply) }
    }

    /// The key, where it has one.
    pub(super) fn key(&self) -> Option<&Key> {
        match &self.course {
            Course::Claim { key, .. } => Some(key),
            Course::Unclaimed(_) | Course::Refuse(..) => None,
        }
    }
}

impl Heart {
    /// Finds tenant, rule and key.
    pub(super) async fn identify<'s>(&self, services: &'s Services, message: &Message) -> Identity<'s> {
        let Source { user, tenant_header, listener, .. } = &message.source;
        let tenant = match user {
            Some(user) => Ok(user.clone()),
            None => identity::tenant_of(tenant_header.as_deref(), listener, &message.headers),
        };
        let base = match rules::ask_for_key(&services.rules) {
            true => self.base(&services.dedup, message).await,
            false => Base::default(),
        };
        let facts = Facts::new(
            tenant.as_ref().ok().map(Tenant::name),
            listener,
            &message.envelope,
            &message.headers,
            base.key.as_deref(),
        );
        let rule = rules::choose(&services.rules, &facts);
        let policy = rule.map_or(&services.dedup, |rule| &rule.dedup);
        let known =
            base.fingerprint.filter(|_| policy.fingerprint_exclude == services.dedup.fingerprint_exclude);
        let name = tenant.as_ref().map_or_else(|_| String::new(), |tenant| tenant.name().to_owned());
        let course = match (policy.mode, tenant) {
            (Mode::Off, _) => Course::Unclaimed(DecisionOutcome::Relayed),
            (mode, Err(fault)) => bad_key(mode, &fault),
            (_, Ok(tenant)) => self.course(policy, message, tenant, known).await,
        };
        Identity { tenant: name, rule: rule.map(|rule| rule.name.as_str()), policy, course }
    }

    /// What `[dedup]` alone makes of a message, for rules on the key.
    async fn base(&self, dedup: &config::Dedup, message: &Message) -> Base {
        let Ok(fingerprint) = self.fingerprint(&message.content, &dedup.fingerprint_exclude).await else {
            // It can't be read back; whoever comes to need it will say so.
            return Base::default();
        };
        let key = identity::chain::key_alone(dedup, &message.headers, &fingerprint).ok().flatten();
        Base { fingerprint: Some(fingerprint), key }
    }

    /// From the policy that holds and the fingerprint, where it is known
    /// already, to what to do.
    async fn course(
        &self,
        policy: &config::Dedup,
        message: &Message,
        tenant: Tenant,
        known: Option<Fingerprint>,
    ) -> Course {
        let fingerprint = match known {
            Some(known) => Ok(known),
            None => self.fingerprint(&message.content, &policy.fingerprint_exclude).await,
        };
        let fingerprint = match fingerprint {
            Ok(fingerprint) => fingerprint,
            Err(error) => {
                tracing::error!(%error, "a temporary file can't be read back");
                let reply = Reply::new(451, "4.3.0 the message could not be read back, try again");
                return Course::Refuse(DecisionOutcome::Rejected, reply);
            }
        };
        match identity::key_of(policy, &message.headers, &fingerprint) {
            Err(fault) => bad_key(policy.mode, &fault),
            Ok(Some(key)) => Course::Claim { tenant, key, fingerprint },
            Ok(None) => unkeyed(policy),
        }
    }

    async fn fingerprint(&self, content: &Content, exclude: &Exclude) -> std::io::Result<Fingerprint> {
        if content.is_in_memory() && content.len() <= SMALL {
            return Ok(fingerprint(content.head(), exclude));
        }
        self.large.fingerprint(content, exclude).await
    }
}

/// What a message is without its rule.
#[derive(Default)]
struct Base {
    fingerprint: Option<Fingerprint>,
    key: Option<String>,
}

fn bad_key(mode: Mode, fault: &IdentityFault) -> Course {
    match mode {
        Mode::Enforce => Course::Refuse(DecisionOutcome::BadKey, fault.reply()),
        Mode::Observe | Mode::Off => Course::Unclaimed(DecisionOutcome::ObservedBadKey),
    }
}

fn unkeyed(policy: &config::Dedup) -> Course {
    match (policy.unkeyed, policy.mode) {
        (Unkeyed::Reject, Mode::Enforce) => {
            let reply = Reply::new(550, "5.7.0 [UNKEYED] this message has no idempotency key");
            Course::Refuse(DecisionOutcome::Rejected, reply)
        }
        _ => Course::Unclaimed(DecisionOutcome::Unkeyed),
    }
}
