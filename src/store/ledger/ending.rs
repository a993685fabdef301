//! How a claim ends, and how it stands then.

use super::super::record::MAX_ATTEMPTS;
use super::super::{Attempt, AttemptKind, Marks, Outcome, Record, State, StateName};
use super::expired;
use crate::clock::Timestamp;
use crate::planted::{self, Bug};
use crate::smtp::reply::Reply;

/// Characters of a reply that an attempt keeps.
const REPLY_CHARS: usize = 256;

const STILL_IN_DOUBT: &str =
    "4.4.2 [IN-DOUBT] the answer to an earlier attempt was lost; some of the recipients may have it";

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) at: Timestamp,
    pub(super) kind: AttemptKind,
    pub(super) outcome: Outcome,
    /// Whether the client received the final reply.
    pub(super) heard: bool,
}

impl End {
    /// The attempt ended in doubt, and its client received no final reply.
    pub(super) fn in_doubt(at: Timestamp, kind: AttemptKind, text: &str) -> Self {
        Self { at, kind, outcome: Outcome::InDoubt(Reply::new(451, text)), heard: false }
    }
}

/// Ends the attempt that `record` stands for.
pub(super) fn end(record: &mut Record, end: End) {
    note(record, &end);
    let End { at, outcome, heard, .. } = end;
    // Never earlier than before, whatever the clock did: what a start finds in
    // a log is put in order by it.
    record.settled_at = record.settled_at.max(Some(at));
    record.heard = heard;
    record.expires = at.plus(remembered(record));
    record.state = State::Settled(standing(&record.marks, outcome));
}

/// How long an outcome is remembered, from its settlement on.
pub(super) fn remembered(record: &Record) -> std::time::Duration {
    if record.heard || planted::is(Bug::UnheardForgotten) {
        record.window
    } else {
        record.window.max(record.unheard_window)
    }
}

/// The reply as an attempt keeps it.
pub(super) fn cut(outcome: &Outcome) -> String {
    outcome.reply().to_string().chars().take(REPLY_CHARS).collect()
}

/// Adds the attempt to the list.
fn note(record: &mut Record, end: &End) {
    record.attempts.push(Attempt { at: end.at, kind: end.kind, reply: cut(&end.outcome) });
    let surplus = record.attempts.len().saturating_sub(MAX_ATTEMPTS);
    record.attempts.drain(..surplus);
    record.attempt_count += 1;
}

/// What was known of a claim before an attempt.
#[derive(Clone, Debug)]
pub(super) struct Before {
    pub(super) record: Record,
    /// Whether the attempt goes on with what the record says of single
    /// recipients ([`super::Slot::continues`]). Else it is about another text.
    pub(super) continued: bool,
}

/// The record of an attempt that ended: its own end, or what it leaves standing
/// of what was known `before`.
pub(super) fn ended(mut tried: Record, before: Option<Before>, ending: End) -> Record {
    match before.filter(|before| !expired(&before.record, ending.at)) {
        Some(before) if outlasts(&before, &tried, &ending) => kept(before, &tried, &ending),
        before => {
            // An import may have brought more of them meanwhile.
            if let Some(Before { record, continued: true }) = before {
                tried.marks.unite(&record.marks);
            }
            end(&mut tried, ending);
            tried
        }
    }
}

/// Whether what was known before an attempt is more than what it brought:
/// accepted before in doubt before the rest. Another text takes its place where
/// a recipient received that, or may have received it.
fn outlasts(Before { record, continued }: &Before, tried: &Record, end: &End) -> bool {
    let is_more = match end.outcome {
        Outcome::Accepted(_) => false,
        Outcome::InDoubt(_) => {
            let is_same = record.fingerprint == tried.fingerprint && tried.marks.doubtful.is_empty();
            is_same && record.state.name() == StateName::Accepted
        }
        // Of a whole message, some may have got it all the same.
        Outcome::Deferred(_) | Outcome::Refused(_) if *continued => {
            is_known(record) && record.marks.has_all_of(&tried.marks)
        }
        Outcome::Deferred(_) | Outcome::Refused(_) => record.is_out() && tried.marks.delivered.is_empty(),
    };
    is_more && !planted::is(Bug::KnowledgeReplaced)
}

/// What was known, with one more attempt.
fn kept(Before { record: mut before, continued }: Before, tried: &Record, end: &End) -> Record {
    before.attempts.clone_from(&tried.attempts);
    before.attempt_count = tried.attempt_count;
    note(&mut before, end);
    before.last_seen = before.last_seen.max(tried.last_seen);
    before.duplicates = tried.duplicates;
    before.suppressed.clone_from(&tried.suppressed);
    // Marks of another text say nothing of this one, and a record without marks
    // is about all recipients.
    if continued && !before.marks.is_empty() {
        before.marks.unite(&tried.marks);
    }
    before
}

/// Whether the upstream has the message, or may have it.
pub(super) fn is_known(record: &Record) -> bool {
    matches!(record.state.name(), StateName::Accepted | StateName::InDoubt)
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
