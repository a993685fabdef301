//! `mode = "observe"`: everything is relayed, nothing is refused that
//! deduplication would, and what would have been suppressed is written down.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use common::{At, Do, Mail, Proxy, Setup, Upstream};

fn observing(upstream: &Upstream, dedup: &str) -> Setup {
    Setup::new(upstream.address).dedup("mode = \"observe\"").dedup(dedup)
}

/// The outcomes of all decisions once there are so many.
fn outcomes(proxy: &Proxy, count: usize) -> Vec<String> {
    let decided = common::until("decisions", || {
        let decisions = proxy.decisions();
        (decisions.len() >= count).then_some(decisions)
    });
    decided.iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn duplicates_are_relayed_and_written_down() {
    let upstream = Upstream::start();
    let setup = observing(&upstream, "on_duplicate = \"reject\"");
    let proxy = setup.start();
    for number in 1..=3 {
        assert_eq!(proxy.send(&Mail::keyed("k")), format!("250 2.0.0 queued as {number}"));
    }
    assert_eq!(proxy.send(&Mail::keyed("k").body("other\r\n")), "250 2.0.0 queued as 4");
    assert_eq!(
        outcomes(&proxy, 4),
        ["relayed", "observed_duplicate", "observed_duplicate", "observed_conflict"]
    );
    let line = proxy.log(&[("outcome", "observed_duplicate")]);
    assert!(line["first_seen"].is_string() && line["claim"].is_string() && line["key"] == "k", "{line}");
    assert_eq!(line["reply"], "250 2.0.0 queued as 2");
    proxy.stop();
    let listed = setup.run(&["keys", "list", "--json"]);
    let record: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&record["state"], &record["duplicates"]), (&"accepted".into(), &2.into()));
}

#[test]
fn nothing_is_refused_that_only_deduplication_would() {
    let upstream = Upstream::start();
    let setup = observing(&upstream, "unkeyed = \"reject\"\nchain = [\"header\"]");
    let proxy = setup.listener("tenant_header = \"X-Tenant\"").start();
    let bad = [
        Mail::keyed(""),
        Mail::keyed("k").header("X-Idempotency-TTL", "soon"),
        Mail::keyed("k").header("X-Tenant", ""),
        Mail::plain("no key"),
    ];
    for (number, mail) in bad.iter().enumerate() {
        assert_eq!(proxy.send(mail), format!("250 2.0.0 queued as {}", number + 1));
    }
    assert_eq!(outcomes(&proxy, 4), ["observed_bad_key", "observed_bad_key", "observed_bad_key", "unkeyed"]);
    assert!(
        upstream
            .messages()
            .iter()
            .all(|message| !message.has("X-Idempotency-Key") && !message.has("X-Tenant"))
    );
    let reply = proxy.send(&Mail::plain("nul").body("a\0b\r\n"));
    assert!(reply.starts_with("554 5.6.0"), "the wire's own rules stay: {reply}");
}

#[test]
fn those_known_and_those_new_go_in_one_transaction() {
    let upstream = Upstream::start();
    let proxy = observing(&upstream, "").start();
    proxy.send(&Mail::keyed("k").to(&["a@b.test"]));
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["new@b.test", "a@b.test"])), "250 2.0.0 queued as 2");
    assert_eq!(upstream.messages()[1].to(), ["new@b.test", "a@b.test"]);
    proxy.log(&[("to", "a@b.test"), ("outcome", "observed_duplicate")]);
    proxy.log(&[("to", "new@b.test"), ("outcome", "relayed")]);
    // What was new is remembered.
    proxy.send(&Mail::keyed("k").to(&["new@b.test"]));
    proxy.log(&[("to", "new@b.test"), ("outcome", "observed_duplicate")]);
}

#[test]
fn one_claim_for_a_message_observes_too() {
    let upstream = Upstream::start();
    let proxy = observing(&upstream, "scope = \"message\"").start();
    upstream.once(At::Rcpt("b@b.test".into()), Do::Say("450 4.2.1 busy".into()));
    let mail = Mail::keyed("k").to(&["a@b.test", "b@b.test"]);
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("451 4.5.0 [PARTIAL]") || reply.starts_with("451-4.5.0 [PARTIAL]"), "{reply}");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 2");
    assert_eq!(upstream.messages()[1].to(), ["a@b.test", "b@b.test"], "nobody is spared");
    proxy.log(&[("to", "a@b.test"), ("outcome", "observed_duplicate")]);
}

#[test]
fn nobody_waits_for_a_flight() {
    let upstream = Upstream::start();
    let proxy = observing(&upstream, "").start();
    let gate = upstream.gate(At::Dot);
    let mut first = proxy.client();
    first.start(&Mail::keyed("k"));
    gate.reached();
    let second = proxy.send(&Mail::keyed("k"));
    assert!(second.starts_with("250 2.0.0 queued as "), "{second}");
    gate.open();
    first.expect("250 2.0.0 queued as ");
    proxy.log(&[("outcome", "observed_duplicate")]);
}

#[test]
fn a_doubt_holds_nothing_up() {
    let upstream = Upstream::start();
    let proxy = observing(&upstream, "in_doubt = \"hold\"").start();
    upstream.once(At::Dot, Do::AcceptDrop);
    let reply = proxy.send(&Mail::keyed("k"));
    assert!(reply.starts_with("451 4.4.2 [IN-DOUBT]"), "{reply}");
    let second = proxy.send(&Mail::keyed("k"));
    assert!(second.starts_with("250 2.0.0 queued as "), "{second}");
    proxy.log(&[("outcome", "observed_duplicate")]);
}

#[test]
fn what_is_observed_is_told_whatever_the_upstream_says() {
    let upstream = Upstream::start();
    let proxy = observing(&upstream, "").start();
    proxy.send(&Mail::keyed("k"));
    for (outcome, mail) in [("observed_duplicate", Mail::keyed("k")), ("observed_bad_key", Mail::keyed(""))] {
        upstream.say(At::Dot, "550 5.7.1 not today");
        assert_eq!(proxy.send(&mail), "550 5.7.1 not today");
        assert_eq!(proxy.log(&[("outcome", outcome)])["reply"], "550 5.7.1 not today");
    }
}

#[test]
fn the_upstream_hears_no_key_that_the_client_did_not_choose() {
    let upstream = Upstream::start();
    let setup = observing(&upstream, "").upstream("idempotency_header = \"Idempotency-Key\"");
    let proxy = setup.start();
    proxy.send(&Mail::plain("by content"));
    proxy.send(&Mail::keyed("chosen"));
    let [content, keyed] = &upstream.messages()[..] else { panic!("two") };
    assert!(!content.has("Idempotency-Key"), "a provider would suppress the second");
    assert!(!keyed.has("Idempotency-Key"), "what is only observed has no claim of its own");
}

#[test]
fn a_rule_can_be_tried_out_alone() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).rule("trial", "key = \"new:*\"", "mode = \"observe\"").start();
    proxy.send(&Mail::keyed("new:1"));
    assert_eq!(proxy.send(&Mail::keyed("new:1")), "250 2.0.0 queued as 2");
    proxy.send(&Mail::keyed("old:1"));
    assert_eq!(proxy.send(&Mail::keyed("old:1")), "250 2.0.0 queued as 3");
    proxy.log(&[("outcome", "observed_duplicate"), ("rule", "trial")]);
}
