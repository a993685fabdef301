//! How long a delivery is remembered whose client received no final reply, and
//! that a client which received one may send the same text again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "tls/client.rs"]
mod client;
mod common;
#[path = "tls/pki.rs"]
mod pki;

use client::Trust;
use common::gate::Gate;
use common::{At, Client, Do, Mail, Proxy, Setup, Upstream, until};
use pki::Authority;
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;

/// A proxy that remembers a text for a second.
fn setup(upstream: &Upstream) -> Setup {
    Setup::new(upstream.address).dedup("content_window = \"1s\"")
}

fn mail() -> Mail {
    Mail::plain("hello")
}

/// Sends something else, and waits until that is forgotten: what was settled
/// before it has outlived its window by then.
#[track_caller]
fn outlive_the_window(proxy: &Proxy) {
    let other = Mail::plain("something else").to(&["clock@b.test"]);
    let first = proxy.send(&other);
    assert!(first.starts_with("250 2.0.0 queued as "), "{first}");
    until("the window of another text ends", || (proxy.send(&other) != first).then_some(()));
}

/// Waits until the text is sent again, and no duplicate of what came before.
#[track_caller]
fn is_forgotten(proxy: &Proxy, mail: &Mail, first: &str) {
    until("the window ends", || {
        let reply = proxy.send(mail);
        assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
        (reply != first).then_some(())
    });
}

/// How often this recipient was sent to.
fn sent_to(upstream: &Upstream, recipient: &str) -> usize {
    upstream.messages().iter().filter(|message| message.to().contains(&recipient.to_owned())).count()
}

/// The decision about this recipient.
fn decision(proxy: &Proxy, outcome: &str) -> Value {
    proxy.log(&[("event", "message"), ("outcome", outcome), ("to", "ann@b.test")])
}

/// A client whose message is held at the upstream's final reply.
fn at_the_dot(upstream: &Upstream, proxy: &Proxy, mail: &Mail) -> (Client, Gate) {
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    client.start(mail);
    gate.reached();
    (client, gate)
}

#[test]
fn a_client_that_had_closed_its_connection_finds_its_delivery_remembered() {
    let reset = |client: Client| {
        let socket = client.into_stream();
        set_socket_linger(&socket, Some(std::time::Duration::ZERO)).unwrap();
    };
    let ways: [(&str, &dyn Fn(Client)); 2] = [("closed", &drop), ("reset", &reset)];
    for (way, leave) in ways {
        let upstream = Upstream::start();
        let proxy = setup(&upstream).start();
        let (client, gate) = at_the_dot(&upstream, &proxy, &mail());
        leave(client);
        gate.open();
        let line = decision(&proxy, "relayed");
        assert_eq!(line["heard"], false, "{way}");
        outlive_the_window(&proxy);
        assert_eq!(proxy.send(&mail()), "250 2.0.0 queued as 1", "{way}");
        assert_eq!(sent_to(&upstream, "ann@b.test"), 1, "{way}");
        assert_eq!(decision(&proxy, "duplicate")["heard"], true, "{way}");
    }
}

#[test]
fn a_client_that_only_stopped_sending_is_answered_and_may_send_again() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    let (mut client, gate) = at_the_dot(&upstream, &proxy, &mail());
    client.finish();
    gate.open();
    client.expect("250 2.0.0 queued as 1");
    assert_eq!(decision(&proxy, "relayed")["heard"], true);
    is_forgotten(&proxy, &mail(), "250 2.0.0 queued as 1");
}

#[test]
fn a_client_that_received_its_reply_may_send_again() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    assert_eq!(proxy.send(&mail()), "250 2.0.0 queued as 1");
    assert_eq!(decision(&proxy, "relayed")["heard"], true);
    is_forgotten(&proxy, &mail(), "250 2.0.0 queued as 1");
}

#[test]
fn all_of_a_pipelined_session_is_heard_by_a_client_that_only_stopped_sending() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    let mut session = Vec::new();
    for number in 0..3 {
        let content = Mail::plain(&format!("number {number}")).content();
        let commands = "MAIL FROM:<a@a.test>\r\nRCPT TO:<ann@b.test>\r\nBDAT";
        session.extend_from_slice(format!("{commands} {} LAST\r\n", content.len()).as_bytes());
        session.extend_from_slice(&content);
    }
    session.extend_from_slice(b"QUIT\r\n");
    client.send(&session);
    client.finish();
    gate.reached();
    gate.open();
    let replies = String::from_utf8(client.rest()).unwrap();
    let starts: Vec<_> = replies.lines().map(|line| &line[..3]).collect();
    assert_eq!(starts, ["250", "250", "250", "250", "250", "250", "250", "250", "250", "221"], "{replies}");
    let relayed = |proxy: &Proxy| {
        let decisions = proxy.decisions();
        (decisions.len() == 3).then_some(decisions)
    };
    for line in until("three decisions", || relayed(&proxy)) {
        assert_eq!((&line["outcome"], &line["heard"]), (&"relayed".into(), &true.into()));
    }
}

#[test]
fn a_shorter_ttl_of_its_own_changes_nothing() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    let keyed = Mail::keyed("k").header("X-Idempotency-TTL", "1s");
    let (client, gate) = at_the_dot(&upstream, &proxy, &keyed);
    drop(client);
    gate.open();
    assert_eq!(decision(&proxy, "relayed")["heard"], false);
    outlive_the_window(&proxy);
    assert_eq!(proxy.send(&keyed), "250 2.0.0 queued as 1");
    assert_eq!(sent_to(&upstream, "ann@b.test"), 1);
}

#[test]
fn the_window_of_the_unheard_ends_too() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).dedup("unheard_window = \"2s\"").start();
    let (client, gate) = at_the_dot(&upstream, &proxy, &mail());
    drop(client);
    gate.open();
    assert_eq!(decision(&proxy, "relayed")["heard"], false);
    is_forgotten(&proxy, &mail(), "250 2.0.0 queued as 1");
}

#[test]
fn those_who_have_it_are_remembered_when_others_are_put_off() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    upstream.say(At::Rcpt("bob@b.test".to_owned()), "450 4.2.0 greylisted");
    let both = mail().to(&["ann@b.test", "bob@b.test"]);
    let reply = proxy.send(&both);
    assert!(reply.starts_with("451-4.5.0 [PARTIAL] "), "{reply}");
    assert_eq!(decision(&proxy, "relayed")["heard"], true, "it was there for the reply");
    outlive_the_window(&proxy);
    let reply = proxy.send(&both);
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    assert_eq!((sent_to(&upstream, "ann@b.test"), sent_to(&upstream, "bob@b.test")), (1, 1));
}

#[test]
fn one_heard_by_another_client_is_remembered_for_the_one_that_comes_again() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    assert_eq!(proxy.send(&mail()), "250 2.0.0 queued as 1");
    upstream.say(At::Rcpt("bob@b.test".to_owned()), "450 4.2.0 greylisted");
    let both = mail().to(&["ann@b.test", "bob@b.test"]);
    let reply = proxy.send(&both);
    assert!(reply.starts_with("451-4.5.0 [PARTIAL] "), "{reply}");
    outlive_the_window(&proxy);
    let reply = proxy.send(&both);
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    assert_eq!((sent_to(&upstream, "ann@b.test"), sent_to(&upstream, "bob@b.test")), (1, 1));
}

#[test]
fn a_doubt_is_remembered_for_the_client_that_was_told_of_it() {
    for (policy, starts) in [("suppress", "250 2.0.0 [IN-DOUBT] "), ("hold", "451 4.4.2 [IN-DOUBT] ")] {
        let upstream = Upstream::start();
        let proxy = setup(&upstream).dedup(&format!("in_doubt = \"{policy}\"")).start();
        upstream.once(At::Dot, Do::AcceptDrop);
        let reply = proxy.send(&mail());
        assert!(reply.starts_with("451 4.4.2 [IN-DOUBT] "), "{reply}");
        for _ in 0..2 {
            outlive_the_window(&proxy);
            let reply = proxy.send(&mail());
            assert!(reply.starts_with(starts), "{policy}: {reply}");
        }
        assert_eq!(sent_to(&upstream, "ann@b.test"), 1, "{policy}");
    }
}

#[test]
fn one_in_flight_is_remembered_for_the_client_that_was_told_so() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).dedup("in_flight_wait = \"50ms\"").start();
    let (mut first, gate) = at_the_dot(&upstream, &proxy, &mail());
    let reply = proxy.send(&mail());
    assert!(reply.starts_with("451 4.5.0 [IN-FLIGHT] "), "{reply}");
    gate.open();
    first.expect("250 2.0.0 queued as 1");
    outlive_the_window(&proxy);
    assert_eq!(proxy.send(&mail()), "250 2.0.0 queued as 1");
    assert_eq!(sent_to(&upstream, "ann@b.test"), 1);
}

/// Two clients with one text: the second one waits for the first one's attempt.
fn first_and_second(upstream: &Upstream, proxy: &Proxy) -> (Client, Client, Gate) {
    let (first, gate) = at_the_dot(upstream, proxy, &mail());
    let mut second = proxy.client();
    second.start(&mail());
    // The second one waits when another message, sent after it, is answered.
    let other = proxy.send(&Mail::keyed("other").to(&["else@b.test"]));
    assert!(other.starts_with("250 "), "{other}");
    (first, second, gate)
}

#[test]
fn what_a_waiting_duplicate_received_is_heard_though_the_first_client_had_gone() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    let (first, mut second, gate) = first_and_second(&upstream, &proxy);
    drop(first);
    gate.open();
    let reply = second.expect("250 2.0.0 queued as ");
    assert_eq!(decision(&proxy, "relayed")["heard"], false);
    assert_eq!(decision(&proxy, "duplicate")["heard"], true);
    is_forgotten(&proxy, &mail(), &reply);
}

#[test]
fn what_no_client_received_is_remembered_though_two_had_waited() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    let (first, second, gate) = first_and_second(&upstream, &proxy);
    drop((first, second));
    gate.open();
    assert_eq!(decision(&proxy, "relayed")["heard"], false);
    assert_eq!(decision(&proxy, "duplicate")["heard"], false);
    outlive_the_window(&proxy);
    proxy.send(&mail());
    assert_eq!(sent_to(&upstream, "ann@b.test"), 1);
}

#[test]
fn under_tls_it_is_the_same() {
    let authority = Authority::new("test CA");
    let upstream = Upstream::start();
    let setup = setup(&upstream);
    authority.issue(&["relay.test"]).write(setup.directory(), "server");
    let lines = format!(
        "tls = \"starttls\"\ncertificate = \"{0}/server.pem\"\nprivate_key = \"{0}/server.key\"",
        setup.directory().display()
    );
    let proxy = setup.listener(&lines).start();
    let trust = Trust::new(&authority);

    let gate = upstream.gate(At::Dot);
    let mut gone = trust.hello(proxy.address);
    gone.start(&mail());
    gate.reached();
    drop(gone);
    gate.open();
    assert_eq!(decision(&proxy, "relayed")["heard"], false);

    let gate = upstream.gate(At::Dot);
    let there = Mail::plain("another").to(&["there@b.test"]);
    let mut client = trust.hello(proxy.address);
    client.start(&there);
    gate.reached();
    client.finish();
    gate.open();
    client.expect("250 2.0.0 queued as 2");
    let line = proxy.log(&[("outcome", "relayed"), ("to", "there@b.test")]);
    assert_eq!(line["heard"], true);
    is_forgotten(&proxy, &there, "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&mail()), "250 2.0.0 queued as 1");
    assert_eq!(sent_to(&upstream, "ann@b.test"), 1);
}

#[test]
fn only_messages_that_were_received_whole_say_whether_they_were_heard() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    let mut client = proxy.client();
    client.envelope(&mail());
    client.send("Subject: half of it\r\n");
    drop(client);
    assert!(decision(&proxy, "aborted")["heard"].is_null());
    assert!(proxy.send(&Mail::keyed("").to(&["ann@b.test"])).starts_with("554 5.5.0 [BAD-KEY]"));
    assert_eq!(decision(&proxy, "bad_key")["heard"], true);
}

/// A crash between the outcome and the reply: the longer memory is what is on
/// the disk.
#[cfg(feature = "crash-points")]
#[test]
fn a_crash_before_the_reply_leaves_the_delivery_remembered() {
    let upstream = Upstream::start();
    let setup = setup(&upstream).dedup("in_doubt = \"resend\"");
    let mut proxy = setup.start_with(|command| {
        command.env("MAILONCE_CRASH_AT", "after-outcome");
    });
    let mut client = proxy.client();
    client.start(&mail());
    assert!(client.is_closed(), "a reply from a dead process");
    proxy.process.wait();
    upstream.only();
    let proxy = setup.start();
    outlive_the_window(&proxy);
    assert_eq!(proxy.send(&mail()), "250 2.0.0 queued as 1");
    assert_eq!(sent_to(&upstream, "ann@b.test"), 1);
}
