//! What a session is told at its start, what it asks, and what it hands out.

use crate::smtp::data::BareNewlines;
use crate::smtp::envelope::{Envelope, Recipient};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{Credentials, Malformed, Mechanism};

/// What a session is allowed and what it offers; fixed when it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name.
    pub hostname: String,
    /// Octets of one message; announced as SIZE.
    pub max_message_size: u64,
    /// RCPT commands of one message.
    pub max_recipients: usize,
    /// Bad commands before `421 4.7.0`.
    pub max_errors: usize,
    /// What a bare LF or CR means.
    pub bare_newlines: BareNewlines,
    /// The extensions that depend on others.
    pub offers: Offers,
}

/// Extensions that EHLO offers depending on the upstream and on TLS.
/// PIPELINING, CHUNKING, ENHANCEDSTATUSCODES and SIZE are always offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// 8BITMIME
    pub eight_bit_mime: bool,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// DSN
    pub dsn: bool,
    /// STARTTLS
    pub starttls: bool,
    /// AUTH
    pub auth: AuthOffer,
}

/// Whether a client may say AUTH, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuthOffer {
    /// It is not known here: `502 5.5.1`.
    #[default]
    Off,
    /// Only under TLS: `538 5.7.11` until then (RFC 4954 §4).
    UnderTls,
    /// By one of these mechanisms; not empty.
    Now(Vec<Mechanism>),
}

/// A say in what the client asks for, beyond the rules of the protocol.
pub trait Policy {
    /// `Some(reply)` refuses the step with that reply.
    fn check(&mut self, step: Step<'_>) -> Option<Reply>;
}

/// What a [`Policy`] is asked about, before it happens.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// EHLO or HELO.
    Hello,
    /// MAIL FROM.
    Mail(&'a Envelope),
    /// RCPT TO, with the envelope so far.
    Rcpt(&'a Envelope, &'a Recipient),
    /// DATA, or the first BDAT.
    Data(&'a Envelope),
    /// The message is whole.
    EndOfData(&'a Envelope),
}

/// What the owner of the session is to do next.
#[derive(Debug)]
pub enum Action {
    /// Call `step` again with what is left of the input; where nothing is left,
    /// write the output and read.
    Continue,
    /// What is left is only part of a line: write the output, read more.
    Read,
    /// The message is whole: decide on it, then call [`super::Session::delivered`].
    Deliver(Box<Delivery>),
    /// Write the output, shake hands, then call
    /// [`super::Session::tls_established`]. No input is left over.
    StartTls,
    /// Check the credentials, or take note that what came was malformed; then
    /// call [`super::Session::authenticated`].
    Authenticate(Result<Credentials, Malformed>),
    /// Write the output and close.
    Close,
}

/// The answer to [`Action::Authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client is who it says (235).
    Accepted(Reply),
    /// It is not (5yz). The third one ends the session.
    Refused {
        /// What it hears.
        reply: Reply,
        /// What it hears before, with `334`, and answers as it likes: why a
        /// token was refused, in base64 (RFC 7628 §3.2.3).
        challenge: Option<String>,
    },
    /// Nobody can tell now (4yz).
    Deferred(Reply),
}

/// A message that was received whole. Its content is where `step` put it.
#[derive(Debug)]
pub struct Delivery {
    /// From whom and to whom.
    pub envelope: Envelope,
    /// Whether it holds octets above 127.
    pub eight_bit: bool,
}

/// Something that the client asked for and that was refused on grounds of our
/// own policy or limits; for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reverse-path, where one was given.
    pub from: Option<String>,
    /// The recipient, where it was about one.
    pub to: Option<String>,
    /// What the client heard.
    pub reply: Reply,
}

/// How the client introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName {
    /// The argument of EHLO or HELO.
    pub name: String,
    /// Whether it was EHLO.
    pub extended: bool,
}
