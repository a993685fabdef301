//! E-mail made and sent by the programs that people use: Django, Nodemailer,
//! PHPMailer and Python's smtplib. None of them sets a key but where the test
//! says so. `tests/generators/install.sh` puts the first two into
//! `target/generators`; a test whose generator is missing fails and says how
//! to get it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::program::bounded;
use common::{Proxy, Upstream};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program of the system; `package` is the one to install.
fn system(name: &str, package: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|place| place.join(name).is_file());
    assert!(found, "{name} is missing: ./test installs it, or apt-get install {package}");
    Command::new(name)
}

/// Something that `install.sh` installs.
fn installed(path: &str) -> PathBuf {
    let path = here("target/generators").join(path);
    assert!(path.exists(), "{} is missing: run tests/generators/install.sh", path.display());
    path
}

/// Python with Django.
fn python_with_django() -> Command {
    let mut command = Command::new(installed("python/bin/python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn django() -> Command {
    let mut command = python_with_django();
    command.arg(here("tests/generators/django_mail.py"));
    command
}

fn nodemailer() -> Command {
    let mut command = system("node", "nodejs");
    command.env("NODE_PATH", installed("node/node_modules"));
    command.arg(here("tests/generators/nodemailer.js"));
    command
}

fn phpmailer() -> Command {
    let mut command = system("php", "php-cli libphp-phpmailer");
    command.arg(here("tests/generators/phpmailer.php"));
    command
}

fn plain_python(script: &str) -> Command {
    let mut command = system("python3", "python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(here("tests/generators").join(script));
    command
}

/// Runs a script against the proxy to its end, gives the lines that it printed.
#[track_caller]
fn send(mut script: Command, proxy: &Proxy, arguments: &[&str]) -> Vec<String> {
    script.args([proxy.address.ip().to_string(), proxy.address.port().to_string()]).args(arguments);
    let output = bounded(script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Sends one e-mail, built twice, then two others; each arrives once.
fn each_once(generator: fn() -> Command) {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    send(generator(), &proxy, &["t0ken"]);
    let first = upstream.only();
    assert!(!first.has("X-Idempotency-Key"), "no key is set: {}", first.text());
    send(generator(), &proxy, &["t0ken"]);
    let duplicate = proxy.log(&[("outcome", "duplicate")]);
    assert_eq!((&duplicate["strategy"], &duplicate["to"]), (&"content".into(), &"user@example.com".into()));
    upstream.only();
    for token in ["an0ther", "th1rd"] {
        send(generator(), &proxy, &[token]);
    }
    let got = upstream.messages();
    let tokens = ["t0ken", "an0ther", "th1rd"];
    assert_eq!(got.len(), tokens.len());
    for (got, token) in got.iter().zip(tokens) {
        assert!(got.text().contains(&format!("reset/{token}")), "{token}: {}", got.text());
    }
}

#[test]
fn django_sends_one_email_once_and_two_twice() {
    each_once(django);
}

#[test]
fn nodemailer_sends_one_email_once_and_two_twice() {
    each_once(nodemailer);
}

#[test]
fn phpmailer_sends_one_email_once_and_two_twice() {
    each_once(phpmailer);
}

/// Somebody asks for a new password and, a minute later, again: the template
/// is the same, but each mail has a token of its own.
#[test]
fn two_password_resets_from_one_template_both_arrive() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    for token in ["t0ken", "an0ther", "t0ken"] {
        send(django(), &proxy, &[token, "X-Template-Id=password-reset"]);
    }
    let got = upstream.messages();
    assert_eq!(got.len(), 2, "the third is the first again");
    assert!(got[0].text().contains("reset/t0ken") && got[1].text().contains("reset/an0ther"));
    assert_eq!(got[0].value("X-Template-Id").as_deref(), Some("password-reset"));
}

/// Lets 32 processes send one e-mail at once; gives what they printed.
fn thirty_two_workers(script: Command, kind: &str) -> Vec<String> {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let answers = send(script, &proxy, &["32", kind]);
    let got = upstream.only();
    assert_eq!(got.to(), ["user@example.com"]);
    assert!(!got.has("X-Idempotency-Key"));
    assert_eq!(answers.len(), 32);
    answers
}

#[test]
fn thirty_two_processes_with_smtplib_send_one_email_once() {
    for answer in thirty_two_workers(plain_python("at_once.py"), "smtplib") {
        assert_eq!(answer, "250 2.0.0 queued as 1");
    }
}

#[test]
fn thirty_two_processes_with_django_send_one_email_once() {
    let mut script = python_with_django();
    script.arg(here("tests/generators/at_once.py"));
    for answer in thirty_two_workers(script, "django") {
        assert_eq!(answer, "sent 1");
    }
}

/// One Message-ID and one key, but two people: a claim is for a recipient.
#[test]
fn to_and_cc_in_transactions_of_their_own_both_arrive() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let script = || plain_python("to_and_cc.py");
    let answers = send(script(), &proxy, &["minutes:7"]);
    assert_eq!(answers, ["to@example.com 250 2.0.0 queued as 1", "cc@example.com 250 2.0.0 queued as 2"]);
    assert_eq!(send(script(), &proxy, &["minutes:7"]), answers, "the job again hears the same");
    let got = upstream.messages();
    let to: Vec<_> = got.iter().map(common::got::Got::to).collect();
    assert_eq!(to, [["to@example.com"], ["cc@example.com"]]);
    assert_eq!(got[0].value("Message-ID"), got[1].value("Message-ID"));
}
