//! Tenants with the real program: how one was proven is part of it, and claims
//! that an earlier version recorded still suppress.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "tls/client.rs"]
mod client;
mod common;
#[path = "tls/pki.rs"]
mod pki;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Secure, Trust};
use common::{Client, Mail, Proxy, Setup, Upstream};
use mailonce::store::record::hex;
use pki::{Authority, replace};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// AUTH PLAIN in one line.
fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{password}")))
}

/// A listener `in` whose clients may prove who they are in every way.
struct EveryWay {
    authority: Authority,
    proxy: Proxy,
}

impl EveryWay {
    fn start(upstream: &Upstream) -> Self {
        let (setup, authority) = (Setup::new(upstream.address), Authority::new("test CA"));
        authority.issue(&["relay.test", "127.0.0.1"]).write(setup.directory(), "server");
        replace(&setup.directory().join("ca.pem"), &authority.pem());
        let directory = setup.directory().display().to_string();
        replace(&setup.directory().join("users.toml"), &format!("\"in\" = {:?}\n", hash_of("pw")));
        let setup = setup.listener(&format!(
            "tls = \"starttls\"\ncertificate = \"{directory}/server.pem\"\nprivate_key = \"{directory}/server.key\"\n\
             client_ca = \"{directory}/ca.pem\"\nauth = \"local\"\nusers = \"{directory}/users.toml\"\n\
             tenant_header = \"X-Tenant\""
        ));
        Self { authority, proxy: setup.start() }
    }

    fn by_listener(&self, mail: &Mail) -> String {
        self.proxy.send(mail)
    }

    fn by_header(&self, mail: &Mail) -> String {
        self.proxy.send(&mail.clone().header("X-Tenant", "in"))
    }

    fn by_auth(&self, mail: &Mail) -> String {
        let mut client = self.proxy.client();
        assert!(client.command(&plain("in", "pw")).starts_with("235 "));
        client.deliver(mail)
    }

    fn by_certificate(&self, mail: &Mail) -> String {
        let identity = self.authority.issue(&["in"]);
        let mut client: Secure = Trust::showing(&self.authority, &identity).hello(self.proxy.address);
        client.deliver(mail)
    }
}

fn hash_of(password: &str) -> String {
    use argon2::password_hash::PasswordHasher;
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    argon2::Argon2::from(params).hash_password(password.as_bytes()).unwrap().to_string()
}

#[test]
fn a_user_a_certificate_a_header_and_a_listener_of_one_name_are_four_tenants() {
    let upstream = Upstream::start();
    let every = EveryWay::start(&upstream);
    let mail = Mail::keyed("k");
    let ways = [EveryWay::by_listener, EveryWay::by_header, EveryWay::by_auth, EveryWay::by_certificate];
    for round in 1..=2 {
        for (number, way) in (1..).zip(ways) {
            assert_eq!(way(&every, &mail), format!("250 2.0.0 queued as {number}"), "round {round}");
        }
    }
    // The field of a client that has proved its name is not read.
    assert_eq!(every.by_auth(&mail.clone().header("X-Tenant", "in")), "250 2.0.0 queued as 3");
    let twice = mail.clone().header("X-Tenant", "a").header("X-Tenant", "b");
    assert_eq!(every.by_certificate(&twice), "250 2.0.0 queued as 4");
    assert_eq!(upstream.messages().len(), 4);
    let setup = every.proxy.setup.clone();
    every.proxy.stop();
    let listed = String::from_utf8(setup.run(&["keys", "list", "--tenant", "in", "--json"]).stdout).unwrap();
    assert_eq!(listed.lines().count(), 4, "they are shown by their one name: {listed}");
}

fn passthrough(more: &str) -> (Upstream, Setup) {
    let upstream = Upstream::offering(&["PIPELINING", "8BITMIME", "AUTH PLAIN LOGIN XOAUTH2"]);
    let listener = format!("auth = \"passthrough\"\nallow_from = []\n{more}");
    let setup = Setup::new(upstream.address).listener(&listener);
    (upstream, setup)
}

/// A client that the upstream knows by this password, and no other.
fn logged_in(upstream: &Upstream, proxy: &Proxy, user: &str, password: &str) -> Client {
    upstream.account(user, password);
    let mut client = proxy.client();
    assert!(client.command(&plain(user, password)).starts_with("235 "), "{user}");
    client
}

#[test]
fn customers_of_one_user_name_are_told_apart_by_their_passwords_over_restarts() {
    let (upstream, setup) = passthrough("");
    let mail = Mail::keyed("k");
    let send = |proxy: &Proxy, user, password| {
        logged_in(&upstream, proxy, user, password).deliver(&mail).rsplit(' ').next().unwrap().to_owned()
    };
    let proxy = setup.start();
    assert_eq!(send(&proxy, "apikey", "SG.one"), "1");
    assert_eq!(send(&proxy, "apikey", "SG.two"), "2");
    assert_eq!(send(&proxy, "ann@shop.test", "before"), "3");
    let logged = proxy.log(&[("tenant", "apikey"), ("outcome", "relayed")]).to_string();
    assert!(!logged.contains("SG."), "{logged}");
    proxy.stop();
    let proxy = setup.start();
    assert_eq!(send(&proxy, "apikey", "SG.one"), "1");
    assert_eq!(send(&proxy, "apikey", "SG.two"), "2");
    assert_eq!(send(&proxy, "ann@shop.test", "after"), "3", "an address is one account");
    assert_eq!(send(&proxy, "apikey", "SG.three"), "4");
    proxy.stop();
    let listed =
        String::from_utf8(setup.run(&["keys", "list", "--tenant", "apikey", "--json"]).stdout).unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");
}

#[test]
fn the_name_is_enough_where_the_listener_says_so() {
    let (upstream, setup) = passthrough("tenant_from = \"user\"");
    let proxy = setup.start();
    for password in ["SG.one", "SG.two"] {
        let reply = logged_in(&upstream, &proxy, "apikey", password).deliver(&Mail::keyed("k"));
        assert_eq!(reply, "250 2.0.0 queued as 1");
    }
}

fn explained(setup: &Setup, mail: &Mail, arguments: &[&str]) -> Value {
    let file = setup.directory().join("mail.eml");
    std::fs::write(&file, mail.content()).unwrap();
    let output = setup
        .run(&[&["explain", file.to_str().unwrap(), "--rcpt", "ann@b.test", "--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The store's key is lost: nothing may be sent by another one, which would take
/// each e-mail of before for new. Looking needs no key.
#[test]
fn without_its_key_the_proxy_does_not_start_and_the_commands_work() {
    let (upstream, setup) = passthrough("");
    let proxy = setup.start();
    logged_in(&upstream, &proxy, "apikey", "SG.one").deliver(&Mail::keyed("k"));
    proxy.stop();
    let key = setup.directory().join("claims/tenant.key");
    let kept = std::fs::read_to_string(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let serve = setup.run(&["serve"]);
    let said = String::from_utf8(serve.stderr).unwrap();
    assert_eq!(serve.status.code(), Some(1), "{said}");
    assert!(said.contains("tenant.key") && said.contains("is missing"), "{said}");
    assert!(!key.exists(), "none was made");
    let listed = String::from_utf8(setup.run(&["keys", "list", "--json"]).stdout).unwrap();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let explained = explained(&setup, &Mail::keyed("k"), &["--tenant", "apikey"]);
    assert_eq!(explained["claims"][0]["would_be"], "suppressed", "{explained}");
    std::fs::write(&key, kept).unwrap();
    let proxy = setup.start();
    let again = logged_in(&upstream, &proxy, "apikey", "SG.one").deliver(&Mail::keyed("k"));
    assert_eq!(again, "250 2.0.0 queued as 1");
}

/// The id that versions gave a claim which knew a tenant by its name alone.
fn first_id(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap();
    let mut encoded = Vec::new();
    let mut append = |text: &str| {
        encoded.extend_from_slice(&(text.len() as u64).to_be_bytes());
        encoded.extend_from_slice(text.as_bytes());
    };
    for part in ["mailonce claim 1", text("tenant"), text("strategy"), text("key")] {
        append(part);
    }
    match text("recipient") {
        "" => encoded.push(0),
        recipient => {
            encoded.push(1);
            encoded.extend_from_slice(&(recipient.len() as u64).to_be_bytes());
            encoded.extend_from_slice(recipient.as_bytes());
        }
    }
    hex(&Sha256::digest(&encoded))
}

/// Puts every record of a stopped proxy's store where an earlier version would
/// have it. Answers how many.
fn age(setup: &Setup) -> usize {
    let exported = setup.run(&["keys", "export"]);
    assert!(exported.status.success(), "{exported:?}");
    let mut lines = String::new();
    let mut ids = Vec::new();
    for line in String::from_utf8(exported.stdout).unwrap().lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        ids.push(record["id"].as_str().unwrap().to_owned());
        record["id"] = first_id(&record).into();
        lines += &format!("{record}\n");
    }
    for id in &ids {
        assert!(setup.run(&["keys", "release", "--yes", id]).status.success());
    }
    let file: PathBuf = setup.directory().join("old.jsonl");
    std::fs::write(&file, lines).unwrap();
    let imported = setup.run(&["keys", "import", file.to_str().unwrap()]);
    assert!(imported.status.success(), "{imported:?}");
    ids.len()
}

/// Every record, by the commands.
fn listed(setup: &Setup) -> Vec<Value> {
    let listed = setup.run(&["keys", "list", "--json"]);
    let lines = String::from_utf8(listed.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn claims_of_an_earlier_version_still_suppress_whatever_the_tenant() {
    type Way = fn(&EveryWay, &Mail) -> String;
    let ways: [(&str, Way); 4] = [
        ("listener", EveryWay::by_listener),
        ("header", EveryWay::by_header),
        ("user", EveryWay::by_auth),
        ("certificate", EveryWay::by_certificate),
    ];
    for (kind, way) in ways {
        let upstream = Upstream::start();
        let every = EveryWay::start(&upstream);
        let mail = Mail::keyed("k").to(&["ann@b.test", "bob@b.test"]);
        assert_eq!(way(&every, &mail), "250 2.0.0 queued as 1", "{kind}");
        let (setup, authority) = (every.proxy.setup.clone(), every.authority);
        every.proxy.stop();
        assert_eq!(age(&setup), 2);
        let old: Vec<Value> = listed(&setup).iter().map(|record| record["id"].clone()).collect();
        if kind == "listener" {
            let explained = explained(&setup, &Mail::keyed("k"), &[]);
            let claim = &explained["claims"][0];
            assert_eq!(claim["would_be"], "suppressed", "{explained}");
            assert!(!old.contains(&claim["id"]), "the id of today is shown: {explained}");
        }
        let every = EveryWay { authority, proxy: setup.start() };
        assert_eq!(way(&every, &mail), "250 2.0.0 queued as 1", "{kind}");
        assert_eq!(way(&every, &mail), "250 2.0.0 queued as 1", "{kind}, again");
        every.proxy.stop();
        assert_eq!(upstream.messages().len(), 1, "{kind}");
        let now = listed(&setup);
        assert_eq!(now.len(), 2, "{kind}: {now:?}");
        assert!(
            now.iter().all(|record| !old.contains(&record["id"]) && record["duplicates"] == 2),
            "{now:?}"
        );
    }
}

#[test]
fn an_accounts_claims_of_an_earlier_version_still_suppress() {
    let (upstream, setup) = passthrough("");
    let proxy = setup.start();
    for (number, user) in [(1, "apikey"), (2, "ann@shop.test")] {
        let reply = logged_in(&upstream, &proxy, user, "pw").deliver(&Mail::keyed("k"));
        assert_eq!(reply, format!("250 2.0.0 queued as {number}"));
    }
    proxy.stop();
    assert_eq!(age(&setup), 2);
    let proxy = setup.start();
    // Another customer's e-mail with the same key does not take the claim along.
    let other = Mail::keyed("k").body("for another shop\r\n");
    let reply = logged_in(&upstream, &proxy, "apikey", "another").deliver(&other);
    assert!(reply.starts_with("554 5.5.0 [CONFLICT]"), "{reply}");
    for (number, user) in [(1, "apikey"), (2, "ann@shop.test")] {
        let reply = logged_in(&upstream, &proxy, user, "pw").deliver(&Mail::keyed("k"));
        assert_eq!(reply, format!("250 2.0.0 queued as {number}"));
    }
    let reply = logged_in(&upstream, &proxy, "apikey", "another").deliver(&other);
    assert_eq!(reply, "250 2.0.0 queued as 3", "the claim has found its tenant");
    assert_eq!(upstream.messages().len(), 3);
}

#[test]
fn a_claim_for_a_whole_message_of_an_earlier_version_still_suppresses() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("scope = \"message\"");
    let mail = Mail::keyed("k").to(&["ann@b.test", "bob@b.test"]);
    let proxy = setup.start();
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    proxy.stop();
    assert_eq!(age(&setup), 1);
    let proxy = setup.start();
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail.clone().to(&["bob@b.test"])), "250 2.0.0 queued as 1");
    upstream.only();
}

/// What the commands were told of before, by its id, can still be mended.
#[test]
fn the_commands_find_a_claim_of_an_earlier_version_by_id_and_by_key() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let proxy = setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    proxy.stop();
    age(&setup);
    let id = listed(&setup)[0]["id"].as_str().unwrap().to_owned();
    for what in [id.as_str(), &id[..16], "k"] {
        let shown = setup.run(&["keys", "show", what]);
        assert!(String::from_utf8_lossy(&shown.stdout).starts_with("accepted once"), "{what}: {shown:?}");
    }
    assert!(setup.run(&["keys", "release", "--yes", &id]).status.success());
    let proxy = setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 2");
}
