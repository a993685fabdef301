//! Each recipient gets it once, whatever became of the others.

mod common;

use common::{At, Do, Mail, Proxy, Setup, Upstream};

const FIVE: [&str; 5] = ["a@b.test", "bad@b.test", "c@b.test", "slow@b.test", "e@b.test"];

fn all(upstream: &Upstream) -> Vec<Vec<String>> {
    upstream.messages().iter().map(|message| message.to()).collect()
}

#[test]
fn to_and_cc_copies_in_transactions_of_their_own_all_arrive() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    for (number, recipient) in ["to@b.test", "cc@b.test"].into_iter().enumerate() {
        let reply = proxy.send(&Mail::keyed("k").to(&[recipient]));
        assert_eq!(reply, format!("250 2.0.0 queued as {}", number + 1));
    }
    assert_eq!(all(&upstream), [["to@b.test"], ["cc@b.test"]]);
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["cc@b.test", "to@b.test"])), "250 2.0.0 queued as 2");
    assert_eq!(upstream.messages().len(), 2);
}

#[test]
fn one_claim_can_cover_the_whole_message() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("scope = \"message\"").start();
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["to@b.test", "cc@b.test"])), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["cc@b.test"])), "250 2.0.0 queued as 1");
    assert_eq!(all(&upstream), [["to@b.test", "cc@b.test"]]);
    // One that no attempt has named lacks it.
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["to@b.test", "bcc@b.test"])), "250 2.0.0 queued as 2");
    assert_eq!(all(&upstream)[1..], [["bcc@b.test"]]);
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["bcc@b.test", "to@b.test"])), "250 2.0.0 queued as 2");
    assert_eq!(upstream.messages().len(), 2);
}

#[test]
fn a_repeated_recipient_counts_once_in_any_case() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    proxy.send(&Mail::keyed("k").to(&["Ann@B.test", "ann@b.test"]));
    assert_eq!(upstream.only().to(), ["Ann@B.test"], "what is relayed is never changed");
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["ANN@b.TEST"])), "250 2.0.0 queued as 1");
    upstream.only();
}

#[test]
fn an_international_domain_is_one_in_both_forms() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut mail = Mail::keyed("k").to(&["ann@b\u{fc}cher.test"]);
    mail.parameters = " SMTPUTF8".to_owned();
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["ann@xn--bcher-kva.test"])), "250 2.0.0 queued as 1");
    upstream.only();
}

/// The upstream refuses one and defers another.
fn mixed(setup: Setup, upstream: &Upstream) -> (Proxy, Mail, String) {
    upstream.always(At::Rcpt("bad@b.test".into()), Do::Say("550 5.1.1 no such user".into()));
    upstream.say(At::Rcpt("slow@b.test".into()), "450 4.2.1 mailbox busy");
    let proxy = setup.start();
    let mail = Mail::keyed("k").to(&FIVE);
    let reply = proxy.send(&mail);
    (proxy, mail, reply)
}

#[test]
fn a_retry_brings_it_to_those_who_lack_it_alone() {
    let upstream = Upstream::start();
    let (proxy, mail, reply) = mixed(Setup::new(upstream.address), &upstream);
    let lines: Vec<_> = reply.lines().collect();
    assert!(lines[0].starts_with("451-4.5.0 [PARTIAL] "), "{reply}");
    assert_eq!(lines[1], "451-4.5.0 <bad@b.test>: 550 5.1.1 no such user");
    assert_eq!(lines[2], "451 4.5.0 <slow@b.test>: 450 4.2.1 mailbox busy");
    assert_eq!(lines.len(), 3, "{reply}");
    assert_eq!(all(&upstream), [["a@b.test", "c@b.test", "e@b.test"]]);
    for (to, outcome) in FIVE.into_iter().zip(["relayed", "refused", "relayed", "deferred", "relayed"]) {
        proxy.log(&[("to", to), ("outcome", outcome)]);
    }

    let before = upstream.commands().len();
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("554-5.5.0 [PARTIAL] "), "{reply}");
    assert!(reply.contains("<bad@b.test>: 550 5.1.1 no such user") && !reply.contains("slow@"), "{reply}");
    assert_eq!(all(&upstream)[1..], [["slow@b.test"]]);
    let asked: Vec<_> = upstream.commands().split_off(before);
    let asked: Vec<_> = asked.iter().filter(|line| line.starts_with("RCPT")).collect();
    assert_eq!(asked.len(), 2, "the refused one is a new attempt, too: {asked:?}");
}

#[test]
fn partial_acceptance_can_be_acceptance() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("on_partial = \"accept\"");
    let (proxy, mail, reply) = mixed(setup, &upstream);
    assert!(reply.starts_with("451-4.5.0 [PARTIAL] "), "a deferral is still one: {reply}");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 2");
    assert_eq!(all(&upstream)[1..], [["slow@b.test"]]);
}

#[test]
fn where_all_are_of_one_class_the_first_one_speaks() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    upstream.say(At::Rcpt("a@b.test".into()), "450 4.2.1 busy");
    upstream.say(At::Rcpt("c@b.test".into()), "452 4.2.2 full");
    let mail = Mail::keyed("k").to(&["a@b.test", "c@b.test"]);
    assert_eq!(proxy.send(&mail), "450 4.2.1 busy");
    assert_eq!(upstream.messages().len(), 0);
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(all(&upstream), [["a@b.test", "c@b.test"]]);
}

#[test]
fn a_closing_upstream_at_one_recipient_defers_them_all() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    upstream.always(At::Rcpt("c@b.test".into()), Do::Say("421 4.3.2 closing".into()));
    let reply = proxy.send(&Mail::keyed("k").to(&["a@b.test", "c@b.test"]));
    assert!(reply.starts_with("451 4.4.1 [UPSTREAM] "), "{reply}");
    assert_eq!(upstream.messages().len(), 0);
    proxy.log(&[("to", "a@b.test"), ("outcome", "deferred")]);
    proxy.log(&[("to", "c@b.test"), ("outcome", "deferred")]);
}

#[test]
fn rejected_duplicates_weigh_nothing_beside_a_new_recipient() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("on_duplicate = \"reject\"").start();
    proxy.send(&Mail::keyed("k").to(&["a@b.test"]));
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["a@b.test", "new@b.test"])), "250 2.0.0 queued as 2");
    assert_eq!(all(&upstream), [["a@b.test"], ["new@b.test"]]);
}

#[test]
fn overlapping_recipients_never_wait_in_a_circle() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let gate = upstream.gate(At::Dot);
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.start(&Mail::keyed("k").to(&["a@b.test", "c@b.test"]));
    gate.reached();
    second.start(&Mail::keyed("k").to(&["c@b.test", "e@b.test"]));
    // The second brings it to the one who is new while it waits for the other.
    assert_eq!(upstream.wait(1)[0].to(), ["e@b.test"]);
    gate.open();
    first.expect("250 2.0.0 queued as ");
    second.expect("250 2.0.0 queued as ");
    assert_eq!(all(&upstream), [vec!["e@b.test"], vec!["a@b.test", "c@b.test"]]);
}

#[test]
fn with_one_claim_for_all_a_retry_still_spares_those_who_have_it() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("scope = \"message\"");
    let (proxy, mail, reply) = mixed(setup, &upstream);
    assert!(reply.starts_with("451-4.5.0 [PARTIAL] "), "{reply}");
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("554-5.5.0 [PARTIAL] "), "{reply}");
    assert_eq!(all(&upstream)[1..], [["slow@b.test"]]);
}
