//! The explanation for people.

use std::fmt::Write;

use super::fate::{Course, Fate};
use super::mail::{Mail, Origin};
use super::reason::{Reasoning, Standing};
use crate::config::values::format_duration;
use crate::config::{Mode, Scope, Strategy};
use crate::escape::for_terminal;
use crate::identity::chain::Finding;
use crate::smtp::envelope::Recipient;
use crate::store::record::hex;

/// Lines with a name in front; what comes from the e-mail is escaped here.
#[derive(Default)]
struct Page(String);

/// Columns of a line; what has no blanks may go past them.
const WIDTH: usize = 100;

impl Page {
    /// A heading with its answer.
    fn head(&mut self, name: &str, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.put(&format!("{name:<13}"), text);
    }

    /// A reason beneath it.
    fn line(&mut self, name: &str, text: &str) {
        self.put(&format!("  {:<11}", for_terminal(name)), text);
    }

    /// Text behind a name, broken at blanks.
    fn put(&mut self, name: &str, text: &str) {
        let mut line = name.to_owned();
        let mut full = false;
        for word in for_terminal(text).split(' ') {
            if full && line.chars().count() + word.chars().count() >= WIDTH {
                let _ = writeln!(self.0, "{}", line.trim_end());
                line = " ".repeat(name.chars().count() + 2);
                full = false;
            }
            if full {
                line.push(' ');
            }
            line.push_str(word);
            full = true;
        }
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{}", line.trim_end());
    }
}

pub(super) fn one(mail: &Mail, reasoning: &Reasoning<'_>, fates: &[Fate], asked: &str) -> String {
    let mut page = Page::default();
    page.head("e-mail", &format!("{}, {} octets", mail.name, mail.content.len()));
    if let Some(reply) = &mail.refused {
        page.head("refused", &reply.to_string());
        page.line("", "before anything else is looked at");
        return page.0.trim_end().to_owned();
    }
    envelope(&mut page, mail);
    rule(&mut page, reasoning);
    tenant(&mut page, reasoning);
    page.head("mode", mode(reasoning.policy.mode));
    key(&mut page, reasoning);
    if let Standing::Keyed { key, window_from } = &reasoning.standing {
        page.head("window", &format!("{}, from {window_from}", format_duration(key.window)));
    }
    fingerprint(&mut page, mail, reasoning);
    claims(&mut page, reasoning, fates, asked);
    page.head("advice", &advice(mail, reasoning, fates));
    page.0.trim_end().to_owned()
}

fn envelope(page: &mut Page, mail: &Mail) {
    let by = |origin| match origin {
        Origin::Options => "as given",
        Origin::Headers => "taken from the header fields",
    };
    let sender = by(mail.sender_from);
    page.head("envelope", "");
    page.line(
        "from",
        &format!("{} ({sender}{})", mail.envelope.reverse_path, hint(mail.sender_from, "--from")),
    );
    let recipients = by(mail.recipients_from);
    let note = format!("({recipients}{})", hint(mail.recipients_from, "--rcpt"));
    match mail.envelope.recipients.as_slice() {
        [] => page.line("to", "nobody: name recipients with --rcpt"),
        all => {
            for (number, Recipient { path, .. }) in all.iter().enumerate() {
                let note = if number == 0 { note.as_str() } else { "" };
                page.line(if number == 0 { "to" } else { "" }, format!("{path} {note}").trim_end());
            }
        }
    }
}

fn hint(origin: Origin, option: &str) -> String {
    match origin {
        Origin::Options => String::new(),
        Origin::Headers => format!("; name another with {option}"),
    }
}

fn rule(page: &mut Page, reasoning: &Reasoning<'_>) {
    let name = match reasoning.rule {
        Some(rule) => rule.name.clone(),
        None if reasoning.passed_over.is_empty() => "none: there are no rules, [dedup] holds".to_owned(),
        None => "none matches, [dedup] holds".to_owned(),
    };
    page.head("rule", &name);
    for (name, condition) in &reasoning.passed_over {
        let more = match condition.as_str() {
            "recipient" => " (every recipient must)",
            "key" => " (the key that [dedup].chain yields must)",
            _ => "",
        };
        page.line("not", &format!("{name}: {condition} does not match{more}"));
    }
}

fn tenant(page: &mut Page, reasoning: &Reasoning<'_>) {
    match &reasoning.whose.tenant {
        Ok(tenant) => {
            let said = format!("{}, {}", tenant.name(), reasoning.whose.said_by(reasoning.listener));
            page.head("tenant", &said);
        }
        Err(fault) => page.head("tenant", &format!("unusable: {}", fault.reply())),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe: everything is relayed, and the log says what enforce would have done",
        Mode::Off => "off: no key, no claim, everything is relayed",
    }
}

fn key(page: &mut Page, reasoning: &Reasoning<'_>) {
    match &reasoning.standing {
        Standing::Off => return,
        Standing::Keyed { key, .. } => {
            page.head("key", &format!("{} (by {})", key.value, key.strategy.as_str()))
        }
        Standing::Unkeyed => page.head("key", "none"),
        Standing::Bad(fault) => page.head("key", &format!("refused: {}", fault.reply())),
    }
    for (strategy, found) in &reasoning.steps {
        let text = match found {
            Ok(Finding::Nothing(absence)) => absence.to_string(),
            Ok(Finding::Key { made_of, .. }) if made_of.is_empty() => {
                "the fingerprint below is the key".to_owned()
            }
            Ok(Finding::Key { made_of, .. }) => {
                let fields: Vec<String> =
                    made_of.iter().map(|(name, value)| format!("{name}: {}", cut(value))).collect();
                fields.join("; ")
            }
            Err(fault) => fault.reply().to_string(),
        };
        page.line(strategy.as_str(), &text);
    }
    let untried: Vec<&str> =
        reasoning.policy.chain.iter().skip(reasoning.steps.len()).map(|strategy| strategy.as_str()).collect();
    if !untried.is_empty() {
        page.line("not tried", &untried.join(", "));
    }
}

fn fingerprint(page: &mut Page, mail: &Mail, reasoning: &Reasoning<'_>) {
    page.head("fingerprint", &reasoning.fingerprint.to_string());
    page.line("", &reasoning.ingredients.manner.to_string());
    let width = reasoning.ingredients.list.iter().map(|i| i.place.chars().count()).max().unwrap_or(0).min(40);
    for ingredient in &reasoning.ingredients.list {
        page.line("counts", format!("{:<width$}  {}", ingredient.place, cut(&ingredient.value)).trim_end());
    }
    let left_out = left_out(mail, reasoning);
    if !left_out.is_empty() {
        page.line("left out", &left_out.join(", "));
    }
    if !reasoning.policy.fingerprint_exclude.is_empty() {
        page.line("left out", "what fingerprint_exclude matches, where \u{27ea}\u{2026}\u{27eb} stands");
    }
}

/// The fields that are there and do not count, in lower case.
pub(super) fn left_out(mail: &Mail, reasoning: &Reasoning<'_>) -> Vec<String> {
    let mut names = Vec::new();
    mail.headers.without(|name| {
        // What these say shows in the parts.
        let structure = name.starts_with("content-") || name == "mime-version";
        let counts = reasoning.ingredients.list.iter().any(|i| i.place.eq_ignore_ascii_case(name));
        if !structure && !counts && !names.contains(&name.to_owned()) {
            names.push(name.to_owned());
        }
        false
    });
    names
}

fn claims(page: &mut Page, reasoning: &Reasoning<'_>, fates: &[Fate], asked: &str) {
    if reasoning.claims.is_empty() {
        return page.head("claims", "none");
    }
    let one_for = match reasoning.policy.scope {
        Scope::Recipient => "one for each recipient",
        Scope::Message => "one for the whole message, for scope is message",
    };
    page.head("claims", &format!("{one_for}; {asked}"));
    for (number, claim) in reasoning.claims.iter().enumerate() {
        let recipient = if claim.recipient.is_empty() { "all recipients" } else { &claim.recipient };
        page.line(&hex(&claim.id.0[..8]), &format!("  {recipient}"));
        if let Some(fate) = fates.get(number) {
            page.line("", &fate.text);
            if let Some(reply) = &fate.reply {
                page.line("", &format!("the client hears: {reply}"));
            }
        }
        page.line("", &format!("full id: {}", claim.id));
    }
}

/// What somebody who designs keys should know about this one.
pub(super) fn advice(mail: &Mail, reasoning: &Reasoning<'_>, fates: &[Fate]) -> String {
    let whom = match reasoning.policy.scope {
        Scope::Recipient => "to one recipient ",
        Scope::Message => "",
    };
    if mail.envelope.recipients.is_empty() && reasoning.key().is_some() {
        return "Name its recipients with --rcpt: each has a claim of its own.".to_owned();
    }
    if fates.iter().any(|fate| fate.course == Course::Conflict) {
        return "One key now stands for two contents. Make the key narrower, so that each new e-mail has its own; \
                or, if the content only differs at each rendering, blank that out with fingerprint_exclude or set \
                on_conflict = \"suppress\" in a rule."
            .to_owned();
    }
    match &reasoning.standing {
        Standing::Off => "Nothing keeps a duplicate of this e-mail back.".to_owned(),
        Standing::Bad(_) if reasoning.policy.mode == Mode::Observe => {
            "It is relayed, for mode is observe; enforced, it is refused. Mend the field.".to_owned()
        }
        Standing::Bad(_) => {
            "The client hears this at every try: to guess would send twice or swallow mail. Mend the field."
                .to_owned()
        }
        Standing::Unkeyed => "Nothing keeps a duplicate of this e-mail back. Let the application set \
            X-Idempotency-Key, or add \"content\" to the chain."
            .to_owned(),
        Standing::Keyed { key, .. } => {
            let window = format_duration(key.window);
            match key.strategy {
                Strategy::Content => format!(
                    "Two e-mails with equal text {whom}within {window} count as one. To be exact, let the \
                     application set X-Idempotency-Key: one value for each e-mail it means to send, the same at \
                     each try."
                ),
                Strategy::Header => format!(
                    "Every e-mail with this key {whom}within {window} counts as this one. The key must be the same \
                     at each try and another for each new e-mail; with another content it is a conflict."
                ),
                Strategy::Event => format!(
                    "Every e-mail with these fields {whom}within {window} counts as this one: the event must be \
                     another for each new e-mail."
                ),
                Strategy::MessageId => format!(
                    "Every e-mail with this Message-ID {whom}within {window} counts as this one. Many libraries mint \
                     a new one at each try: compare two tries with explain --diff."
                ),
            }
        }
    }
}

/// A text on one line, cut.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 72;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push('\u{2026}');
    }
    let shown = shown.replace('\n', " \u{21b5} ");
    match text.lines().count() {
        lines if lines > 1 => format!("{shown} ({lines} lines)"),
        _ => shown,
    }
}
