//! `mailonce explain` says what the proxy does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::io::Write;
use std::process::{Output, Stdio};

use common::program::mailonce;
use common::{Mail, Proxy, Setup, Upstream};
use serde_json::Value;

/// Explains a message that goes to the recipients of its envelope.
fn explain(setup: &Setup, mail: &Mail, more: &[&str]) -> Value {
    let output = run(setup, mail, &[&["--json"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(setup: &Setup, mail: &Mail, more: &[&str]) -> Output {
    let file = write(setup, "mail.eml", mail);
    let mut arguments = vec!["explain", file.as_str(), "--from", mail.from.as_str()];
    for recipient in &mail.to {
        arguments.extend(["--rcpt", recipient.as_str()]);
    }
    arguments.extend(more);
    setup.run(&arguments)
}

fn write(setup: &Setup, name: &str, mail: &Mail) -> String {
    let path = setup.directory().join(name);
    std::fs::write(&path, mail.content()).unwrap();
    path.to_str().unwrap().to_owned()
}

const RULES: &str = "\
[[rule]]\nname = \"codes\"\nmatch = { key = \"otp:*\" }\nwindow = \"30m\"\n\
[[rule]]\nname = \"news\"\nmatch = { subject = \"*news*\", recipient = \"*@b.test\" }\nscope = \"message\"\n\
chain = [\"content\"]\nwindow = \"1h\"\nfingerprint_exclude = ['printed \\d+']\n\
[[rule]]\nname = \"ids\"\nmatch = { header = { X-Mailer = \"cron*\" } }\nchain = [\"message-id\"]\n\
[[rule]]\nname = \"raw\"\nmatch = { tenant = \"raw\" }\nmode = \"off\"\n";

/// Mail of all kinds that [`RULES`] tell apart.
fn mails() -> Vec<Mail> {
    vec![
        Mail::plain("plain"),
        Mail::plain("=?utf-8?q?N=65ws?= today")
            .to(&["Ann@B.test", "ann@b.test", "bob@b.test"])
            .body("printed 7\r\n"),
        Mail::plain("news").to(&["ann@b.test", "ann@other.test"]),
        Mail::keyed("otp:7"),
        Mail::keyed("order 7")
            .header("X-Idempotency-TTL", "90s")
            .to(&["ann@b.test", "bob@xn--bcher-kva.test"]),
        Mail::plain("event")
            .header("X-Event-Id", "e-1")
            .header("X-Template-Id", "t")
            .header("X-Tenant", "acme"),
        Mail::plain("cron").header("X-Mailer", "cron 3").header("Message-ID", "<7@a.test>"),
        Mail::plain("off").header("X-Tenant", "raw"),
    ]
}

#[test]
fn what_is_explained_is_what_happens() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).top(RULES).listener("tenant_header = \"X-Tenant\"");
    let explained: Vec<Value> = mails().iter().map(|mail| explain(&setup, mail, &[])).collect();
    let proxy = setup.start();
    let mut kinds = Vec::new();
    for (mail, explained) in mails().iter().zip(explained) {
        let before = proxy.decisions().len();
        let reply = proxy.send(mail);
        assert!(reply.starts_with("250 "), "{reply}");
        let decisions = common::until("it is logged", || {
            let decisions = proxy.decisions();
            (decisions.len() > before).then(|| decisions[before..].to_vec())
        });
        for decision in &decisions {
            for name in ["rule", "strategy", "key", "tenant"] {
                assert_eq!(explained[name], decision[name], "{name} of {explained:#}");
            }
        }
        let claim = |claim: &Value| claim["id"].as_str().unwrap()[..16].to_owned();
        let mut claims: Vec<String> = explained["claims"].as_array().unwrap().iter().map(claim).collect();
        let mut logged: Vec<String> =
            decisions.iter().filter_map(|decision| Some(decision["claim"].as_str()?.to_owned())).collect();
        logged.dedup();
        claims.sort();
        logged.sort();
        assert_eq!(claims, logged, "{explained:#}");
        kinds.push((explained["rule"].clone(), explained["strategy"].clone(), explained["window"].clone()));
    }
    let kind = |rule: Option<&str>, strategy: Option<&str>, window: Option<&str>| {
        (rule.into(), strategy.into(), window.into())
    };
    let wanted: Vec<(Value, Value, Value)> = vec![
        kind(None, Some("content"), Some("15m")),
        kind(Some("news"), Some("content"), Some("1h")),
        kind(None, Some("content"), Some("15m")),
        kind(Some("codes"), Some("header"), Some("30m")),
        kind(None, Some("header"), Some("90s")),
        kind(None, Some("event"), Some("7d")),
        kind(Some("ids"), Some("message-id"), Some("7d")),
        kind(Some("raw"), None, None),
    ];
    assert_eq!(kinds, wanted);
    // The store agrees, while no proxy has it.
    proxy.stop();
    for mail in mails() {
        let explained = explain(&setup, &mail, &[]);
        for claim in explained["claims"].as_array().unwrap() {
            assert_eq!(claim["would_be"], "suppressed", "{explained:#}");
            let listed = setup.run(&["keys", "show", "--json", claim["id"].as_str().unwrap()]);
            let record: Value = serde_json::from_slice(&listed.stdout).unwrap();
            assert_eq!(record["fingerprint"], explained["fingerprint"]);
            assert_eq!(claim["reply"], record["reply"]);
        }
    }
}

#[test]
fn the_running_proxy_is_asked_whether_it_would_be_sent() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).admin().start();
    let asked = |proxy: &Proxy, mail: &Mail| -> String {
        let file = write(&proxy.setup, "mail.eml", mail);
        let mut command = mailonce(&["explain", &file, "--config"]);
        command.arg(proxy.setup.write()).env("MAILONCE_ADMIN__ADDRESS", proxy.admin.unwrap().to_string());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = asked(&proxy, &Mail::keyed("k"));
    assert!(text.contains("would be relayed: nothing is known of it"), "{text}");
    assert!(text.contains("asked the running proxy"), "{text}");
    proxy.send(&Mail::keyed("k"));
    let text = asked(&proxy, &Mail::keyed("k"));
    assert!(text.contains("would be suppressed: accepted 20"), "{text}");
    assert!(text.contains("the client hears: 250 2.0.0 queued as 1"), "{text}");
    let text = asked(&proxy, &Mail::keyed("k").body("another\r\n"));
    assert!(text.contains("conflict: accepted 20"), "{text}");
    assert!(text.contains("One key now stands for two contents."), "{text}");
    upstream.only();
}

#[test]
fn a_bad_key_is_explained_in_the_words_that_the_client_hears() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).listener("tenant_header = \"X-Tenant\"");
    let proxy = setup.start();
    for mail in [
        Mail::keyed(""),
        Mail::keyed("a").header("X-Idempotency-Key", "b"),
        Mail::keyed("a").header("X-Idempotency-TTL", "soon"),
        Mail::plain("x").header("X-Tenant", "a").header("X-Tenant", "a"),
        Mail::plain("x").body("a\0b\r\n"),
        Mail::plain("x").header("Received", &"x\r\nReceived: x".repeat(50)),
    ] {
        let explained = explain(&setup, &mail, &[]);
        let refused = explained["refused"].as_str().unwrap();
        let heard = proxy.send(&mail);
        // The session has words of its own for an octet that no message may hold.
        assert_eq!(
            heard.split(' ').take(2).collect::<Vec<_>>(),
            refused.split(' ').take(2).collect::<Vec<_>>()
        );
        assert!(heard == refused || mail.body.contains(&0), "{heard} is not {refused}");
    }
}

#[test]
fn the_text_teaches() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).top(RULES);
    let mail = Mail::plain("hello\u{1b}[2J").header("X-Template-Id", "reset").header("Date", "now");
    // As people save it, and from standard input.
    let text = String::from_utf8(mail.content()).unwrap().replace("\r\n", "\n");
    let mut command = mailonce(&["explain", "-", "--config"]);
    command.arg(setup.write()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 100 || !line.trim().contains(' ')), "{text}");
    // However it is broken into lines.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "from <app@a.test> (taken from the header fields; name another with --from)",
        "to <ann@b.test> (taken from the header fields; name another with --rcpt)",
        "rule none matches, [dedup] holds not codes: key does not match (the key that [dedup].chain yields must)",
        "not news: subject does not match",
        "tenant in, the name of the listener in",
        "header no X-Idempotency-Key, Idempotency-Key, Resend-Idempotency-Key field",
        "there is X-Template-Id, but a template alone is too broad",
        "content the fingerprint below is the key",
        "window 15m, from dedup.content_window",
        "counts Subject hello\\u{1b}[2J",
        "left out to, x-template-id, date",
        "there is no store at",
        "Two e-mails with equal text to one recipient within 15m count as one.",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn two_files_are_compared() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let compare = |one: &Mail, other: &Mail| -> Value {
        let (one, other) = (write(&setup, "a.eml", one), write(&setup, "b.eml", other));
        let output = setup.run(&["explain", "--json", "--diff", &one, &other]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let plain = || Mail::plain("hello");
    let same = compare(&plain(), &plain().header("Date", "later").header("Message-ID", "<2@a.test>"));
    assert_eq!(same["verdict"], "same", "{same}");
    let differ = compare(&plain(), &plain().body("Hello, Bob.\r\n"));
    assert_eq!(differ["verdict"], "different");
    assert!(differ["difference"]["first"].as_str().unwrap().contains("Hello, Ann."), "{differ}");
    let keys = compare(&Mail::keyed("1"), &Mail::keyed("2"));
    assert_eq!((&keys["verdict"], &keys["difference"]["second"]), (&"different".into(), &"2".into()));
    let conflict = compare(&Mail::keyed("1"), &Mail::keyed("1").body("new\r\n"));
    assert_eq!(conflict["verdict"], "conflict");
    assert!(conflict["text"].as_str().unwrap().contains("[CONFLICT]"), "{conflict}");
    let strategies = compare(&Mail::keyed("1"), &plain());
    assert_eq!(strategies["difference"]["place"], "strategy");
    let other = Mail { head: plain().head.replace("ann@", "bob@"), ..plain() };
    assert_eq!(compare(&plain(), &other)["difference"]["place"], "recipients");
    let both = Mail { head: plain().head.replace("ann@b.test", "bob@b.test, ann@b.test"), ..plain() };
    let partly = compare(&plain(), &both);
    assert_eq!(partly["verdict"], "partly");
    assert!(partly["text"].as_str().unwrap().ends_with("only one of the two goes to bob@b.test"), "{partly}");
    let bad = compare(&Mail::keyed(""), &plain());
    assert!(bad["text"].as_str().unwrap().contains("[BAD-KEY]"), "{bad}");
    let output = setup.run(&["explain", "--diff", &write(&setup, "a.eml", &plain())]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
