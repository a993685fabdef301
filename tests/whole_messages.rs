//! Messages to several recipients of whom some have it, lack it, or are in
//! doubt; most of them under one claim for the whole message.

mod common;

use common::{At, Do, Mail, Proxy, Setup, Upstream};

/// The recipients of each message that the upstream has.
fn all(upstream: &Upstream) -> Vec<Vec<String>> {
    upstream.messages().iter().map(|message| message.to()).collect()
}

/// One recipient is greylisted, and the connection dies behind the dot: the
/// client is told of the doubt each time, whatever else there is to say.
#[test]
fn a_doubt_about_one_recipient_never_hides_behind_another() {
    for scope in ["recipient", "message"] {
        let upstream = Upstream::start();
        let proxy = Setup::new(upstream.address).dedup(&format!("scope = \"{scope}\"")).start();
        once_busy(&upstream, &["b"]);
        upstream.once(At::Dot, Do::AcceptDrop);
        let mail = Mail::keyed("k").to(&A_AND_B);
        let reply = proxy.send(&mail);
        assert!(
            reply.starts_with("451-4.4.2 [IN-DOUBT] outcome unconfirmed for 1 of 2 recipients\n"),
            "{reply}"
        );
        assert!(reply.contains("\n451-4.4.2 <a@b.test>: 451 4.4.2 [IN-DOUBT] "), "{reply}");
        assert!(reply.ends_with("\n451 4.4.2 the others: 450 4.2.1 busy"), "{reply}");
        assert_eq!(proxy.send(&mail), A_IN_DOUBT, "{scope}");
        assert_eq!(proxy.send(&Mail::keyed("k").to(&["a@b.test"])), IN_DOUBT, "one needs no list");
        assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"]]);
    }
}

#[test]
fn a_rejected_duplicate_in_doubt_weighs_beside_what_is_new() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("on_duplicate = \"reject\"").start();
    once_busy(&upstream, &["b"]);
    upstream.once(At::Dot, Do::AcceptDrop);
    let mail = Mail::keyed("k").to(&A_AND_B);
    proxy.send(&mail);
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("554-5.5.0 [PARTIAL] accepted for 1 of 2 recipients\n"), "{reply}");
    assert!(reply.contains("<a@b.test>: 554 5.5.0 [DUPLICATE] sent "), "{reply}");
    // Both are duplicates now: the doubt is told beside the acceptance.
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("554-5.5.0 [IN-DOUBT] outcome unconfirmed for 1 of 2 recipients\n"), "{reply}");
    assert!(reply.contains("\n554 5.5.0 the others: 554 5.5.0 [DUPLICATE] accepted "), "{reply}");
}

/// One claim for a whole message.
fn of_messages(upstream: &Upstream, policy: &str) -> Proxy {
    Setup::new(upstream.address).dedup("scope = \"message\"").dedup(policy).start()
}

fn once_busy(upstream: &Upstream, recipients: &[&str]) {
    for recipient in recipients {
        upstream.say(At::Rcpt(format!("{recipient}@b.test")), "450 4.2.1 busy");
    }
}

const A_AND_B: [&str; 2] = ["a@b.test", "b@b.test"];
const IN_DOUBT: &str = "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed";
const A_IN_DOUBT: &str = "250-2.0.0 [IN-DOUBT] outcome unconfirmed for 1 of 2 recipients\n\
     250-2.0.0 <a@b.test>: 250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed\n\
     250 2.0.0 the others: 250 2.0.0 queued as 2";

#[test]
fn a_doubt_about_some_of_a_message_leaves_out_those_who_were_refused() {
    for refusal in ["450 4.2.1 busy", "550 5.1.1 not yet"] {
        let upstream = Upstream::start();
        let proxy = of_messages(&upstream, "");
        upstream.say(At::Rcpt("b@b.test".into()), refusal);
        upstream.once(At::Dot, Do::AcceptDrop);
        let mail = Mail::keyed("k").to(&A_AND_B);
        let reply = proxy.send(&mail);
        assert!(reply.starts_with("451") && reply.contains("<a@b.test>: 451 4.4.2 [IN-DOUBT]"), "{reply}");
        assert_eq!(proxy.send(&mail), A_IN_DOUBT, "{refusal}");
        assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"]]);
        proxy.log(&[("to", "a@b.test"), ("outcome", "duplicate"), ("reply", IN_DOUBT)]);
        // Still a doubt, and nobody is owed anything any more.
        assert_eq!(proxy.send(&Mail::keyed("k").to(&["a@b.test"])), IN_DOUBT);
        assert_eq!(upstream.messages().len(), 2);
    }
}

#[test]
fn a_doubt_about_some_outlives_the_refusal_of_the_rest() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "");
    once_busy(&upstream, &["b", "b"]);
    upstream.once(At::Dot, Do::AcceptDrop);
    let mail = Mail::keyed("k").to(&A_AND_B);
    proxy.send(&mail);
    let reply = proxy.send(&mail);
    assert!(reply.contains("accepted for 0 of 2") && reply.contains("<b@b.test>: 450 4.2.1 busy"), "{reply}");
    assert!(reply.contains(&format!("<a@b.test>: {IN_DOUBT}")), "{reply}");
    assert_eq!(proxy.send(&mail), A_IN_DOUBT);
    assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"]], "a is never sent again");
}

#[test]
fn resent_a_doubt_comes_to_each_in_a_split_retry() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "in_doubt = \"resend\"");
    upstream.once(At::Dot, Do::AcceptDrop);
    proxy.send(&Mail::keyed("k").to(&A_AND_B));
    for (number, recipient) in ["b@b.test", "a@b.test"].into_iter().enumerate() {
        let reply = proxy.send(&Mail::keyed("k").to(&[recipient]));
        assert_eq!(reply, format!("250 2.0.0 queued as {}", number + 2));
    }
    assert_eq!(all(&upstream)[1..], [["b@b.test"], ["a@b.test"]]);
    proxy.send(&Mail::keyed("k").to(&A_AND_B));
    assert_eq!(upstream.messages().len(), 3);
}

#[test]
fn held_a_doubt_about_some_holds_all() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "in_doubt = \"hold\"");
    once_busy(&upstream, &["b"]);
    upstream.once(At::Dot, Do::AcceptDrop);
    let mail = Mail::keyed("k").to(&A_AND_B);
    proxy.send(&mail);
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("451 4.4.2 [IN-DOUBT]"), "{reply}");
    upstream.only();
}

#[test]
fn a_crash_leaves_a_doubt_only_about_those_who_were_not_refused() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("scope = \"message\"");
    let proxy = setup.start();
    once_busy(&upstream, &["b"]);
    let gate = upstream.gate(At::Dot);
    let mail = Mail::keyed("k").to(&A_AND_B);
    let mut client = proxy.client();
    client.start(&mail);
    gate.reached();
    proxy.kill();
    gate.open();
    upstream.wait(1);
    let proxy = setup.start();
    assert_eq!(proxy.send(&mail), A_IN_DOUBT);
    assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"]]);
}

/// The one who is owed it is in doubt as soon as it may have been sent.
#[test]
fn a_crash_while_the_rest_is_sent_does_not_send_it_twice() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("scope = \"message\"");
    let proxy = setup.start();
    once_busy(&upstream, &["b"]);
    let mail = Mail::keyed("k").to(&A_AND_B);
    proxy.send(&mail);
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    client.start(&mail);
    gate.reached();
    proxy.kill();
    gate.open();
    upstream.wait(2);
    let proxy = setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["b@b.test"])), IN_DOUBT);
    assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"]]);
}

#[test]
fn a_split_retry_reaches_everybody() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "");
    once_busy(&upstream, &["b", "c"]);
    let reply = proxy.send(&Mail::keyed("k").to(&["a@b.test", "b@b.test", "c@b.test"]));
    assert!(reply.starts_with("451-4.5.0 [PARTIAL]"), "{reply}");
    for (number, recipient) in ["b@b.test", "c@b.test"].into_iter().enumerate() {
        let reply = proxy.send(&Mail::keyed("k").to(&[recipient]));
        assert_eq!(reply, format!("250 2.0.0 queued as {}", number + 2));
    }
    assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"], ["c@b.test"]]);
    proxy.send(&Mail::keyed("k").to(&["c@b.test", "b@b.test", "a@b.test"]));
    assert_eq!(upstream.messages().len(), 3);
}

#[test]
fn a_split_retry_that_is_refused_does_not_send_the_others_again() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "");
    once_busy(&upstream, &["a", "a"]);
    let [a, b] = A_AND_B.map(|recipient| Mail::keyed("k").to(&[recipient]));
    assert_eq!(proxy.send(&a), "450 4.2.1 busy");
    assert_eq!(proxy.send(&b), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&a), "450 4.2.1 busy");
    assert_eq!(proxy.send(&b), "250 2.0.0 queued as 1", "as the first time");
    assert_eq!(proxy.send(&a), "250 2.0.0 queued as 2");
    assert_eq!(all(&upstream), [["b@b.test"], ["a@b.test"]]);
}

#[test]
fn a_flight_answers_only_for_those_whom_it_reaches() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("scope = \"message\"").admin().start();
    once_busy(&upstream, &["b", "c"]);
    proxy.send(&Mail::keyed("k").to(&["a@b.test", "b@b.test", "c@b.test"]));
    let gate = upstream.gate(At::Dot);
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.start(&Mail::keyed("k").to(&["b@b.test"]));
    gate.reached();
    let other = Mail::keyed("k").to(&["c@b.test"]);
    second.start(&other);
    common::until("the second to wait", || {
        let claims = proxy.ask("GET /v1/claims", &[], "").json();
        (claims[0]["duplicates"] == 1).then_some(())
    });
    gate.open();
    first.expect("250 2.0.0 queued as ");
    second.expect("451 4.5.0 [IN-FLIGHT] ");
    assert_eq!(proxy.send(&other), "250 2.0.0 queued as 3");
    assert_eq!(all(&upstream), [["a@b.test"], ["b@b.test"], ["c@b.test"]]);
}

#[test]
fn another_text_spares_those_who_have_it_unless_it_is_to_be_relayed() {
    for (policy, second) in
        [("on_conflict = \"suppress\"", vec!["b@b.test"]), ("on_conflict = \"relay\"", A_AND_B.to_vec())]
    {
        let upstream = Upstream::start();
        let proxy = of_messages(&upstream, policy);
        once_busy(&upstream, &["b"]);
        let mail = Mail::keyed("k").to(&A_AND_B);
        let reply = proxy.send(&mail);
        assert!(reply.starts_with("451-4.5.0 [PARTIAL]"), "{reply}");
        assert_eq!(proxy.send(&mail.body("rendered again\r\n")), "250 2.0.0 queued as 2");
        assert_eq!(all(&upstream)[1..], [second], "{policy}");
    }
}

#[test]
fn another_text_is_a_conflict_where_some_have_the_first() {
    let upstream = Upstream::start();
    let proxy = of_messages(&upstream, "");
    once_busy(&upstream, &["b"]);
    let mail = Mail::keyed("k").to(&A_AND_B);
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("451-4.5.0 [PARTIAL]"), "{reply}");
    let reply = proxy.send(&Mail::keyed("k").to(&A_AND_B).body("another text\r\n"));
    assert!(reply.starts_with("554 5.5.0 [CONFLICT] "), "{reply}");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 2");
    assert_eq!(all(&upstream)[1..], [["b@b.test"]]);
}

#[test]
fn a_message_to_more_than_one_claim_can_tell_apart_is_refused() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("scope = \"message\"").limits("max_recipients = 1000");
    let proxy = setup.start();
    let all: Vec<String> = (0..501).map(|number| format!("r{number}@b.test")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let reply = proxy.send(&Mail::keyed("k").to(&all));
    assert!(reply.starts_with("554 5.5.3 [QUOTA] "), "{reply}");
    assert_eq!(proxy.send(&Mail::keyed("k").to(&all[1..])), "250 2.0.0 queued as 1");
    assert_eq!(upstream.only().to().len(), 500);
}
