//! E-mails on their way through: what the upstream gets, what the client
//! hears, and what happens when the upstream can't be reached.

mod common;

use common::{At, Client, Do, Mail, Proxy, Setup, Upstream};

#[test]
fn e_mails_with_keys_of_their_own_are_all_relayed() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    for number in 1..=5 {
        let reply = client.deliver(&Mail::keyed(&format!("order-{number}")));
        assert_eq!(reply, format!("250 2.0.0 queued as {number}"));
    }
    assert_eq!(upstream.messages().len(), 5);
    assert_eq!(upstream.connections(), 1, "one connection is used again");
    let line = proxy.log(&[("outcome", "relayed"), ("key", "order-3")]);
    for (field, value) in [
        ("event", "message"),
        ("to", "ann@b.test"),
        ("from", "app@a.test"),
        ("listener", "in"),
        ("tenant", "in"),
        ("level", "info"),
        ("strategy", "header"),
        ("reply", "250 2.0.0 queued as 3"),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert_eq!(line["claim"].as_str().map(str::len), Some(16));
    assert_eq!(line["attempt"], 1);
}

#[test]
fn our_received_field_goes_in_front_and_the_key_is_taken_out() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mail = Mail::keyed("k").header("X-Idempotency-TTL", "1h").header("X-Other", "stays");
    proxy.send(&mail);
    let got = upstream.only();
    let text = got.text();
    let (received, rest) = text.split_once(";\r\n\t").unwrap();
    let (start, id) = received.split_once(" id ").unwrap();
    assert_eq!(start, "Received: from client.test ([127.0.0.1])\r\n\tby relay.test (mailonce) with ESMTP");
    assert!(id.ends_with("\r\n\tfor <ann@b.test>"), "{id}");
    let (date, rest) = rest.split_once("\r\n").unwrap();
    assert!(date.ends_with(" +0000"), "{date}");
    assert_eq!(rest.as_bytes(), Mail::plain("hello").header("X-Other", "stays").content());
}

#[test]
fn without_the_received_field_the_content_is_exact() {
    for offers in [&["PIPELINING", "8BITMIME"][..], &["8BITMIME"], &["PIPELINING", "8BITMIME", "CHUNKING"]] {
        let upstream = Upstream::offering(offers);
        let proxy = Setup::new(upstream.address).upstream("received_header = false").start();
        let long = "x".repeat(5000);
        let body = [
            b".\r\n..\r\n.dot\r\n \r\n\r\n\xe9\xff caf\xc3\xa9\r\n".as_slice(),
            long.as_bytes(),
            b"\r\n.\r\n",
        ];
        let mail = Mail::plain("exact").header("x-ODD", "  folded\r\n\tvalue  ").body(body.concat());
        assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1", "{offers:?}");
        let got = upstream.only();
        assert_eq!(got.content.escape_ascii().to_string(), mail.content().escape_ascii().to_string());
        assert!(got.mail.contains("BODY=8BITMIME"), "{}", got.mail);
    }
}

#[test]
fn a_large_message_arrives_whole() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .upstream("received_header = false")
        .limits("memory_per_message = \"16 KB\"")
        .start();
    let body: Vec<u8> = (0..60_000).flat_map(|n| format!("line {n}\r\n").into_bytes()).collect();
    let mail = Mail::plain("large").body(body);
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert!(upstream.only().content == mail.content());
}

#[test]
fn chunks_from_the_client_are_one_message() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).upstream("received_header = false").start();
    let mut client = proxy.client();
    client.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 14\r\nSubject: x\r\n\r\nBDAT 6 LAST\r\n.\r\n.\r\n");
    for due in ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0 queued"] {
        client.expect(due);
    }
    assert_eq!(upstream.only().text(), "Subject: x\r\n\r\n.\r\n.\r\n");
}

#[test]
fn an_upstream_that_can_not_be_reached_defers_and_the_retry_is_sent() {
    let mut upstream = Upstream::asleep();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    let mail = Mail::keyed("k");
    let reply = client.deliver(&mail);
    assert!(reply.starts_with("451 4.4.1 [UPSTREAM] "), "{reply}");
    proxy.log(&[("outcome", "deferred"), ("key", "k")]);
    upstream.listen();
    assert_eq!(client.deliver(&mail), "250 2.0.0 queued as 1", "the session goes on");
    assert_eq!(upstream.messages().len(), 1);
    assert_eq!(proxy.log(&[("outcome", "relayed")])["attempt"], 2);
}

#[test]
fn the_next_address_is_tried_where_the_first_does_not_answer() {
    let (dead, upstream) = (Upstream::asleep(), Upstream::start());
    let addresses = format!("{},{}", dead.address, upstream.address);
    let proxy = Setup::new(upstream.address).start_with(|command| {
        command.env("MAILONCE_UPSTREAM__ADDRESS", addresses);
    });
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.log(&[("outcome", "relayed")])["upstream"], upstream.address.to_string());
}

#[test]
fn faults_before_the_final_dot_send_nothing() {
    for (at, what) in [
        (At::Connect, Do::Drop),
        (At::Connect, Do::Say("554 5.3.2 not today".into())),
        (At::Connect, Do::Say("HTTP/1.1 400 Bad Request".into())),
        (At::Ehlo, Do::Say("421 4.3.2 closing".into())),
        (At::Mail, Do::Drop),
        (At::Mail, Do::Say("421 4.3.2 closing".into())),
        (At::Mail, Do::Say("what?".into())),
        (At::Rcpt("ann@b.test".into()), Do::Say("421 4.3.2 closing".into())),
        (At::Rcpt("ann@b.test".into()), Do::Say("354 surprise".into())),
        (At::Data, Do::Drop),
        (At::Data, Do::Say("421 4.3.2 closing".into())),
        (At::Dot, Do::Say("421 4.3.2 closing".into())),
    ] {
        let upstream = Upstream::start();
        let proxy = Proxy::before(&upstream);
        upstream.always(at.clone(), what.clone());
        let mut client = proxy.client();
        let reply = client.deliver(&Mail::keyed("k"));
        let what = format!("{what:?}").chars().take(80).collect::<String>();
        assert!(reply.starts_with("451 4.4.1 [UPSTREAM] "), "{at:?} {what}: {reply}");
        assert_eq!(upstream.messages().len(), 0);
        assert!(client.command("NOOP").starts_with("250 "), "our session goes on");
    }
}

#[test]
fn of_a_long_reply_the_code_counts() {
    for at in [At::Mail, At::Rcpt("ann@b.test".into()), At::Data, At::Dot] {
        let upstream = Upstream::start();
        let proxy = Proxy::before(&upstream);
        upstream.say(at.clone(), &format!("554 {}", "x".repeat(100_000)));
        let reply = proxy.send(&Mail::keyed("k"));
        assert_eq!(reply, format!("554 {}", "x".repeat(2044)), "{at:?}");
        proxy.log(&[("outcome", "refused"), ("key", "k")]);
    }
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    upstream.say(At::Mail, &format!("250 {}", "x".repeat(100_000)));
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    // The connection that gave it is not used again.
    assert_eq!(proxy.send(&Mail::keyed("l")), "250 2.0.0 queued as 2");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn the_upstream_s_own_words_reach_the_client() {
    for (at, reply) in [
        (At::Mail, "550 5.7.1 not from you"),
        (At::Mail, "451 4.7.1 slow down"),
        (At::Rcpt("ann@b.test".into()), "550 5.1.1 no such user\n5.1.1 really"),
        (At::Data, "451 4.3.0 no data now"),
        (At::Data, "554 5.3.0 no data at all"),
        (At::Dot, "452 4.3.1 full"),
        (At::Dot, "554 5.7.1 spam\n5.7.1 see https://upstream.test/why"),
        (At::Dot, "250 fine without a code"),
    ] {
        let upstream = Upstream::start();
        let proxy = Proxy::before(&upstream);
        upstream.say(at.clone(), reply);
        let heard = proxy.send(&Mail::keyed("k"));
        let due = reply.replace('\n', &format!("\n{} ", &reply[..3]));
        let due = if due.contains('\n') { due.replacen(' ', "-", 1) } else { due };
        assert_eq!(heard, due, "{at:?}");
    }
}

#[test]
fn a_failed_attempt_is_followed_by_a_new_one() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    for reply in ["452 4.3.1 full", "554 5.7.1 spam", "421 4.3.2 closing"] {
        upstream.say(At::Dot, reply);
    }
    let mail = Mail::keyed("k");
    assert_eq!(proxy.send(&mail), "452 4.3.1 full");
    assert_eq!(proxy.send(&mail), "554 5.7.1 spam");
    let reply = proxy.send(&mail.clone().body("changed meanwhile\r\n"));
    assert!(reply.starts_with("451 4.4.1 [UPSTREAM] ") && reply.contains("closing"), "{reply}");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(upstream.messages().len(), 1);
    assert_eq!(proxy.log(&[("outcome", "relayed")])["attempt"], 4);
}

#[test]
fn a_kept_connection_that_died_costs_no_message() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    assert_eq!(proxy.send(&Mail::keyed("k1")), "250 2.0.0 queued as 1");
    upstream.down();
    upstream.up();
    assert_eq!(proxy.send(&Mail::keyed("k2")), "250 2.0.0 queued as 2");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_client_that_gives_up_waiting_finds_its_outcome_at_the_retry() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let gate = upstream.gate(At::Dot);
    let mail = Mail::keyed("k");
    let mut client = proxy.client();
    client.start(&mail);
    gate.reached();
    drop(client);
    gate.say("250 2.0.0 slowly done");
    assert_eq!(proxy.send(&mail), "250 2.0.0 slowly done");
    upstream.only();
    proxy.log(&[("outcome", "relayed"), ("key", "k")]);
}

#[test]
fn a_client_that_leaves_before_the_end_of_data_has_sent_nothing() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    client.envelope(&Mail::keyed("k"));
    client.send("X-Idempotency-Key: k\r\n\r\nhalf of it\r\n.\r");
    drop(client);
    let line = proxy.log(&[("outcome", "aborted")]);
    assert_eq!((&line["to"], &line["event"]), (&"ann@b.test".into(), &"message".into()));
    assert_eq!(upstream.connections(), 0);
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

#[test]
fn what_needs_smtputf8_is_refused_where_the_upstream_lacks_it() {
    let mut mail = Mail::keyed("k").to(&["j\u{fc}rgen@b.test"]);
    mail.parameters = " SMTPUTF8".to_owned();
    let upstream = Upstream::offering(&["PIPELINING", "8BITMIME"]);
    let proxy = Proxy::before(&upstream);
    let reply = proxy.send(&mail);
    assert!(reply.starts_with("550 5.6.7"), "{reply}");
    assert_eq!(upstream.messages().len(), 0);
    let able = Upstream::start();
    let proxy = Proxy::before(&able);
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert!(able.only().mail.contains(" SMTPUTF8"));
    let offered = proxy.client().command("EHLO again");
    assert!(offered.contains("250-SMTPUTF8") && offered.contains("DSN"), "{offered}");
}

/// The stand-in's lack is no reason to give the message up: the address that is
/// away would take it.
#[test]
fn what_needs_smtputf8_waits_for_the_address_that_has_it() {
    let (able, stand_in) = (Upstream::start(), Upstream::offering(&["PIPELINING", "8BITMIME"]));
    let addresses = format!("{},{}", able.address, stand_in.address);
    let proxy = Setup::new(able.address).start_with(|command| {
        command.env("MAILONCE_UPSTREAM__ADDRESS", addresses);
    });
    let mut mail = Mail::keyed("k").to(&["j\u{fc}rgen@b.test"]);
    mail.parameters = " SMTPUTF8".to_owned();
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    able.down();
    assert_eq!(proxy.send(&Mail::keyed("l")), "250 2.0.0 queued as 1");
    assert_eq!(stand_in.count(), 1);
    let mut next = Mail::keyed("m").to(&["j\u{fc}rgen@b.test"]);
    next.parameters = " SMTPUTF8".to_owned();
    for _ in 0..2 {
        let reply = proxy.send(&next);
        assert!(reply.starts_with("451 4.4.1 [UPSTREAM] ") && reply.contains("SMTPUTF8"), "{reply}");
    }
    assert_eq!((able.count(), stand_in.count()), (1, 1));
}

#[test]
fn eight_bit_text_is_sent_as_it_is_where_the_upstream_lacks_8bitmime() {
    let upstream = Upstream::offering(&["PIPELINING"]);
    let proxy = Setup::new(upstream.address).upstream("received_header = false").start();
    let mut mail = Mail::plain("caf\u{e9}").body("caf\u{e9}\r\n");
    mail.parameters = " BODY=8BITMIME".to_owned();
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(upstream.only().content, mail.content());
    assert!(!upstream.only().mail.contains("BODY"), "{}", upstream.only().mail);
}

#[test]
fn parameters_pass_where_the_upstream_offers_their_extension() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    client.send("MAIL FROM:<a@a.test> RET=HDRS ENVID=e+2B1\r\nRCPT TO:<b@b.test> NOTIFY=FAILURE ORCPT=rfc822;B@b.test\r\nDATA\r\n");
    for due in ["250", "250", "354"] {
        client.expect(due);
    }
    client.send("Subject: x\r\n\r\n.\r\n");
    client.expect("250 2.0.0 queued");
    let got = upstream.only();
    assert!(got.mail.contains(" RET=HDRS") && got.mail.contains(" ENVID=e+2B1"), "{}", got.mail);
    assert!(
        got.rcpt[0].contains(" NOTIFY=FAILURE") && got.rcpt[0].contains(" ORCPT=rfc822;B@b.test"),
        "{:?}",
        got.rcpt
    );
}

/// The client sends everything at once, and resets the connection before it
/// has read a reply. Its message is whole, so the attempt belongs to the proxy.
#[test]
fn a_whole_message_is_sent_though_no_earlier_reply_can_be_written() {
    use rustix::net::sockopt::set_socket_linger;
    use rustix::process::Signal;
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mail = Mail::keyed("k");
    let mut client = Client::hello(proxy.address);
    // The proxy finds all of it at once, the end of the connection included.
    proxy.process.signal(Signal::STOP);
    let content = mail.content();
    client.send(format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\n", mail.from, mail.to[0]));
    client.send(format!("BDAT {} LAST\r\n", content.len()));
    client.send(content);
    let stream = client.into_stream();
    set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    proxy.process.signal(Signal::CONT);
    upstream.wait(1);
    assert!(proxy.send(&mail).starts_with("250 "), "the retry gets the outcome of the attempt");
    assert_eq!(upstream.count(), 1);
}
