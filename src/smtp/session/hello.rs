//! The part of the session in which both sides introduce themselves and agree
//! on extensions: EHLO, STARTTLS, AUTH.

use super::terms::{Action, ClientName, Policy, Settings, Step};
use super::{Session, State};
use crate::smtp::reply::Reply;

impl<P: Policy> Session<P> {
    pub(super) fn hello(&mut self, name: String, extended: bool) {
        if let Some(reply) = self.policy.check(Step::Hello) {
            return self.fault(reply);
        }
        self.state = State::Ready;
        self.client = Some(ClientName { name, extended });
        let text = if extended { self.ehlo_text() } else { self.settings.hostname.clone() };
        self.reply(Reply::new(250, text));
    }

    fn ehlo_text(&self) -> String {
        let Settings { hostname, max_message_size, offers, .. } = &self.settings;
        let mut text =
            format!("{hostname}\nPIPELINING\nCHUNKING\nENHANCEDSTATUSCODES\nSIZE {max_message_size}");
        for (offered, keyword) in [
            (offers.eight_bit_mime, "8BITMIME"),
            (offers.smtputf8, "SMTPUTF8"),
            (offers.dsn, "DSN"),
            (offers.starttls, "STARTTLS"),
        ] {
            if offered {
                text.push('\n');
                text.push_str(keyword);
            }
        }
        if !offers.auth.is_empty() {
            text.push_str("\nAUTH ");
            text.push_str(&offers.auth.join(" "));
        }
        text
    }

    /// What is `behind` the command came in clear, from whoever sits on the way
    /// for all we know: it must not be taken for what the client says under TLS
    /// (RFC 3207 §6), and no honest client sends it.
    pub(super) fn start_tls(&mut self, behind: &[u8]) -> Action {
        if !self.settings.offers.starttls {
            self.fault(Reply::new(502, "5.5.1 STARTTLS is not offered"));
            return self.go_on();
        }
        if !behind.is_empty() {
            self.end(Reply::new(554, "5.5.0 nothing may follow STARTTLS before the handshake"));
            return Action::Close;
        }
        self.state = State::Suspended;
        self.reply(Reply::new(220, "2.0.0 go ahead"));
        Action::StartTls
    }

    pub(super) fn auth(&mut self, mechanism: String, initial_response: Option<String>) -> Action {
        if !self.settings.offers.auth.contains(&mechanism) {
            self.fault(Reply::new(504, "5.5.4 this mechanism is not offered"));
            return self.go_on();
        }
        if !self.is_idle() {
            self.fault(Reply::new(503, "5.5.1 not within a transaction"));
            return self.go_on();
        }
        self.state = State::Suspended;
        Action::Authenticate { mechanism, initial_response }
    }
}
