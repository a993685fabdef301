//! Which rule a message falls under: the first of which every condition holds.

use std::cell::OnceCell;

use crate::config::{Glob, Match, Rule};
use crate::message::Headers;
use crate::message::decode;
use crate::smtp::address::Path;
use crate::smtp::envelope::Envelope;

/// What rules can ask about a message.
#[derive(Debug)]
pub struct Facts<'a> {
    tenant: Option<&'a str>,
    listener: &'a str,
    envelope: &'a Envelope,
    headers: &'a Headers,
    key: Option<&'a str>,
    /// Decoded when the first rule asks for it.
    subjects: OnceCell<Vec<String>>,
}

impl<'a> Facts<'a> {
    /// `tenant` is `None` where what names it is unusable, `key` where
    /// `[dedup].chain` yields none or a bad one: no glob matches them then.
    pub fn new(
        tenant: Option<&'a str>,
        listener: &'a str,
        envelope: &'a Envelope,
        headers: &'a Headers,
        key: Option<&'a str>,
    ) -> Self {
        Self { tenant, listener, envelope, headers, key, subjects: OnceCell::new() }
    }

    fn subjects(&self) -> &[String] {
        self.subjects
            .get_or_init(|| self.headers.values("subject").map(|value| decode::spaced(&value)).collect())
    }
}

/// Whether any rule asks for the key that `[dedup].chain` yields.
pub fn ask_for_key(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| !rule.matches.key.is_empty())
}

/// The first rule that matches.
pub fn choose<'r>(rules: &'r [Rule], facts: &Facts<'_>) -> Option<&'r Rule> {
    rules.iter().find(|rule| first_unmet(&rule.matches, facts).is_none())
}

/// The first condition that does not hold, by the name it is written with.
pub fn first_unmet(rule: &Match, facts: &Facts<'_>) -> Option<String> {
    let text = |globs: &[Glob], text: Option<&str>| {
        globs.is_empty() || text.is_some_and(|text| globs.iter().any(|glob| glob.matches(text)))
    };
    let address =
        |globs: &[Glob], path: &Path| globs.is_empty() || globs.iter().any(|glob| glob.matches_address(path));
    let Envelope { reverse_path, recipients, .. } = facts.envelope;
    // The cheap ones first; a Subject has to be decoded.
    let unmet = if !text(&rule.listener, Some(facts.listener)) {
        "listener"
    } else if !text(&rule.tenant, facts.tenant) {
        "tenant"
    } else if !address(&rule.sender, reverse_path) {
        "sender"
    } else if !recipients.iter().all(|recipient| address(&rule.recipient, &recipient.path)) {
        "recipient"
    } else if !text(&rule.key, facts.key) {
        "key"
    } else if let Some((name, _)) = rule.header.iter().find(|(name, globs)| !field(name, globs, facts)) {
        return Some(format!("header {name}"));
    } else if !rule.subject.is_empty() && !facts.subjects().iter().any(|s| text(&rule.subject, Some(s))) {
        "subject"
    } else {
        return None;
    };
    Some(unmet.to_owned())
}

/// Whether any occurrence of the field matches.
fn field(name: &str, globs: &[Glob], facts: &Facts<'_>) -> bool {
    let meant = |value: &String| globs.iter().any(|glob| glob.matches(value));
    if name.eq_ignore_ascii_case("subject") {
        return facts.subjects().iter().any(meant);
    }
    facts.headers.values(name).any(|value| meant(&value))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::Config;
    use crate::smtp::envelope::{MailParameters, Recipient};

    /// The name of the rule that a message to these recipients falls under.
    fn chosen(rules: &[(&str, &str)], to: &[&str], head: &str, key: Option<&str>) -> Option<String> {
        let rule = |(name, matches): &(&str, &str)| {
            format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {matches} }}\n")
        };
        let text: String = rules.iter().map(rule).collect();
        let text = format!("[upstream]\naddress = \"a:25\"\n{text}");
        let config = Config::parse(&text, "m.toml", std::iter::empty()).unwrap();
        let headers = Headers::parse(&Bytes::copy_from_slice(head.as_bytes())).unwrap();
        let recipients = to.iter().map(|to| Recipient::new(Path::parse(to).unwrap())).collect();
        let reverse_path = Path::parse("App@Shop.example").unwrap();
        let envelope = Envelope { reverse_path, parameters: MailParameters::default(), recipients };
        let facts = Facts::new(Some("Shop"), "submission", &envelope, &headers, key);
        choose(&config.rules, &facts).map(|rule| rule.name.clone())
    }

    fn matches(condition: &str, to: &[&str], head: &str) -> bool {
        chosen(&[("rule", condition)], to, head, Some("email:ann:otp:1")).is_some()
    }

    #[test]
    fn the_first_that_matches_counts() {
        let rules = [("no", "listener = \"other\""), ("first", "key = \"email:*\""), ("second", "")];
        assert_eq!(chosen(&rules, &["a@x.example"], "", Some("email:1")).as_deref(), Some("first"));
        assert_eq!(chosen(&rules, &["a@x.example"], "", Some("sms:1")).as_deref(), Some("second"));
        assert_eq!(
            chosen(&rules, &["a@x.example"], "", None).as_deref(),
            Some("second"),
            "a bad key matches no rule"
        );
        assert_eq!(chosen(&rules[..2], &["a@x.example"], "", None), None);
    }

    #[test]
    fn every_condition_must_hold_and_one_glob_of_each() {
        let to = ["ann@x.example"];
        assert!(matches("key = [\"sms:*\", \"email:*:otp:?\"], tenant = \"Shop\"", &to, ""));
        assert!(!matches("key = \"email:*\", tenant = \"shop\"", &to, ""), "a tenant is matched exactly");
        assert!(!matches("key = \"Email:*\"", &to, ""), "so is a key");
        assert!(matches("sender = \"*@shop.EXAMPLE\"", &to, ""));
        assert!(!matches("sender = \"\"", &to, ""));
    }

    #[test]
    fn every_recipient_must_match() {
        assert!(matches("recipient = \"*@X.example\"", &["ann@x.example", "bob@x.EXAMPLE"], ""));
        assert!(!matches("recipient = \"*@x.example\"", &["ann@x.example", "bob@y.example"], ""));
        assert!(matches(
            "recipient = [\"*@x.example\", \"*@y.example\"]",
            &["a@x.example", "b@y.example"],
            ""
        ));
    }

    #[test]
    fn any_occurrence_of_a_field_matches_without_regard_to_case() {
        let head = "X-Template-Id: other\r\nx-template-ID: OTP-\r\n code\r\n";
        assert!(matches("header = { \"X-Template-Id\" = \"otp-*\" }", &["a@x.example"], head));
        assert!(!matches("header = { \"X-Template-Id\" = \"otp\" }", &["a@x.example"], head));
        assert!(!matches("header = { \"X-Other\" = \"*\" }", &["a@x.example"], head), "absent is not empty");
        assert!(!matches(
            "header = { \"X-Template-Id\" = \"*\", \"X-Other\" = \"*\" }",
            &["a@x.example"],
            head
        ));
    }

    #[test]
    fn a_subject_is_matched_decoded() {
        let head = "Subject: =?utf-8?q?Passwort_=C3=84ndern?=\r\n =?utf-8?q?!?=\r\n";
        assert!(matches("subject = \"passwort \u{e4}ndern!\"", &["a@x.example"], head));
        assert!(matches("header = { Subject = \"*\u{c4}NDERN*\" }", &["a@x.example"], head));
        assert!(!matches("subject = \"*utf-8*\"", &["a@x.example"], head));
        assert!(!matches("subject = \"*\"", &["a@x.example"], ""));
    }
}
