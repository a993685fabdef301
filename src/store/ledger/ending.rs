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
    if record.heard { record.window } else { record.window.max(record.unheard_window) }
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

/// What is known of a claim after an attempt that certainly sent nothing: what
/// was known `before` it, where the upstream has the message or may have it.
/// `None` where the attempt's own end stands.
pub(super) fn outlasts(before: Option<Record>, tried: &Record, end: &End) -> Option<Record> {
    let sent_nothing = matches!(end.outcome, Outcome::Deferred(_) | Outcome::Refused(_));
    let mut before = before.filter(|before| {
        sent_nothing && is_known(before) && !expired(before, end.at) && !planted::is(Bug::KnowledgeReplaced)
    })?;
    before.attempts.clone_from(&tried.attempts);
    before.attempt_count = tried.attempt_count;
    note(&mut before, end);
    before.last_seen = tried.last_seen;
    before.duplicates = tried.duplicates;
    before.suppressed.clone_from(&tried.suppressed);
    before.marks.unite(&tried.marks);
    Some(before)
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
