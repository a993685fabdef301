//! What would become of an e-mail if it came now, by what is known of its
//! claim.

use crate::config::{Dedup, InDoubt, Mode, OnConflict};
use crate::dedup::verdict::Verdict;
use crate::smtp::reply::Reply;
use crate::store::search::StateName;
use crate::store::view::RecordView;
use crate::store::{Fingerprint, Record};

/// What would become of one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) course: Course,
    /// Says it in a sentence.
    pub(super) text: String,
    /// What the client would hear, where that is known.
    pub(super) reply: Option<String>,
}

/// The kinds of fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It would go out.
    Relayed,
    /// It would be answered from the record.
    Suppressed,
    /// It would be refused: the same key with another content.
    Conflict,
    /// It would wait for the attempt under way, and take its outcome.
    InFlight,
    /// It would be deferred until an operator resolves the claim.
    Held,
}

impl Course {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Course::Relayed => "relayed",
            Course::Suppressed => "suppressed",
            Course::Conflict => "conflict",
            Course::InFlight => "in_flight",
            Course::Held => "held",
        }
    }
}

impl Fate {
    /// By the record that stands for the claim, if there is one. `marks` are
    /// those of the recipients, where one claim covers them all.
    pub(super) fn of(
        view: Option<&RecordView>,
        policy: &Dedup,
        fingerprint: &Fingerprint,
        marks: &[u64],
    ) -> Self {
        let fate = Self::enforced(view, policy, fingerprint, marks);
        match (policy.mode, fate.course) {
            (Mode::Enforce | Mode::Off, _) | (_, Course::Relayed) => fate,
            // Only written down.
            (Mode::Observe, _) => Self {
                course: Course::Relayed,
                text: format!("would be relayed, for mode is observe; enforced, it {}", fate.text),
                reply: None,
            },
        }
    }

    fn enforced(view: Option<&RecordView>, policy: &Dedup, fingerprint: &Fingerprint, marks: &[u64]) -> Self {
        let relayed = |why: String| Self {
            course: Course::Relayed,
            text: format!("would be relayed: {why}"),
            reply: None,
        };
        let Some(view) = view else { return relayed("nothing is known of it".to_owned()) };
        let (at, reply) = (settled_at(view), view.reply.as_deref().unwrap_or_default());
        let conflict = view.fingerprint != fingerprint.to_string();
        // Of a whole message, some may have it all the same.
        let is_another = conflict && policy.on_conflict == OnConflict::Reject && !view.delivered.is_empty();
        match view.state {
            StateName::Deferred | StateName::Refused if is_another => {}
            StateName::Deferred => return relayed(format!("put off {at} ({reply}), so it is tried again")),
            StateName::Refused => return relayed(format!("refused {at} ({reply}), so it is tried again")),
            StateName::Pending | StateName::Committing | StateName::Accepted | StateName::InDoubt => {}
        }
        match policy.on_conflict {
            OnConflict::Reject if conflict => {
                return Self {
                    course: Course::Conflict,
                    text: format!("conflict: {} with this key but another content", described(view)),
                    reply: Some(Verdict::conflict(view.state, at).reply.to_string()),
                };
            }
            OnConflict::Relay if conflict => {
                return relayed(format!(
                    "{} with this key but another content, and on_conflict is relay",
                    described(view)
                ));
            }
            _ => {}
        }
        let beside = if conflict { " (its content differs, and on_conflict is suppress)" } else { "" };
        let heard = heard(view, policy, conflict);
        let owed = lacking(view, marks);
        match (view.state, policy.in_doubt) {
            (StateName::Accepted, _) | (StateName::InDoubt, InDoubt::Suppress) if owed > 0 => {
                relayed(format!("{}, but {owed} of its recipients lack it: it goes to them", described(view)))
            }
            (StateName::InDoubt, InDoubt::Resend) => {
                relayed(format!("{}, and in_doubt is resend", described(view)))
            }
            (StateName::InDoubt, InDoubt::Hold) => Self {
                course: Course::Held,
                text: format!("would be held back: {}, and in_doubt is hold", described(view)),
                reply: heard,
            },
            (StateName::Pending | StateName::Committing, _) => Self {
                course: Course::InFlight,
                text: format!("would wait for the attempt under way, and take its outcome{beside}"),
                reply: None,
            },
            _ => Self {
                course: Course::Suppressed,
                text: format!("would be suppressed: {}{beside}", described(view)),
                reply: heard,
            },
        }
    }
}

/// What a duplicate hears; the proxy's own words.
fn heard(view: &RecordView, policy: &Dedup, conflict: bool) -> Option<String> {
    let record = Record::try_from(view).ok()?;
    Some(Verdict::of_record(policy, &record, conflict).reply).as_ref().map(Reply::to_string)
}

/// How many of these recipients lack the message.
fn lacking(view: &RecordView, marks: &[u64]) -> usize {
    let has = |mark: &str| view.delivered.iter().chain(&view.doubtful).any(|known| known == mark);
    let tells = !(view.delivered.is_empty() && view.owed.is_empty() && view.doubtful.is_empty());
    marks.iter().filter(|mark| tells && !has(&format!("{mark:016x}"))).count()
}

fn settled_at(view: &RecordView) -> &str {
    view.settled_at.as_deref().unwrap_or(&view.last_seen)
}

/// An earlier e-mail in a few words.
fn described(view: &RecordView) -> String {
    let at = settled_at(view);
    match view.state {
        StateName::Accepted => {
            format!("accepted {at} by {}", view.upstream.as_deref().unwrap_or("the upstream"))
        }
        StateName::InDoubt => format!("in doubt since {at}"),
        StateName::Pending | StateName::Committing => "one is in flight".to_owned(),
        StateName::Deferred | StateName::Refused => format!("{} {at}", view.state),
    }
}
