//! TLS with clients: the real program, and clients of rustls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "tls/client.rs"]
mod client;
mod common;
#[path = "tls/pki.rs"]
mod pki;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use client::{Trust, der};
use common::program::{bounded, mailonce};
use common::{Client, DEADLINE, Mail, Proxy, Setup, Upstream, until};
use pki::{Authority, Identity, replace};
use rustix::process::Signal;

/// A setup whose listener has TLS of this kind, with a certificate of this CA.
fn setup(upstream: &Upstream, kind: &str, authority: &Authority) -> (Setup, Identity) {
    let setup = Setup::new(upstream.address);
    let identity = authority.issue(&["relay.test", "localhost", "127.0.0.1"]);
    identity.write(setup.directory(), "server");
    replace(&setup.directory().join("ca.pem"), &authority.pem());
    let lines = format!(
        "tls = \"{kind}\"\ncertificate = \"{0}/server.pem\"\nprivate_key = \"{0}/server.key\"",
        setup.directory().display()
    );
    (setup.listener(&lines), identity)
}

fn authority() -> Authority {
    Authority::new("test CA")
}

#[test]
fn the_strongest_cipher_is_used_whatever_the_client_would_rather_have() {
    let authority = authority();
    let upstream = Upstream::start();
    let proxy = setup(&upstream, "implicit", &authority).0.start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let weakest_first = Trust::preferring(&authority, version, |suites| suites.reverse());
        let mut client = weakest_first.implicit(proxy.address);
        client.expect("220 ");
        let suite = client.cipher();
        assert!(suite.contains("AES_256_GCM_SHA384"), "{suite}");
    }
}

#[test]
fn both_modes_and_both_versions_deliver_once() {
    let authority = authority();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let trust = Trust::with(&authority, None, &[version]);
        let upstream = Upstream::start();
        let (with_starttls, _) = setup(&upstream, "starttls", &authority);
        let proxy = with_starttls.start();
        let mut client = proxy.client();
        assert!(client.command("EHLO client.test").lines().any(|line| line[4..] == *"STARTTLS"));
        assert_eq!(client.deliver(&Mail::keyed("clear")), "250 2.0.0 queued as 1", "it need not be used");
        let mut client = trust.starttls(proxy.address);
        assert!(client.command("MAIL FROM:<a@a.test>").starts_with("503 5.5.1"), "EHLO was forgotten");
        assert!(!client.hello().contains("STARTTLS"));
        assert!(client.command("STARTTLS").starts_with("502 5.5.1"));
        assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 2");
        assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 2");
        assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 2", "in clear, too");
        assert!(client.command("QUIT").starts_with("221 "));
        assert!(client.is_closed());

        let (with_implicit, _) = setup(&upstream, "implicit", &authority);
        let proxy = with_implicit.start();
        let mut client = trust.implicit(proxy.address);
        client.expect("220 relay.test ESMTP");
        assert!(!client.hello().contains("STARTTLS"));
        assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 3");
        assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 3");
        let protocols: Vec<_> = upstream
            .messages()
            .iter()
            .map(|got| {
                got.value("Received")
                    .unwrap()
                    .split(" with ")
                    .nth(1)
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(protocols, ["ESMTP", "ESMTPS", "ESMTPS"]);
    }
}

#[test]
fn nothing_said_in_clear_is_heard_after_the_handshake() {
    let (upstream, authority) = (Upstream::start(), authority());
    let proxy = setup(&upstream, "starttls", &authority).0.start();
    for behind in ["MAIL FROM:<x@y>\r\n", "MAIL FR", "\r\n", "\u{16}\u{3}\u{1}"] {
        let mut client = proxy.client();
        client.send(format!("NOOP\r\nSTARTTLS\r\n{behind}"));
        client.expect("250 2.0.0");
        client.expect("554 5.5.0 nothing may follow STARTTLS");
        assert!(client.is_closed(), "{behind:?}");
    }
    // What comes between the go-ahead and the handshake is no handshake.
    let mut client = proxy.client();
    client.command("STARTTLS");
    client.send("MAIL FROM:<x@y>\r\n");
    let rest = client.rest();
    assert!(!String::from_utf8_lossy(&rest).contains("250"), "{rest:?}");
    proxy.says("the TLS handshake failed");
    // A transaction that began in clear is forgotten, and its chunks.
    let mut client = proxy.client();
    client.send("MAIL FROM:<x@y>\r\nRCPT TO:<ann@b.test>\r\nBDAT 8\r\nX-In: 1\n");
    client.expect_all(&["250 2.1.0", "250 2.1.5", "250 2.0.0 chunk"]);
    client.command("STARTTLS");
    let mut client = Trust::new(&authority).over_client(client);
    client.hello();
    assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert!(!upstream.only().text().contains("X-In"));
    let mut client = proxy.client();
    client.command("MAIL FROM:<x@y>");
    client.command("STARTTLS");
    let mut client = Trust::new(&authority).over_client(client);
    assert!(client.command("RCPT TO:<ann@b.test>").starts_with("503 5.5.1"));
}

#[test]
fn a_listener_that_begins_with_tls_speaks_nothing_else() {
    let (upstream, authority) = (Upstream::start(), authority());
    let proxy = setup(&upstream, "implicit", &authority).0.start();
    let mut clear = Client::raw(proxy.address);
    clear.send("EHLO client.test\r\n");
    let rest = clear.rest();
    assert!(!String::from_utf8_lossy(&rest).contains("250"), "{rest:?}");
    // To talk before the greeting ends a session here, too.
    let mut early = Trust::new(&authority).talking_early(proxy.address, b"EHLO client.test\r\n");
    early.expect("220 ");
    early.expect("554 5.5.0 you talked before the greeting");
    assert!(early.is_closed());
    let mut polite = Trust::new(&authority).talking_early(proxy.address, b"quit\r\n");
    polite.expect("220 ");
    polite.expect("221 ");
}

#[test]
fn mail_waits_for_tls_where_it_is_required() {
    let (upstream, authority) = (Upstream::start(), authority());
    let proxy = setup(&upstream, "starttls", &authority).0.listener("require_tls = true").start();
    let mut client = proxy.client();
    let want = "530 5.7.0 Must issue a STARTTLS command first";
    assert_eq!(client.command("MAIL FROM:<a@a.test>"), want);
    assert!(client.command("RCPT TO:<ann@b.test>").starts_with("503"));
    assert!(client.command("NOOP").starts_with("250"));
    let mut client = Trust::new(&authority).hello(proxy.address);
    assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

#[test]
fn a_replaced_certificate_is_shown_to_new_clients_while_sessions_go_on() {
    let (upstream, authority) = (Upstream::start(), authority());
    let (setup, first) = setup(&upstream, "starttls", &authority);
    let proxy = setup.start();
    let mut old = Trust::new(&authority).hello(proxy.address);
    assert_eq!(old.shown(), der(&first));
    let second = authority.issue(&["relay.test"]);
    second.write(setup.directory(), "server");
    proxy.says("changed TLS files were read again");
    let new = Trust::new(&authority).hello(proxy.address);
    assert_eq!(new.shown(), der(&second));
    assert_eq!(old.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");

    // A faulty one changes nothing, whether it is noticed or pointed out.
    replace(&setup.directory().join("server.key"), "no key");
    proxy.says("changed TLS files can't be used");
    assert_eq!(Trust::new(&authority).hello(proxy.address).shown(), der(&second));
    proxy.process.signal(Signal::HUP);
    proxy.says("the configuration is faulty; nothing was changed");
    assert_eq!(Trust::new(&authority).hello(proxy.address).shown(), der(&second));
    let third = authority.issue(&["relay.test"]);
    third.write(setup.directory(), "server");
    proxy.process.signal(Signal::HUP);
    proxy.says("the configuration was read again");
    assert_eq!(Trust::new(&authority).hello(proxy.address).shown(), der(&third));
    assert_eq!(old.deliver(&Mail::keyed("k2")), "250 2.0.0 queued as 2");
}

#[test]
fn each_client_is_shown_the_certificate_with_its_name() {
    let (upstream, authority) = (Upstream::start(), authority());
    let setup = Setup::new(upstream.address);
    let (one, two) = (authority.issue(&["one.test"]), authority.issue(&["two.test", "*.wild.test"]));
    one.write(setup.directory(), "one");
    two.write(setup.directory(), "two");
    let list = |end: &str| format!("[\"{0}/one.{end}\", \"{0}/two.{end}\"]", setup.directory().display());
    let lines = format!("tls = \"starttls\"\ncertificate = {}\nprivate_key = {}", list("pem"), list("key"));
    let proxy = setup.clone().listener(&lines).start();
    for (name, identity) in [("one.test", &one), ("two.test", &two), ("a.wild.test", &two)] {
        let mut client = Trust::new(&authority).starttls_as(proxy.address, name);
        client.hello();
        assert_eq!(client.shown(), der(identity), "{name}");
    }
}

#[test]
fn sessions_are_resumed() {
    let (upstream, authority) = (Upstream::start(), authority());
    let proxy = setup(&upstream, "starttls", &authority).0.start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let trust = Trust::with(&authority, None, &[version]);
        assert!(!trust.hello(proxy.address).is_resumed());
        assert!(trust.hello(proxy.address).is_resumed(), "{version:?}");
    }
}

#[test]
fn a_clients_certificate_lets_it_in_and_names_its_tenant() {
    let (upstream, authority) = (Upstream::start(), authority());
    let (setup, _) = setup(&upstream, "starttls", &authority);
    let lines = format!(
        "client_ca = \"{}/ca.pem\"\nallow_from = []\ntenant_header = \"X-Tenant\"",
        setup.directory().display()
    );
    let proxy = setup.listener(&lines).start();
    let mut nobody = Trust::new(&authority).hello(proxy.address);
    nobody.command("MAIL FROM:<a@a.test>");
    assert_eq!(nobody.command("RCPT TO:<ann@b.test>"), "554 5.7.1 relay access denied");

    let shop = authority.issue(&["shop.test", "other.test"]);
    let mail = Mail::keyed("k").header("X-Tenant", "forged");
    let trust = Trust::showing(&authority, &shop);
    assert_eq!(trust.hello(proxy.address).deliver(&mail), "250 2.0.0 queued as 1");
    // A resumed session is still whose it was.
    let mut again = trust.hello(proxy.address);
    assert!(again.is_resumed());
    assert_eq!(again.deliver(&mail), "250 2.0.0 queued as 1");
    proxy.log(&[("tenant", "shop.test"), ("outcome", "relayed")]);
    assert!(!upstream.only().has("X-Tenant"));
    let bank = authority.issue_to("the bank");
    assert_eq!(
        Trust::showing(&authority, &bank).hello(proxy.address).deliver(&mail),
        "250 2.0.0 queued as 2"
    );
    proxy.log(&[("tenant", "the bank"), ("outcome", "relayed")]);

    let unusable = Trust::showing(&authority, &authority.issue_to("caf\u{e9}"));
    let mut unusable = unusable.hello(proxy.address);
    unusable.command("MAIL FROM:<a@a.test>");
    assert_eq!(unusable.command("RCPT TO:<ann@b.test>"), "554 5.7.1 relay access denied");
    proxy.says("its name holds something else than printable ASCII");

    let foreign = Authority::new("another CA").issue(&["shop.test"]);
    let mut foreign = Trust::showing(&authority, &foreign).starttls(proxy.address);
    foreign.try_say("EHLO client.test");
    assert!(foreign.try_reply().is_err(), "another CA may not name our tenants");
    proxy.says("the TLS handshake failed");
}

#[test]
fn a_handshake_that_stalls_is_ended_and_counted() {
    let (upstream, authority) = (Upstream::start(), authority());
    for kind in ["implicit", "starttls"] {
        let (setup, _) = setup(&upstream, kind, &authority);
        let proxy = setup.limits("command_timeout = \"1s\"").admin().start();
        let mut client = Client::raw(proxy.address);
        if kind == "starttls" {
            client.expect("220 ");
            client.command("EHLO client.test");
            client.command("STARTTLS");
        }
        // The start of a handshake, and then no more.
        client.send(b"\x16\x03\x01");
        assert!(client.is_closed(), "{kind}");
        proxy.says("it took too long");
        let metrics = proxy.ask("GET /metrics", &[], "").body;
        assert!(metrics.contains("mailonce_tls_handshakes_total{result=\"failed\"} 1\n"), "{metrics}");
    }
}

#[test]
fn a_handshake_under_way_does_not_hold_the_end_up() {
    let (upstream, authority) = (Upstream::start(), authority());
    let (setup, _) = setup(&upstream, "implicit", &authority);
    let mut proxy = setup.top("drain = \"5m\"").admin().start();
    let mut client = Client::raw(proxy.address);
    client.send(b"\x16\x03\x01");
    let came_in = |proxy: &Proxy| proxy.ask("GET /metrics", &[], "").body.contains("mailonce_sessions 1\n");
    until("the client is in", || came_in(&proxy).then_some(()));
    let since = Instant::now();
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert!(since.elapsed() < DEADLINE / 2, "it waited for the handshake");
}

#[test]
fn a_client_without_a_place_is_turned_away() {
    let (upstream, authority) = (Upstream::start(), authority());
    let (setup, _) = setup(&upstream, "implicit", &authority);
    let proxy = setup.limits("max_connections = 1").start();
    let trust = Trust::new(&authority);
    let mut first = trust.implicit(proxy.address);
    first.expect("220 ");
    assert!(trust.implicit(proxy.address).try_reply().is_err());
    proxy.says("too many connections");
    assert!(first.command("NOOP").starts_with("250"));
}

#[test]
fn dev_cert_makes_what_the_proxy_and_its_clients_take() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let certs = setup.directory().join("certs");
    let make = || mailonce(&["dev-cert", "--dir"]).arg(&certs).output().unwrap();
    let output = make();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (file, mode) in [("ca.pem", 0o644), ("ca.key", 0o600), ("server.pem", 0o644), ("server.key", 0o600)] {
        let seen = std::fs::metadata(certs.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(seen & !mode, 0, "{file} may be read by others: {seen:o}");
    }
    let key = std::fs::read(certs.join("server.key")).unwrap();
    let again = make();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already and is not overwritten"));
    assert_eq!(std::fs::read(certs.join("server.key")).unwrap(), key);

    let proxy = setup.listener(&lines.join("\n")).start();
    std::fs::write(proxy.setup.directory().join("mail.eml"), Mail::keyed("k").content()).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let mut curl = Command::new("curl");
        curl.args(["-4", "-sS", "--ssl-reqd", "--mail-from", "app@a.test", "--mail-rcpt", "ann@b.test"]);
        curl.arg("--cacert").arg(certs.join("ca.pem"));
        curl.arg("-T").arg(proxy.setup.directory().join("mail.eml"));
        curl.arg(format!("smtp://{host}:{}/client.test", proxy.address.port()));
        let output = bounded(curl);
        assert!(output.status.success(), "{host}: {}", String::from_utf8_lossy(&output.stderr));
    }
    upstream.only();
    let checked = proxy.setup.run(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && said.contains("(in), offers TLS, relays for"), "{said}");
}

#[test]
fn a_faulty_certificate_is_named_before_it_is_served() {
    let (upstream, authority) = (Upstream::start(), authority());
    let (setup, _) = setup(&upstream, "starttls", &authority);
    authority.issue(&["relay.test"]).write(setup.directory(), "other");
    std::fs::rename(setup.directory().join("other.key"), setup.directory().join("server.key")).unwrap();
    for command in ["check", "serve"] {
        let output = setup.run(&[command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        let place = format!("{}/mailonce.toml:7: listener.private_key: ", setup.directory().display());
        assert!(said.contains(&place) && said.contains("this key does not belong to the cert"), "{said}");
    }
}
