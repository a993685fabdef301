//! From octets to lines, of which no more than the longest is ever kept.

use super::hello;
use super::terms::{Action, Policy};
use super::{Session, State};
use crate::smtp::command::{Command, MAX_AUTH_LINE, MAX_LINE};
use crate::smtp::data::BareNewlines;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Malformed;

impl<P: Policy> Session<P> {
    pub(super) fn receive_line(&mut self, input: &[u8], body: &mut Vec<u8>) -> (usize, Action) {
        let Some(end) = memchr::memchr(b'\n', input) else {
            return self.part_of_line(input);
        };
        let used = end + 1;
        let too_long = used > self.line_limit(input);
        if hello::is_foreign(&input[..end]) || too_long && hello::begins_foreign(input) {
            return self.foreign(used);
        }
        if let State::Early = self.state {
            return (used, self.early_line(&input[..end]));
        }
        if std::mem::take(&mut self.skipping_line) || too_long {
            return (used, self.unreadable_line(Malformed::TooLong));
        }
        let line = match (input[..end].strip_suffix(b"\r"), self.settings.bare_newlines) {
            (Some(line), _) => line,
            (None, BareNewlines::Normalize) => &input[..end],
            (None, BareNewlines::Reject) => {
                return (used, self.unreadable_line(Malformed::BareNewline));
            }
        };
        let action = match std::mem::replace(&mut self.state, State::Closed) {
            State::Auth(dialogue) => self.respond(dialogue, line),
            state => {
                self.state = state;
                self.command_line(line, &input[used..], body)
            }
        };
        (used, action)
    }

    /// No line end yet. What can't become a line any more is skipped, so the
    /// owner never has to keep more than the longest line.
    fn part_of_line(&mut self, input: &[u8]) -> (usize, Action) {
        if !self.skipping_line && input.len() >= self.line_limit(input) {
            if hello::begins_foreign(input) {
                return self.foreign(input.len());
            }
            self.skipping_line = true;
        }
        let used = if self.skipping_line { input.len() } else { 0 };
        (used, Action::Read)
    }

    /// What came before the greeting was written may be QUIT. The outcome is
    /// the same where QUIT comes just behind the greeting.
    fn early_line(&mut self, line: &[u8]) -> Action {
        if line.trim_ascii_end().eq_ignore_ascii_case(b"QUIT") {
            return self.command(Command::Quit, &[], &mut Vec::new());
        }
        self.end(Reply::new(554, "5.5.0 you talked before the greeting"));
        Action::Close
    }

    fn foreign(&mut self, used: usize) -> (usize, Action) {
        self.end(Reply::new(554, "5.5.0 this server speaks SMTP and nothing else"));
        (used, Action::Close)
    }

    fn line_limit(&self, input: &[u8]) -> usize {
        let is_auth = matches!(self.state, State::Auth(_))
            || input.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH "));
        if is_auth { MAX_AUTH_LINE } else { MAX_LINE }
    }

    /// A line that is none, whatever it was to say; it ends an exchange.
    fn unreadable_line(&mut self, what: Malformed) -> Action {
        if let State::Auth(_) = self.state {
            self.state = State::Suspended;
            return Action::Authenticate(Err(what));
        }
        self.fault(what.reply());
        self.go_on()
    }

    fn command_line(&mut self, line: &[u8], behind: &[u8], body: &mut Vec<u8>) -> Action {
        match Command::parse(line) {
            Ok(command) => self.command(command, behind, body),
            Err(reply) => {
                self.fault(reply);
                self.go_on()
            }
        }
    }
}
