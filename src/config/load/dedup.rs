//! `[dedup]` and `[[rule]]`.

use std::time::Duration;

use super::super::convert::{
    address_globs, choice, duration, exact_globs, excludes, field_ref, header_globs, header_name, list_of,
    positive_duration, rule_name, some_of, subject_globs,
};
use super::super::policy::{
    Dedup, FieldRef, InDoubt, Mode, OnConflict, OnDuplicate, OnPartial, OnStoreFailure, Scope, Strategy,
    Unkeyed,
};
use super::super::rule::{Match, Rule};
use super::super::section::Section;
use super::super::{Exclude, check};

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;

const KEY_HEADERS: [&str; 3] = ["X-Idempotency-Key", "Idempotency-Key", "Resend-Idempotency-Key"];

/// Fields that name a template or a kind of mail; docs/keys.md says whose each
/// is. One of them only makes a key narrower, it never makes one.
const TEMPLATE_HEADERS: [&str; 9] = [
    "X-Template-Id",
    "X-MC-Template",
    "X-MJ-TemplateID",
    "X-Mailgun-Template-Name",
    "X-SMTPAPI#/filters/templates/settings/template_id",
    "X-PM-Tag",
    "X-MC-Tags",
    "X-Mailgun-Tag",
    "X-Tag",
];

/// Fields that name one event; docs/keys.md says whose each is, and which were
/// left out. Free metadata (a user, a campaign) is shared by many different
/// e-mails, and a key that is too broad gets legitimate mail refused: of it,
/// only what is called `event_id` counts.
const EVENT_HEADERS: [&str; 7] = [
    "X-Event-Id",
    "X-SMTPAPI#/unique_args/event_id",
    "X-Mailgun-Variables#/event_id",
    "X-MC-Metadata#/event_id",
    "X-MSYS-API#/metadata/event_id",
    "X-PM-Metadata-event_id",
    "X-Metadata-event_id",
];

pub(super) fn dedup(section: Section<'_>) -> Dedup {
    let span = |key, default| section.get(key, default, positive_duration);
    let mut base = Dedup::default();
    let max_window = span("max_window", base.max_window);
    // A cap that was written before this key was known stays a usable one.
    base.unheard_window = base.unheard_window.min(max_window);
    let dedup = Dedup {
        headers: section.get("headers", base.headers.clone(), list_of(header_name)),
        template_headers: section.get("template_headers", base.template_headers.clone(), list_of(field_ref)),
        event_headers: section.get("event_headers", base.event_headers.clone(), list_of(field_ref)),
        window: span("window", base.window),
        content_window: span("content_window", base.content_window),
        max_window,
        in_flight_wait: section.get("in_flight_wait", base.in_flight_wait, duration),
        unkeyed: section.get("unkeyed", base.unkeyed, choice),
        on_store_failure: section.get("on_store_failure", base.on_store_failure, choice),
        ..common(&section, &base)
    };
    check::dedup(&section, &dedup);
    section.close();
    dedup
}

/// What a rule may set too.
fn common(section: &Section<'_>, base: &Dedup) -> Dedup {
    let chain = some_of(choice, "to deduplicate nothing, write mode = \"off\"");
    Dedup {
        chain: section.get("chain", base.chain.clone(), chain),
        scope: section.get("scope", base.scope, choice),
        on_duplicate: section.get("on_duplicate", base.on_duplicate, choice),
        on_conflict: section.get("on_conflict", base.on_conflict, choice),
        on_partial: section.get("on_partial", base.on_partial, choice),
        in_doubt: section.get("in_doubt", base.in_doubt, choice),
        mode: section.get("mode", base.mode, choice),
        fingerprint_exclude: section.get("fingerprint_exclude", base.fingerprint_exclude.clone(), excludes),
        unheard_window: section.get("unheard_window", base.unheard_window, positive_duration),
        ..base.clone()
    }
}

impl Default for Dedup {
    /// What holds where nothing is written.
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let fields = |names: &[&str]| names.iter().filter_map(|name| FieldRef::parse(name)).collect();
        Self {
            chain: vec![Strategy::Header, Strategy::Event, Strategy::Content],
            headers: owned(&KEY_HEADERS),
            template_headers: fields(&TEMPLATE_HEADERS),
            event_headers: fields(&EVENT_HEADERS),
            scope: Scope::Recipient,
            window: Duration::from_secs(7 * DAY),
            content_window: Duration::from_secs(15 * MINUTE),
            unheard_window: Duration::from_secs(DAY),
            max_window: Duration::from_secs(400 * DAY),
            on_duplicate: OnDuplicate::Accept,
            on_conflict: OnConflict::Reject,
            on_partial: OnPartial::Report,
            in_doubt: InDoubt::Suppress,
            fingerprint_exclude: Exclude::default(),
            in_flight_wait: Duration::from_secs(60),
            unkeyed: Unkeyed::Relay,
            mode: Mode::Enforce,
            on_store_failure: OnStoreFailure::Defer,
        }
    }
}

/// Every `[[rule]]`, each laid over `base`.
pub(super) fn rules(root: &Section<'_>, base: &Dedup) -> Vec<Rule> {
    let mut rules = Vec::new();
    for section in root.tables("rule").unwrap_or_default() {
        let rule = rule(&section, base);
        check::rule(&section, &rule, &rules);
        section.close();
        rules.push(rule);
    }
    rules
}

fn rule(section: &Section<'_>, base: &Dedup) -> Rule {
    let name = section.require("name", "name it, such as \"one-time codes\", for the log", rule_name);
    let mut dedup = common(section, base);
    if let Some(window) = section.get("window", None, |node| positive_duration(node).map(Some)) {
        // For whatever strategy yields the key.
        (dedup.window, dedup.content_window) = (window, window);
    }
    Rule { name, matches: matches(section.table("match")), dedup }
}

fn matches(section: Section<'_>) -> Match {
    let matches = Match {
        tenant: section.get("tenant", Vec::new(), exact_globs),
        listener: section.get("listener", Vec::new(), exact_globs),
        sender: section.get("sender", Vec::new(), address_globs),
        recipient: section.get("recipient", Vec::new(), address_globs),
        subject: section.get("subject", Vec::new(), subject_globs),
        header: section.get("header", Vec::new(), header_globs),
        key: section.get("key", Vec::new(), exact_globs),
    };
    section.close();
    matches
}
