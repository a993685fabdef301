//! The part of the session in which both sides introduce themselves and agree
//! on extensions: EHLO, STARTTLS.

use super::terms::{Action, AuthOffer, ClientName, Policy, Settings, Step};
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
        if let AuthOffer::Now(mechanisms) = &offers.auth {
            text.push_str("\nAUTH");
            for mechanism in mechanisms {
                text.push(' ');
                text.push_str(mechanism.name());
            }
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
}

/// Whether a line is a request of HTTP, or begins a handshake of TLS: any page
/// can make a browser send these to us, with commands in what follows.
pub(super) fn is_foreign(line: &[u8]) -> bool {
    let last = line.trim_ascii_end().rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    last.starts_with(b"HTTP/") || line.starts_with(b"\x16\x03")
}

/// The same for a line that is too long to wait for its end.
pub(super) fn begins_foreign(line: &[u8]) -> bool {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let method = words.next().is_some_and(|word| word.iter().all(u8::is_ascii_uppercase));
    let target = words.next().is_some_and(|word| word.starts_with(b"/") || word.starts_with(b"http"));
    method && target || is_foreign(line)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Allow, said, settings};
    use super::super::{Offers, Settings};
    use super::*;

    fn session() -> Session<Allow> {
        let offers = Offers { starttls: true, ..Offers::default() };
        let mut session = Session::new(Settings { offers, ..settings() }, Allow);
        session.output().clear();
        session
    }

    #[test]
    fn starttls_forgets_what_was_said_before_it() {
        let mut session = session();
        let mut body = Vec::new();
        session.step(b"EHLO c.test\r\n", &mut body);
        assert!(said(&mut session).contains("STARTTLS\r\n"));
        session.step(b"MAIL FROM:<a@a.test>\r\n", &mut body);
        said(&mut session);
        assert!(matches!(session.step(b"STARTTLS\r\n", &mut body), (10, Action::StartTls)));
        assert_eq!(said(&mut session), "220 2.0.0 go ahead\r\n");
        session.tls_established(Offers::default());
        assert!(session.client().is_none() && session.is_idle());
        session.step(b"EHLO c.test\r\n", &mut body);
        assert!(!said(&mut session).contains("STARTTLS"));
    }

    #[test]
    fn whatever_is_behind_starttls_ends_the_session() {
        for behind in [&b"MAIL FROM:<x@y.test>\r\n"[..], b"MAI", b"\n", b"\x16\x03\x01"] {
            let mut session = session();
            let input = [b"STARTTLS\r\n", behind].concat();
            assert!(matches!(session.step(&input, &mut Vec::new()), (_, Action::Close)), "{behind:?}");
            assert!(said(&mut session).starts_with("554 5.5.0 "));
            assert!(matches!(session.step(behind, &mut Vec::new()), (_, Action::Close)), "it is over");
        }
    }
}
