//! Secrets stay where they are: not in the log at any level, in metrics, in a
//! reply, in what a command prints or in the list of processes. The real
//! program, with secrets in every place that takes one.
//!
//! A new secret is one more line in [`Planted::everywhere`] (and where it is
//! used); all that is searched for the others is searched for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "tls/client.rs"]
mod client;
mod common;
#[path = "tls/pki.rs"]
mod pki;
#[path = "secrets/upstream.rs"]
mod upstream;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use client::Trust;
use common::program::{bounded, mailonce};
use common::{Mail, Proxy, Setup, Upstream, http};
use pki::{Authority, Identity};
use rustix::process::Signal;
use upstream::Manner;

const PASSWORD: &str = "Upstream-Pa55word";
const TOKEN: &str = "admin-token-c0ffee";
const GUESS: &str = "a-token-that-somebody-guessed";

/// Where the password for the upstream stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Configuration,
    Environment,
    File,
}

/// What must be found nowhere, each with its name.
struct Planted(Vec<(&'static str, String)>);

impl Planted {
    fn everywhere(listener: &Identity, own: &Identity) -> Self {
        let line = |key: &str| key.lines().nth(1).unwrap().to_owned();
        Self(vec![
            ("the password", PASSWORD.to_owned()),
            ("the admin token", TOKEN.to_owned()),
            ("a token that was tried", GUESS.to_owned()),
            ("the listener's key", line(&listener.key)),
            ("our key for the upstream", line(&own.key)),
        ])
    }

    /// Looks for every secret, as it is and within anything in base64.
    fn search(&self, place: &str, text: &str) {
        for (name, secret) in &self.0 {
            for form in forms(secret) {
                assert!(!text.contains(&form), "{name} is in {place}: {text}");
            }
        }
    }

    fn search_output(&self, place: &str, output: &Output) {
        self.search(place, &String::from_utf8_lossy(&output.stdout));
        self.search(place, &String::from_utf8_lossy(&output.stderr));
    }
}

/// A text as it is, and its part of any base64 that holds it: which octets go
/// together depends on how many are in front.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for before in 0..3 {
        let whole = STANDARD_NO_PAD.encode(format!("{}{secret}", "\0".repeat(before)));
        let first = (before * 8).div_ceil(6);
        let last = (before + secret.len()) * 8 / 6;
        forms.push(whole[first..last].to_owned());
    }
    forms
}

#[test]
fn a_secret_is_found_within_base64() {
    for before in ["", "a", "ab", "\0me\0"] {
        let text = STANDARD_NO_PAD.encode(format!("{before}{PASSWORD}!"));
        assert!(forms(PASSWORD).iter().any(|form| text.contains(form)), "{before:?} {text}");
    }
    assert!(!forms(PASSWORD).iter().any(|form| "VXBzdHJlYW0=".contains(form)));
}

/// A proxy that uses all of them.
struct Scene {
    planted: Planted,
    setup: Setup,
    place: Place,
    authority: Authority,
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

impl Scene {
    fn new(place: Place, mechanism: &str, manner: Manner) -> Self {
        let authority = Authority::new("test CA");
        let server = authority.issue(&["127.0.0.1"]);
        let (listener, own) = (authority.issue(&["relay.test"]), authority.issue(&["relay.test"]));
        let address = upstream::start(&authority, &server, mechanism, manner);
        let setup = Setup::new(address).admin();
        let directory = setup.directory().to_owned();
        write(&directory.join("ca.pem"), &authority.pem());
        for (name, identity) in [("listener", &listener), ("own", &own)] {
            write(&directory.join(format!("{name}.pem")), &identity.certificate);
            write(&directory.join(format!("{name}.key")), &identity.key);
        }
        write(&directory.join("password"), &format!("{PASSWORD}\n"));
        std::fs::create_dir(directory.join("secrets")).unwrap();
        write(&setup.token_file(), TOKEN);
        let shown = directory.display();
        let password = match place {
            Place::Configuration => format!("password = \"{PASSWORD}\"\n"),
            Place::Environment => String::new(),
            Place::File => format!("password_file = \"{shown}/password\"\n"),
        };
        let setup = setup
            .listener(&format!(
                "certificate = \"{shown}/listener.pem\"\nprivate_key = \"{shown}/listener.key\""
            ))
            .upstream(&format!(
                "tls = \"starttls\"\nca_file = \"{shown}/ca.pem\"\nclient_certificate = \"{shown}/own.pem\"\n\
                 client_key = \"{shown}/own.key\"\nusername = \"me\"\n{password}"
            ));
        Self { planted: Planted::everywhere(&listener, &own), setup, place, authority }
    }

    /// The environment that goes with it.
    fn prepare(&self, command: &mut Command, level: &str) {
        command.env("MAILONCE_LOG__LEVEL", level);
        if let Place::Environment = self.place {
            command.env("MAILONCE_UPSTREAM__PASSWORD", PASSWORD);
        }
    }

    fn start(&self, level: &str) -> Proxy {
        self.setup.start_with(|command| self.prepare(command, level))
    }

    /// Runs a command on the same configuration.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = mailonce(arguments);
        command.arg("--config").arg(self.setup.write());
        self.prepare(&mut command, "trace");
        bounded(command)
    }

    /// Sends an e-mail over TLS; gives the reply.
    fn send(&self, proxy: &Proxy) -> String {
        let mut client = Trust::new(&self.authority).hello(proxy.address);
        let reply = client.deliver(&Mail::keyed("k"));
        client.send("QUIT\r\n");
        reply
    }

    /// Asks for everything that can be asked for, and looks through it.
    fn search_answers(&self, proxy: &Proxy) {
        let admin = proxy.admin.unwrap();
        for request in ["/readyz", "/metrics", "/", "/v1/claims", "/v1/stats", "/v1/nothing"] {
            let answer = proxy.ask(&format!("GET {request}"), &[], "");
            self.planted.search(request, &(answer.head + &answer.body));
            let guess = format!("Authorization: Bearer {GUESS}");
            let answer = http::ask(admin, &format!("GET {request}"), &[&guess], "");
            self.planted.search(request, &(answer.head + &answer.body));
        }
        for file in ["cmdline", "status"] {
            let shown = std::fs::read(format!("/proc/{}/{file}", proxy.process.id())).unwrap();
            self.planted.search(file, &String::from_utf8_lossy(&shown));
        }
    }

    /// Ends the proxy and looks through all that it ever said.
    fn search_said(&self, mut proxy: Proxy) {
        proxy.process.signal(Signal::TERM);
        assert_eq!(proxy.process.wait().code(), Some(0));
        let said = [proxy.process.stderr(), proxy.process.stdout()].concat().join("\n");
        self.planted.search("the log", &said);
    }
}

#[test]
fn no_secret_is_shown_while_mail_is_sent() {
    for (place, mechanism) in
        [(Place::Configuration, "PLAIN"), (Place::Environment, "LOGIN"), (Place::File, "PLAIN")]
    {
        let scene = Scene::new(place, mechanism, Manner::Welcome);
        for level in ["error", "warn", "info", "debug", "trace"] {
            let proxy = scene.start(level);
            let reply = scene.send(&proxy);
            assert!(reply.starts_with("250 2.0.0 taken"), "{place:?}: {reply}");
            scene.search_answers(&proxy);
            proxy.process.signal(Signal::HUP);
            scene.search_said(proxy);
        }
        let check = scene.run(&["check"]);
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        assert!(String::from_utf8_lossy(&check.stdout).contains("authenticated as \"me\""));
        scene.planted.search_output("check", &check);
        for arguments in [&["keys", "list"][..], &["keys", "export"], &["stats"]] {
            let output = scene.run(arguments);
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            scene.planted.search_output(&arguments.join(" "), &output);
        }
    }
}

#[test]
fn no_secret_is_shown_where_the_upstream_repeats_it() {
    for mechanism in ["PLAIN", "LOGIN"] {
        let scene = Scene::new(Place::File, mechanism, Manner::Echo);
        let proxy = scene.start("trace");
        let reply = scene.send(&proxy);
        assert!(reply.starts_with("451 4.4.1 [UPSTREAM]"), "{reply}");
        scene.planted.search("a reply", &reply);
        scene.search_answers(&proxy);
        scene.search_said(proxy);
        let check = scene.run(&["check"]);
        assert_eq!(check.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&check.stderr).contains("535"));
        scene.planted.search_output("check", &check);
    }
}

#[test]
fn no_fault_of_the_configuration_shows_a_secret() {
    let upstream = Upstream::start();
    let planted = Planted(vec![("the password", PASSWORD.to_owned())]);
    let lines = [
        format!("password = \"{PASSWORD}\""),
        format!("password = {PASSWORD}"),
        format!("password = \"{PASSWORD}"),
        format!("password = [\"{PASSWORD}\"]"),
        format!("password = \"{PASSWORD}\\u0000\"\nusername = \"me\""),
        format!("passwd = \"{PASSWORD}\""),
        format!("username = \"me\"\npassword = \"{PASSWORD}\"\npassword_file = \"x\""),
        format!("username = \"me\"\npassword = \"{PASSWORD}\"\ntls = \"maybe\""),
    ];
    for lines in lines {
        for command in ["check", "serve", "stats"] {
            let output = Setup::new(upstream.address).upstream(&lines).run(&[command]);
            assert_eq!(output.status.code(), Some(1), "{lines}");
            planted.search_output(command, &output);
        }
    }
    let setup = Setup::new(upstream.address);
    for variable in ["MAILONCE_UPSTREAM__PASSWORD", "MAILONCE_UPSTREAM__PASSWORT"] {
        let mut check = mailonce(&["check", "--config"]);
        check.arg(setup.write()).env(variable, PASSWORD);
        let output = bounded(check);
        assert_eq!(output.status.code(), Some(1), "{variable}");
        planted.search_output(variable, &output);
    }
}

#[test]
fn secrets_that_everybody_can_read_are_warned_of() {
    let scene = Scene::new(Place::File, "PLAIN", Manner::Welcome);
    let path = scene.setup.directory().to_owned();
    let names = ["listener.key", "own.key", "password", "secrets/admin.token"];
    let keys = ["listener.private_key", "upstream.client_key", "upstream.password_file", "admin.token_file"];
    let warning = |name: &str, key: &str| {
        format!("{key}: {}: everybody on this machine can read", path.join(name).display())
    };
    let told = |output: &Output| {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    assert!(!told(&scene.run(&["check"])).contains("warning: "));
    for name in names {
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let said = told(&scene.run(&["check"]));
    let proxy = scene.start("info");
    for (name, key) in names.into_iter().zip(keys) {
        let warning = warning(name, key);
        assert!(said.lines().any(|line| line.starts_with("warning: ") && line.contains(&warning)), "{said}");
        proxy.says(&warning);
    }
    // The configuration is such a file, too, where the password is in it.
    let scene = Scene::new(Place::Configuration, "PLAIN", Manner::Welcome);
    let config = scene.setup.write();
    for (mode, warned) in [(0o644, true), (0o640, false)] {
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = told(&scene.run(&["check"]));
        let want = format!("upstream.password: {}: everybody on this machine can read", config.display());
        assert_eq!(said.contains(&want), warned, "{said}");
    }
}

#[test]
fn who_only_looks_something_up_needs_no_secret() {
    let scene = Scene::new(Place::File, "PLAIN", Manner::Welcome);
    let proxy = scene.start("info");
    scene.send(&proxy);
    scene.search_said(proxy);
    let directory = scene.setup.directory();
    for name in ["listener.key", "own.key", "password"] {
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    let mail = directory.join("mail.eml");
    std::fs::write(&mail, Mail::keyed("k").content()).unwrap();
    let mail = mail.display().to_string();
    let commands = [&["keys", "list"][..], &["keys", "show", "k"], &["stats"], &["explain", &mail]];
    for arguments in commands {
        let output = scene.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for command in ["check", "serve"] {
        let output = scene.run(&[command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for (key, name) in [("listener.private_key", "listener.key"), ("upstream.password_file", "password")]
        {
            let fault = format!("{key}: {}: can't be read", directory.join(name).display());
            assert!(said.contains(&fault), "{said}");
        }
    }
}
