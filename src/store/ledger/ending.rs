//! How a claim ends, and how it stands then.

use super::super::record::MAX_ATTEMPTS;
use super::super::{Attempt, Marks, Outcome, Record, State};
use crate::clock::Timestamp;
use crate::smtp::reply::Reply;

/// Characters of a reply that an attempt keeps.
const REPLY_CHARS: usize = 256;

const STILL_IN_DOUBT: &str =
    "4.4.2 [IN-DOUBT] the answer to an earlier attempt was lost; some of the recipients may have it";

/// Ends the attempt that `record` stands for.
pub(super) fn end(record: &mut Record, at: Timestamp, outcome: Outcome) {
    let reply = outcome.reply().to_string().chars().take(REPLY_CHARS).collect();
    record.attempts.push(Attempt { at, reply });
    let surplus = record.attempts.len().saturating_sub(MAX_ATTEMPTS);
    record.attempts.drain(..surplus);
    record.attempt_count += 1;
    // Never earlier than before, whatever the clock did: what a start finds in
    // a log is put in order by it.
    record.settled_at = record.settled_at.max(Some(at));
    record.expires = at.plus(record.window);
    record.state = State::Settled(standing(&record.marks, outcome));
}

/// How a claim stands after an attempt with this outcome: what the upstream
/// says to one recipient does not end the doubt about another.
pub(super) fn standing(marks: &Marks, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Accepted(_) | Outcome::Deferred(_) | Outcome::Refused(_) if !marks.doubtful.is_empty() => {
            Outcome::InDoubt(Reply::new(451, STILL_IN_DOUBT))
        }
        outcome => outcome,
    }
}
