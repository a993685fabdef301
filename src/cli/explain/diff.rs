//! Do two e-mails count as the same?

use serde_json::json;

use super::mail::Mail;
use super::reason::{Claim, Reasoning, Standing};
use crate::config::{OnConflict, Strategy};
use crate::escape::for_terminal;
use crate::identity::{Key, Tenant};
use crate::message::fingerprint::{Difference, first_difference};

/// What the comparison came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) sameness: Sameness,
    /// Says it, and what follows.
    pub(super) text: String,
    /// The first thing that differs.
    pub(super) difference: Option<Difference>,
}

/// Whether two e-mails count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sameness {
    /// One is sent, the other suppressed.
    Same,
    /// For some of the recipients.
    Partly,
    /// Both are sent.
    Different,
    /// They have one key and two contents.
    Conflict,
    /// One of them is refused, or not deduplicated.
    Neither,
}

impl Sameness {
    fn as_str(self) -> &'static str {
        match self {
            Sameness::Same => "same",
            Sameness::Partly => "partly",
            Sameness::Different => "different",
            Sameness::Conflict => "conflict",
            Sameness::Neither => "not compared",
        }
    }
}

impl Compared {
    fn new(sameness: Sameness, text: impl Into<String>) -> Self {
        Self { sameness, text: text.into(), difference: None }
    }

    fn differing(sameness: Sameness, text: String, place: &str, first: &str, second: &str) -> Self {
        let (first, second) = (Some(first.to_owned()), Some(second.to_owned()));
        let difference = Some(Difference { place: place.to_owned(), first, second });
        Self { sameness, text, difference }
    }

    pub(super) fn to_text(&self) -> String {
        let mut out = for_terminal(&self.text).into_owned();
        if let Some(Difference { place, first, second }) = &self.difference {
            let side = |text: &Option<String>| {
                text.as_deref().map_or("(nothing there)".to_owned(), |t| for_terminal(t).into_owned())
            };
            out += &format!(
                "\n\nThe first thing that differs: {}\n  first   {}\n  second  {}",
                for_terminal(place),
                side(first),
                side(second)
            );
        }
        out
    }

    pub(super) fn to_json(&self) -> String {
        let difference = self.difference.as_ref().map(|difference| {
            json!({ "place": difference.place, "first": difference.first, "second": difference.second })
        });
        json!({ "verdict": self.sameness.as_str(), "text": self.text, "difference": difference }).to_string()
    }
}

/// Compares as the policy does: tenant and key first, then recipients, then
/// what the key stands for.
pub(super) fn compare(mail: &Mail, one: &Reasoning<'_>, second: &Mail, other: &Reasoning<'_>) -> Compared {
    if let Some(verdict) =
        [(mail, one), (second, other)].into_iter().find_map(|(mail, one)| excluded(mail, one))
    {
        return verdict;
    }
    let (Some(key), Some(their_key)) = (one.key(), other.key()) else {
        return unkeyed(one, other);
    };
    keys_differ(one, key, other, their_key)
        .unwrap_or_else(|| under_one_key(key.strategy.as_str(), one, other))
}

/// What keeps the two apart before recipients and content come in.
fn keys_differ(one: &Reasoning<'_>, key: &Key, other: &Reasoning<'_>, their_key: &Key) -> Option<Compared> {
    let different = |text: String, place: &str, first: &str, second: &str| {
        Some(Compared::differing(Sameness::Different, text, place, first, second))
    };
    let (tenant, theirs) = (&one.whose.tenant, &other.whose.tenant);
    if tenant != theirs {
        let shown = |tenant: &Result<Tenant, _>| match tenant {
            Ok(tenant) => format!("{} ({:?})", tenant.name(), tenant.proof()),
            Err(_) => String::new(),
        };
        let text = "two different e-mails: two tenants never share a claim".to_owned();
        return different(text, "tenant", &shown(tenant), &shown(theirs));
    }
    let (by, they_by) = (key.strategy.as_str(), their_key.strategy.as_str());
    if by != they_by {
        let text = format!("two different e-mails: the first has a key by {by}, the second by {they_by}");
        return different(text, "strategy", by, they_by);
    }
    if key.value == their_key.value {
        return None;
    }
    let text = format!("two different e-mails: their keys by {by} differ");
    Some(match key.strategy {
        Strategy::Content => {
            let difference = first_difference(&one.ingredients, &other.ingredients);
            Compared { sameness: Sameness::Different, text, difference }
        }
        Strategy::Header | Strategy::Event | Strategy::MessageId => keys_apart(text, one, other),
    })
}

/// Two with one key: who they are for, then what they say.
fn under_one_key(by: &str, one: &Reasoning<'_>, other: &Reasoning<'_>) -> Compared {
    let (shared, alone) = shared(one, other);
    if shared.is_empty() {
        let text = format!("two different e-mails: the same key by {by}, but no recipient in common");
        let (ours, theirs) = (names(one.claims.iter()), names(other.claims.iter()));
        return Compared::differing(Sameness::Different, text, "recipients", &ours, &theirs);
    }
    if one.fingerprint != other.fingerprint {
        let (sameness, follows) = match other.policy.on_conflict {
            OnConflict::Reject => (
                Sameness::Conflict,
                "a conflict: the second is refused with [CONFLICT], for on_conflict is reject",
            ),
            OnConflict::Suppress => (
                Sameness::Same,
                "the same e-mail, for on_conflict is suppress: the second is suppressed though its content differs",
            ),
            OnConflict::Relay => {
                (Sameness::Conflict, "a conflict: the second is relayed as well, for on_conflict is relay")
            }
        };
        let text = format!("{follows}. Both have the same key by {by}, and another content");
        return Compared {
            sameness,
            text,
            difference: first_difference(&one.ingredients, &other.ingredients),
        };
    }
    if alone.is_empty() {
        let text = format!("the same e-mail: the same key by {by}, and the same fingerprint");
        return Compared::new(Sameness::Same, text);
    }
    let (shared, alone) = (names(shared.into_iter()), names(alone.into_iter()));
    let text = format!("the same e-mail for {shared}; only one of the two goes to {alone}");
    Compared::new(Sameness::Partly, text)
}

/// One that never comes to have a claim.
fn excluded(mail: &Mail, reasoning: &Reasoning<'_>) -> Option<Compared> {
    let name = &mail.name;
    let text = match (&mail.refused, &reasoning.standing) {
        (Some(reply), _) => format!("{name} is refused: {reply}"),
        (None, Standing::Bad(fault)) => format!("{name} is refused: {}", fault.reply()),
        (None, Standing::Off) => format!("{name} is not deduplicated: mode is off"),
        (None, Standing::Unkeyed | Standing::Keyed { .. }) => return None,
    };
    Some(Compared::new(Sameness::Neither, text))
}

fn unkeyed(one: &Reasoning<'_>, other: &Reasoning<'_>) -> Compared {
    let which = match (one.key(), other.key()) {
        (None, None) => "neither has a key",
        (None, _) => "the first has no key",
        (Some(_), _) => "the second has no key",
    };
    Compared::new(
        Sameness::Different,
        format!("two different e-mails: {which}, and what has none is never suppressed"),
    )
}

/// Names the first field by which two keys differ.
fn keys_apart(text: String, one: &Reasoning<'_>, other: &Reasoning<'_>) -> Compared {
    let made_of = |reasoning: &Reasoning<'_>| match reasoning.steps.last() {
        Some((_, Ok(crate::identity::chain::Finding::Key { made_of, .. }))) => made_of.clone(),
        _ => Vec::new(),
    };
    let (ours, theirs) = (made_of(one), made_of(other));
    let length = ours.len().max(theirs.len());
    let pair = (0..length).map(|at| (ours.get(at), theirs.get(at))).find(|(one, other)| one != other);
    let Some((one, other)) = pair else { return Compared::new(Sameness::Different, text) };
    let place = one.or(other).map(|(name, _)| name.clone()).unwrap_or_default();
    let shown = |field: Option<&(String, String)>| {
        field.map(|(name, value)| if *name == place { value.clone() } else { format!("{name}: {value}") })
    };
    let difference = Difference { first: shown(one), second: shown(other), place };
    Compared { sameness: Sameness::Different, text, difference: Some(difference) }
}

/// The claims that both make, and those that only one does.
fn shared<'a>(one: &'a Reasoning<'_>, other: &'a Reasoning<'_>) -> (Vec<&'a Claim>, Vec<&'a Claim>) {
    let (shared, mut alone): (Vec<_>, Vec<_>) =
        one.claims.iter().partition(|claim| other.claims.contains(claim));
    alone.extend(other.claims.iter().filter(|claim| !one.claims.contains(claim)));
    (shared, alone)
}

fn names<'a>(claims: impl Iterator<Item = &'a Claim>) -> String {
    let name =
        |claim: &'a Claim| if claim.recipient.is_empty() { "the whole message" } else { &claim.recipient };
    let names: Vec<&str> = claims.map(name).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}
