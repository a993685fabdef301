//! Faults that a sink shows on purpose, as written on the command line.

use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wildmatch::WildMatch;

use crate::config::parse_duration;
use crate::smtp::reply::Reply;

/// How faults are written; shown by `mailonce sink --help`.
pub const HELP: &str = "\
A fault is PHASE:ACTION[*TIMES][:RECIPIENT]

  PHASE      connect, ehlo, mail, rcpt, data or dot (the end of the message)
  ACTION     a reply such as 450 or 550; delay=5s; drop (close the connection);
             at dot also accept-drop: keep the message, then close before the 250
  TIMES      only the first so many times
  RECIPIENT  at rcpt: only for addresses that match, with * and ?

  rcpt:550:nobody@*        refuses one recipient
  data:delay=5s            takes its time
  dot:451*2                defers the first two messages
  dot:accept-drop*1        leaves the first message in doubt";

/// When a fault shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the greeting.
    Connect,
    /// At EHLO or HELO.
    Ehlo,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// At DATA or the first BDAT.
    Data,
    /// At the end of the message.
    Dot,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answers with this instead.
    Reply(Reply),
    /// Waits, then goes on.
    Delay(Duration),
    /// Closes the connection without an answer.
    Drop,
    /// Keeps the message, then closes the connection without an answer.
    AcceptDrop,
}

/// One fault.
#[derive(Debug)]
pub struct Fault {
    phase: Phase,
    effect: Effect,
    recipient: WildMatch,
    left: AtomicUsize,
}

impl Fault {
    /// Its effect, if it shows at this phase and for this recipient.
    pub fn strike(&self, phase: Phase, recipient: &str) -> Option<Effect> {
        if self.phase != phase || !self.recipient.matches(recipient) {
            return None;
        }
        let once_less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, once_less).ok()?;
        Some(self.effect.clone())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a fault.\n\n{HELP}");
        let mut parts = text.splitn(3, ':');
        let phase = parts.next().and_then(phase_of).ok_or_else(wrong)?;
        let action = parts.next().ok_or_else(wrong)?;
        let recipient = parts.next();
        let (action, times) = match action.split_once('*') {
            Some((action, times)) => (action, times.parse().map_err(|_| wrong())?),
            None => (action, usize::MAX),
        };
        let effect = effect_of(action).ok_or_else(wrong)?;
        if recipient.is_some() && phase != Phase::Rcpt || effect == Effect::AcceptDrop && phase != Phase::Dot
        {
            return Err(wrong());
        }
        Ok(Self { phase, effect, recipient: WildMatch::new(recipient.unwrap_or("*")), left: times.into() })
    }
}

fn phase_of(word: &str) -> Option<Phase> {
    Some(match word {
        "connect" => Phase::Connect,
        "ehlo" => Phase::Ehlo,
        "mail" => Phase::Mail,
        "rcpt" => Phase::Rcpt,
        "data" => Phase::Data,
        "dot" => Phase::Dot,
        _ => return None,
    })
}

fn effect_of(action: &str) -> Option<Effect> {
    match action {
        "drop" => return Some(Effect::Drop),
        "accept-drop" => return Some(Effect::AcceptDrop),
        _ => {}
    }
    if let Some(delay) = action.strip_prefix("delay=") {
        return parse_duration(delay).map(Effect::Delay);
    }
    let code: u16 = action.parse().ok().filter(|code| (400..600).contains(code))?;
    Some(Effect::Reply(Reply::new(code, format!("{}.0.0 as asked for", code / 100))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_where_and_as_often_as_they_say() {
        let fault: Fault = "rcpt:450*2:slow@*".parse().unwrap();
        let reply = Some(Effect::Reply(Reply::new(450, "4.0.0 as asked for")));
        assert_eq!(fault.strike(Phase::Data, "slow@x"), None);
        assert_eq!(fault.strike(Phase::Rcpt, "fast@x"), None);
        assert_eq!(fault.strike(Phase::Rcpt, "slow@x"), reply);
        assert_eq!(fault.strike(Phase::Rcpt, "slow@y"), reply);
        assert_eq!(fault.strike(Phase::Rcpt, "slow@x"), None);
    }

    #[test]
    fn what_is_no_fault_is_told_how_to_write_one() {
        for text in [
            "",
            "rcpt",
            "dot:250",
            "mail:accept-drop",
            "mail:550:a@b",
            "data:delay=",
            "lunch:550",
            "dot:450*x",
        ] {
            assert!(text.parse::<Fault>().unwrap_err().contains("PHASE"), "{text}");
        }
        for text in ["connect:drop", "dot:accept-drop*1", "data:delay=5s", "ehlo:421"] {
            assert!(text.parse::<Fault>().is_ok(), "{text}");
        }
    }
}
