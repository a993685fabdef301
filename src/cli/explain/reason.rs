//! What the proxy would find in an e-mail, step by step. Every decision is
//! made by the functions that the proxy uses; here they are only asked one by
//! one, and their reasons kept.

use std::time::Duration;

use super::Terms;
use super::mail::Mail;
use crate::config::values::format_duration;
use crate::config::{Config, Dedup, Mode, Rule, Scope, Strategy};
use crate::identity::chain::{self, Finding};
use crate::identity::rules::{self, Facts};
use crate::identity::{self, IdentityFault, Key};
use crate::message::fingerprint::{self, Fingerprint, Ingredients};
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
    pub(super) tenant: Result<String, IdentityFault>,
    pub(super) tenant_from: TenantFrom,
    /// The strategies as far as they were tried.
    pub(super) steps: Vec<(Strategy, Result<Finding, IdentityFault>)>,
    pub(super) standing: Standing,
    pub(super) fingerprint: Fingerprint,
    pub(super) ingredients: Ingredients,
    /// One for each recipient, or one for all; none without a key.
    pub(super) claims: Vec<Claim>,
}

/// Who says whose e-mail it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TenantFrom {
    Option,
    Header(String),
    Listener,
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
    let field = terms.listener.tenant_header.as_deref();
    let tenant = match &terms.tenant {
        Some(tenant) => Ok(tenant.clone()),
        None => identity::tenant_of(field, listener, headers),
    };
    let tenant_from = match (&terms.tenant, field.filter(|field| headers.first(field).is_some())) {
        (Some(_), _) => TenantFrom::Option,
        (None, Some(field)) => TenantFrom::Header(field.to_owned()),
        (None, None) => TenantFrom::Listener,
    };
    let base = match rules::ask_for_key(&config.rules) {
        true => {
            let print = fingerprint::fingerprint(content, &config.dedup.fingerprint_exclude);
            chain::key_alone(&config.dedup, headers, &print).ok().flatten()
        }
        false => None,
    };
    let facts = Facts::new(tenant.as_deref().ok(), listener, envelope, headers, base.as_deref());
    let rule = rules::choose(&config.rules, &facts);
    let unmet = |rule: &'c Rule| Some((rule.name.as_str(), rules::first_unmet(&rule.matches, &facts)?));
    let passed_over = config.rules.iter().map_while(unmet).collect();
    let policy = rule.map_or(&config.dedup, |rule| &rule.dedup);
    let print = fingerprint::fingerprint(content, &policy.fingerprint_exclude);
    let standing = standing(config, rule, policy, &tenant, mail, &print);
    let claims = claims(policy, &tenant, &standing, mail);
    Reasoning {
        listener,
        passed_over,
        rule,
        policy,
        tenant,
        tenant_from,
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
    tenant: &Result<String, IdentityFault>,
    mail: &Mail,
    print: &Fingerprint,
) -> Standing {
    if policy.mode == Mode::Off {
        return Standing::Off;
    }
    if let Err(fault) = tenant {
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

fn claims(
    policy: &Dedup,
    tenant: &Result<String, IdentityFault>,
    standing: &Standing,
    mail: &Mail,
) -> Vec<Claim> {
    let (Ok(tenant), Standing::Keyed { key, .. }) = (tenant, standing) else { return Vec::new() };
    let id = |recipient: Option<&str>| identity::claim_id(tenant, key, recipient);
    match policy.scope {
        Scope::Message => vec![Claim { recipient: String::new(), id: id(None) }],
        Scope::Recipient => {
            let recipients = mail.envelope.recipients.iter().map(|recipient| recipient.path.identity());
            recipients.map(|recipient| Claim { id: id(Some(&recipient)), recipient }).collect()
        }
    }
}
