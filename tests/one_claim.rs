//! One claim for a whole message: what becomes of one recipient, or of one text, is
//! never taken for what becomes of another.

mod common;

use common::gate::Gate;
use common::{At, Client, Do, Mail, Proxy, Setup, Upstream};

const A_AND_B: [&str; 2] = ["a@b.test", "b@b.test"];

fn all(upstream: &Upstream) -> Vec<Vec<String>> {
    upstream.messages().iter().map(|message| message.to()).collect()
}

fn of_messages(upstream: &Upstream, policy: &str) -> Proxy {
    Setup::new(upstream.address).dedup("scope = \"message\"").dedup(policy).admin().start()
}

fn once_busy(upstream: &Upstream, recipients: &[&str]) {
    for recipient in recipients {
        upstream.say(At::Rcpt(format!("{recipient}@b.test")), "450 4.2.1 busy");
    }
}

/// A client whose mail the upstream has but for its answer, another one that waits for
/// that attempt, and the gate at which the upstream answers.
fn one_waits_for_the_other(
    upstream: &Upstream,
    proxy: &Proxy,
    first: &Mail,
    second: &Mail,
) -> (Client, Client, Gate) {
    let (mut one, mut other) = (proxy.client(), proxy.client());
    let gate = upstream.gate(At::Dot);
    one.start(first);
    gate.reached();
    other.start(second);
    wait_for_a_duplicate(proxy);
    (one, other, gate)
}

fn wait_for_a_duplicate(proxy: &Proxy) {
    common::until("a duplicate to wait", || {
        let claims = proxy.ask("GET /v1/claims", &[], "").json();
        (claims[0]["duplicates"] == 1).then_some(())
    });
}

/// Another text takes the claim over and reaches one of two. Its retry goes to the
/// other one alone.
#[test]
fn another_text_that_reached_some_is_retried_for_the_others_alone() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "on_conflict = \"relay\"");
    assert_eq!(proxy.send(&Mail::keyed("k").to(&A_AND_B)), "250 2.0.0 queued as 1");
    once_busy(&upstream, &["b"]);
    let other = Mail::keyed("k").to(&A_AND_B).body("another text\r\n");
    let reply = proxy.send(&other);
    assert!(reply.starts_with("451-4.5.0 [PARTIAL]"), "{reply}");
    assert_eq!(proxy.send(&other), "250 2.0.0 queued as 3");
    assert_eq!(all(&upstream)[1..], [["a@b.test"], ["b@b.test"]]);
}

/// Another text is deferred for all. Those who received the first one keep it.
#[test]
fn another_text_that_reached_no_recipient_leaves_the_first_as_it_was() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "on_conflict = \"relay\"");
    once_busy(&upstream, &["b", "b"]);
    upstream.say(At::Rcpt("a@b.test".into()), "250 2.1.5 ok");
    upstream.say(At::Rcpt("a@b.test".into()), "450 4.2.1 busy");
    let mail = Mail::keyed("k").to(&A_AND_B);
    let reply = proxy.send(&mail);
    assert!(reply.contains("accepted for 1 of 2"), "{reply}");
    let reply = proxy.send(&Mail::keyed("k").to(&A_AND_B).body("another text\r\n"));
    assert_eq!(reply, "450 4.2.1 busy");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 2");
    assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"]]);
}

/// An attempt at one recipient is refused. A retry for another one, who was only
/// deferred, waits for it. The upstream never refused that one.
#[test]
fn a_refusal_of_one_is_none_of_another_who_waits() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "");
    once_busy(&upstream, &["a"]);
    let [a, b] = A_AND_B.map(|recipient| Mail::keyed("k").to(&[recipient]));
    assert_eq!(proxy.send(&a), "450 4.2.1 busy");
    let (mut first, mut second, gate) = one_waits_for_the_other(&upstream, &proxy, &b, &a);
    gate.say("550 5.7.1 not for b");
    first.expect("550 5.7.1 not for b");
    second.expect("451 4.5.0 [IN-FLIGHT] ");
}

/// A recipient is in doubt, to be sent to again. A retry waits for a flight that is for
/// another recipient, whose acceptance says nothing of the first.
#[test]
fn an_acceptance_of_one_is_none_of_another_in_doubt_who_waits() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "in_doubt = \"resend\"");
    upstream.once(At::Dot, Do::AcceptDrop);
    let [a, b] = A_AND_B.map(|recipient| Mail::keyed("k").to(&[recipient]));
    let reply = proxy.send(&a);
    assert!(reply.starts_with("451 4.4.2 [IN-DOUBT]"), "{reply}");
    let (mut first, mut second, gate) = one_waits_for_the_other(&upstream, &proxy, &b, &a);
    gate.open();
    first.expect("250 2.0.0 queued as 2");
    second.expect("451 4.5.0 [IN-FLIGHT] ");
    assert_eq!(proxy.send(&a), "250 2.0.0 queued as 3");
}

/// Another text is about to take the claim over and has sent nothing yet. The retry
/// of the first one goes to the recipient who lacks it alone.
#[test]
fn a_retry_beside_another_text_goes_to_those_who_lack_it() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "on_conflict = \"relay\"");
    once_busy(&upstream, &["b"]);
    let mail = Mail::keyed("k").to(&A_AND_B);
    assert!(proxy.send(&mail).contains("accepted for 1 of 2"));
    let mut other = proxy.client();
    let gate = upstream.gate(At::Data);
    other.start(&Mail::keyed("k").to(&A_AND_B).body("another text\r\n"));
    gate.reached();
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 2");
    gate.open();
    other.expect("451 4.5.0 [IN-FLIGHT] ");
    assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"]]);
}
