//! The explanation for programs.

use serde_json::{Value, json};

use super::fate::Fate;
use super::mail::{Mail, Origin};
use super::reason::{Reasoning, Standing};
use super::tenant::NamedBy;
use super::text::{advice, left_out};
use crate::config::Mode;
use crate::config::values::format_duration;
use crate::identity::Tenant;
use crate::identity::chain::Finding;

/// Characters of an ingredient that are given.
const MOST: usize = 1000;

pub(super) fn one(mail: &Mail, reasoning: &Reasoning<'_>, fates: &[Fate], asked: &str) -> String {
    if let Some(reply) = &mail.refused {
        return json!({ "file": mail.name, "size": mail.content.len(), "refused": reply.to_string() })
            .to_string();
    }
    let (window, window_from) = match &reasoning.standing {
        Standing::Keyed { key, window_from } => (Some(format_duration(key.window)), Some(window_from)),
        Standing::Off | Standing::Bad(_) | Standing::Unkeyed => (None, None),
    };
    let refused = match (&reasoning.standing, reasoning.policy.mode) {
        (Standing::Bad(fault), Mode::Enforce) => Some(fault.reply().to_string()),
        _ => None,
    };
    let recipients = mail.envelope.recipients.iter().map(|recipient| recipient.path.as_str());
    let ingredients = reasoning.ingredients.list.iter().map(|ingredient| {
        json!({ "place": ingredient.place, "value": ingredient.value.chars().take(MOST).collect::<String>() })
    });
    json!({
        "file": mail.name,
        "size": mail.content.len(),
        "from": mail.envelope.reverse_path.as_str(),
        "from_is": origin(mail.sender_from),
        "recipients": recipients.collect::<Vec<_>>(),
        "recipients_are": origin(mail.recipients_from),
        "listener": reasoning.listener,
        "tenant": reasoning.whose.tenant.as_ref().ok().map(Tenant::name),
        "tenant_from": tenant_from(&reasoning.whose.by),
        "rule": reasoning.rule.map(|rule| &rule.name),
        "passed_over": reasoning.passed_over.iter().map(|(rule, unmet)| json!({ "rule": rule, "unmet": unmet })).collect::<Vec<_>>(),
        "mode": mode(reasoning.policy.mode),
        "refused": refused,
        "strategy": reasoning.key().map(|key| key.strategy.as_str()),
        "key": reasoning.key().map(|key| &key.value),
        "chain": chain(reasoning),
        "window": window,
        "window_from": window_from,
        "fingerprint": reasoning.fingerprint.to_string(),
        "read_as": reasoning.ingredients.manner.to_string(),
        "ingredients": ingredients.collect::<Vec<_>>(),
        "left_out": left_out(mail, reasoning),
        "asked": asked,
        "claims": claims(reasoning, fates),
        "advice": advice(mail, reasoning, fates),
    })
    .to_string()
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Options => "given",
        Origin::Headers => "from the header fields",
    }
}

fn tenant_from(from: &NamedBy) -> String {
    match from {
        NamedBy::Option => "given".to_owned(),
        NamedBy::Header(name) => format!("field {name}"),
        NamedBy::Listener => "listener".to_owned(),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
        Mode::Off => "off",
    }
}

fn chain(reasoning: &Reasoning<'_>) -> Vec<Value> {
    let step = |(strategy, found): &(crate::config::Strategy, Result<Finding, _>)| {
        let strategy = strategy.as_str();
        match found {
            Ok(Finding::Key { value, made_of }) => {
                let made_of = made_of.iter().map(|(field, value)| json!({ "field": field, "value": value }));
                json!({ "strategy": strategy, "key": value, "made_of": made_of.collect::<Vec<_>>() })
            }
            Ok(Finding::Nothing(absence)) => json!({ "strategy": strategy, "why_not": absence.to_string() }),
            Err(fault) => {
                let fault: &crate::identity::IdentityFault = fault;
                json!({ "strategy": strategy, "refused": fault.reply().to_string() })
            }
        }
    };
    reasoning.steps.iter().map(step).collect()
}

fn claims(reasoning: &Reasoning<'_>, fates: &[Fate]) -> Vec<Value> {
    let claim = |(number, claim): (usize, &super::reason::Claim)| {
        let fate = fates.get(number);
        json!({
            "id": claim.id.to_string(),
            "recipient": claim.recipient,
            "would_be": fate.map(|fate| fate.course.as_str()),
            "why": fate.map(|fate| &fate.text),
            "reply": fate.and_then(|fate| fate.reply.as_ref()),
        })
    };
    reasoning.claims.iter().enumerate().map(claim).collect()
}
