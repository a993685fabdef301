//! Rules: what holds for some of the mail instead of `[dedup]`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use common::{Mail, Setup, Upstream};
use rustix::process::Signal;
use serde_json::Value;

fn starts(reply: &str, with: &str) {
    assert!(reply.starts_with(with), "{reply}");
}

/// Seconds from the last attempt of the record under `key` to its expiry.
fn window(setup: &Setup, key: &str) -> i64 {
    let shown = setup.run(&["keys", "show", key, "--json"]);
    let record: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let time = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    time(&record["expires"]) - time(&record["attempts"][0]["at"])
}

#[test]
fn the_first_rule_that_matches_sets_what_it_names() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address)
        .rule("codes", "header = { \"X-Template-Id\" = \"otp*\" }", "window = \"30m\"")
        .rule(
            "invoices",
            "key = \"invoice:*\", sender = \"*@A.test\"",
            "window = \"90d\"\non_duplicate = \"reject\"",
        )
        .rule("rest", "", "on_duplicate = \"accept\"");
    let proxy = setup.start();
    let code = Mail::keyed("invoice:1").header("X-Template-Id", "OTP-mail");
    let invoice = Mail::keyed("invoice:2");
    let other = Mail::keyed("receipt:3").header("X-Idempotency-TTL", "2h");
    for (number, mail) in [&code, &invoice, &other].into_iter().enumerate() {
        assert_eq!(proxy.send(mail), format!("250 2.0.0 queued as {}", number + 1));
    }
    assert_eq!(proxy.send(&code), "250 2.0.0 queued as 1");
    starts(&proxy.send(&invoice), "554 5.5.0 [DUPLICATE] ");
    for (key, rule) in [("invoice:1", "codes"), ("invoice:2", "invoices"), ("receipt:3", "rest")] {
        proxy.log(&[("key", key), ("rule", rule), ("outcome", "relayed")]);
    }
    proxy.stop();
    assert_eq!(window(&setup, "invoice:1"), 30 * 60);
    assert_eq!(window(&setup, "invoice:2"), 90 * 86_400);
    assert_eq!(window(&setup, "receipt:3"), 2 * 3600, "the message's own goes before");
}

#[test]
fn a_rules_window_holds_for_whatever_strategy_and_the_cap_for_all() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("max_window = \"10d\"").rule(
        "digest",
        "subject = \"*digest*\"",
        "window = \"3h\"",
    );
    let proxy = setup.start();
    proxy.send(&Mail::plain("Your weekly DIGEST"));
    let key =
        proxy.log(&[("outcome", "relayed"), ("strategy", "content")])["key"].as_str().unwrap().to_owned();
    proxy.send(&Mail::keyed("long").header("X-Idempotency-TTL", "400d"));
    proxy.stop();
    assert_eq!(window(&setup, &key), 3 * 3600);
    assert_eq!(window(&setup, "long"), 10 * 86_400);
}

#[test]
fn a_rule_may_change_the_chain_and_the_scope() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .rule("legacy", "sender = \"legacy@a.test\"", "chain = [\"content\"]\nscope = \"message\"")
        .start();
    let legacy = |key: &str| Mail::keyed(key).from("legacy@a.test");
    assert_eq!(proxy.send(&legacy("try 1")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&legacy("try 2")), "250 2.0.0 queued as 1", "its key does not count");
    assert_eq!(proxy.send(&legacy("")), "250 2.0.0 queued as 1", "nor does a bad one");
    assert_eq!(proxy.send(&Mail::keyed("try 2")), "250 2.0.0 queued as 2");
    proxy.send(&legacy("try 3").to(&["bob@b.test"]));
    let claims: Vec<_> = ["1", "3"]
        .map(|number| proxy.log(&[("reply", &format!("250 2.0.0 queued as {number}"))])["claim"].clone())
        .into();
    assert_eq!(claims[0], claims[1], "one claim covers the message");
}

#[test]
fn every_recipient_must_match() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .rule("inside", "recipient = \"*@b.test\"", "on_duplicate = \"reject\"")
        .start();
    let mail = |to: &[&str]| Mail::keyed("k").to(to);
    proxy.send(&mail(&["a@b.test", "b@b.test"]));
    starts(&proxy.send(&mail(&["b@b.test"])), "554 5.5.0 [DUPLICATE] ");
    assert_eq!(proxy.send(&mail(&["a@b.test", "x@c.test"])), "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&mail(&["a@b.test", "x@c.test"])), "250 2.0.0 queued as 1");
}

#[test]
fn what_differs_at_each_rendering_can_be_left_out() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .rule("report", "subject = \"*report*\"", "fingerprint_exclude = ['\\d\\d:\\d\\d:\\d\\d']")
        .start();
    let report =
        |time: &str| Mail::plain("Nightly report").body(format!("All is well.\r\nPrinted {time}\r\n"));
    assert_eq!(proxy.send(&report("04:00:01")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&report("04:00:02")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&report("soon")), "250 2.0.0 queued as 2");
    let notice = |time: &str| Mail::plain("Notice").body(format!("Printed {time}\r\n"));
    assert_eq!(proxy.send(&notice("04:00:01")), "250 2.0.0 queued as 3");
    assert_eq!(proxy.send(&notice("04:00:02")), "250 2.0.0 queued as 4", "other mail is not meant");
}

#[test]
fn a_rule_on_the_key_never_matches_a_bad_one() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).rule("all", "key = \"*\"", "mode = \"off\"").start();
    starts(&proxy.send(&Mail::keyed("")), "554 5.5.0 [BAD-KEY] X-Idempotency-Key is empty");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 2", "switched off");
}

#[test]
fn a_tenant_has_rules_of_its_own() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .listener("tenant_header = \"X-Tenant\"")
        .rule("red", "tenant = \"red\", listener = \"in\"", "on_conflict = \"suppress\"")
        .start();
    let mail = |tenant: &str, body: &str| Mail::keyed("k").header("X-Tenant", tenant).body(body);
    assert_eq!(proxy.send(&mail("red", "one\r\n")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail("red", "two\r\n")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail("blue", "one\r\n")), "250 2.0.0 queued as 2");
    starts(&proxy.send(&mail("blue", "two\r\n")), "554 5.5.0 [CONFLICT] ");
}

#[test]
fn a_reload_is_the_kill_switch() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let proxy = setup.start();
    proxy.send(&Mail::keyed("k"));
    setup.clone().dedup("mode = \"off\"").write();
    proxy.process.signal(Signal::HUP);
    proxy.says("the configuration was read again");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 2");
    setup.write();
    proxy.process.signal(Signal::HUP);
    // The line above stands in the log already; wait for what it brings.
    common::until("claims to be made again", || {
        (proxy.send(&Mail::keyed("k")) == "250 2.0.0 queued as 1").then_some(())
    });
}

#[test]
fn what_is_hardly_meant_is_said_at_the_start_and_by_check() {
    let upstream = Upstream::start();
    let setup =
        Setup::new(upstream.address).rule("all", "", "window = \"1m\"").rule("late", "key = \"x\"", "");
    let proxy = setup.start();
    proxy
        .says("rule \\\"late\\\" can never match: rule \\\"all\\\" before it matches all that this one does");
    proxy.says("window = 1m is shorter than the retries");
    proxy.stop();
    let checked = setup.run(&["check"]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && said.contains("warning: rule \"late\" can never match"), "{said}");
}

#[test]
fn an_event_identifies_and_a_template_alone_does_not() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("chain = [\"event\"]\non_conflict = \"suppress\"").start();
    let mail = |event: &str, body: &str| {
        Mail::plain("x").header("X-Template-Id", "reset").header("X-SMTPAPI", event).body(body)
    };
    let event = r#"{"unique_args": {"event_id": "7"}}"#;
    assert_eq!(proxy.send(&mail(event, "one\r\n")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail(event, "two\r\n")), "250 2.0.0 queued as 1");
    assert_eq!(
        proxy.send(&mail(r#"{"unique_args": {"event_id": "8"}}"#, "one\r\n")),
        "250 2.0.0 queued as 2"
    );
    assert_eq!(proxy.send(&mail(r#"{"category": "reset"}"#, "one\r\n")), "250 2.0.0 queued as 3");
    assert_eq!(proxy.send(&mail(r#"{"category": "reset"}"#, "one\r\n")), "250 2.0.0 queued as 4");
    assert!(upstream.messages()[0].has("X-SMTPAPI"), "the provider needs it");
    proxy.log(&[("outcome", "unkeyed")]);
}

#[test]
fn a_tenant_has_no_more_claims_than_it_may() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .limits("max_claims_per_tenant = 2")
        .listener("tenant_header = \"X-Tenant\"")
        .start();
    let mail = |tenant: &str, key: &str| Mail::keyed(key).header("X-Tenant", tenant);
    assert_eq!(proxy.send(&mail("red", "1")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail("red", "2")), "250 2.0.0 queued as 2");
    starts(&proxy.send(&mail("red", "3")), "452 4.3.1 [QUOTA] ");
    assert_eq!(proxy.send(&mail("red", "2")), "250 2.0.0 queued as 2", "what it has is answered");
    assert_eq!(proxy.send(&mail("blue", "3")), "250 2.0.0 queued as 3", "others are not held up");
    proxy.log(&[("outcome", "rejected"), ("tenant", "red"), ("key", "3")]);
}
