//! Clients that others wrote, over STARTTLS and implicit TLS, with AUTH that a
//! real Postfix with Cyrus SASL answers through the proxy: swaks, curl, msmtp,
//! Python's smtplib, Nodemailer. `./test` installs them; a test whose program
//! is missing fails and names it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;
#[path = "tls/pki.rs"]
mod pki;
#[path = "peers/servers.rs"]
mod servers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::program::bounded;
use common::{Proxy, Setup, until};
use pki::{Authority, replace};
use servers::{Postfix, Server, program};

/// What Postfix says to a wrong password; only it says so.
const REFUSAL: &str = "535 5.7.8 Error: authentication failed: authentication failure";

/// One way to send one e-mail.
struct Sending<'a> {
    /// `starttls` or `implicit`.
    mode: &'a str,
    port: u16,
    /// The certificate to trust.
    ca: &'a Path,
    user: &'a str,
    password: &'a str,
    /// The idempotency key.
    key: &'a str,
}

impl Sending<'_> {
    fn mail(&self) -> String {
        format!(
            "From: app@a.test\r\nTo: ann@b.test\r\nSubject: hello\r\nX-Idempotency-Key: {}\r\n\r\nhello\r\n",
            self.key
        )
    }

    /// The same in a file of its own beside the certificate.
    fn file(&self) -> PathBuf {
        let path = self.ca.with_file_name(format!("{}.eml", self.key));
        std::fs::write(&path, self.mail()).unwrap();
        path
    }

    fn script(&self, mut command: Command, script: &str) -> Command {
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
        command.arg(self.mode).arg(self.port.to_string()).arg(self.ca);
        command.args([self.user, self.password, self.key]);
        command
    }
}

fn swaks(sending: &Sending<'_>) -> Command {
    let mut command = Command::new(program("swaks", "swaks"));
    command.args(["--server", "localhost", "--port", &sending.port.to_string()]);
    command.arg(if sending.mode == "implicit" { "--tls-on-connect" } else { "--tls" });
    command.arg("--tls-verify").arg("--tls-ca-path").arg(sending.ca);
    command.args(["--auth", "LOGIN", "--auth-user", sending.user, "--auth-password", sending.password]);
    command.args(["--from", "app@a.test", "--to", "ann@b.test", "--data"]).arg(sending.mail());
    command
}

fn curl(sending: &Sending<'_>) -> Command {
    let mut command = Command::new(program("curl", "curl"));
    let scheme = if sending.mode == "implicit" { "smtps" } else { "smtp" };
    command.args(["--silent", "--show-error", "--verbose", "--ssl-reqd", "--max-time", "30"]);
    command.arg(format!("{scheme}://localhost:{}/client.test", sending.port)).arg("--cacert").arg(sending.ca);
    command.arg("--user").arg(format!("{}:{}", sending.user, sending.password));
    command.args(["--mail-from", "app@a.test", "--mail-rcpt", "ann@b.test", "--upload-file"]);
    command.arg(sending.file());
    command
}

fn msmtp(sending: &Sending<'_>) -> Command {
    let mut command = Command::new(program("msmtp", "msmtp"));
    command.stdin(std::fs::File::open(sending.file()).unwrap());
    let starttls = if sending.mode == "implicit" { "off" } else { "on" };
    command.args(["--host=localhost", "--tls=on", "--auth=plain", "--from=app@a.test", "--timeout=30"]);
    command.arg(format!("--port={}", sending.port)).arg(format!("--tls-starttls={starttls}"));
    command.arg(format!("--tls-trust-file={}", sending.ca.display()));
    command.arg(format!("--user={}", sending.user));
    command.arg(format!("--passwordeval=echo {}", sending.password)).arg("ann@b.test");
    command
}

fn smtplib(sending: &Sending<'_>) -> Command {
    sending.script(Command::new(program("python3", "python3")), "tests/clients/send.py")
}

fn nodemailer(sending: &Sending<'_>) -> Command {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/generators/node/node_modules");
    assert!(modules.exists(), "Nodemailer is missing: run tests/generators/install.sh");
    let mut command = Command::new(program("node", "nodejs"));
    command.env("NODE_PATH", modules);
    sending.script(command, "tests/clients/send.js")
}

type Client = fn(&Sending<'_>) -> Command;

const CLIENTS: [(&str, Client); 5] =
    [("swaks", swaks), ("curl", curl), ("msmtp", msmtp), ("smtplib", smtplib), ("nodemailer", nodemailer)];

/// A Postfix that wants to know who sends, over TLS, and a proxy in front of it
/// that has it asked.
fn proxy_before_postfix(authority: &Authority, mode: &str, directory: &Path) -> (Postfix, Proxy) {
    authority.issue(&["localhost", "127.0.0.1"]).write(directory, "server");
    let file = |name: &str| directory.join(name);
    let postfix = Postfix::with_sasl(&file("server.pem"), &file("server.key"), "ann", "pw-a");
    let setup = Setup::new(postfix.address());
    authority.issue(&["localhost"]).write(setup.directory(), "server");
    replace(&setup.directory().join("ca.pem"), &authority.pem());
    let files = setup.directory().display().to_string();
    let setup = setup
        .listener(&format!(
            "tls = \"{mode}\"\ncertificate = \"{files}/server.pem\"\nprivate_key = \"{files}/server.key\"\n\
             require_tls = true\nauth = \"passthrough\"\nallow_from = []"
        ))
        .upstream(&format!("tls = \"starttls\"\nca_file = \"{files}/ca.pem\""));
    (postfix, setup.start())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn each_client_sends_once(mode: &str) {
    let authority = Authority::new("test CA");
    let directory = tempfile::tempdir().unwrap();
    let (postfix, proxy) = proxy_before_postfix(&authority, mode, directory.path());
    let ca = proxy.setup.directory().join("ca.pem");
    let sending =
        |password, key| Sending { mode, port: proxy.address.port(), ca: &ca, user: "ann", password, key };
    for (number, (name, client)) in CLIENTS.iter().enumerate() {
        for _ in 0..2 {
            let output = bounded(client(&sending("pw-a", name)));
            assert!(output.status.success(), "{name}: {}\n{}", said(&output), postfix.log());
        }
        let arrived = || (postfix.messages().len() > number).then_some(());
        until("the message arrives", arrived);
        let output = bounded(client(&sending("wrong", name)));
        let said = said(&output);
        assert!(!output.status.success() && said.contains(REFUSAL), "{name}: {said}");
        proxy.log(&[("outcome", "duplicate"), ("tenant", "ann"), ("key", name)]);
    }
    assert_eq!(postfix.messages().len(), CLIENTS.len());
    let log = proxy.process.stderr().join("\n");
    assert!(!log.contains("pw-a"), "{log}");
}

#[test]
fn each_client_sends_once_over_starttls() {
    each_client_sends_once("starttls");
}

#[test]
fn each_client_sends_once_over_implicit_tls() {
    each_client_sends_once("implicit");
}
