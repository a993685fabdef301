//! What can go wrong with an upstream, by what happened, and what the client
//! hears of it.

use std::fmt;
use std::sync::Arc;

use crate::smtp::client::{Due, ProtocolFault};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;

/// The most octets of a fault's text in a reply. With code, enhanced code and
/// word the line stays below the 512 octets of RFC 5321 §4.5.3.1.5.
const MAX_TEXT: usize = 400;

/// So many octets are enough to know a secret that was cut off.
const BEGINNING: usize = 16;

/// Where a fault happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// `host:port` as it was configured.
    pub address: Arc<str>,
    /// What was going on.
    pub phase: Phase,
}

/// What was going on with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Looking up its name.
    Resolve,
    /// Connecting.
    Connect,
    /// Waiting for the greeting.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS and the TLS handshake.
    Tls,
    /// AUTH.
    Auth,
    /// RSET.
    Reset,
    /// Sending MAIL, RCPT or DATA.
    Envelope,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Recipient,
    /// The reply to DATA.
    Data,
    /// Sending the content.
    Body,
    /// All sent but the last octets; nothing due.
    Ready,
    /// The last octets and their reply.
    Completion,
    /// QUIT.
    Quit,
}

impl Phase {
    pub(super) fn of(due: Due) -> Self {
        match due {
            Due::Greeting => Phase::Greeting,
            Due::Ehlo | Due::Helo => Phase::Hello,
            Due::StartTls => Phase::Tls,
            Due::Auth => Phase::Auth,
            Due::Reset => Phase::Reset,
            Due::Mail => Phase::Mail,
            Due::Recipient(_) => Phase::Recipient,
            Due::Data => Phase::Data,
            Due::Content => Phase::Body,
            Due::Completion => Phase::Completion,
            Due::Quit => Phase::Quit,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Resolve => "name lookup",
            Phase::Connect => "connecting",
            Phase::Greeting => "greeting",
            Phase::Hello => "EHLO",
            Phase::Tls => "TLS",
            Phase::Auth => "AUTH",
            Phase::Reset => "RSET",
            Phase::Envelope => "sending the envelope",
            Phase::Mail => "MAIL",
            Phase::Recipient => "RCPT",
            Phase::Data => "DATA",
            Phase::Body => "sending the message",
            Phase::Ready => "waiting to complete the message",
            Phase::Completion => "completing the message",
            Phase::Quit => "QUIT",
        })
    }
}

/// Why there is no reply of the upstream to pass on. What the client hears is
/// [`UpstreamFault::reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// Its name has no address. `451 4.4.1 [UPSTREAM]`.
    Unresolved {
        /// Where.
        at: At,
        /// The system's words.
        error: String,
    },
    /// No TCP connection. `451 4.4.1 [UPSTREAM]`.
    Unconnected {
        /// Where.
        at: At,
        /// The system's words.
        error: String,
    },
    /// TLS is asked for and can't be had: STARTTLS is not offered, or the
    /// handshake failed. `451 4.4.1 [UPSTREAM]`.
    Tls {
        /// Where.
        at: At,
        /// Why, and what to do about it.
        error: String,
    },
    /// There is an account, and it offers no mechanism of AUTH that goes with
    /// it. `451 4.4.1 [UPSTREAM]`.
    NoMechanism {
        /// Where.
        at: At,
        /// How a client has authenticated; `None`: the account is our own.
        wanted: Option<Mechanism>,
        /// What it offers; nothing where it does not offer AUTH.
        offered: Vec<String>,
    },
    /// It does not want to talk: 4yz or 5yz as greeting or to EHLO, HELO,
    /// STARTTLS, AUTH or RSET. `451 4.4.1 [UPSTREAM]`, whatever the class: this is about us, not
    /// about the message.
    Unwilling {
        /// Where.
        at: At,
        /// Its reply.
        reply: Reply,
    },
    /// The connection ended. `451 4.4.1 [UPSTREAM]`.
    Closed {
        /// Where.
        at: At,
        /// The system's words, or that it was closed.
        error: String,
    },
    /// A deadline passed. `451 4.4.1 [UPSTREAM]`.
    TimedOut {
        /// Where.
        at: At,
    },
    /// It left the protocol. `451 4.4.1 [UPSTREAM]`.
    Protocol {
        /// Where.
        at: At,
        /// How.
        fault: ProtocolFault,
    },
    /// It said 421. `451 4.4.1 [UPSTREAM]` with its text.
    ServiceClosing {
        /// Where.
        at: At,
        /// Its reply.
        reply: Reply,
    },
    /// The message needs SMTPUTF8 and the upstream lacks it. `550 5.6.7`
    /// (RFC 6531 §3.5); `451 4.4.1 [UPSTREAM]` where another of its addresses
    /// has it.
    NoSmtpUtf8 {
        /// Where.
        at: At,
        /// Another address of the upstream was seen to offer SMTPUTF8, and is
        /// away now.
        elsewhere: bool,
    },
    /// The received message can't be read back from its temporary file:
    /// nothing is wrong with the upstream. `451 4.3.0`.
    Unreadable {
        /// Where.
        at: At,
        /// The system's words.
        error: String,
    },
}

impl UpstreamFault {
    pub(super) fn protocol(at: At, fault: ProtocolFault) -> Self {
        match fault {
            ProtocolFault::ServiceClosing(reply) => UpstreamFault::ServiceClosing { at, reply },
            fault => UpstreamFault::Protocol { at, fault },
        }
    }

    /// The same with these texts blanked out in the reply that it quotes, and
    /// nothing of it behind the beginning of one: the upstream may have cut it.
    pub(super) fn without(self, secrets: &[String]) -> Self {
        let blank = |reply: Reply| {
            Reply::new(
                reply.code(),
                secrets.iter().fold(reply.text().into_owned(), |text, secret| blanked(&text, secret)),
            )
        };
        match self {
            UpstreamFault::Unwilling { at, reply } => UpstreamFault::Unwilling { at, reply: blank(reply) },
            UpstreamFault::ServiceClosing { at, reply } => {
                UpstreamFault::ServiceClosing { at, reply: blank(reply) }
            }
            UpstreamFault::Protocol { at, fault: ProtocolFault::WrongClass { due, reply } } => {
                let fault = ProtocolFault::WrongClass { due, reply: blank(reply) };
                UpstreamFault::Protocol { at, fault }
            }
            UpstreamFault::Protocol { at, fault: ProtocolFault::Early(Some(reply)) } => {
                UpstreamFault::Protocol { at, fault: ProtocolFault::Early(Some(blank(reply))) }
            }
            fault => fault,
        }
    }

    /// Which upstream, and what was going on.
    pub fn at(&self) -> &At {
        match self {
            UpstreamFault::Unresolved { at, .. }
            | UpstreamFault::Unconnected { at, .. }
            | UpstreamFault::Tls { at, .. }
            | UpstreamFault::NoMechanism { at, .. }
            | UpstreamFault::Unwilling { at, .. }
            | UpstreamFault::Closed { at, .. }
            | UpstreamFault::TimedOut { at }
            | UpstreamFault::Protocol { at, .. }
            | UpstreamFault::ServiceClosing { at, .. }
            | UpstreamFault::NoSmtpUtf8 { at, .. }
            | UpstreamFault::Unreadable { at, .. } => at,
        }
    }

    /// What the client hears.
    pub fn reply(&self) -> Reply {
        match self {
            UpstreamFault::NoSmtpUtf8 { at, elsewhere: false } => {
                Reply::new(550, format!("5.6.7 {} does not offer SMTPUTF8", plain(&at.address)))
            }
            UpstreamFault::Unreadable { .. } => Reply::new(451, "4.3.0 message can't be read back"),
            fault => Reply::new(451, format!("4.4.1 [UPSTREAM] {}", fault.quoted())),
        }
    }
}

impl UpstreamFault {
    /// What happened, bounded and in printable ASCII: fit for a reply.
    pub fn quoted(&self) -> String {
        plain(&self.to_string())
    }
}

impl fmt::Display for UpstreamFault {
    /// For logs and replies. It quotes the upstream, so it must be escaped or
    /// cut to size wherever it goes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let At { address, phase } = self.at();
        write!(f, "{address}: ")?;
        match self {
            UpstreamFault::Unresolved { error, .. }
            | UpstreamFault::Unconnected { error, .. }
            | UpstreamFault::Tls { error, .. }
            | UpstreamFault::Closed { error, .. } => write!(f, "{error} ({phase})"),
            UpstreamFault::NoMechanism { wanted, offered, .. } => no_mechanism(f, *wanted, offered),
            UpstreamFault::Unwilling { reply, .. } => write!(f, "{reply} ({phase})"),
            UpstreamFault::TimedOut { .. } => write!(f, "timed out ({phase})"),
            UpstreamFault::Protocol { fault, .. } => write!(f, "{fault} ({phase})"),
            UpstreamFault::ServiceClosing { reply, .. } => write!(f, "closes the service: {reply}"),
            UpstreamFault::NoSmtpUtf8 { elsewhere: false, .. } => {
                f.write_str("SMTPUTF8 is needed and not offered")
            }
            UpstreamFault::NoSmtpUtf8 { elsewhere: true, .. } => {
                f.write_str("SMTPUTF8 is needed and not offered; the address that offers it is away")
            }
            UpstreamFault::Unreadable { error, .. } => write!(f, "message can't be read back: {error}"),
        }
    }
}

impl std::error::Error for UpstreamFault {}

fn no_mechanism(f: &mut fmt::Formatter<'_>, wanted: Option<Mechanism>, offered: &[String]) -> fmt::Result {
    match (wanted, offered) {
        (None, []) => f.write_str("does not offer AUTH here, but upstream.username is set"),
        (None, offered) => write!(f, "offers neither AUTH PLAIN nor LOGIN, only {}", offered.join(" ")),
        (Some(_), []) => f.write_str(
            "does not offer AUTH here, but a listener has auth = \"passthrough\"; \
             look at upstream.address and upstream.tls",
        ),
        (Some(wanted), offered) => {
            write!(f, "does not offer AUTH {}, only {}", wanted.name(), offered.join(" "))
        }
    }
}

fn blanked(text: &str, secret: &str) -> String {
    let mut text = text.replace(secret, "***");
    let beginning = &secret[..secret.floor_char_boundary(BEGINNING)];
    if beginning.len() < secret.len()
        && let Some(at) = text.find(beginning)
    {
        text.truncate(at);
        text.push_str("***");
    }
    text
}

/// Text fit for a reply: printable ASCII, at most [`MAX_TEXT`] octets.
fn plain(text: &str) -> String {
    let plain = |c: char| match c {
        ' '..='~' => c,
        c if c.is_control() => ' ',
        _ => '?',
    };
    text.chars().take(MAX_TEXT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase) -> At {
        At { address: "mx.example:25".into(), phase }
    }

    #[track_caller]
    fn hears(fault: &UpstreamFault, reply: &str) {
        assert_eq!(fault.reply().to_string(), reply);
    }

    #[test]
    fn each_fault_has_its_reply() {
        let error = "connection refused".to_owned();
        let fault = UpstreamFault::Unconnected { at: at(Phase::Connect), error: error.clone() };
        hears(&fault, "451 4.4.1 [UPSTREAM] mx.example:25: connection refused (connecting)");
        let fault = UpstreamFault::TimedOut { at: at(Phase::Greeting) };
        hears(&fault, "451 4.4.1 [UPSTREAM] mx.example:25: timed out (greeting)");
        let closing = ProtocolFault::ServiceClosing(Reply::new(421, "4.3.2 bye"));
        let fault = UpstreamFault::protocol(at(Phase::Mail), closing);
        hears(&fault, "451 4.4.1 [UPSTREAM] mx.example:25: closes the service: 421 4.3.2 bye");
        let fault = UpstreamFault::NoSmtpUtf8 { at: at(Phase::Mail), elsewhere: false };
        hears(&fault, "550 5.6.7 mx.example:25 does not offer SMTPUTF8");
        hears(
            &UpstreamFault::NoSmtpUtf8 { at: at(Phase::Mail), elsewhere: true },
            "451 4.4.1 [UPSTREAM] mx.example:25: SMTPUTF8 is needed and not offered; the address that offers it is away",
        );
        hears(
            &UpstreamFault::Unreadable { at: at(Phase::Body), error },
            "451 4.3.0 message can't be read back",
        );
    }

    #[test]
    fn what_the_upstream_says_stays_on_one_short_line() {
        let text = format!("a\nb\tc\x1b[31m\u{e9}{}", "x".repeat(3000));
        let fault = UpstreamFault::Unwilling { at: at(Phase::Hello), reply: Reply::new(554, text) };
        let mut out = Vec::new();
        fault.reply().write_to(&mut out);
        assert!(out.len() < 512);
        assert!(out.starts_with(b"451 4.4.1 [UPSTREAM] mx.example:25: 554 a b c [31m?xxx"));
        assert_eq!(out.iter().filter(|&&b| b < b' ').count(), 2);
    }
}
