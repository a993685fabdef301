//! The connection dies after the final dot, or the proxy does: the upstream
//! may or may not have it.

mod common;

use common::{At, Do, Mail, Proxy, Setup, Upstream};

fn mail(number: u32) -> Mail {
    let mail = Mail::keyed("k").header("Message-ID", &format!("<{number}@a.test>"));
    mail.header("Date", &format!("Sat, 21 Nov 2026 08:15:0{number} +0000"))
}

/// A proxy whose first attempt has ended in doubt.
fn in_doubt(upstream: &Upstream, policy: &str, first: &Mail) -> Proxy {
    let proxy = Setup::new(upstream.address).dedup(policy).start();
    upstream.once(At::Dot, Do::AcceptDrop);
    let reply = proxy.send(first);
    assert!(reply.starts_with("451 4.4.2 [IN-DOUBT] "), "{reply}");
    assert_eq!(proxy.log(&[("outcome", "in_doubt")])["level"], "warn");
    proxy
}

#[test]
fn suppressed_it_counts_as_sent() {
    let upstream = Upstream::start();
    let proxy = in_doubt(&upstream, "in_doubt = \"suppress\"", &mail(1));
    assert_eq!(proxy.send(&mail(2)), "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed");
    upstream.only();
    proxy.log(&[("outcome", "duplicate")]);
}

#[test]
fn suppressed_and_rejected_it_is_a_duplicate() {
    let upstream = Upstream::start();
    let proxy = in_doubt(&upstream, "on_duplicate = \"reject\"", &mail(1));
    let reply = proxy.send(&mail(2));
    assert!(reply.starts_with("554 5.5.0 [DUPLICATE] sent 20"), "{reply}");
    assert!(reply.ends_with(", outcome unconfirmed"), "{reply}");
    upstream.only();
}

#[test]
fn resent_it_carries_the_first_message_id_and_date() {
    let upstream = Upstream::start();
    let proxy = in_doubt(&upstream, "in_doubt = \"resend\"", &mail(1));
    assert_eq!(proxy.send(&mail(2)), "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&mail(3)), "250 2.0.0 queued as 2");
    let messages = upstream.wait(2);
    assert_eq!(messages.len(), 2);
    for message in messages {
        assert_eq!(message.value("Message-ID").as_deref(), Some("<1@a.test>"));
        assert_eq!(message.value("Date").as_deref(), Some("Sat, 21 Nov 2026 08:15:01 +0000"));
        assert_eq!(message.text().matches("Message-ID:").count(), 1);
    }
}

/// The fields of the first attempt go octet for octet, each recipient gets its
/// own, and so it stays after any number of tries.
#[test]
fn resent_each_recipient_gets_the_names_of_its_first_attempt_as_they_were_written() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("in_doubt = \"resend\"").start();
    let odd = [
        "Message-Id:\t<one\r\n\t@a.test>  \r\nDATE:Sat, 21 Nov 2026\r\n 08:15:00 +0000 (\u{fc})\r\n",
        "MESSAGE-ID  : (odd) <two@a.test>\r\n",
    ];
    let named = |fields: &str, to: &[&str]| {
        let mut mail = Mail::keyed("k").to(to);
        mail.head.push_str(fields);
        mail
    };
    let (a, b) = (["a@b.test"], ["b@b.test"]);
    for (fields, to) in odd.iter().zip([&a, &b]) {
        upstream.once(At::Dot, Do::AcceptDrop);
        proxy.send(&named(fields, to));
    }
    upstream.say(At::Dot, "451 4.3.0 later");
    upstream.once(At::Dot, Do::AcceptDrop);
    let later = "Message-ID: <later@a.test>\r\nDate: Sun, 22 Nov 2026 09:00:00 +0000\r\n";
    for _ in 0..3 {
        proxy.send(&named(later, &["a@b.test", "b@b.test"]));
    }
    let got = upstream.messages();
    assert!(got.len() >= 5, "{}", got.len());
    for message in &got {
        let to = message.to();
        let own = if to == a { odd[0] } else { odd[1] };
        assert!(to == a || to == b, "{to:?} got different names");
        assert!(message.text().contains(own), "{to:?}: {}", message.text());
        assert!(!message.text().contains("later@a.test"), "{}", message.text());
    }
}

#[test]
fn resent_a_signed_message_id_stays() {
    let upstream = Upstream::start();
    let signed = |mail: Mail| mail.header("DKIM-Signature", "v=1; h=from:Message-ID; b=x");
    let proxy = in_doubt(&upstream, "in_doubt = \"resend\"", &signed(mail(1)));
    assert_eq!(proxy.send(&signed(mail(2))), "250 2.0.0 queued as 2");
    let second = &upstream.wait(2)[1];
    assert_eq!(second.value("Message-ID").as_deref(), Some("<2@a.test>"));
    assert_eq!(second.value("Date").as_deref(), Some("Sat, 21 Nov 2026 08:15:01 +0000"));
}

#[test]
fn held_it_waits_for_an_operator() {
    let upstream = Upstream::start();
    let proxy = in_doubt(&upstream, "in_doubt = \"hold\"", &mail(1));
    for _ in 0..2 {
        let reply = proxy.send(&mail(2));
        assert!(reply.starts_with("451 4.4.2 [IN-DOUBT] "), "{reply}");
    }
    upstream.only();
    proxy.log(&[("outcome", "held")]);
}

#[test]
fn those_in_doubt_are_listed() {
    let upstream = Upstream::start();
    let proxy = in_doubt(&upstream, "", &mail(1));
    proxy.send(&Mail::keyed("certain"));
    let setup = proxy.setup.clone();
    proxy.stop();
    let listed = setup.run(&["keys", "list", "--state", "in_doubt", "--json"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 1, "{text}");
    assert_eq!((&records[0]["key"], &records[0]["state"]), (&"k".into(), &"in_doubt".into()));
    assert!(records[0]["reply"].as_str().unwrap().starts_with("451 4.4.2 [IN-DOUBT]"), "{text}");
    assert_eq!(records[0]["message_id"], "<1@a.test>");
}

#[test]
fn an_answer_that_never_comes_is_a_doubt() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).upstream("timeouts = { completion = \"300ms\" }").start();
    let gate = upstream.gate(At::Dot);
    let reply = proxy.send(&mail(1));
    assert!(reply.starts_with("451 4.4.2 [IN-DOUBT] "), "{reply}");
    gate.close();
    assert_eq!(proxy.send(&mail(1)), "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed");
    assert_eq!(upstream.messages().len(), 0, "nobody can know");
}

#[test]
fn nonsense_after_the_final_dot_is_a_doubt() {
    for nonsense in ["354 what?", "nonsense"] {
        let upstream = Upstream::start();
        let proxy = Proxy::before(&upstream);
        upstream.say(At::Dot, nonsense);
        let reply = proxy.send(&mail(1));
        assert!(reply.starts_with("451 4.4.2 [IN-DOUBT] "), "{nonsense}: {reply}");
        assert_eq!(proxy.send(&mail(1)), "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed");
    }
}

#[test]
fn a_crash_after_the_commit_leaves_a_doubt() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let proxy = setup.start();
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    client.start(&mail(1));
    gate.reached();
    proxy.kill();
    gate.open();
    upstream.wait(1);
    let proxy = setup.start();
    let line = proxy.log(&[("outcome", "in_doubt"), ("key", "k")]);
    assert_eq!((&line["to"], &line["level"]), (&"ann@b.test".into(), &"warn".into()));
    assert_eq!(proxy.send(&mail(2)), "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed");
    upstream.only();
}

#[test]
fn a_crash_before_the_commit_leaves_nothing() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let proxy = setup.start();
    let gate = upstream.gate(At::Data);
    let mut client = proxy.client();
    client.start(&mail(1));
    gate.reached();
    proxy.kill();
    gate.close();
    let proxy = setup.start();
    assert_eq!(proxy.send(&mail(2)), "250 2.0.0 queued as 1");
    assert_eq!(upstream.only().value("Message-ID").as_deref(), Some("<2@a.test>"));
}

#[test]
fn one_that_waited_hears_of_the_doubt() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let gate = upstream.gate(At::Dot);
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.start(&mail(1));
    gate.reached();
    second.start(&mail(2));
    proxy.send(&Mail::keyed("other").to(&["else@b.test"]));
    gate.close();
    first.expect("451 4.4.2 [IN-DOUBT] ");
    let reply = second.reply();
    assert!(reply.contains("[IN-DOUBT]"), "{reply}");
    assert_eq!(upstream.only().to(), ["else@b.test"]);
}

/// Another text took the claim over and was put off. The attempt at the first one is under
/// way still, so it is no doubt: its own duplicate waits for it, and is not sent.
#[test]
fn what_was_taken_over_is_no_doubt_while_its_attempt_is_under_way() {
    for in_doubt in ["suppress", "resend", "hold"] {
        for other_is_under_way in [false, true] {
            for answer in ["250 2.0.0 queued as A", "550 5.7.1 not this"] {
                let upstream = Upstream::start();
                let policy = format!("on_conflict = \"relay\"\nin_doubt = \"{in_doubt}\"");
                let proxy = Setup::new(upstream.address).dedup(&policy).admin().start();
                let (mut first, mut again, mut another) = (proxy.client(), proxy.client(), proxy.client());
                let gate = upstream.gate(At::Dot);
                first.start(&mail(1));
                gate.reached();
                let of_another = upstream.gate(At::Data);
                another.start(&mail(1).body("another text\r\n"));
                of_another.reached();
                if !other_is_under_way {
                    of_another.say("450 4.2.1 busy");
                    another.expect("450 4.2.1 busy");
                }
                again.start(&mail(2));
                common::until("the duplicate", || {
                    let claims = proxy.ask("GET /v1/claims", &[], "").json();
                    let is_noted = |claim: &serde_json::Value| claim["duplicates"] == 1;
                    (upstream.count() > 0 || claims.as_array()?.iter().any(is_noted)).then_some(())
                });
                gate.say(answer);
                first.expect(answer);
                let reply = again.reply();
                let is_true = reply.trim_end() == answer || reply.starts_with('4');
                assert!(is_true, "{in_doubt}, {other_is_under_way}: {reply}");
                of_another.close();
                let copies = usize::from(answer.starts_with('2'));
                assert_eq!(upstream.count(), copies, "{in_doubt}, {other_is_under_way}: a second copy");
            }
        }
    }
}

/// A doubt is told once. That another text takes its claim over is no new doubt.
#[test]
fn a_doubt_that_is_taken_over_is_not_told_again() {
    let upstream = Upstream::start();
    let proxy = in_doubt(&upstream, "on_conflict = \"relay\"", &mail(1));
    assert_eq!(proxy.send(&mail(1).body("another text\r\n")), "250 2.0.0 queued as 2");
    proxy.log(&[("outcome", "relayed")]);
    let doubts = proxy.decisions().into_iter().filter(|decision| decision["outcome"] == "in_doubt");
    assert_eq!(doubts.count(), 1);
}
