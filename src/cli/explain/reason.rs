//! What the proxy would find in an e-mail, step by step. Every decision is
//! made by the functions that the proxy uses; here they are only asked one by
//! one, and their reasons kept.

use std::time::Duration;

use super::Terms;
use super::mail::Mail;
use super::tenant::Whose;
use crate::config::values::format_duration;
use crate::config::{Config, Dedup, Mode, Rule, Scope, Strategy};
use crate::identity::chain::{self, Finding};
use crate::identity::rules::{self, Facts};
use crate::identity::{self, IdentityFault, Key, Tenant};
use crate::message::fingerprint::{self, Fingerprint, Ingredients};
use crate::smtp::address::Path;
use crate::store::ClaimId;

/// What was found, and why.
#[derive(Debug)]
pub(super) struct Reasoning<'c> {
    pub(super) listener: &'c str,
    /// The rules in front of the one that matched, each with the first
    /// condition that does not hold.
    pub(super) passed_over: Vec<(&'c str, String)>,
    pub(super) rule: Option<&'c Rule>,
    pub(super) policy: &'c Dedup,
    pub(super) whose: Whose,
    /// The strategies as far as they were tried.
    pub(super) steps: Vec<(Strategy, Result<Finding, IdentityFault>)>,
    pub(super) standing: Standing,
    pub(super) fingerprint: Fingerprint,
    pub(super) ingredients: Ingredients,
    /// One for each recipient, or one for all; none without a key.
    pub(super) claims: Vec<Claim>,
}

/// What follows for the whole e-mail.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Not deduplicated at all.
    Off,
    /// What should name it can't be used.
    Bad(IdentityFault),
    /// No strategy yields a key.
    Unkeyed,
    /// It has a key; `window_from` says who set the window.
    Keyed { key: Key, window_from: String },
}

/// One claim that it would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Empty where it covers the whole message.
    pub(super) recipient: String,
    pub(super) id: ClaimId,
    /// Where else it may be recorded: by an earlier version, or of a tenant of
    /// this name who was proven in another way.
    pub(super) others: Vec<ClaimId>,
}

impl Reasoning<'_> {
    pub(super) fn key(&self) -> Option<&Key> {
        match &self.standing {
            Standing::Keyed { key, .. } => Some(key),
            Standing::Off | Standing::Bad(_) | Standing::Unkeyed => None,
        }
    }
}

/// Finds everything in the order in which the proxy does.
pub(super) fn reason<'c>(config: &'c Config, mail: &Mail, terms: &Terms<'c>) -> Reasoning<'c> {
    let Mail { headers, content, envelope, .. } = mail;
    let listener = terms.listener.name.as_str();
    let whose = Whose::of(terms, headers);
    let base = match rules::ask_for_key(&config.rules) {
        true => {
            let print = fingerprint::fingerprint(content, &config.dedup.fingerprint_exclude);
            chain::key_alone(&config.dedup, headers, &print).ok().flatten()
        }
        false => None,
    };
    let facts = Facts::new(
        whose.tenant.as_ref().ok().map(Tenant::name),
        listener,
        envelope,
        headers,
        base.as_deref(),
    );
    let rule = rules::choose(&config.rules, &facts);
    let unmet = |rule: &'c Rule| Some((rule.name.as_str(), rules::first_unmet(&rule.matches, &facts)?));
    let passed_over = config.rules.iter().map_while(unmet).collect();
    let policy = rule.map_or(&config.dedup, |rule| &rule.dedup);
    let print = fingerprint::fingerprint(content, &policy.fingerprint_exclude);
    let standing = standing(config, rule, policy, &whose, mail, &print);
    let claims = claims(policy, &whose, &standing, mail);
    Reasoning {
        listener,
        passed_over,
        rule,
        policy,
        whose,
        steps: steps(policy, mail, &print),
        standing,
        fingerprint: print,
        ingredients: fingerprint::ingredients(content, &policy.fingerprint_exclude),
        claims,
    }
}

fn standing(
    config: &Config,
    rule: Option<&Rule>,
    policy: &Dedup,
    whose: &Whose,
    mail: &Mail,
    print: &Fingerprint,
) -> Standing {
    if policy.mode == Mode::Off {
        return Standing::Off;
    }
    if let Err(fault) = &whose.tenant {
        return Standing::Bad(fault.clone());
    }
    match identity::key_of(policy, &mail.headers, print) {
        Err(fault) => Standing::Bad(fault),
        Ok(None) => Standing::Unkeyed,
        Ok(Some(key)) => {
            let own = identity::own_window(&mail.headers).ok().flatten();
            let window_from = window_from(own, &key, config, rule, policy);
            Standing::Keyed { key, window_from }
        }
    }
}

/// Each strategy of the chain up to the one that yields a key or a fault.
fn steps(
    policy: &Dedup,
    mail: &Mail,
    print: &Fingerprint,
) -> Vec<(Strategy, Result<Finding, IdentityFault>)> {
    let mut steps = Vec::new();
    if policy.mode == Mode::Off {
        return steps;
    }
    for strategy in &policy.chain {
        let found = chain::explain(*strategy, policy, &mail.headers, print);
        let ends = !matches!(found, Ok(Finding::Nothing(_)));
        steps.push((*strategy, found));
        if ends {
            break;
        }
    }
    steps
}

fn window_from(
    own: Option<Duration>,
    key: &Key,
    config: &Config,
    rule: Option<&Rule>,
    policy: &Dedup,
) -> String {
    let (name, window, default) = match key.strategy {
        Strategy::Content => ("content_window", policy.content_window, config.dedup.content_window),
        Strategy::Header | Strategy::Event | Strategy::MessageId => {
            ("window", policy.window, config.dedup.window)
        }
    };
    let (from, asked) = match (own, rule) {
        (Some(own), _) => ("the field X-Idempotency-TTL".to_owned(), own),
        (None, Some(rule)) if window != default => (format!("the rule {:?}", rule.name), window),
        (None, _) => (format!("dedup.{name}"), window),
    };
    match asked > key.window {
        true => format!("{from}, which says {}, cut by dedup.max_window", format_duration(asked)),
        false => from,
    }
}

fn claims(policy: &Dedup, whose: &Whose, standing: &Standing, mail: &Mail) -> Vec<Claim> {
    let (Ok(tenant), Standing::Keyed { key, .. }) = (&whose.tenant, standing) else { return Vec::new() };
    let claim = |path: Option<&Path>| {
        let recipient = path.map(Path::identity);
        let id = |tenant: &Tenant| identity::claim_id(tenant, key, recipient.as_deref());
        let former = identity::former_ids(tenant, key, path);
        let others = former.into_iter().chain(whose.others.iter().map(id)).collect();
        Claim { id: id(tenant), others, recipient: recipient.unwrap_or_default() }
    };
    match policy.scope {
        Scope::Message => vec![claim(None)],
        Scope::Recipient => {
            let recipients = mail.envelope.recipients.iter();
            recipients.map(|recipient| claim(Some(&recipient.path))).collect()
        }
    }
}
