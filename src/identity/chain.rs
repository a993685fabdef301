//! The strategies, and the order in which they are tried.

use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{FieldFault, IdentityFault, append, usable};
use crate::config::{Dedup, FieldRef, Strategy};
use crate::message::{Headers, json};
use crate::store::Fingerprint;
use crate::store::record::hex;

/// What one strategy finds in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A key, by the field or fields that are named.
    Key {
        /// The key.
        value: String,
        /// What it was made of, for people.
        made_of: Vec<(String, String)>,
    },
    /// None, and why.
    Nothing(Absence),
}

/// Why a strategy yields no key. Says it in words that follow the strategy's
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// None of the configured key fields is present.
    NoKeyField(Vec<String>),
    /// No event field is present; a template alone is too broad.
    NoEvent {
        /// The event fields that were looked for.
        looked_for: Vec<String>,
        /// A template field that is there all the same.
        template: Option<String>,
    },
    /// There is no Message-ID, or none of a sane length.
    NoMessageId,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absence::NoKeyField(names) => write!(f, "no {} field", names.join(", ")),
            Absence::NoEvent { looked_for, template } => {
                write!(f, "no {}", looked_for.join(", "))?;
                match template {
                    Some(template) => write!(
                        f,
                        " (there is {template}, but a template alone is too broad: a second password reset is a new e-mail)"
                    ),
                    None => Ok(()),
                }
            }
            Absence::NoMessageId => f.write_str("no Message-ID field that could be used"),
        }
    }
}

/// The longest Message-ID that is taken, in octets.
const MAX_MESSAGE_ID: usize = 998;

/// The key of the first strategy that yields one.
pub(super) fn walk(
    dedup: &Dedup,
    headers: &Headers,
    fingerprint: &Fingerprint,
) -> Result<Option<(Strategy, String)>, IdentityFault> {
    for strategy in &dedup.chain {
        let key = match strategy {
            Strategy::Header => header_key(&dedup.headers, headers)?.map(|(_, value)| value),
            Strategy::Event => event_key(&Event::of(dedup, headers)),
            Strategy::Content => Some(fingerprint.to_string()),
            Strategy::MessageId => message_id(headers),
        };
        if let Some(key) = key {
            return Ok(Some((*strategy, key)));
        }
    }
    Ok(None)
}

/// The key without its window, for rules that match on it.
///
/// # Errors
/// [`IdentityFault::BadKey`] for a key field that is present but unusable.
pub fn key_alone(
    dedup: &Dedup,
    headers: &Headers,
    fingerprint: &Fingerprint,
) -> Result<Option<String>, IdentityFault> {
    Ok(walk(dedup, headers, fingerprint)?.map(|(_, key)| key))
}

/// What one strategy finds, with its reasons.
///
/// # Errors
/// [`IdentityFault::BadKey`] for a key field that is present but unusable.
pub fn explain(
    strategy: Strategy,
    dedup: &Dedup,
    headers: &Headers,
    fingerprint: &Fingerprint,
) -> Result<Finding, IdentityFault> {
    let key = |value: String, made_of| Finding::Key { value, made_of };
    Ok(match strategy {
        Strategy::Header => match header_key(&dedup.headers, headers)? {
            Some((name, value)) => key(value.clone(), vec![(name.to_owned(), value)]),
            None => Finding::Nothing(Absence::NoKeyField(dedup.headers.clone())),
        },
        Strategy::Event => {
            let event = Event::of(dedup, headers);
            match event_key(&event) {
                Some(value) => key(value, event.named()),
                None => Finding::Nothing(Absence::NoEvent {
                    looked_for: dedup.event_headers.iter().map(ToString::to_string).collect(),
                    template: event.templates.first().map(|(field, _)| field.to_string()),
                }),
            }
        }
        Strategy::Content => key(fingerprint.to_string(), Vec::new()),
        Strategy::MessageId => match message_id(headers) {
            Some(value) => key(value.clone(), vec![("Message-ID".to_owned(), value)]),
            None => Finding::Nothing(Absence::NoMessageId),
        },
    })
}

/// The value of the first configured field that is present, and its name.
fn header_key<'n>(
    names: &'n [String],
    headers: &Headers,
) -> Result<Option<(&'n str, String)>, IdentityFault> {
    for name in names {
        let bad = |why| IdentityFault::BadKey { field: name.clone(), why };
        let mut values = headers.values(name);
        let Some(value) = values.next() else { continue };
        if values.any(|other| other != value) {
            return Err(bad(FieldFault::Ambiguous));
        }
        return usable(value).map(|value| Some((name.as_str(), value))).map_err(bad);
    }
    Ok(None)
}

fn message_id(headers: &Headers) -> Option<String> {
    headers.first("message-id").filter(|id| !id.is_empty() && id.len() <= MAX_MESSAGE_ID)
}

/// The template and event fields of a message, in the configured order.
struct Event<'d> {
    templates: Vec<(&'d FieldRef, String)>,
    events: Vec<(&'d FieldRef, String)>,
}

impl<'d> Event<'d> {
    fn of(dedup: &'d Dedup, headers: &Headers) -> Self {
        let present = |fields: &'d [FieldRef]| {
            let values = |field: &'d FieldRef| values_of(field, headers).map(move |value| (field, value));
            fields.iter().flat_map(values).collect()
        };
        Self { templates: present(&dedup.template_headers), events: present(&dedup.event_headers) }
    }

    fn named(self) -> Vec<(String, String)> {
        self.templates
            .into_iter()
            .chain(self.events)
            .map(|(field, value)| (field.to_string(), value))
            .collect()
    }
}

/// What a field says: nothing where it is empty, or where it has no such
/// member.
fn values_of<'a>(field: &'a FieldRef, headers: &'a Headers) -> impl Iterator<Item = String> + 'a {
    let said = |value: String| match &field.pointer {
        None => Some(value),
        Some(pointer) => member(&value, pointer),
    };
    headers.values(&field.name).filter_map(said).filter(|value| !value.is_empty())
}

/// A member of JSON, in one form for all its spellings: text as it is,
/// anything else with the members in order and without blanks. Where a number
/// in it would not survive that, all of the JSON as it stands.
fn member(text: &str, pointer: &str) -> Option<String> {
    let json: Value = serde_json::from_str(text).ok()?;
    match json.pointer(pointer)? {
        member if !json::is_exact(member) => Some(text.to_owned()),
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => None,
        Value::Object(members) if members.is_empty() => None,
        other => Some(other.to_string()),
    }
}

/// A hash over the template and event fields that are present. One event field
/// must be: a template and a recipient alone are too broad.
fn event_key(event: &Event<'_>) -> Option<String> {
    if event.events.is_empty() {
        return None;
    }
    Some(hex(&Sha256::digest(encoding(&event.templates, &event.events))))
}

/// Both lists with their lengths, and each text behind its own.
fn encoding(templates: &[(&FieldRef, String)], events: &[(&FieldRef, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append(&mut out, "mailonce event 1");
    for part in [templates, events] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        for (field, value) in part {
            append(&mut out, field.to_string().to_ascii_lowercase());
            append(&mut out, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::tests::{parse_count, parse_text, text};
    use super::*;

    fn headers(head: &str) -> Headers {
        Headers::parse(&Bytes::copy_from_slice(head.as_bytes())).unwrap()
    }

    fn key(head: &str) -> Option<String> {
        let dedup = Dedup { chain: vec![Strategy::Event], ..Dedup::default() };
        walk(&dedup, &headers(head), &Fingerprint([0; 32])).unwrap().map(|(_, key)| key)
    }

    #[test]
    fn a_template_alone_is_no_event() {
        assert_eq!(key("X-Template-Id: reset\r\nX-PM-Tag: reset\r\n"), None);
        assert_eq!(key("X-Template-Id: reset\r\nX-Event-Id: \r\n"), None, "nor is an empty event field");
        assert!(key("X-Event-Id: 7\r\n").is_some());
        assert_ne!(
            key("X-Event-Id: 7\r\nX-Template-Id: a\r\n"),
            key("X-Event-Id: 7\r\nX-Template-Id: b\r\n")
        );
        assert_eq!(key("x-event-ID:  7 \r\nTo: a\r\n"), key("To: b\r\nX-Event-Id: 7\r\n"));
    }

    #[test]
    fn members_of_json_count_in_whatever_form_they_are_written() {
        let api = |json: &str| key(&format!("X-SMTPAPI: {json}\r\n"));
        let one = api(r#"{"unique_args":{"event_id":{"a":"1","b":[2]}},"category":"x"}"#);
        assert!(one.is_some());
        let folded = "{\"category\":\"y\",\r\n \"unique_args\": {\"event_id\": {\"b\": [2], \"a\": \"1\"}}}";
        assert_eq!(one, api(folded));
        assert_ne!(one, api(r#"{"unique_args":{"event_id":{"a":"1","b":[3]}}}"#));
        for nothing in [r#"{}"#, r#"null"#, r#""""#, r#"[]"#] {
            assert_eq!(api(&format!("{{\"unique_args\":{{\"event_id\":{nothing}}}}}")), None, "{nothing}");
        }
        let long = |number: &str| api(&format!("{{\"unique_args\":{{\"event_id\":{number}}}}}"));
        assert_ne!(long("20251121055401123456789"), long("20251121055401123456790"));
        for nothing in [r#"{"unique_args":{"user":"7"}}"#, "{broken", ""] {
            assert_eq!(api(nothing), None, "{nothing}");
        }
        assert_eq!(key("X-MC-Metadata: {\"user_id\": 7}\r\n"), None, "free metadata is no event");
        assert!(key("X-MC-Metadata: {\"event_id\": 7}\r\n").is_some());
    }

    #[test]
    fn why_there_is_no_key_is_said() {
        let said = |strategy, head: &str| {
            let dedup = Dedup { headers: vec!["X-Key".into()], ..Dedup::default() };
            match explain(strategy, &dedup, &headers(head), &Fingerprint([0; 32])).unwrap() {
                Finding::Nothing(absence) => absence.to_string(),
                Finding::Key { value, made_of } => format!("{value} of {made_of:?}"),
            }
        };
        assert_eq!(said(Strategy::Header, ""), "no X-Key field");
        assert_eq!(said(Strategy::Header, "x-key: a\r\n"), "a of [(\"X-Key\", \"a\")]");
        let event = said(Strategy::Event, "X-Template-Id: t\r\n");
        assert!(
            event.starts_with("no X-Event-Id, ") && event.contains("(there is X-Template-Id, but"),
            "{event}"
        );
        assert_eq!(said(Strategy::MessageId, ""), "no Message-ID field that could be used");
    }

    /// What [`encoding`] was made of.
    fn decode(mut rest: &[u8]) -> [Vec<(String, String)>; 2] {
        assert_eq!(parse_text(&mut rest), "mailonce event 1");
        let lists = [(); 2].map(|()| {
            let fields = 0..parse_count(&mut rest);
            fields.map(|_| (parse_text(&mut rest), parse_text(&mut rest))).collect()
        });
        assert!(rest.is_empty());
        lists
    }

    proptest::proptest! {
        #[test]
        fn no_two_events_share_an_encoding(
            templates in proptest::collection::vec(text(), 0..3),
            events in proptest::collection::vec(text(), 1..3),
        ) {
            let field = FieldRef { name: "X".into(), pointer: None };
            let list = |values: &[String]| values.iter().map(|v| (&field, v.clone())).collect::<Vec<_>>();
            let [t, e] = decode(&encoding(&list(&templates), &list(&events)));
            let values = |list: Vec<(String, String)>| list.into_iter().map(|(_, v)| v).collect::<Vec<_>>();
            proptest::prop_assert_eq!((values(t), values(e)), (templates, events));
        }
    }
}
