//! AUTH in the session: one exchange, then the owner's verdict (RFC 4954).

use super::terms::{Action, AuthOffer, Policy, Verdict};
use super::{Session, State};
use crate::secret::Secret;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{Exchange, Mechanism, Progress};

/// Failures that end a session.
const MAX_FAILURES: usize = 3;

/// What the next line of an AUTH command is.
#[derive(Debug)]
pub(super) enum Dialogue {
    /// A response to a challenge.
    Exchange(Exchange),
    /// The answer to the reason of a refusal, which says nothing; then comes
    /// the refusal itself.
    Explained(Reply),
}

impl<P: Policy> Session<P> {
    pub(super) fn auth(&mut self, mechanism: &str, initial_response: Option<&Secret>) -> Action {
        match self.may_authenticate(mechanism) {
            Ok(mechanism) => self.advance(Exchange::start(mechanism, initial_response.map(Secret::reveal))),
            Err(reply) => {
                self.fault(reply);
                self.go_on()
            }
        }
    }

    fn may_authenticate(&self, mechanism: &str) -> Result<Mechanism, Reply> {
        let mechanisms = match &self.settings.offers.auth {
            AuthOffer::Off => return Err(Reply::new(502, "5.5.1 AUTH is not offered")),
            AuthOffer::UnderTls => {
                return Err(Reply::new(538, "5.7.11 AUTH is for encrypted connections; say STARTTLS first"));
            }
            AuthOffer::Now(mechanisms) => mechanisms,
        };
        if !self.client.as_ref().is_some_and(|client| client.extended) {
            return Err(Reply::new(503, "5.5.1 say EHLO first"));
        }
        if self.authenticated {
            return Err(Reply::new(503, "5.5.1 you are authenticated already"));
        }
        if !self.is_idle() {
            return Err(Reply::new(503, "5.5.1 not within a transaction"));
        }
        Mechanism::parse(mechanism)
            .filter(|mechanism| mechanisms.contains(mechanism))
            .ok_or_else(|| Reply::new(504, "5.5.4 this mechanism is not offered"))
    }

    /// A line of an AUTH dialogue, without its end.
    pub(super) fn respond(&mut self, dialogue: Dialogue, line: &[u8]) -> Action {
        match dialogue {
            Dialogue::Exchange(exchange) => self.advance(exchange.respond(line)),
            Dialogue::Explained(reply) => {
                self.failed(reply);
                self.go_on()
            }
        }
    }

    fn advance(&mut self, progress: Progress) -> Action {
        self.state = State::Suspended;
        match progress {
            Progress::Challenge(text, exchange) => {
                self.challenge(text, Dialogue::Exchange(exchange));
                Action::Continue
            }
            Progress::Complete(credentials) => Action::Authenticate(Ok(credentials)),
            Progress::Malformed(what) => Action::Authenticate(Err(what)),
            Progress::Cancelled => {
                self.state = State::Ready;
                self.fault(Reply::new(501, "5.7.0 authentication cancelled"));
                self.go_on()
            }
        }
    }

    fn challenge(&mut self, text: &str, dialogue: Dialogue) {
        self.reply(Reply::new(334, text));
        self.state = State::Auth(dialogue);
    }

    /// The answer to [`Action::Authenticate`].
    pub fn authenticated(&mut self, verdict: Verdict) {
        self.state = State::Ready;
        match verdict {
            Verdict::Accepted(reply) => {
                self.authenticated = true;
                self.reply(reply);
            }
            Verdict::Refused { reply, challenge: None } => self.failed(reply),
            Verdict::Refused { reply, challenge: Some(text) } => {
                self.challenge(&text, Dialogue::Explained(reply));
            }
            Verdict::Deferred(reply) => self.fault(reply),
        }
    }

    fn failed(&mut self, reply: Reply) {
        self.state = State::Ready;
        self.refusals += 1;
        if self.refusals >= MAX_FAILURES { self.end(reply) } else { self.fault(reply) }
    }
}
