//! Whatever a client can put into a field ends where the field ends: in what
//! goes upstream, in the log, in figures, in events, and on a terminal.

use std::process::Output;

use serde_json::Value;

use crate::common::program::mailonce;
use crate::common::{Client, Mail, Proxy, Setup, Upstream, until};

/// Clears a screen, turns text around, ends a line, begins another decision.
const PAYLOAD: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{2028}\u{200b}\u{7f} \
                       \",\"outcome\":\"relayed\"} event=message outcome=relayed";

/// The part of it that a command line may hold.
const IN_A_COMMAND: &str = "\u{202e}\u{2028}\u{200b}evil";

#[track_caller]
pub fn is_harmless(shown: &[u8], what: &str) {
    let text = std::str::from_utf8(shown).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    let harmful = |c: &char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}')
    };
    assert_eq!(text.chars().find(harmful), None, "{what}: {text:?}");
}

/// The e-mails, each with its payload in one field, and the reply that is due.
fn mails() -> Vec<(Mail, &'static str)> {
    let plain = |what: &str| Mail::plain(what).header("X-What", what);
    let folded = "one\r\n\ttwo\r\n event=message";
    let ok = "250 2.0.0 queued";
    vec![
        (plain("key").header("X-Idempotency-Key", PAYLOAD), "554 5.5.0 [BAD-KEY]"),
        (plain("folded key").header("X-Idempotency-Key", folded), "554 5.5.0 [BAD-KEY]"),
        (plain("quotes").header("X-Idempotency-Key", "\"} event=message {\\\"\\n%0d%0a"), ok),
        (plain("window").header("X-Idempotency-TTL", PAYLOAD), "554 5.5.0 [BAD-KEY]"),
        (plain("tenant").header("X-Tenant", PAYLOAD), "554 5.5.0 [BAD-TENANT]"),
        (plain("quoted tenant").header("X-Tenant", "a\",x=\"b\\ {}"), ok),
        (plain("template").header("X-Template-Id", PAYLOAD).header("X-Event-Id", PAYLOAD), ok),
        (plain("event").header("X-Event-Id", folded), ok),
        (plain("message-id").header("Message-ID", &format!("<{PAYLOAD}@a.test>")), ok),
        (plain("folded message-id").header("Message-ID", &format!("<{folded}@a.test>")), ok),
        (plain("received").header("Received", &format!("from {PAYLOAD}\r\n\tby x; y")), ok),
        (Mail::plain(PAYLOAD).header("X-What", "subject"), ok),
        (Mail::plain("=?utf-8?q?=0D=0AX-Evil:_1=1B[2J?=").header("X-What", "encoded subject"), ok),
        (plain("from").header("From", &format!("{PAYLOAD} <x@a.test>")), ok),
        (plain("field name").header("X-\u{1b}[2J", "no field"), ok),
        (plain("sender").from("\"a\\\"> SIZE=1 <\"@a.test"), ok),
        (plain("recipient").to(&["\"b> NOTIFY=NEVER <\"@b.test"]), ok),
        (parameters("envid", " ENVID=+0D+0ARCPT+20TO:<victim@b.test>"), ok),
        (parameters("auth", " AUTH=+0D+0Aevil"), ok),
        (parameters("utf-8", " SMTPUTF8").from(&format!("{IN_A_COMMAND}@a.test")), ok),
        (parameters("utf-8 recipient", " SMTPUTF8").to(&[&format!("{IN_A_COMMAND}@b.test")]), ok),
    ]
}

fn parameters(what: &str, parameters: &str) -> Mail {
    Mail { parameters: parameters.to_owned(), ..Mail::plain(what).header("X-What", what) }
}

/// Another command on the same configuration, with the running proxy.
pub fn run(proxy: &Proxy, arguments: &[&str]) -> Output {
    let mut command = mailonce(arguments);
    command.arg("--config").arg(proxy.setup.directory().join("mailonce.toml"));
    command.env("MAILONCE_ADMIN__ADDRESS", proxy.admin.unwrap().to_string()).output().unwrap()
}

#[test]
fn no_field_of_a_client_leaves_its_place() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .listener("tenant_header = \"X-Tenant\"")
        .upstream("idempotency_header = \"X-Key\"")
        .dedup("chain = [\"header\", \"event\", \"message-id\", \"content\"]")
        .rule("by subject", "subject = \"*\u{2028}*\"", "")
        .admin()
        .start();
    let mut events = proxy.events("");
    let mut client = Client::raw(proxy.address);
    client.expect("220 ");
    client.command(&format!("EHLO {IN_A_COMMAND};(by(x)<y>)"));
    let mails = mails();
    for (mail, due) in &mails {
        let reply = client.deliver(mail);
        assert!(reply.starts_with(due), "{}: {reply}", mail.head);
        assert!(!reply.contains('\n'), "{reply}");
    }
    upstream_heard_only_mail(&upstream, mails.iter().filter(|(_, due)| due.starts_with("250")).count());
    // One decision is one line, and one event.
    until("a decision for each", || (proxy.decisions().len() >= mails.len()).then_some(()));
    let decisions = proxy.decisions();
    assert_eq!(decisions.len(), mails.len());
    let raw = proxy.process.stderr();
    raw.iter().for_each(|line| is_harmless(line.as_bytes(), "the log"));
    for decision in &decisions {
        let event = events.next().unwrap();
        is_harmless(event.as_bytes(), "an event");
        assert_eq!(serde_json::from_str::<Value>(&event).unwrap(), *decision);
    }
    assert!(decisions.iter().all(|line| line["level"] != "error" && line["outcome"].is_string()));
    harmless_metrics(&proxy);
    for request in ["GET /v1/claims", "GET /v1/stats", "GET /readyz"] {
        is_harmless(proxy.ask(request, &[], "").body.as_bytes(), request);
    }
    for arguments in [
        &["keys", "list", "--limit", "0"][..],
        &["keys", "list", "--json"],
        &["keys", "export"],
        &["keys", "show", "no\u{1b}[2Jsuch"],
        &["stats"],
        &["stats", "--json"],
    ] {
        let Output { stdout, stderr, .. } = run(&proxy, arguments);
        is_harmless(&stdout, &arguments.join(" "));
        is_harmless(&stderr, &arguments.join(" "));
    }
    shown_one_by_one(&proxy);
}

fn upstream_heard_only_mail(upstream: &Upstream, count: usize) {
    let messages = upstream.messages();
    assert_eq!(messages.len(), count);
    let commands = upstream.commands();
    let known = ["EHLO relay.test", "MAIL FROM:<", "RCPT TO:<", "DATA", "RSET", "QUIT"];
    for line in &commands {
        assert!(
            known.iter().any(|known| line.starts_with(known)) && !line.contains(char::is_control),
            "{line}"
        );
    }
    assert_eq!(commands.iter().filter(|line| line.starts_with("RCPT")).count(), count, "{commands:?}");
    for got in &messages {
        let text = got.text();
        let lines: Vec<_> = text.lines().take(5).collect();
        assert_eq!(lines[0], "Received: from ???evil??by?x??y?? ([127.0.0.1])", "{text}");
        assert!(lines[1].starts_with("\tby relay.test (mailonce) with "), "{text}");
        assert!(lines[2].starts_with('\t') && !text.contains("\r\nX-Evil"), "{text}");
        // Our fields are behind each other and in front of all others.
        let own = if lines[2].starts_with("\tfor ") { 4 } else { 3 };
        assert!(lines[own].starts_with("X-Key: ") || lines[own].starts_with("From: "), "{text}");
        is_harmless(lines[..own].join("\n").as_bytes(), "our Received field");
        assert_eq!(text.matches("X-What: ").count(), 1, "{text}");
    }
}

/// Each line is a remark or a number under a name, whatever the labels.
fn harmless_metrics(proxy: &Proxy) {
    let text = proxy.ask("GET /metrics", &[], "").body;
    is_harmless(text.as_bytes(), "metrics");
    for line in text.lines() {
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        assert!(line.starts_with("# ") || value.is_some() && line.starts_with("mailonce_"), "{line}");
    }
}

/// `keys show` of every claim, and `explain` of every message.
fn shown_one_by_one(proxy: &Proxy) {
    let claims = proxy.ask("GET /v1/claims", &[], "").json();
    let claims = claims.as_array().unwrap();
    assert!(claims.len() > 10, "{claims:?}");
    for claim in claims {
        let shown = run(proxy, &["keys", "show", claim["id"].as_str().unwrap()]);
        assert!(shown.status.success(), "{shown:?}");
        is_harmless(&shown.stdout, "keys show");
    }
    let file = proxy.setup.directory().join("message.eml");
    for (mail, _) in mails() {
        std::fs::write(&file, mail.content()).unwrap();
        for form in [&["--tenant", PAYLOAD][..], &["--json"]] {
            let arguments = [&["explain", file.to_str().unwrap()], form].concat();
            let Output { stdout, stderr, .. } = run(proxy, &arguments);
            is_harmless(&stdout, &mail.head);
            is_harmless(&stderr, &mail.head);
        }
    }
}
