//! The upstream machine: which commands go out, which replies are due.
//!
//! It never sees a socket or a clock. What there is, in the order of use:
//! - **getters**: [`Client::capabilities`], [`Client::is_quiet`];
//! - **commands out**: `ehlo`, `mail`, `data` and their like append a command to
//!   a buffer and remember the reply that is due for it;
//! - **bytes in**: [`Client::feed`];
//! - **replies out**: [`Client::next_reply`], each matched with what it answers
//!   and checked against the classes that may answer it.
//!
//! A reply is taken for an answer only after its command was handed out. Bytes
//! that come when nothing is due are a fault: believing them would shift every
//! later reply by one, and a refusal could pass for an acceptance. One thing
//! may come unasked: between the grant of DATA and the final dot a refusal
//! ends the message.
//!
//! STARTTLS and AUTH are commands like the others and find their place between
//! `ehlo` and `mail`; what came before a handshake dies with the `Client` that
//! read it, and [`Client::secured`] goes on.

mod capabilities;
mod commands;
mod replies;

use std::collections::VecDeque;
use std::fmt;

pub use capabilities::Capabilities;
pub use commands::{END_OF_DATA, MailContent};
pub use replies::{MAX_EHLO_REPLY, MAX_LINE, MAX_LINES, MAX_READ, MAX_REPLY, ReplyFault};

use self::replies::{Bounds, ReplyReader};
use super::reply::{Class, Reply};
use crate::planted::{self, Bug};

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The connection itself.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// AUTH, or an answer to a challenge of it.
    Auth,
    /// RSET.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT of the recipient at this place in the envelope.
    Recipient(usize),
    /// DATA.
    Data,
    /// The content, before its final dot has left: nothing is asked, and a
    /// refusal may come.
    Content,
    /// The final dot.
    Completion,
    /// QUIT.
    Quit,
}

impl Due {
    /// Whether the reply is of a class that may answer this
    /// (RFC 5321 §4.3.2). Only DATA and AUTH ask for more; what begins TLS or
    /// says who we are has one code for it (RFC 3207 §4, RFC 4954 §6).
    fn admits(self, reply: &Reply) -> bool {
        match (reply.class(), self) {
            (Class::Success, Due::StartTls) => reply.code() == 220,
            (Class::Success, Due::Auth) => reply.code() == 235,
            (Class::Success, due) => !matches!(due, Due::Data | Due::Content),
            (Class::Intermediate, Due::Data) => reply.code() == 354,
            (Class::Intermediate, Due::Auth) => reply.code() == 334,
            (Class::Intermediate, _) => false,
            (Class::Transient | Class::Permanent, _) => true,
        }
    }

    fn bounds(self) -> Bounds {
        if self == Due::Ehlo { Bounds::EHLO } else { Bounds::REPLY }
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Due::Greeting => "the greeting",
            Due::Ehlo => "EHLO",
            Due::Helo => "HELO",
            Due::StartTls => "STARTTLS",
            Due::Auth => "AUTH",
            Due::Reset => "RSET",
            Due::Mail => "MAIL",
            Due::Recipient(_) => "RCPT",
            Due::Data => "DATA",
            Due::Content => "the content",
            Due::Completion => "the end of data",
            Due::Quit => "QUIT",
        })
    }
}

/// How an upstream left the protocol. After any of these the connection is
/// good for nothing. The client hears `451 4.4.1`, or is told of a doubt where
/// the final dot had left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolFault {
    /// Bytes that are no reply.
    Malformed(ReplyFault),
    /// A reply of a class that can't answer what is due.
    WrongClass {
        /// What it would have answered.
        due: Due,
        /// The reply.
        reply: Reply,
    },
    /// Bytes when no reply was due, and the reply they make where they do.
    Early(Option<Reply>),
    /// 421: it closes the connection (RFC 5321 §3.8, §4.2.1), whatever was due.
    ServiceClosing(Reply),
}

impl fmt::Display for ProtocolFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolFault::Malformed(fault) => fault.fmt(f),
            ProtocolFault::WrongClass { due, reply } => write!(f, "unexpected reply to {due}: {reply}"),
            ProtocolFault::Early(Some(reply)) => write!(f, "reply when none was due: {reply}"),
            ProtocolFault::Early(None) => f.write_str("bytes when no reply was due"),
            ProtocolFault::ServiceClosing(reply) => write!(f, "it closes the service: {reply}"),
        }
    }
}

impl From<ReplyFault> for ProtocolFault {
    fn from(fault: ReplyFault) -> Self {
        ProtocolFault::Malformed(fault)
    }
}

/// The client's side of one SMTP connection.
#[derive(Debug)]
pub struct Client {
    replies: ReplyReader,
    due: VecDeque<Due>,
    capabilities: Capabilities,
    /// Bytes were waiting when a command came to be due: whatever they say, it
    /// was not an answer to that command.
    early: bool,
    /// DATA was granted, and the final dot has not left.
    in_content: bool,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A fresh connection: the greeting is due.
    pub fn new() -> Self {
        Self {
            replies: ReplyReader::default(),
            due: VecDeque::from([Due::Greeting]),
            capabilities: Capabilities::default(),
            early: false,
            in_content: false,
        }
    }

    /// A connection behind the handshake that STARTTLS began: nothing is due,
    /// and what was said in clear is not known (RFC 3207 §4.2).
    pub fn secured() -> Self {
        Self { due: VecDeque::new(), ..Self::new() }
    }

    /// What the upstream offers; nothing before its reply to EHLO was read.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What the next reply will answer.
    pub fn next_due(&self) -> Option<Due> {
        self.due.front().copied()
    }

    /// Whether nothing is due and nothing came unasked.
    pub fn is_quiet(&self) -> bool {
        let is_silent = self.replies.is_empty() || planted::is(Bug::UnaskedAnswers);
        self.due.is_empty() && is_silent && !self.early
    }

    /// Whether the connection may carry another message: it is quiet, and no
    /// reply so far was malformed or cut.
    pub fn is_reusable(&self) -> bool {
        self.is_quiet() && self.replies.is_regular()
    }

    /// Takes bytes as they come from the upstream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.replies.feed(bytes);
    }

    /// Says that the upstream says no more: the connection has ended, or the
    /// time is over. Returns whether the code of a reply under way is known.
    /// That code decides, and [`Client::next_reply`] hands the reply out.
    pub fn cut(&mut self) -> bool {
        self.replies.end()
    }

    /// Says that the final dot has left. Called behind the write and not before
    /// it, so that no earlier byte is taken for the answer.
    pub fn completed(&mut self) {
        self.in_content = false;
        self.expect(Due::Completion);
    }

    /// The next reply and what it answers; `None` when more bytes are needed
    /// or nothing is due. Before the final dot has left, a refusal of the
    /// content comes as [`Due::Content`].
    ///
    /// # Errors
    /// [`ProtocolFault`] when the upstream left the protocol, 421 included;
    /// the connection must then be dropped.
    pub fn next_reply(&mut self) -> Result<Option<(Due, Reply)>, ProtocolFault> {
        let due = match self.due.front() {
            Some(&due) if !self.early => due,
            None if self.replies.is_empty() || planted::is(Bug::UnaskedAnswers) => return Ok(None),
            None if self.in_content && !self.early => Due::Content,
            _ => return Err(self.early_reply()),
        };
        let Some(reply) = self.replies.next(due.bounds())? else {
            return Ok(None);
        };
        self.due.pop_front();
        // Whatever comes behind a refusal of the content is nobody's.
        self.early |= due == Due::Content;
        if reply.code() == 421 {
            return Err(ProtocolFault::ServiceClosing(reply));
        }
        if !due.admits(&reply) {
            return Err(match due {
                Due::Content => ProtocolFault::Early(Some(reply)),
                due => ProtocolFault::WrongClass { due, reply },
            });
        }
        self.learn(due, &reply);
        Ok(Some((due, reply)))
    }

    fn learn(&mut self, due: Due, reply: &Reply) {
        match due {
            Due::Ehlo if reply.is_success() => self.capabilities = Capabilities::parse(reply),
            Due::Helo => self.capabilities = Capabilities::default(),
            Due::Data => self.in_content = reply.class() == Class::Intermediate && self.due.is_empty(),
            _ => {}
        }
    }

    fn early_reply(&mut self) -> ProtocolFault {
        // It stays so when the bytes are read.
        self.early = true;
        match self.replies.next(Bounds::REPLY) {
            Ok(Some(reply)) if reply.code() == 421 => ProtocolFault::ServiceClosing(reply),
            Ok(reply) => ProtocolFault::Early(reply),
            Err(_) => ProtocolFault::Early(None),
        }
    }

    fn expect(&mut self, due: Due) {
        let is_early = self.due.is_empty() && !self.replies.is_empty();
        self.early |= is_early && !planted::is(Bug::UnaskedAnswers);
        self.due.push_back(due);
    }
}

#[cfg(test)]
mod tests;
