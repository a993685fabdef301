//! Programs that others wrote, on both sides of the proxy: Postfix, its load
//! generator and its test server, Python's smtplib, and haproxy in between. They are found where
//! Debian puts them; a test whose program is missing fails and names the
//! package. Postfix wants to be started by root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;
#[path = "peers/servers.rs"]
mod servers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use common::program::bounded;
use common::{Client, Mail, Proxy, Setup, until};
use servers::{Haproxy, Postfix, Server, SmtpSink, program};

/// As many messages as will arrive, waited for.
fn arrived(server: &impl Server, count: usize) -> Vec<String> {
    until("all messages arrive", || (server.messages().len() >= count).then_some(()));
    let messages = server.messages();
    assert_eq!(messages.len(), count);
    messages.into_iter().map(|message| String::from_utf8(message).unwrap()).collect()
}

/// Lets `smtp-source` send through the proxy; every message has a Message-ID
/// of its own.
fn smtp_source(proxy: &Proxy, count: usize, sessions: usize, options: &[&str]) {
    let mut command = Command::new(program("smtp-source", "postfix"));
    command.args(["-M", "client.test", "-f", "app@a.test", "-t", "ann@b.test"]);
    command.args(["-s", &sessions.to_string(), "-m", &count.to_string()]).args(options);
    command.arg(proxy.address.to_string());
    let output = bounded(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Each message is there once, with our Received field in front.
fn each_once(messages: &[String]) {
    let id = |message: &String| {
        message.lines().find_map(|line| line.strip_prefix("Message-Id: ")).expect("no Message-ID").to_owned()
    };
    let ids: BTreeSet<String> = messages.iter().map(id).collect();
    assert_eq!(ids.len(), messages.len(), "a message arrived twice");
    for message in messages {
        assert!(
            message.starts_with("Received: from client.test ([127.0.0.1])\n\tby relay.test (mailonce) with ")
        );
    }
}

fn by_message_id(upstream: SocketAddr) -> Proxy {
    Setup::new(upstream).dedup("chain = [\"message-id\"]").start()
}

#[test]
fn smtp_source_reaches_smtp_sink() {
    let sink = SmtpSink::start();
    let proxy = by_message_id(sink.address());
    smtp_source(&proxy, 300, 10, &["-l", "3000"]);
    smtp_source(&proxy, 100, 4, &["-d"]);
    each_once(&arrived(&sink, 400));
}

#[test]
fn smtp_source_reaches_postfix() {
    let postfix = Postfix::start();
    let proxy = by_message_id(postfix.address());
    smtp_source(&proxy, 60, 6, &["-l", "3000", "-d"]);
    each_once(&arrived(&postfix, 60));
}

#[test]
fn mail_reaches_postfix_over_starttls() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let postfix = Postfix::with_tls(&certificate, &key);
    let tls = format!("tls = \"starttls\"\nca_file = {certificate:?}");
    let proxy = Setup::new(postfix.address()).dedup("chain = [\"message-id\"]").upstream(&tls).start();
    smtp_source(&proxy, 40, 4, &["-l", "3000"]);
    each_once(&arrived(&postfix, 40));
    let checked = proxy.setup.run(&["check"]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(said.trim_end().ends_with("; TLS 1.3, certificate verified"), "{said}");

    // With the system's roots it is a stranger, and gets nothing.
    let strict = Setup::new(postfix.address()).upstream("tls = \"starttls\"");
    let checked = strict.run(&["check"]);
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(!checked.status.success() && said.contains("ca_file"), "{said}");
}

/// E-mails that are awkward in different ways.
fn awkward() -> Vec<Vec<u8>> {
    let long = format!("{}\r\n", "x".repeat(990)).repeat(3);
    let many: String = (0..3000).map(|n| format!("{n} .{n}\r\n")).collect();
    let bodies: [&[u8]; 9] = [
        b"plain\r\n",
        b".\r\n..\r\n.one\r\n\r\n.\r\n",
        b"\r\n\r\n",
        b"trailing blanks  \r\n \r\n\t\r\n",
        "caf\u{e9} \u{2709}\r\n".as_bytes(),
        b"latin1 \xe9\xff\r\n",
        long.as_bytes(),
        many.as_bytes(),
        b"From me\r\n>From you\r\nRCPT TO:<x@b.test>\r\nQUIT\r\n",
    ];
    let mail = |(number, body): (usize, &&[u8])| {
        let head = format!(
            "From: app@a.test\r\nTo: ann@b.test\r\nDate: Sat, 21 Nov 2026 08:15:00 +0000\r\n\
             Message-ID: <{number}@a.test>\r\nSubject: number {number},\r\n  folded\r\nx-ODD:  kept\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    };
    bodies.iter().enumerate().map(mail).collect()
}

/// Python sends every e-mail twice at once, with a key; each arrives once and
/// is, without the key and our Received field, what was sent.
fn smtplib_sends_twice(server: &impl Server, expected: &[Vec<u8>]) {
    let proxy = Setup::new(server.address()).start();
    let directory = tempfile::tempdir().unwrap();
    for (number, mail) in expected.iter().enumerate() {
        let keyed = [format!("X-Idempotency-Key: python-{number}\r\n").as_bytes(), mail].concat();
        std::fs::write(directory.path().join(format!("{number}.eml")), keyed).unwrap();
    }
    let mut command = Command::new(program("python3", "python3"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/send.py");
    command.args([script, "127.0.0.1", &proxy.address.port().to_string()]).arg(directory.path());
    let output = bounded(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), 2 * expected.len());
    let distinct: BTreeSet<&str> = answers.lines().collect();
    assert_eq!(distinct.len(), expected.len(), "both hear the same: {answers}");
    assert!(distinct.iter().all(|answer| answer.split(' ').nth(1) == Some("250")), "{answers}");

    until("all messages arrive", || (server.messages().len() >= expected.len()).then_some(()));
    let without_received = |message: Vec<u8>| {
        let ours = message.starts_with(
            b"Received: from client.test ([127.0.0.1])\n\tby relay.test (mailonce) with ESMTP id ",
        );
        let rest = message.split(|&byte| byte == b'\n').skip_while(|line| !line.ends_with(b" +0000")).skip(1);
        let rest = rest.collect::<Vec<_>>().join(&b'\n').escape_ascii().to_string();
        assert!(ours, "no Received field of ours in front of {rest}");
        rest
    };
    let mut got: Vec<_> = server.messages().into_iter().map(without_received).collect();
    // Both servers keep lines as their system writes them.
    let kept = |mail: &Vec<u8>| {
        let lines: Vec<&[u8]> =
            mail.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
        lines.join(&b'\n').escape_ascii().to_string()
    };
    let mut sent: Vec<_> = expected.iter().map(kept).collect();
    got.sort();
    sent.sort();
    assert_eq!(got, sent);
}

#[test]
fn smtplib_reaches_smtp_sink_byte_for_byte() {
    smtplib_sends_twice(&SmtpSink::start(), &awkward());
}

#[test]
fn smtplib_reaches_postfix_byte_for_byte() {
    smtplib_sends_twice(&Postfix::start(), &awkward());
}

#[test]
fn haproxy_names_its_clients() {
    let sink = SmtpSink::start();
    let believing = "proxy_protocol = true\nproxy_from = [\"127.0.0.1\"]\nallow_from = [\"127.0.0.7\"]";
    for (number, option) in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"].into_iter().enumerate() {
        let proxy = Setup::new(sink.address()).listener(believing).start();
        let haproxy = Haproxy::before(proxy.address, option);
        let greeted = |source| {
            let mut client = Client::raw_from(source, haproxy.address);
            client.expect("220 relay.test");
            client.command("EHLO client.test");
            client
        };
        let reply = greeted([127, 0, 0, 7]).deliver(&Mail::keyed("k"));
        assert!(reply.starts_with("250 "), "{option}: {reply}");
        let mut other = greeted([127, 0, 0, 8]);
        other.command("MAIL FROM:<app@a.test>");
        assert_eq!(other.command("RCPT TO:<ann@b.test>"), "554 5.7.1 relay access denied");
        let messages = arrived(&sink, number + 1);
        let named = |message: &String| message.starts_with("Received: from client.test ([127.0.0.7])\n");
        assert!(messages.iter().all(named), "{option}: {messages:?}");
    }
}
