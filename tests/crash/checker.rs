//! Judges what was promised against what happened, from three logs that were
//! kept apart: what the clients heard, what the upstream accepted, and what
//! the store calls in doubt.

use std::collections::{BTreeMap, BTreeSet};

/// What `in_doubt` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// `suppress`: nothing is accepted twice.
    AtMostOnce,
    /// `resend`: nothing that was acknowledged is missing.
    AtLeastOnce,
}

/// The three logs, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs {
    /// Every 2xx reply that a client heard. The clients end only when each
    /// e-mail has one.
    pub(crate) heard: BTreeMap<String, Vec<String>>,
    /// How often the upstream accepted it.
    pub(crate) accepted: BTreeMap<String, usize>,
    /// What the store lists as in doubt at the end.
    pub(crate) in_doubt: BTreeSet<String>,
}

impl Logs {
    /// What is wrong, one line for each fault.
    pub(crate) fn faults(&self, promise: Promise) -> Vec<String> {
        let acknowledged =
            self.heard.iter().flat_map(|(key, replies)| self.of_acknowledged(promise, key, replies));
        acknowledged.chain(self.of_accepted(promise)).collect()
    }

    fn of_acknowledged(&self, promise: Promise, key: &str, replies: &[String]) -> Vec<String> {
        let mut faults = Vec::new();
        let count = self.accepted.get(key).copied().unwrap_or(0);
        let (doubtful, certain): (Vec<_>, Vec<_>) = replies.iter().partition(|r| r.contains("[IN-DOUBT]"));
        if count == 0 && !certain.is_empty() {
            faults.push(format!("{key}: missing, though its sender heard {certain:?}"));
        }
        match promise {
            Promise::AtMostOnce if !doubtful.is_empty() && !self.in_doubt.contains(key) => {
                faults.push(format!("{key}: its sender heard {doubtful:?}, and the store knows no doubt"));
            }
            Promise::AtLeastOnce if !doubtful.is_empty() => {
                faults.push(format!("{key}: its sender heard {doubtful:?} where doubts are resent"));
            }
            _ => {}
        }
        faults
    }

    fn of_accepted(&self, promise: Promise) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, count) in &self.accepted {
            if promise == Promise::AtMostOnce && *count > 1 {
                faults.push(format!("{key}: accepted {count} times"));
            }
            if !self.heard.contains_key(key) {
                faults.push(format!("{key}: accepted, and its sender never heard so"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "250 2.0.0 took it";
    const DOUBT: &str = "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed";

    fn logs(reply: &str, accepted: usize, in_doubt: bool) -> Logs {
        Logs {
            heard: BTreeMap::from([("k".to_owned(), vec![reply.to_owned()])]),
            accepted: BTreeMap::from([("k".to_owned(), accepted)]),
            in_doubt: in_doubt.then(|| "k".to_owned()).into_iter().collect(),
        }
    }

    #[track_caller]
    fn fault(logs: &Logs, promise: Promise, words: &str) {
        let faults = logs.faults(promise);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(words), "{faults:?}");
    }

    #[test]
    fn what_is_promised_passes() {
        use Promise::{AtLeastOnce, AtMostOnce};
        assert!(logs(OK, 1, false).faults(AtMostOnce).is_empty());
        assert!(logs(DOUBT, 0, true).faults(AtMostOnce).is_empty());
        assert!(logs(DOUBT, 1, true).faults(AtMostOnce).is_empty());
        assert!(logs(OK, 2, false).faults(AtLeastOnce).is_empty());
    }

    #[test]
    fn a_double_delivery_is_seen() {
        fault(&logs(OK, 2, false), Promise::AtMostOnce, "accepted 2 times");
    }

    #[test]
    fn a_missing_message_is_seen_under_either_promise() {
        fault(&logs(OK, 0, false), Promise::AtMostOnce, "missing");
        fault(&logs(OK, 0, true), Promise::AtMostOnce, "missing");
        fault(&logs(OK, 0, false), Promise::AtLeastOnce, "missing");
    }

    #[test]
    fn a_doubt_that_nobody_knows_of_is_seen() {
        fault(&logs(DOUBT, 1, false), Promise::AtMostOnce, "no doubt");
        fault(&logs(DOUBT, 1, true), Promise::AtLeastOnce, "resent");
    }

    #[test]
    fn a_message_from_nowhere_is_seen() {
        let logs = Logs { heard: BTreeMap::new(), ..logs(OK, 1, false) };
        fault(&logs, Promise::AtMostOnce, "never heard");
    }
}
