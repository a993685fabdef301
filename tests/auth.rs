//! AUTH of clients: the real program, checked by itself and by the upstream.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "tls/client.rs"]
mod client;
mod common;
#[path = "tls/pki.rs"]
mod pki;

use std::io::Write;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Secure, Trust};
use common::program::mailonce;
use common::{At, Client, Do, Mail, Setup, Upstream, meanwhile, until};
use pki::{Authority, replace};
use rustix::process::Signal;

/// AUTH PLAIN in one line.
fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{password}")))
}

/// What `mailonce hash-password` makes of a password.
fn hash(password: &str) -> String {
    let mut child =
        mailonce(&["hash-password"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A setup with these users, whose listener lets nobody in without AUTH.
fn local(upstream: &Upstream, users: &[(&str, &str)]) -> Setup {
    let setup = Setup::new(upstream.address);
    write_users(&setup, users);
    let file = setup.directory().join("users.toml");
    setup.listener(&format!("auth = \"local\"\nusers = {file:?}\nallow_from = []"))
}

fn write_users(setup: &Setup, users: &[(&str, &str)]) {
    let lines: String =
        users.iter().map(|(user, password)| format!("{user:?} = {:?}\n", hash(password))).collect();
    replace(&setup.directory().join("users.toml"), &lines);
}

/// A setup in which the upstream is asked.
fn passthrough() -> (Upstream, Setup) {
    let upstream = Upstream::offering(&["PIPELINING", "8BITMIME", "AUTH PLAIN LOGIN XOAUTH2"]);
    for (user, password) in [("ann", "pw-a"), ("bob", "pw-b")] {
        upstream.account(user, password);
    }
    let setup = Setup::new(upstream.address).listener("auth = \"passthrough\"\nallow_from = []");
    (upstream, setup)
}

fn with_tls(setup: Setup, kind: &str, authority: &Authority) -> Setup {
    authority.issue(&["relay.test", "127.0.0.1"]).write(setup.directory(), "server");
    let directory = setup.directory().display().to_string();
    setup.listener(&format!(
        "tls = \"{kind}\"\ncertificate = \"{directory}/server.pem\"\nprivate_key = \"{directory}/server.key\""
    ))
}

fn offers(ehlo: &str) -> Option<&str> {
    ehlo.lines().find_map(|line| line.get(4..)?.strip_prefix("AUTH "))
}

#[test]
fn who_has_a_password_relays_and_is_the_tenant() {
    let upstream = Upstream::start();
    let proxy = local(&upstream, &[("ann", "pw-a"), ("bob", "pw-b")]).start();
    let mut stranger = proxy.client();
    assert!(stranger.command("MAIL FROM:<a@a.test>").starts_with("250 "));
    assert!(stranger.command("RCPT TO:<b@b.test>").starts_with("530 5.7.0 "));
    let mut ann = Client::raw(proxy.address);
    ann.expect("220 ");
    assert_eq!(offers(&ann.command("EHLO client.test")), Some("PLAIN LOGIN"));
    assert!(ann.command(&plain("ann", "pw-a")).starts_with("235 2.7.0 "));
    assert_eq!(ann.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    let mut bob = proxy.client();
    assert_eq!(bob.command("AUTH LOGIN"), "334 VXNlcm5hbWU6");
    assert_eq!(bob.command(&STANDARD.encode("bob")), "334 UGFzc3dvcmQ6");
    assert!(bob.command(&STANDARD.encode("pw-b")).starts_with("235 2.7.0 "));
    assert_eq!(bob.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 2", "another tenant's key is another");
    let mut again = proxy.client();
    assert!(again.command(&plain("ann", "pw-a")).starts_with("235 2.7.0 "));
    assert_eq!(again.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    proxy.log(&[("outcome", "relayed"), ("tenant", "ann")]);
    proxy.log(&[("outcome", "relayed"), ("tenant", "bob")]);
    proxy.log(&[("outcome", "duplicate"), ("tenant", "ann")]);
    assert!(upstream.messages()[0].value("Received").unwrap().contains(" with ESMTPA id "));
}

#[test]
fn three_wrong_passwords_end_the_connection_and_ten_the_guessing() {
    let upstream = Upstream::start();
    let proxy = local(&upstream, &[("ann", "pw-a")]).start();
    let guess = |mut client: Client| {
        let lines = [plain("ann", "wrong"), plain("nobody", "pw-a"), "AUTH PLAIN !".to_owned()];
        let replies = lines.map(|line| client.command(&line));
        for (reply, due) in replies.iter().zip(["535 5.7.8 ", "535 5.7.8 ", "501 5.5.2 "]) {
            assert!(reply.starts_with(due) || reply.starts_with("454 4.7.0 "), "{reply}");
        }
        let failures = replies.iter().filter(|reply| reply.starts_with('5')).count();
        if failures == 3 {
            assert!(client.is_closed());
        } else {
            assert!(client.command("NOOP").starts_with("250 "), "what was not checked is no failure");
        }
        failures
    };
    // Side by side, since a refusal takes its time.
    let clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    let guesses: Vec<_> = clients.into_iter().map(|client| meanwhile(move || guess(client))).collect();
    let failures: usize = guesses.into_iter().map(|guess| guess.join().unwrap()).sum();
    assert_eq!(failures, 10);
    let reply = proxy.client().command(&plain("ann", "pw-a"));
    assert!(reply.starts_with("454 4.7.0 "), "right or wrong, nobody looks any more: {reply}");
    let log = proxy.process.stderr().join("\n");
    assert!(!log.contains("pw-a") && !log.contains("wrong"), "{log}");
}

#[test]
fn users_are_read_again_when_their_file_changes() {
    let upstream = Upstream::start();
    let proxy = local(&upstream, &[("ann", "pw-a")]).start();
    assert!(proxy.client().command(&plain("ann", "pw-a")).starts_with("235 "));
    write_users(&proxy.setup, &[("ann", "pw-new")]);
    proxy.process.signal(Signal::HUP);
    proxy.says("the configuration was read again");
    assert!(proxy.client().command(&plain("ann", "pw-a")).starts_with("535 "), "what was known is forgotten");
    assert!(proxy.client().command(&plain("ann", "pw-new")).starts_with("235 "));
    // Without a signal, within seconds.
    write_users(&proxy.setup, &[("ann", "pw-a")]);
    proxy.says("read again");
    until("the new password holds", || {
        proxy.client().command(&plain("ann", "pw-a")).starts_with("235 ").then_some(())
    });
    // A faulty file changes nothing.
    replace(&proxy.setup.directory().join("users.toml"), "ann = \"secret-in-clear\"\n");
    proxy.process.signal(Signal::HUP);
    proxy.says("users.toml");
    assert!(proxy.client().command(&plain("ann", "pw-a")).starts_with("235 "));
    let log = proxy.process.stderr().join("\n");
    assert!(!log.contains("secret-in-clear") && !log.contains("argon2id$"), "{log}");
}

#[test]
fn passwords_travel_under_tls_only() {
    let authority = Authority::new("test CA");
    let trust = Trust::new(&authority);
    let upstream = Upstream::start();
    let setup = with_tls(local(&upstream, &[("ann", "pw-a")]), "starttls", &authority);
    let proxy = setup.listener("require_tls = true").start();
    let mut clear = Client::raw(proxy.address);
    clear.expect("220 ");
    assert_eq!(offers(&clear.command("EHLO client.test")), None);
    assert!(clear.command(&plain("ann", "pw-a")).starts_with("538 5.7.11 "));
    let mut secure = trust.starttls(proxy.address);
    assert_eq!(offers(&secure.hello()), Some("PLAIN LOGIN"));
    assert!(secure.command(&plain("ann", "pw-a")).starts_with("235 "));
    assert_eq!(secure.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert!(upstream.only().value("Received").unwrap().contains(" with ESMTPSA id "));

    let implicit = with_tls(local(&upstream, &[("ann", "pw-a")]), "implicit", &authority).start();
    let mut secure = trust.implicit(implicit.address);
    secure.expect("220 ");
    assert_eq!(offers(&secure.hello()), Some("PLAIN LOGIN"));
    assert!(secure.command(&plain("ann", "pw-a")).starts_with("235 "));
    assert_eq!(secure.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 2");
}

#[test]
fn starttls_forgets_who_it_was() {
    let authority = Authority::new("test CA");
    let upstream = Upstream::start();
    let proxy = with_tls(local(&upstream, &[("ann", "pw-a")]), "starttls", &authority).start();
    let mut client = proxy.client();
    assert!(client.command(&plain("ann", "pw-a")).starts_with("235 "), "on loopback, in clear");
    assert!(client.command("STARTTLS").starts_with("220 "));
    let mut secure: Secure = Trust::new(&authority).over_client(client);
    secure.hello();
    assert!(secure.command("MAIL FROM:<a@a.test>").starts_with("250 "));
    assert!(secure.command("RCPT TO:<b@b.test>").starts_with("530 5.7.0 "));
}

#[test]
fn the_upstream_answers_and_keeps_accounts_apart() {
    let (upstream, setup) = passthrough();
    let proxy = setup.start();
    let mut ann = proxy.client();
    assert_eq!(ann.command(&plain("ann", "wrong")), "535 5.7.8 not you, says upstream");
    assert_eq!(ann.command(&plain("ann", "pw-a")), "235 2.7.0 welcome upstream");
    let mut bob = proxy.client();
    assert_eq!(bob.command("AUTH LOGIN"), "334 VXNlcm5hbWU6");
    assert_eq!(bob.command(&STANDARD.encode("bob")), "334 UGFzc3dvcmQ6");
    assert_eq!(bob.command(&STANDARD.encode("pw-b")), "235 2.7.0 welcome upstream");
    for round in 0..3 {
        for (client, user) in [(&mut ann, "ann"), (&mut bob, "bob")] {
            client.deliver(&Mail::keyed(&format!("k{round}")));
            assert_eq!(upstream.messages().last().unwrap().user.as_deref(), Some(user));
        }
    }
    assert_eq!(upstream.messages().len(), 6, "one key of two users is two");
    let logins = upstream.commands().iter().filter(|line| line.starts_with("AUTH ")).count();
    assert_eq!(logins, 3, "the connections that logged in carry the mail");
}

#[test]
fn another_upstream_does_not_get_the_password_of_who_logged_in_before() {
    let (upstream, setup) = passthrough();
    let other = Upstream::offering(&["PIPELINING", "AUTH PLAIN"]);
    let proxy = setup.start();
    let mut ann = proxy.client();
    assert!(ann.command(&plain("ann", "pw-a")).starts_with("235 "));
    let file = proxy.setup.write();
    let text = std::fs::read_to_string(&file).unwrap();
    replace(&file, &text.replace(&upstream.address.to_string(), &other.address.to_string()));
    proxy.process.signal(Signal::HUP);
    proxy.says("the configuration was read again");
    assert_eq!(
        ann.deliver(&Mail::keyed("k")),
        "421 4.7.0 the upstream that let you in was replaced, connect again"
    );
    assert!(ann.is_closed());
    let heard = other.commands();
    assert!(!heard.iter().any(|line| line.starts_with("AUTH")), "{heard:?}");
    other.account("ann", "pw-other");
    let mut ann = proxy.client();
    assert!(ann.command(&plain("ann", "pw-other")).starts_with("235 "));
    assert_eq!(ann.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

#[test]
fn a_refused_token_is_explained_as_the_upstream_does() {
    let (upstream, setup) = passthrough();
    upstream.account("ann", "token-a");
    let proxy = setup.start();
    // What the upstream offers is known once it was reached.
    assert!(proxy.client().command(&plain("bob", "pw-b")).starts_with("235 "));
    let mut client = Client::raw(proxy.address);
    client.expect("220 ");
    assert_eq!(offers(&client.command("EHLO client.test")), Some("PLAIN LOGIN XOAUTH2"));
    let token = |token: &str| {
        format!("AUTH XOAUTH2 {}", STANDARD.encode(format!("user=ann\x01auth=Bearer {token}\x01\x01")))
    };
    assert_eq!(client.command(&token("stale")), "334 eyJzdGF0dXMiOiI0MDEifQ==");
    assert_eq!(client.command(""), "535 5.7.8 not you, says upstream");
    assert_eq!(client.command(&token("token-a")), "235 2.7.0 welcome upstream");
    client.deliver(&Mail::keyed("k"));
    assert_eq!(upstream.only().user.as_deref(), Some("ann"));
}

#[test]
fn whom_the_upstream_knew_lately_is_believed_while_it_is_away() {
    let (upstream, setup) = passthrough();
    let proxy = setup.start();
    assert!(proxy.client().command(&plain("ann", "pw-a")).starts_with("235 "));
    upstream.down();
    assert!(proxy.client().command(&plain("bob", "pw-b")).starts_with("454 4.7.0 "));
    assert!(proxy.client().command(&plain("ann", "wrong")).starts_with("454 4.7.0 "));
    let mut ann = proxy.client();
    assert!(ann.command(&plain("ann", "pw-a")).starts_with("235 2.7.0 "));
    assert!(ann.deliver(&Mail::keyed("k")).starts_with("451 4.4.1 [UPSTREAM]"));
    upstream.up();
    assert_eq!(ann.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert_eq!(upstream.only().user.as_deref(), Some("ann"));
}

#[test]
fn while_the_upstream_is_away_guesses_are_counted() {
    let (upstream, setup) = passthrough();
    let proxy = setup.start();
    assert!(proxy.client().command(&plain("ann", "pw-a")).starts_with("235 "));
    upstream.down();
    let try_often = |user: &'static str| {
        let tries: Vec<_> = (0..11)
            .map(|number| {
                let mut client = proxy.client();
                meanwhile(move || client.command(&plain(user, &format!("guess-{number}"))))
            })
            .collect();
        for reply in tries {
            assert!(reply.join().unwrap().starts_with("454 4.7.0 "));
        }
    };
    try_often("bob");
    assert!(proxy.client().command(&plain("ann", "pw-a")).starts_with("235 "), "nobody knows bob: no guess");
    try_often("ann");
    assert!(
        proxy.client().command(&plain("ann", "pw-a")).starts_with("454 "),
        "her password could be guessed"
    );
}

#[test]
fn what_the_upstream_says_to_auth_is_its_own_affair() {
    let (upstream, setup) = passthrough();
    let proxy = setup.start();
    let mut client = proxy.client();
    upstream.say(At::Auth, "454 4.7.0 my database is away");
    assert_eq!(client.command(&plain("ann", "pw-a")), "454 4.7.0 my database is away");
    upstream.say(At::Auth, "534 5.7.9 please log in\nwith your web browser");
    assert_eq!(client.command(&plain("ann", "pw-a")), "534-5.7.9 please log in\n534 with your web browser");
    upstream.once(At::Auth, Do::Drop);
    assert!(client.command(&plain("ann", "pw-a")).starts_with("454 4.7.0 "));
    upstream.say(At::Auth, "421 4.3.2 closing");
    assert!(client.command(&plain("ann", "pw-a")).starts_with("454 4.7.0 "));
    assert_eq!(client.command(&plain("ann", "pw-a")), "235 2.7.0 welcome upstream");
}

#[test]
fn an_open_relay_does_not_start() {
    let upstream = Upstream::start();
    let world = "address = \"0.0.0.0:0\"\nallow_from = [\"0.0.0.0/0\", \"::/0\"]";
    for more in ["", "auth = \"passthrough\"\n"] {
        let text = Setup::new(upstream.address)
            .text()
            .replace("address = \"127.0.0.1:0\"\n[upstream]", &format!("{world}\n{more}[upstream]"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mailonce.toml");
        std::fs::write(&path, text).unwrap();
        let output = mailonce(&["serve", "--config"]).arg(&path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("listener.allow_from") && said.contains("open relay"), "{said}");
    }
}
