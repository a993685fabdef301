//! Fields from which a provider renders the mail. Where an application sends
//! through a provider's template, what a reader sees is not in the body but
//! here, and without these two password resets would look the same.
//!
//! The names are those that the providers document: Mailchimp Transactional
//! (Mandrill), "How to Use SMTP Headers to Customize Your Messages"; Mailjet,
//! "Using template with SMTP" and "Custom headers"; Mailgun, "Pass Sending
//! Options", "Templates" and "Batch Sending"; SendGrid, "Building an X-SMTPAPI
//! Header" and "Sending a Legacy Transactional Template Email over SMTP".

use std::borrow::Cow;

use serde_json::Value;

use super::field::Section;
use crate::message::{decode, json};

/// What is in a field.
#[derive(Clone, Copy)]
enum Kind {
    /// A name or a number.
    Plain,
    /// Variables as JSON.
    Json,
    /// Variables as JSON, but mere notes for the sender where the field of
    /// this name is not there as well.
    JsonBeside(&'static str),
    /// SendGrid's instructions, of which some change what is seen and by whom.
    Instructions,
}

const FIELDS: [(&str, Kind); 10] = [
    ("x-mailgun-recipient-variables", Kind::Json),
    ("x-mailgun-template-name", Kind::Plain),
    ("x-mailgun-template-variables", Kind::Json),
    ("x-mailgun-template-version", Kind::Plain),
    ("x-mailgun-variables", Kind::JsonBeside("x-mailgun-template-name")),
    ("x-mc-mergevars", Kind::Json),
    ("x-mc-template", Kind::Plain),
    ("x-mj-templateid", Kind::Plain),
    ("x-mj-vars", Kind::Json),
    ("x-smtpapi", Kind::Instructions),
];

/// Each such field that is there, with what of its value counts: by name, and
/// the fields of one name in the order of the message.
pub(super) fn rendered_from(section: &Section<'_>) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (name, kind) in FIELDS {
        if let Kind::JsonBeside(other) = kind
            && section.values(other).next().is_none()
        {
            continue;
        }
        let values = section.values(name).filter_map(|value| counted(kind, value));
        found.extend(values.map(|value| (name, value)));
    }
    found
}

fn counted(kind: Kind, value: &[u8]) -> Option<String> {
    let text = match value.is_ascii() {
        true => decode::words(&decode::unfold(value)),
        // No encoded words can be meant among octets beyond ASCII.
        false => decode::text(Cow::Borrowed(&*decode::unfold(value)), None).into_owned(),
    };
    let json = match kind {
        Kind::Plain => None,
        Kind::Json | Kind::JsonBeside(_) | Kind::Instructions => {
            serde_json::from_str::<Value>(&text).ok().filter(json::is_exact)
        }
    };
    let text = match (kind, json) {
        (_, None) => decode::trim_blanks(&text).to_owned(),
        (Kind::Instructions, Some(json)) => seen(json)?,
        (_, Some(json)) => json.to_string(),
    };
    (!text.is_empty()).then_some(text)
}

/// Instructions that are notes for the sender, or say when and how to send.
/// The others count: whom it goes to, and what is filled in, put around the
/// text or taken instead of it.
const NOTES: [&str; 7] =
    ["asm", "asm_group_id", "category", "ip_pool", "send_at", "send_each_at", "unique_args"];

/// Of the instructions those that change what is seen, or by whom.
fn seen(json: Value) -> Option<String> {
    let Value::Object(mut members) = json else { return Some(json.to_string()) };
    members.retain(|name, _| !NOTES.contains(&name.as_str()));
    (!members.is_empty()).then(|| Value::Object(members).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &str) -> Vec<(&'static str, String)> {
        rendered_from(&Section::split(format!("{fields}\r\n\r\n").as_bytes()).ok().unwrap())
    }

    fn one(field: &str) -> String {
        of(field).pop().unwrap().1
    }

    #[test]
    fn variables_count_whatever_their_order_and_folding() {
        let same = one("X-MJ-Vars: {\"code\": \"12 34\", \"name\": \"J\\u00e9\"}");
        assert_eq!(same, one("x-mj-vars:\r\n {\"name\":\"J\u{e9}\",\r\n \"code\":\"12\r\n 34\"}"));
        assert_eq!(
            same,
            one("X-MJ-Vars: =?utf-8?q?=7B=22name=22:=22J=C3=A9=22,?= =?utf-8?q?=22code=22:=2212_34=22=7D?=")
        );
        assert_ne!(same, one("X-MJ-Vars: {\"code\": \"12 35\", \"name\": \"J\\u00e9\"}"));
        assert_eq!(one("X-MC-MergeVars: not {json"), "not {json");
    }

    #[test]
    fn long_numbers_stay_apart() {
        let of = |number: &str| one(&format!("X-MJ-Vars: {{\"order\": {number}}}"));
        assert_ne!(of("12345678901234567890123"), of("12345678901234567890124"));
        assert_ne!(of("1234567890123456.1"), of("1234567890123456.2"));
        assert_ne!(of("0.12345678901234567"), of("0.12345678901234568"));
        assert_eq!(of("9.50"), of("9.5"));
    }

    #[test]
    fn of_instructions_only_what_is_seen_counts() {
        let of = |rest: &str| one(&format!("X-SMTPAPI: {{\"sub\": {{\"%code%\": [\"1\"]}}, {rest}}}"));
        let template = "\"filters\": {\"templates\": {\"settings\": {\"enable\": 1, \"template_id\": \"a\"}}";
        let same = of(&format!("\"unique_args\": {{\"id\": 7}}, \"send_at\": 7, {template}}}"));
        assert_eq!(same, of(&format!("\"category\": [\"x\"], {template}}}")));
        assert_ne!(same, of(&format!("{}}}", template.replace("\"a\"", "\"b\""))));
        assert!(of("\"section\": {\"a\": \"b\"}").contains("section"));
        assert_ne!(of("\"to\": [\"ann@x.example\"]}"), of("\"to\": [\"bob@x.example\"]}"), "other readers");
        assert_eq!(super::tests::of("X-SMTPAPI: {\"category\": \"x\"}"), []);
    }

    #[test]
    fn notes_for_the_sender_count_only_with_a_template() {
        assert_eq!(of("X-Mailgun-Variables: {\"try\": 2}"), []);
        let both = of("X-Mailgun-Variables: {\"code\": 2}\r\nX-Mailgun-Template-Name: reset");
        assert_eq!(both.len(), 2);
        assert_eq!(of("X-Try: 1\r\nX-Mailgun-Tag: a"), []);
    }

    #[test]
    fn json_is_read_within_bounds() {
        let deep = format!("X-MJ-Vars: {}", "[".repeat(100_000));
        assert_eq!(one(&deep), deep["X-MJ-Vars: ".len()..]);
    }
}
