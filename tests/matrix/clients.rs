//! The clients of the matrix. Some are given an e-mail as it is, the others
//! make one of a text and tell what they made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::{Message, SmtpTransport, Transport};

use super::common::program::bounded;
use super::servers::program;
use super::{here, installed};

/// What a client has to send, in a directory of its own.
pub(crate) struct Job<'a> {
    /// Where the proxy listens, on 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) directory: &'a Path,
    /// The idempotency key, the subject as well.
    pub(crate) key: &'a str,
    /// The text, with LF.
    pub(crate) text: &'a str,
}

/// What came of one try, as the client saw it.
pub(crate) struct Heard {
    pub(crate) success: bool,
    /// All that it printed.
    pub(crate) said: String,
    /// What it sent, with CRLF.
    pub(crate) sent: Vec<u8>,
}

/// A client of the matrix.
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) version: fn() -> String,
    pub(crate) send: fn(&Job<'_>) -> Heard,
    /// Whether it lets its user see the reply to the message.
    pub(crate) tells_reply: bool,
    /// Whether it ends what it sends with one more line end, so that its reader
    /// sees an empty line.
    pub(crate) adds_line_end: bool,
}

impl Client {
    const fn with_line_end(self) -> Self {
        Self { adds_line_end: true, ..self }
    }
}

const fn client(name: &'static str, version: fn() -> String, send: fn(&Job<'_>) -> Heard) -> Client {
    Client { name, version, send, tells_reply: true, adds_line_end: false }
}

pub(crate) const CLIENTS: [Client; 12] = [
    client(
        "swaks",
        || word(&printed(swaks(), &["--version"]), 2),
        |job| {
            let mut command = swaks();
            command.args(["--server", "127.0.0.1", "--port", &job.port.to_string(), "--ehlo", "client.test"]);
            command.args(["--from", SENDER, "--to", RECIPIENT, "--data"]);
            command.arg(format!("@{}", job.file(LF).display()));
            job.run_with_mail(command)
        },
    )
    .with_line_end(),
    client(
        "smtp-source",
        || printed(found("postconf", "postfix"), &["-d", "-h", "mail_version"]),
        |job| {
            let mut command = found("smtp-source", "postfix");
            command.args(["-v", "-M", "client.test", "-f", SENDER, "-t", RECIPIENT, "-F"]).arg(job.file(LF));
            command.arg(format!("127.0.0.1:{}", job.port));
            job.run_with_mail(command)
        },
    )
    .with_line_end(),
    client(
        "msmtp",
        || word(&printed(found("msmtp", "msmtp"), &["--version"]), 2),
        |job| {
            let mut command = found("msmtp", "msmtp");
            command.args(["--debug", "--host=127.0.0.1", &format!("--port={}", job.port)]);
            command.args(["--tls=off", "--auth=off", "--timeout=30", &format!("--from={SENDER}"), RECIPIENT]);
            command.stdin(std::fs::File::open(job.file(LF)).unwrap());
            job.run_with_mail(command)
        },
    ),
    client(
        "curl",
        || word(&printed(found("curl", "curl"), &["--version"]), 1),
        |job| {
            let mut command = found("curl", "curl");
            command.args(["--silent", "--show-error", "--verbose", "--max-time", "30"]);
            command.arg(format!("smtp://127.0.0.1:{}/client.test", job.port));
            command
                .args(["--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file"])
                .arg(job.file(CRLF));
            job.run_with_mail(command)
        },
    ),
    client("smtplib", || printed(python(), &["smtplib"]), |job| job.run_script(python(), &["smtplib"])),
    client(
        "aiosmtplib",
        || printed(python(), &["aiosmtplib"]),
        |job| job.run_script(python(), &["aiosmtplib"]),
    ),
    Client {
        name: "Django",
        version: || printed(python(), &["django"]),
        send: |job| job.run_composer(python(), &["django"]),
        tells_reply: false,
        adds_line_end: false,
    },
    client("Nodemailer", || printed(nodemailer(), &[]), |job| job.run_composer(nodemailer(), &[])),
    client("PHPMailer", || printed(phpmailer(), &[]), |job| job.run_composer(phpmailer(), &[]))
        .with_line_end(),
    client("Net::SMTP (Perl)", || printed(perl(), &[]), |job| job.run_script(perl(), &[])),
    client("net-smtp (Ruby)", || printed(ruby(), &[]), |job| job.run_script(ruby(), &[])),
    client("lettre", lettre_version, send_with_lettre).with_line_end(),
];

const SENDER: &str = "app@a.test";
const RECIPIENT: &str = "ann@b.test";

fn found(name: &str, package: &str) -> Command {
    Command::new(program(name, package))
}

fn with_script(mut command: Command, script: &str) -> Command {
    command.arg(here("tests/matrix").join(script));
    command
}

fn swaks() -> Command {
    found("swaks", "swaks")
}

fn python() -> Command {
    with_script(Command::new(installed("python/bin/python")), "send.py")
}

fn nodemailer() -> Command {
    let mut command = with_script(found("node", "nodejs"), "nodemailer.js");
    command.env("NODE_PATH", installed("node/node_modules"));
    command
}

fn phpmailer() -> Command {
    with_script(found("php", "php-cli libphp-phpmailer"), "phpmailer.php")
}

fn perl() -> Command {
    with_script(found("perl", "perl"), "net_smtp.pl")
}

fn ruby() -> Command {
    with_script(found("ruby", "ruby"), "net_smtp.rb")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The first line that a program prints.
fn printed(mut command: Command, arguments: &[&str]) -> String {
    command.args(arguments);
    let output = bounded(command);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
}

fn word(line: &str, index: usize) -> String {
    line.split(' ').nth(index).unwrap().to_owned()
}

const CRLF: &str = "\r\n";
const LF: &str = "\n";

impl Job<'_> {
    fn mail(&self) -> String {
        let name = self.key;
        format!(
            "From: {SENDER}\nTo: {RECIPIENT}\nSubject: {name}\nDate: Sat, 28 Nov 2026 08:15:00 +0000\n\
             Message-ID: <{name}@a.test>\nX-Idempotency-Key: {name}\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}",
            self.text
        )
    }

    /// A file with the e-mail, lines ended like this.
    fn file(&self, ends: &str) -> PathBuf {
        let path = self.directory.join("mail.eml");
        std::fs::write(&path, self.mail().replace(LF, ends)).unwrap();
        path
    }

    /// Runs a command that sends the e-mail as it is.
    fn run_with_mail(&self, command: Command) -> Heard {
        self.run(command, || self.mail().replace(LF, CRLF).into_bytes())
    }

    /// The same for a script of ours.
    fn run_script(&self, mut command: Command, arguments: &[&str]) -> Heard {
        command.args(arguments).arg(self.port.to_string()).arg(self.file(CRLF));
        self.run_with_mail(command)
    }

    /// Runs a script that makes an e-mail of the text and sends it.
    fn run_composer(&self, mut command: Command, arguments: &[&str]) -> Heard {
        let (text, sent) = (self.directory.join("text"), self.directory.join("sent.eml"));
        std::fs::write(&text, self.text).unwrap();
        command.args(arguments).arg(self.port.to_string()).arg(text).arg(self.key).arg(&sent);
        self.run(command, || std::fs::read(sent).unwrap_or_default())
    }

    fn run(&self, mut command: Command, sent: impl FnOnce() -> Vec<u8>) -> Heard {
        command.current_dir(self.directory).env("PYTHONDONTWRITEBYTECODE", "1");
        let output = bounded(command);
        Heard { success: output.status.success(), said: said(&output), sent: sent() }
    }
}

fn lettre_version() -> String {
    let lock = include_str!("../../Cargo.lock");
    let after = lock.split_once("name = \"lettre\"\nversion = \"").unwrap().1;
    after.split('"').next().unwrap().to_owned()
}

fn send_with_lettre(job: &Job<'_>) -> Heard {
    let key = HeaderValue::new(HeaderName::new_from_ascii_str("X-Idempotency-Key"), job.key.to_owned());
    let builder = Message::builder().from(SENDER.parse().unwrap()).to(RECIPIENT.parse().unwrap());
    let mut message = builder
        .subject(job.key)
        .message_id(None)
        .header(ContentType::TEXT_PLAIN)
        .body(job.text.to_owned())
        .unwrap();
    message.headers_mut().insert_raw(key);
    let mailer = SmtpTransport::builder_dangerous("127.0.0.1").port(job.port).build();
    let answer = mailer.send(&message);
    let said = match &answer {
        Ok(reply) => format!("{} {}", reply.code(), reply.message().collect::<Vec<_>>().join(" ")),
        Err(error) => error.to_string(),
    };
    Heard { success: answer.is_ok(), said, sent: message.formatted() }
}
