//! Over TLS, a session that ends says so (RFC 8446 §6.1): the client can tell
//! that nobody has cut it short.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "tls/client.rs"]
mod client;
mod common;
#[path = "tls/pki.rs"]
mod pki;

use client::{Secure, Trust};
use common::{Proxy, Setup, Upstream};
use pki::{Authority, replace};
use rustix::process::Signal;

fn start(kind: &str, limits: &str, authority: &Authority) -> Proxy {
    let setup = Setup::new(Upstream::start().address).limits(limits);
    authority.issue(&["relay.test"]).write(setup.directory(), "server");
    replace(&setup.directory().join("ca.pem"), &authority.pem());
    let directory = setup.directory().display().to_string();
    let files = format!("certificate = \"{directory}/server.pem\"\nprivate_key = \"{directory}/server.key\"");
    setup.listener(&format!("tls = \"{kind}\"\n{files}")).start()
}

/// What ends a session, and what the client then hears.
fn ends(limits: &str, end: impl Fn(&Proxy, &mut Secure), heard: &str) {
    let authority = Authority::new("test CA");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for kind in ["starttls", "implicit"] {
            let proxy = start(kind, limits, &authority);
            let trust = Trust::with(&authority, None, &[version]);
            let mut client = match kind {
                "implicit" => trust.implicit(proxy.address),
                _ => trust.starttls(proxy.address),
            };
            if kind == "implicit" {
                client.expect("220 ");
            }
            client.hello();
            end(&proxy, &mut client);
            client.expect(heard);
            // Without the farewell of TLS this end is an error.
            assert!(client.is_closed(), "{kind} {version:?}");
        }
    }
}

#[test]
fn after_quit() {
    ends("", |_, client| client.send("QUIT\r\n"), "221 2.0.0");
}

#[test]
fn after_a_command_that_took_too_long() {
    ends("command_timeout = \"1s\"", |_, client| client.send("NOO"), "421 4.4.2");
}

#[test]
fn after_too_many_errors() {
    let err = |_: &Proxy, client: &mut Secure| {
        client.send("WHAT\r\nWHAT\r\n");
        client.expect("500 5.5.2");
    };
    ends("max_errors = 1", err, "421 4.7.0");
}

#[test]
fn when_the_proxy_shuts_down() {
    ends("", |proxy, _| proxy.process.signal(Signal::TERM), "421 4.3.2");
}
