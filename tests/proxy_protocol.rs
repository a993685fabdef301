//! Behind a load balancer: the client that its PROXY header names is the
//! client for everything, and nobody else's header is believed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "tls/client.rs"]
mod client;
mod common;
#[path = "tls/pki.rs"]
mod pki;

use std::time::Instant;

use client::Trust;
use common::{Client, DEADLINE, Mail, Proxy, Setup, Upstream, until};
use pki::{Authority, replace};
use rustix::process::Signal;

const V1: &[u8] = b"PROXY TCP4 192.0.2.9 198.51.100.1 56324 25\r\n";
/// Version 2 and PROXY, TCP over IPv4, 12 octets: the same addresses.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc6\x33\x64\x01\xdc\x04\0\x19";
const V1_IPV6: &[u8] = b"PROXY TCP6 2001:db8::9 2001:db8:1::1 56324 25\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const UNSPECIFIED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// Our address as a client that is no balancer.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// A proxy that takes 127.0.0.1 for a balancer.
fn setup(upstream: &Upstream) -> Setup {
    Setup::new(upstream.address).listener("proxy_protocol = true\nproxy_from = [\"127.0.0.1\"]")
}

/// Connects as the balancer and sends a header, or what should be one.
fn behind(proxy: &Proxy, header: impl AsRef<[u8]>) -> Client {
    let mut client = Client::raw(proxy.address);
    client.send(header);
    client
}

fn greeted(mut client: Client) -> Client {
    client.expect("220 relay.test");
    assert!(client.command("EHLO client.test").starts_with("250-"));
    client
}

fn from(address: &str) -> Vec<u8> {
    format!("PROXY TCP4 {address} 198.51.100.1 56324 25\r\n").into_bytes()
}

/// Waits until so many connections are in.
fn sessions(proxy: &Proxy, count: usize) {
    let line = format!("mailonce_sessions {count}\n");
    until("as many sessions", || proxy.ask("GET /metrics", &[], "").body.contains(&line).then_some(()));
}

#[test]
fn the_client_is_the_one_that_the_header_names() {
    for (header, name, client) in [
        (V1, "[192.0.2.9]", "192.0.2.9:56324"),
        (V2, "[192.0.2.9]", "192.0.2.9:56324"),
        (V1_IPV6, "[IPv6:2001:db8::9]", "[2001:db8::9]:56324"),
    ] {
        let upstream = Upstream::start();
        let proxy = setup(&upstream).listener("allow_from = [\"192.0.2.0/24\", \"2001:db8::/32\"]").start();
        let mut session = greeted(behind(&proxy, header));
        assert_eq!(session.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
        let received = upstream.only().value("Received").unwrap();
        assert!(received.starts_with(&format!("from client.test ({name}) by relay.test")), "{received}");
        proxy.log(&[("outcome", "relayed"), ("client", client)]);
    }
}

#[test]
fn only_the_client_must_be_allowed_to_relay() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).listener("allow_from = [\"192.0.2.9\"]").start();
    // The balancer's own address is of no account, nor is a mapped one another.
    for (header, due) in [
        (V1.to_vec(), "250 2.1.5"),
        (b"PROXY TCP6 ::ffff:192.0.2.9 ::ffff:198.51.100.1 1 2\r\n".to_vec(), "250 2.1.5"),
        (from("192.0.2.10"), "554 5.7.1"),
        (V1_IPV6.to_vec(), "554 5.7.1"),
        (LOCAL.to_vec(), "554 5.7.1"),
        (UNKNOWN.to_vec(), "554 5.7.1"),
    ] {
        let mut session = greeted(behind(&proxy, &header));
        session.command("MAIL FROM:<a@a.test>");
        let reply = session.command("RCPT TO:<ann@b.test>");
        assert!(reply.starts_with(due), "{}: {reply}", header.escape_ascii());
    }
    proxy.log(&[("outcome", "rejected"), ("client", "192.0.2.10:56324")]);
}

/// Such a connection is a check of our health, or anybody's: what the balancer
/// may do with its own address is not for them.
#[test]
fn where_no_client_is_named_nobody_relays() {
    for header in [LOCAL, UNSPECIFIED, UNKNOWN, b"PROXY UNKNOWN 192.0.2.9 198.51.100.1 1 2\r\n"] {
        let upstream = Upstream::start();
        let proxy = setup(&upstream).listener("allow_from = [\"0.0.0.0/0\"]").start();
        let mut session = greeted(behind(&proxy, header));
        session.command("MAIL FROM:<a@a.test>");
        assert!(session.command("RCPT TO:<ann@b.test>").starts_with("554 5.7.1"));
        let rejected = proxy.log(&[("outcome", "rejected")]);
        assert!(rejected["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{rejected}");
        assert!(session.command("QUIT").starts_with("221 "));
    }
}

#[test]
fn nobody_elses_header_is_believed() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).listener("allow_from = [\"192.0.2.9\"]").start();
    // An ordinary client is greeted without one, and is who it is.
    let mut session = greeted(Client::raw_from(ELSEWHERE, proxy.address));
    session.command("MAIL FROM:<a@a.test>");
    assert!(session.command("RCPT TO:<ann@b.test>").starts_with("554 5.7.1"));
    let rejected = proxy.log(&[("outcome", "rejected")]);
    assert!(rejected["client"].as_str().unwrap().starts_with("127.0.0.2:"), "{rejected}");
    // A header is talk before the greeting, or a command that there is not.
    for header in [V1, V2] {
        let mut client = Client::raw_from(ELSEWHERE, proxy.address);
        client.send([header, b"MAIL FROM:<a@a.test>\r\nRCPT TO:<ann@b.test>\r\nQUIT\r\n"].concat());
        let rest = String::from_utf8(client.rest()).unwrap();
        let is_refused = rest.contains("\r\n554 5.5.0") || rest.contains("\r\n500 5.5.2");
        assert!(is_refused && !rest.contains("250 2.1.5"), "{rest}");
    }
    // With the protocol off, nobody's is.
    let proxy = Setup::new(upstream.address).listener("proxy_from = [\"127.0.0.1\"]").start();
    let rest = String::from_utf8(behind(&proxy, [V1, b"QUIT\r\n"].concat()).rest()).unwrap();
    assert!(rest.contains("\r\n554 5.5.0") || rest.contains("\r\n500 5.5.2"), "{rest}");
}

#[test]
fn whoever_must_send_a_header_and_does_not_hears_nothing() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    for (said, why) in [
        (b"EHLO client.test\r\n".to_vec(), "it does not begin with a PROXY header"),
        (b"\x16\x03\x01\x02\0\x01".to_vec(), "it does not begin with a PROXY header"),
        (b"PROXY TCP4 192.0.2.9 198.51.100.1 056324 25\r\n".to_vec(), "malformed: a port"),
        (b"PROXY TCP4  192.0.2.9 198.51.100.1 56324 25\r\n".to_vec(), "malformed: it wants two addresses"),
        ([b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 93]].concat(), "too long"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x01".to_vec(), "too long"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".to_vec(), "a UNIX socket"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c".to_vec(), "datagrams"),
    ] {
        assert!(behind(&proxy, &said).is_closed(), "{}", said.escape_ascii());
        proxy.says(why);
    }
    // The end of a connection that says half a header.
    let mut half = behind(&proxy, &V1[..20]);
    half.finish();
    assert!(half.is_closed());
    proxy.says("it ended within its PROXY header");
    let line = proxy.log(&[
        ("level", "warn"),
        ("listener", "in"),
        ("fault", "its PROXY header speaks of datagrams, and only TCP is served"),
    ]);
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(proxy.decisions().is_empty());
}

#[test]
fn a_header_that_is_not_there_in_time_ends_the_connection() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).limits("command_timeout = \"200ms\"\nmax_connections = 1").start();
    assert!(Client::raw(proxy.address).is_closed());
    proxy.says("its PROXY header was not there in time");
    // Neither does an octet now and then hold the place.
    let mut slow = behind(&proxy, b"\r\n\r\n\0\r\nQUIT\n\x20\0\x10\0");
    slow.trickle_until_closed();
    until("a free place", || behind(&proxy, V1).reply().starts_with("220 ").then_some(()));
}

#[test]
fn a_header_may_come_in_pieces() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).admin().start();
    for header in [V1, V2, LOCAL] {
        let mut client = Client::raw(proxy.address);
        for octet in header {
            client.send([*octet]);
            // Time for it to be taken alone.
            sessions(&proxy, 1);
        }
        client.expect("220 relay.test");
        client.command("QUIT");
        assert!(client.is_closed());
        sessions(&proxy, 0);
    }
}

#[test]
fn what_follows_the_header_before_the_greeting_is_early_talk() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).start();
    for header in [V1, V2] {
        let mut early = behind(&proxy, [header, b"EHLO client.test\r\n"].concat());
        early.expect("220 ");
        early.expect("554 5.5.0 you talked before the greeting");
        assert!(early.is_closed());
    }
    // One header, not two.
    behind(&proxy, [V2, V1].concat()).expect_all(&["220 ", "554 5.5.0"]);
}

/// The same with TLS of this kind, with a certificate of this CA.
fn secured(upstream: &Upstream, kind: &str, authority: &Authority) -> Proxy {
    let setup = setup(upstream).listener("allow_from = [\"192.0.2.9\"]");
    authority.issue(&["relay.test"]).write(setup.directory(), "server");
    replace(&setup.directory().join("ca.pem"), &authority.pem());
    let files = setup.directory().display().to_string();
    let lines = format!(
        "tls = \"{kind}\"\ncertificate = \"{files}/server.pem\"\nprivate_key = \"{files}/server.key\""
    );
    setup.listener(&lines).start()
}

#[test]
fn tls_begins_behind_the_header() {
    let (upstream, authority) = (Upstream::start(), Authority::new("test CA"));
    let trust = Trust::new(&authority);
    let starttls = secured(&upstream, "starttls", &authority);
    let implicit = secured(&upstream, "implicit", &authority);
    for (number, header) in [(1, V1), (3, V2)] {
        let mut clear = greeted(behind(&starttls, header));
        assert_eq!(clear.command("STARTTLS"), "220 2.0.0 go ahead");
        let mut client = trust.over_client(clear);
        client.hello();
        assert_eq!(
            client.deliver(&Mail::keyed(&format!("k{number}"))),
            format!("250 2.0.0 queued as {number}")
        );
        let mut client = trust.over_client(behind(&implicit, header));
        client.expect("220 relay.test");
        client.hello();
        let reply = client.deliver(&Mail::keyed(&format!("i{number}")));
        assert_eq!(reply, format!("250 2.0.0 queued as {}", number + 1));
    }
    for got in upstream.messages() {
        let received = got.value("Received").unwrap();
        assert!(received.starts_with("from client.test ([192.0.2.9])"), "{received}");
    }
}

#[test]
fn a_header_within_tls_is_never_believed() {
    let (upstream, authority) = (Upstream::start(), Authority::new("test CA"));
    let trust = Trust::new(&authority);
    let forged = "PROXY TCP4 192.0.2.9 198.51.100.1 56324 25";
    // Behind STARTTLS it is a command that there is not, whoever says it.
    let starttls = secured(&upstream, "starttls", &authority);
    let elsewhere = || Client::raw_from(ELSEWHERE, starttls.address);
    for client in [elsewhere(), behind(&starttls, from("203.0.113.1"))] {
        let mut clear = greeted(client);
        clear.command("STARTTLS");
        let mut client = trust.over_client(clear);
        assert!(client.command(forged).starts_with("500 5.5.2"));
        client.hello();
        client.command("MAIL FROM:<a@a.test>");
        assert!(client.command("RCPT TO:<ann@b.test>").starts_with("554 5.7.1"));
    }
    // Where TLS comes first, a balancer must still speak in clear first.
    let implicit = secured(&upstream, "implicit", &authority);
    let mut client = trust.implicit(implicit.address);
    client.try_say(forged);
    assert!(client.try_reply().is_err());
    implicit.says("it does not begin with a PROXY header");
    let mut client = trust.over_client(Client::raw_from(ELSEWHERE, implicit.address));
    client.expect("220 relay.test");
    assert!(client.command(forged).starts_with("500 5.5.2"));
}

#[test]
fn each_client_has_places_of_its_own() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).limits("max_connections_per_ip = 1").start();
    // Whoever is not known yet takes nobody's place.
    let _waiting = [Client::raw(proxy.address), Client::raw(proxy.address)];
    let mut first = greeted(behind(&proxy, V1));
    let _other = greeted(behind(&proxy, from("192.0.2.10")));
    let _check = greeted(behind(&proxy, LOCAL));
    for header in [V1, V2] {
        let mut second = behind(&proxy, header);
        second.expect("421 4.3.2 too many connections");
        assert!(second.is_closed());
    }
    proxy.log(&[("client", "192.0.2.9:56324"), ("message", "too many connections")]);
    first.command("QUIT");
    until("a free place", || behind(&proxy, V1).reply().starts_with("220 ").then_some(()));
}

#[test]
fn who_is_not_known_yet_counts_among_all() {
    let upstream = Upstream::start();
    let proxy = setup(&upstream).limits("max_connections = 2").admin().start();
    let waiting = [Client::raw(proxy.address), Client::raw(proxy.address)];
    sessions(&proxy, 2);
    let mut third = Client::raw_from(ELSEWHERE, proxy.address);
    third.expect("421 4.3.2 too many connections");
    drop(waiting);
    sessions(&proxy, 0);
    greeted(behind(&proxy, V1));
}

#[test]
fn a_header_that_is_waited_for_does_not_hold_the_end_up() {
    let upstream = Upstream::start();
    let mut proxy = setup(&upstream).top("drain = \"5m\"").admin().start();
    let mut client = behind(&proxy, &V1[..10]);
    sessions(&proxy, 1);
    let since = Instant::now();
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert!(since.elapsed() < DEADLINE / 2, "it waited for the header");
    assert!(client.is_closed());
}

#[test]
fn balancers_are_changed_by_a_reload() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).start();
    greeted(Client::raw(proxy.address));
    let on = Setup::text(&proxy.setup)
        .replace("name = \"in\"\n", "name = \"in\"\nproxy_protocol = true\nproxy_from = [\"127.0.0.1\"]\n");
    std::fs::write(proxy.setup.directory().join("mailonce.toml"), on).unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.says("the configuration was read again");
    greeted(behind(&proxy, V1));
    assert!(behind(&proxy, "EHLO client.test\r\n").is_closed());
}
