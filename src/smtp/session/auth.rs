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

    /// The answer to [`Action::Authenticate`]; gives what to do next, which is
    /// to close after the third failure.
    pub fn authenticated(&mut self, verdict: Verdict) -> Action {
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
        self.go_on()
    }

    fn failed(&mut self, reply: Reply) {
        self.state = State::Ready;
        self.refusals += 1;
        if self.refusals >= MAX_FAILURES { self.end(reply) } else { self.fault(reply) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Allow, said, settings};
    use super::super::{Offers, Settings};
    use super::*;
    use crate::smtp::sasl::Malformed;

    fn session(auth: AuthOffer) -> Session<Allow> {
        let offers = Offers { auth, starttls: true, ..Offers::default() };
        let mut session = Session::new(Settings { offers, ..settings() }, Allow);
        hear(&mut session, "EHLO c.test");
        session
    }

    fn now() -> AuthOffer {
        AuthOffer::Now(vec![Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2])
    }

    /// Sends a line; what is asked of the owner, and what the client hears.
    fn hear(session: &mut Session<Allow>, line: &str) -> (Action, String) {
        let (_, action) = session.step(format!("{line}\r\n").as_bytes(), &mut Vec::new());
        (action, said(session))
    }

    fn refusal() -> Verdict {
        Verdict::Refused { reply: Reply::new(535, "5.7.8 no"), challenge: None }
    }

    const JOE: &str = "AUTH PLAIN AGpvZQBwdw==";

    #[test]
    fn ehlo_offers_it_only_where_it_may_be_used() {
        assert!(hear(&mut session(now()), "EHLO c.test").1.contains("250 AUTH PLAIN LOGIN XOAUTH2\r\n"));
        for (offer, reply) in [(AuthOffer::Off, "502 5.5.1 "), (AuthOffer::UnderTls, "538 5.7.11 ")] {
            let mut session = session(offer);
            assert!(!hear(&mut session, "EHLO c.test").1.contains("AUTH"));
            assert!(hear(&mut session, JOE).1.starts_with(reply));
        }
    }

    #[test]
    fn credentials_go_to_the_owner_and_its_verdict_to_the_client() {
        let mut session = session(now());
        let (action, heard) = hear(&mut session, JOE);
        assert_eq!(heard, "");
        let Action::Authenticate(Ok(credentials)) = action else { panic!("{action:?}") };
        assert_eq!((&*credentials.username, credentials.secret.reveal()), ("joe", "pw"));
        session.authenticated(Verdict::Accepted(Reply::new(235, "2.7.0 welcome")));
        assert_eq!(said(&mut session), "235 2.7.0 welcome\r\n");
        assert!(hear(&mut session, JOE).1.starts_with("503 5.5.1 "), "once is enough");
    }

    #[test]
    fn a_line_of_the_exchange_is_no_command() {
        let mut session = session(now());
        assert_eq!(hear(&mut session, "AUTH LOGIN").1, "334 VXNlcm5hbWU6\r\n");
        let (action, _) = hear(&mut session, "MAIL FROM:<a@a.test>");
        assert!(matches!(action, Action::Authenticate(Err(_))), "{action:?}");
        session.authenticated(refusal());
        assert!(session.is_idle());
        said(&mut session);
        hear(&mut session, "AUTH PLAIN");
        assert_eq!(hear(&mut session, "*").1, "501 5.7.0 authentication cancelled\r\n");
        assert!(hear(&mut session, "NOOP").1.starts_with("250 "));
    }

    #[test]
    fn the_third_failure_ends_the_session() {
        let mut session = session(now());
        let mut last = Action::Continue;
        for _ in 0..3 {
            assert!(matches!(last, Action::Continue));
            assert!(matches!(hear(&mut session, JOE).0, Action::Authenticate(Ok(_))));
            last = session.authenticated(refusal());
            assert_eq!(said(&mut session), "535 5.7.8 no\r\n");
        }
        assert!(matches!(last, Action::Close));
        assert!(matches!(hear(&mut session, "NOOP"), (Action::Close, heard) if heard.is_empty()));
    }

    #[test]
    fn a_verdict_that_nobody_can_give_now_is_no_failure() {
        let mut session = session(now());
        for _ in 0..4 {
            hear(&mut session, JOE);
            session.authenticated(Verdict::Deferred(Reply::new(454, "4.7.0 later")));
            assert_eq!(said(&mut session), "454 4.7.0 later\r\n");
        }
        assert!(hear(&mut session, "NOOP").1.starts_with("250 "));
    }

    #[test]
    fn a_refused_token_is_explained_first() {
        let mut session = session(now());
        hear(&mut session, "AUTH XOAUTH2 dXNlcj1qb2UBYXV0aD1CZWFyZXIgYQEB");
        let challenge = Some("eyJzdGF0dXMiOiI0MDEifQ==".to_owned());
        session.authenticated(Verdict::Refused { reply: Reply::new(535, "5.7.8 no"), challenge });
        assert_eq!(said(&mut session), "334 eyJzdGF0dXMiOiI0MDEifQ==\r\n");
        assert_eq!(hear(&mut session, "").1, "535 5.7.8 no\r\n");
        assert!(hear(&mut session, "NOOP").1.starts_with("250 "));
    }

    #[test]
    fn it_has_its_place_in_a_session() {
        let mut session = session(now());
        hear(&mut session, "MAIL FROM:<a@a.test>");
        assert!(hear(&mut session, JOE).1.starts_with("503 5.5.1 "));
        hear(&mut session, "HELO c.test");
        assert!(hear(&mut session, JOE).1.starts_with("503 5.5.1 "), "HELO knows no extensions");
        hear(&mut session, "EHLO c.test");
        assert!(hear(&mut session, "AUTH CRAM-MD5").1.starts_with("504 5.5.4 "));
        assert!(hear(&mut session, "AUTH").1.starts_with("501 5.5.4 "));
    }

    #[test]
    fn starttls_forgets_who_it_was() {
        let mut session = session(now());
        hear(&mut session, JOE);
        session.authenticated(Verdict::Accepted(Reply::new(235, "2.7.0 welcome")));
        session.tls_established(Offers { auth: now(), ..Offers::default() });
        said(&mut session);
        hear(&mut session, "EHLO c.test");
        assert!(matches!(hear(&mut session, JOE).0, Action::Authenticate(Ok(_))));
    }

    #[test]
    fn a_response_may_be_long_but_not_endless() {
        let mut session = session(now());
        hear(&mut session, "AUTH PLAIN");
        let long = format!("\0joe\0{}", "p".repeat(6000));
        use base64::Engine as _;
        let line = base64::engine::general_purpose::STANDARD.encode(long);
        assert!(matches!(hear(&mut session, &line).0, Action::Authenticate(Ok(_))));
        session.authenticated(refusal());
        hear(&mut session, "AUTH PLAIN");
        let endless = "A".repeat(20_000);
        let (used, action) = session.step(endless.as_bytes(), &mut Vec::new());
        assert!(used == endless.len() && matches!(action, Action::Read), "nothing of it is kept");
        assert!(matches!(hear(&mut session, "").0, Action::Authenticate(Err(Malformed::TooLong))));
    }
}
