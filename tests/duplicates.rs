//! The same e-mail again: after its original, beside it, and with another
//! content.

mod common;

use std::sync::{Arc, Barrier};

use common::{At, Mail, Proxy, Setup, Upstream, meanwhile};

const REPLY: &str = "250-2.0.0 first line\n250-2.0.0 second: <a@b>\n250 and a third";

#[test]
fn a_duplicate_hears_the_stored_reply_though_the_upstream_is_down() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    upstream.say(At::Dot, "250 2.0.0 first line\n2.0.0 second: <a@b>\nand a third");
    let mail = Mail::keyed("k");
    assert_eq!(proxy.send(&mail), REPLY);
    upstream.down();
    let before = upstream.connections();
    for _ in 0..3 {
        assert_eq!(proxy.send(&mail), REPLY);
    }
    assert_eq!(upstream.connections(), before, "the upstream never hears of a duplicate");
    upstream.only();
    let line = proxy.log(&[("outcome", "duplicate")]);
    assert_eq!((&line["key"], &line["level"]), (&"k".into(), &"info".into()));
    assert!(line["first_seen"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn duplicates_can_be_rejected() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("on_duplicate = \"reject\"").start();
    let mail = Mail::keyed("k");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    let reply = proxy.send(&mail);
    let rest = reply.strip_prefix("554 5.5.0 [DUPLICATE] accepted ").expect(&reply);
    let (time, text) = rest.split_once(": ").unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");
    assert_eq!(text, "2.0.0 queued as 1");
    upstream.only();
}

#[test]
fn thirty_two_at_once_are_one() {
    let upstream = Upstream::start();
    let proxy = Arc::new(Proxy::before(&upstream));
    let start = Arc::new(Barrier::new(32));
    let mail = Mail::keyed("k");
    let sends: Vec<_> = (0..32)
        .map(|_| {
            let (proxy, start, mail) = (proxy.clone(), start.clone(), mail.clone());
            meanwhile(move || {
                let mut client = proxy.client();
                start.wait();
                client.deliver(&mail)
            })
        })
        .collect();
    for send in sends {
        assert_eq!(send.join().unwrap(), "250 2.0.0 queued as 1");
    }
    upstream.only();
}

/// Sends a message that stops at the upstream's final reply and a second one
/// behind it, then lets the upstream say `reply`; gives what both heard.
fn shared(setup: Setup, upstream: &Upstream, reply: &str) -> (String, String) {
    let proxy = setup.start();
    let gate = upstream.gate(At::Dot);
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.start(&Mail::keyed("k"));
    gate.reached();
    second.start(&Mail::keyed("k"));
    // The second is decided on when another message, sent after it over the
    // same listener, has been answered from the store.
    let other = proxy.send(&Mail::keyed("other").to(&["else@b.test"]));
    assert!(other.starts_with("250 "), "{other}");
    gate.say(reply);
    let heard = (first.reply(), second.reply());
    let lines = upstream.commands();
    assert_eq!(
        lines.iter().filter(|line| line.contains("<ann@b.test>")).count(),
        1,
        "one attempt: {lines:?}"
    );
    heard
}

#[test]
fn those_who_wait_share_the_reply_whatever_it_is() {
    for reply in ["250 2.0.0 done", "451 4.7.0 throttled", "550 5.7.1 unwanted"] {
        let upstream = Upstream::start();
        let heard = shared(Setup::new(upstream.address), &upstream, reply);
        assert_eq!(heard, (reply.to_owned(), reply.to_owned()));
    }
}

#[test]
fn one_that_waited_is_rejected_where_duplicates_are() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("on_duplicate = \"reject\"");
    let (first, second) = shared(setup, &upstream, "250 2.0.0 done");
    assert_eq!(first, "250 2.0.0 done");
    assert!(second.starts_with("554 5.5.0 [DUPLICATE] accepted 20"), "{second}");
    assert!(second.ends_with(": 2.0.0 done"), "{second}");
}

#[test]
fn the_wait_has_an_end() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("in_flight_wait = \"200ms\"").start();
    let gate = upstream.gate(At::Dot);
    let mut first = proxy.client();
    first.start(&Mail::keyed("k"));
    gate.reached();
    let reply = proxy.send(&Mail::keyed("k"));
    assert!(reply.starts_with("451 4.5.0 [IN-FLIGHT] "), "{reply}");
    proxy.log(&[("outcome", "in_flight_timeout")]);
    gate.open();
    first.expect("250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    upstream.only();
}

fn other_content() -> Mail {
    Mail::keyed("k").body("Something else entirely.\r\n")
}

#[test]
fn a_key_with_another_content_is_a_conflict() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    proxy.send(&Mail::keyed("k"));
    let conflict =
        "554 5.5.0 [CONFLICT] idempotency key reused with different content: the first was accepted 20";
    let reply = proxy.send(&other_content());
    assert!(reply.starts_with(conflict), "{reply}");
    let line = proxy.log(&[("outcome", "conflict")]);
    assert_eq!(line["level"], "warn");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    // A recipient beside it that is new is sent all the same.
    let reply = proxy.send(&other_content().to(&["ann@b.test", "new@b.test"]));
    assert!(reply.starts_with("554-5.5.0 [PARTIAL] "), "{reply}");
    assert!(reply.contains("<ann@b.test>: 554 5.5.0 [CONFLICT]") && !reply.contains("new@b.test"), "{reply}");
    assert_eq!(upstream.wait(2)[1].to(), ["new@b.test"]);
}

#[test]
fn a_conflict_does_not_wait_for_the_flight() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let gate = upstream.gate(At::Dot);
    let mut first = proxy.client();
    first.start(&Mail::keyed("k"));
    gate.reached();
    assert!(proxy.send(&other_content()).starts_with("554 5.5.0 [CONFLICT]"));
    gate.open();
    first.expect("250 2.0.0 queued as 1");
    upstream.only();
}

#[test]
fn a_conflict_can_count_as_a_duplicate() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("on_conflict = \"suppress\"").start();
    proxy.send(&Mail::keyed("k"));
    assert_eq!(proxy.send(&other_content()), "250 2.0.0 queued as 1");
    upstream.only();
    assert_eq!(proxy.log(&[("outcome", "conflict")])["level"], "warn");
}

#[test]
fn a_conflict_can_take_the_claim_over() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("on_conflict = \"relay\"").start();
    proxy.send(&Mail::keyed("k"));
    assert_eq!(proxy.send(&other_content()), "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&other_content()), "250 2.0.0 queued as 2");
    assert_eq!(upstream.messages().len(), 2);
    assert!(upstream.messages()[1].text().ends_with("Something else entirely.\r\n"));
}

#[test]
fn the_same_meaning_in_other_words_is_no_conflict() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    proxy.send(
        &Mail::keyed("k")
            .header("Date", "Sat, 21 Nov 2026 08:15:00 +0000")
            .header("Message-ID", "<1@a.test>"),
    );
    let again =
        Mail::keyed("k").header("Date", "Sat, 21 Nov 2026 08:16:00 +0000").header("Message-ID", "<2@a.test>");
    let again = again.header("Content-Transfer-Encoding", "quoted-printable").body("Hello,=20Ann=2E   \r\n");
    assert_eq!(proxy.send(&again), "250 2.0.0 queued as 1");
    upstream.only();
}

#[test]
fn a_restart_forgets_nothing() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let proxy = setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.stop().code(), Some(0));
    let proxy = setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    proxy.kill();
    let proxy = setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    upstream.only();
}

#[test]
fn a_conflict_that_counts_as_a_duplicate_waits_for_the_flight() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("on_conflict = \"suppress\"").start();
    let gate = upstream.gate(At::Dot);
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.start(&Mail::keyed("k"));
    gate.reached();
    second.start(&other_content());
    proxy.send(&Mail::keyed("other").to(&["else@b.test"]));
    gate.say("550 5.7.1 unwanted");
    assert_eq!((first.reply(), second.reply()), ("550 5.7.1 unwanted".into(), "550 5.7.1 unwanted".into()));
}

#[test]
fn a_claim_taken_over_in_flight_keeps_the_newer_outcome() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("on_conflict = \"relay\"").start();
    let gate = upstream.gate(At::Dot);
    let mut first = proxy.client();
    first.start(&Mail::keyed("k"));
    gate.reached();
    assert_eq!(proxy.send(&other_content()), "250 2.0.0 queued as 1");
    gate.say("550 5.7.1 too late");
    first.expect("550 5.7.1 too late");
    assert_eq!(proxy.send(&other_content()), "250 2.0.0 queued as 1", "a slow holder overwrites nothing");
    upstream.only();
}
