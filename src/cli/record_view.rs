//! A record as people and programs see it.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::journal::escape::for_terminal;
use crate::store::{Outcome, Record, State};

/// A record in JSON: the names are fixed, other programs read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordView {
    /// 64 hex digits.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// How the key was found.
    pub strategy: String,
    /// The key as given.
    pub key: String,
    /// Empty where one claim covers the whole message.
    pub recipient: String,
    /// The reverse-path.
    pub sender: String,
    /// The rule that matched.
    pub rule: Option<String>,
    /// 64 hex digits.
    pub fingerprint: String,
    /// `pending`, `committing`, `accepted`, `deferred`, `refused` or `in_doubt`.
    pub state: &'static str,
    /// The reply as the client heard it, on one line.
    pub reply: Option<String>,
    /// The upstream's address.
    pub upstream: Option<String>,
    /// The Message-ID field.
    pub message_id: Option<String>,
    /// Octets.
    pub size: u64,
    /// The last tries.
    pub attempts: Vec<AttemptView>,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// Duplicates suppressed.
    pub duplicates: u64,
    /// RFC 3339.
    pub expires: String,
}

/// One try at sending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttemptView {
    /// RFC 3339.
    pub at: String,
    /// The reply on one line.
    pub reply: String,
}

/// The name of a state.
pub fn state_name(state: &State) -> &'static str {
    match state {
        State::Pending { .. } => "pending",
        State::Committing { .. } => "committing",
        State::Settled(Outcome::Accepted(_)) => "accepted",
        State::Settled(Outcome::Deferred(_)) => "deferred",
        State::Settled(Outcome::Refused(_)) => "refused",
        State::Settled(Outcome::InDoubt(_)) => "in_doubt",
    }
}

impl From<&Record> for RecordView {
    fn from(record: &Record) -> Self {
        let present = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let attempts = record.attempts.iter();
        Self {
            id: record.id.to_string(),
            tenant: record.tenant.clone(),
            strategy: record.strategy.clone(),
            key: record.key.clone(),
            recipient: record.recipient.clone(),
            sender: record.sender.clone(),
            rule: present(&record.rule),
            fingerprint: record.fingerprint.to_string(),
            state: state_name(&record.state),
            reply: match &record.state {
                State::Settled(outcome) => Some(outcome.reply().to_string()),
                State::Pending { .. } | State::Committing { .. } => None,
            },
            upstream: present(&record.upstream),
            message_id: record.message_id.clone(),
            size: record.size,
            attempts: attempts
                .map(|a| AttemptView { at: a.at.to_rfc3339(), reply: a.reply.clone() })
                .collect(),
            first_seen: record.first_seen.to_rfc3339(),
            last_seen: record.last_seen.to_rfc3339(),
            duplicates: record.duplicates,
            expires: record.expires.to_rfc3339(),
        }
    }
}

impl RecordView {
    /// One object on one line.
    pub fn to_json(&self) -> String {
        // Text, numbers and lists of them can always be written.
        let json = serde_json::to_string(self).unwrap_or_default();
        // serde_json leaves what is no ASCII control character as it is; a
        // terminal or a line-based reader may act on some of it.
        crate::journal::escape::json_for_terminal(&json)
    }

    /// Everything known, a line for each field, for people.
    pub fn to_text(&self) -> String {
        let fields = [
            ("id", self.id.clone()),
            ("state", self.state.to_owned()),
            ("tenant", self.tenant.clone()),
            ("strategy", self.strategy.clone()),
            ("key", self.key.clone()),
            (
                "recipient",
                if self.recipient.is_empty() { "(the whole message)" } else { &self.recipient }.to_owned(),
            ),
            ("sender", format!("<{}>", self.sender)),
            ("rule", self.rule.clone().unwrap_or_default()),
            ("fingerprint", self.fingerprint.clone()),
            ("message-id", self.message_id.clone().unwrap_or_default()),
            ("size", format!("{} octets", self.size)),
            ("upstream", self.upstream.clone().unwrap_or_default()),
            ("reply", self.reply.clone().unwrap_or_default()),
            ("first seen", self.first_seen.clone()),
            ("last seen", self.last_seen.clone()),
            ("duplicates", format!("{} suppressed", self.duplicates)),
            ("expires", self.expires.clone()),
        ];
        let attempts =
            self.attempts.iter().map(|attempt| ("attempt", format!("{}  {}", attempt.at, attempt.reply)));
        let lines = fields.into_iter().filter(|(_, text)| !text.is_empty()).chain(attempts);
        lines.map(|(name, text)| format!("{name:<12} {}\n", for_terminal(&text))).collect()
    }
}

/// Lines of a table, columns as wide as their widest cell. Cells are escaped
/// and cut to a length that leaves the line readable.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    const MOST: usize = 48;
    let clean = |cell: &String| {
        let cell = for_terminal(cell);
        match cell.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", &cell[..end]),
            None => cell.into_owned(),
        }
    };
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|name| (*name).to_owned()).collect()];
    lines.extend(rows.iter().map(|row| row.iter().map(clean).collect()));
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let render = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(render).collect()
}

/// A time for a table: UTC to the second.
pub fn short_time(at: Timestamp) -> String {
    let text = at.to_rfc3339();
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{}Z", seconds.replace('T', " "))
}
