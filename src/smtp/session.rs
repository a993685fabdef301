//! The server's side of an SMTP session, without I/O and without a clock.
//!
//! Getters tell where the session stands. Events go in: [`Session::step`]
//! takes received bytes, the other methods what became of the last action.
//! Actions come out of `step`; replies gather in [`Session::output`], so that
//! a group of pipelined commands is answered in one write (RFC 2920 §3.2).
//!
//! One call of `step` handles one command or one stretch of data. The state
//! is an enum whose variants own what that moment knows: an envelope can't
//! exist before MAIL, nor data without recipients.

mod auth;
mod data;
mod hello;
mod lines;
mod terms;
#[cfg(test)]
mod tests;

pub use terms::{
    Action, AuthOffer, ClientName, Delivery, Offers, Policy, Rejection, Settings, Step, Verdict,
};

use super::command::Command;
use super::data::Framing;
use super::envelope::{Envelope, Recipient};
use super::reply::Reply;
use auth::Dialogue;
use data::{Discarding, Receiving};

/// The session machine.
#[derive(Debug)]
pub struct Session<P> {
    settings: Settings,
    policy: P,
    state: State,
    /// Inside a line that is too long already: skip to its end.
    skipping_line: bool,
    client: Option<ClientName>,
    /// AUTH has succeeded; there is no second one (RFC 4954 §4).
    authenticated: bool,
    /// What the client did wrong since the last message that was accepted.
    errors: usize,
    /// A chunk was refused; more of that message may be under way already.
    chunks_refused: bool,
    /// The client has said QUIT.
    quit: bool,
    /// Failed AUTH commands.
    refusals: usize,
    output: Vec<u8>,
    rejections: Vec<Rejection>,
}

#[derive(Debug)]
enum State {
    /// The client talked before the greeting: it may say QUIT.
    Early,
    /// No transaction; with or without EHLO (see `client`).
    Ready,
    /// MAIL was accepted.
    Mail(Envelope),
    /// Between `354` and the end of data.
    Data(Receiving),
    /// Inside the octets of a BDAT.
    Chunk { receiving: Receiving, left: u64, last: bool },
    /// Between two BDAT commands.
    BetweenChunks(Receiving),
    /// Inside the octets of a BDAT that was out of place.
    Discard(Discarding),
    /// The message is with the owner.
    Delivering,
    /// In the middle of AUTH: a line is due.
    Auth(Dialogue),
    /// STARTTLS or AUTH is with the owner.
    Suspended,
    /// Over.
    Closed,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The client did something wrong, and too much of that ends the session.
    Client,
    /// It met a limit of ours.
    Limit,
}

impl<P: Policy> Session<P> {
    /// A session whose greeting is in the output.
    pub fn new(settings: Settings, policy: P) -> Self {
        let mut session = Self {
            settings,
            policy,
            state: State::Ready,
            skipping_line: false,
            client: None,
            authenticated: false,
            errors: 0,
            chunks_refused: false,
            quit: false,
            refusals: 0,
            output: Vec::new(),
            rejections: Vec::new(),
        };
        let greeting = format!("{} ESMTP mailonce", session.settings.hostname);
        session.reply(Reply::new(220, greeting));
        session
    }

    // Getters.

    /// Replies to be written, in order; the owner drains them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What was refused since the last call.
    pub fn take_rejections(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.rejections)
    }

    /// The policy given at the start.
    pub fn policy(&mut self) -> &mut P {
        &mut self.policy
    }

    /// How the client introduced itself last.
    pub fn client(&self) -> Option<&ClientName> {
        self.client.as_ref()
    }

    /// Whether no transaction is open: the moment to close politely.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Ready | State::Early)
    }

    /// Whether the client has said QUIT.
    pub fn has_quit(&self) -> bool {
        self.quit
    }

    /// Whether message data is coming in; gives the envelope it belongs to.
    pub fn receiving(&self) -> Option<&Envelope> {
        match &self.state {
            State::Data(receiving) | State::Chunk { receiving, .. } | State::BetweenChunks(receiving) => {
                Some(&receiving.envelope)
            }
            _ => None,
        }
    }

    /// Whether the next octets belong to a command, not to data that is kept or
    /// thrown away.
    pub fn awaits_command(&self) -> bool {
        !matches!(self.state, State::Data(_) | State::Chunk { .. } | State::Discard(_))
    }

    // Events.

    /// Takes received bytes; content of messages is appended to `body`.
    /// Answers how many octets were used, and what to do next.
    pub fn step(&mut self, input: &[u8], body: &mut Vec<u8>) -> (usize, Action) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Data(receiving) => self.receive_data(receiving, input, body),
            State::Chunk { receiving, left, last } => self.receive_chunk(receiving, left, last, input, body),
            State::Discard(discarding) => self.discard(discarding, input),
            State::Closed => (input.len(), Action::Close),
            state => {
                self.state = state;
                self.receive_line(input, body)
            }
        }
    }

    /// The answer to the message that [`Action::Deliver`] handed out.
    pub fn delivered(&mut self, reply: Reply) {
        if reply.is_success() {
            self.errors = 0;
        }
        self.reply(reply);
        self.state = State::Ready;
    }

    /// The client talked before the greeting was written (RFC 5321 §4.3.1). It
    /// is served where it only says QUIT; anything else ends the session.
    pub fn talked_early(&mut self) {
        self.state = State::Early;
    }

    /// TLS is up: everything learnt in clear is forgotten (RFC 3207 §4.2).
    pub fn tls_established(&mut self, offers: Offers) {
        self.settings.offers = offers;
        self.client = None;
        self.authenticated = false;
        self.state = State::Ready;
    }

    /// Ends the session with a reply of the owner's, such as `421 4.3.2`.
    pub fn end(&mut self, reply: Reply) {
        self.reply(reply);
        self.state = State::Closed;
    }

    // Commands.

    fn command(&mut self, command: Command, behind: &[u8], body: &mut Vec<u8>) -> Action {
        self.chunks_refused &= matches!(command, Command::Bdat { .. });
        match command {
            Command::Helo(name) => self.hello(name, false),
            Command::Ehlo(name) => self.hello(name, true),
            Command::Mail(path, parameters) => {
                self.mail(Envelope { reverse_path: path, parameters, recipients: Vec::new() })
            }
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => self.data(),
            Command::Bdat { octets, last } => return self.bdat(octets, last, body),
            Command::Rset => {
                self.state = State::Ready;
                self.reply(Reply::new(250, "2.0.0 ok"));
            }
            Command::Noop => self.reply(Reply::new(250, "2.0.0 ok")),
            Command::Vrfy => self.reply(Reply::new(252, "2.5.0 send some mail, the upstream will tell")),
            Command::Help => self.reply(Reply::new(214, "2.0.0 an SMTP relay that sends every e-mail once")),
            Command::Quit => {
                self.quit = true;
                self.end(Reply::new(221, "2.0.0 bye"));
            }
            Command::StartTls => return self.start_tls(behind),
            Command::Auth { mechanism, initial_response } => {
                return self.auth(&mechanism, initial_response.as_ref());
            }
        }
        self.go_on()
    }

    fn mail(&mut self, envelope: Envelope) {
        let refusal = if self.client.is_none() {
            return self.fault(Reply::new(503, "5.5.1 say EHLO first"));
        } else if !self.is_idle() {
            return self.fault(Reply::new(503, "5.5.1 a transaction is open already"));
        } else if envelope.reverse_path.needs_smtputf8() && !envelope.parameters.smtputf8 {
            Some((Cause::Client, Reply::new(550, "5.6.7 this sender address needs SMTPUTF8")))
        } else if envelope.parameters.size.is_some_and(|size| size > self.settings.max_message_size) {
            Some((Cause::Limit, self.too_big()))
        } else {
            self.policy.check(Step::Mail(&envelope)).map(|reply| (Cause::Client, reply))
        };
        match refusal {
            Some((cause, reply)) => {
                self.reject(&envelope, None, reply.clone());
                self.refusal(cause, reply);
            }
            None => {
                self.state = State::Mail(envelope);
                self.reply(Reply::new(250, "2.1.0 ok"));
            }
        }
    }

    fn rcpt(&mut self, recipient: Recipient) {
        let mut envelope = match std::mem::replace(&mut self.state, State::Ready) {
            State::Mail(envelope) => envelope,
            state => {
                self.state = state;
                return self.fault(Reply::new(503, "5.5.1 say MAIL first"));
            }
        };
        let refusal = if recipient.path.needs_smtputf8() && !envelope.parameters.smtputf8 {
            Some((Cause::Client, Reply::new(550, "5.6.7 this recipient address needs SMTPUTF8")))
        } else if envelope.recipients.len() >= self.settings.max_recipients {
            Some((Cause::Limit, Reply::new(452, "4.5.3 too many recipients")))
        } else {
            self.policy.check(Step::Rcpt(&envelope, &recipient)).map(|reply| (Cause::Client, reply))
        };
        match refusal {
            Some((cause, reply)) => {
                self.reject(&envelope, Some(recipient.path.as_str()), reply.clone());
                self.state = State::Mail(envelope);
                self.refusal(cause, reply);
            }
            None => {
                envelope.recipients.push(recipient);
                self.state = State::Mail(envelope);
                self.reply(Reply::new(250, "2.1.5 ok"));
            }
        }
    }

    fn data(&mut self) {
        let Some(envelope) = self.take_envelope() else { return };
        match self.policy.check(Step::Data(&envelope)) {
            Some(reply) => {
                self.state = State::Ready;
                self.fault(reply);
            }
            None => {
                self.state = State::Data(Receiving::new(envelope, Framing::Dots));
                self.reply(Reply::new(354, "end data with <CR><LF>.<CR><LF>"));
            }
        }
    }

    /// The envelope that data may follow; without one the client was told why.
    fn take_envelope(&mut self) -> Option<Envelope> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Mail(envelope) if !envelope.recipients.is_empty() => Some(envelope),
            State::Mail(envelope) => {
                self.state = State::Mail(envelope);
                self.fault(Reply::new(554, "5.5.1 no valid recipients"));
                None
            }
            state => {
                self.state = state;
                self.fault(Reply::new(503, "5.5.1 say MAIL and RCPT first"));
                None
            }
        }
    }

    // Small parts.

    fn too_big(&self) -> Reply {
        Reply::new(552, format!("5.3.4 the message is larger than {} octets", self.settings.max_message_size))
    }

    fn reject(&mut self, envelope: &Envelope, to: Option<&str>, reply: Reply) {
        let from = Some(envelope.reverse_path.as_str().to_owned());
        self.rejections.push(Rejection { from, to: to.map(str::to_owned), reply });
    }

    fn reply(&mut self, reply: Reply) {
        reply.write_to(&mut self.output);
    }

    /// A reply to something the client did wrong; too many of them end the
    /// session.
    fn fault(&mut self, reply: Reply) {
        self.errors += 1;
        if self.errors > self.settings.max_errors {
            self.end(Reply::new(421, "4.7.0 too many errors"));
        } else {
            self.reply(reply);
        }
    }

    fn refusal(&mut self, cause: Cause, reply: Reply) {
        match cause {
            Cause::Client => self.fault(reply),
            Cause::Limit => self.reply(reply),
        }
    }

    fn go_on(&self) -> Action {
        if matches!(self.state, State::Closed) { Action::Close } else { Action::Continue }
    }
}
