//! A record as people and programs see it: in JSON, and back.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::unhex;
use super::{
    Attempt, AttemptKind, ClaimId, Fingerprint, MAX_MARKS, Marks, Names, Outcome, Record, State, StateName,
    Suppression, Token, WrittenField, attempt,
};
use crate::clock::Timestamp;
use crate::escape;
use crate::message::Headers;
use crate::smtp::reply::Reply;

/// A record in JSON: the names are fixed, other programs read them. Up to
/// `expires` they are those of the interface; the rest is there so that a
/// record can be taken back exactly, each left out where it says nothing.
///
/// Times are RFC 3339 in UTC with milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub state: StateName,
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
    /// When the id was first claimed.
    pub first_seen: String,
    /// When the id was last asked for.
    pub last_seen: String,
    /// Duplicates suppressed.
    pub duplicates: u64,
    /// When it is forgotten.
    pub expires: String,
    /// The Date field beside the Message-ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The Message-ID field in base64, where its sender wrote it in another form
    /// than `Message-ID: ` and the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id_wire: Option<String>,
    /// The same of the Date field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date_wire: Option<String>,
    /// How many tries there were, where that is not the number of `attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_count: Option<u64>,
    /// When it was settled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<String>,
    /// How long an outcome is remembered, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub window_ms: u64,
    /// How long at least, where the client received no final reply, in
    /// milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unheard_window_ms: u64,
    /// Whether the client received the final reply; true where it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<bool>,
    /// Marks of those recipients of a whole message who have it, 16 hex digits
    /// each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delivered: Vec<String>,
    /// The same of those who are known not to have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<String>,
    /// The same of those of whom nobody knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubtful: Vec<String>,
    /// The last duplicates and conflicts that were answered from the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed: Vec<SuppressionView>,
    /// The reply's text in base64, where one line of UTF-8 can't hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_wire: Option<String>,
    /// Who holds a claim that is being committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The first attempt that a provider is to take for the same e-mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
}

/// One try at sending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// When it ended.
    pub at: String,
    /// The reply on one line.
    pub reply: String,
    /// How it ended. Exports of earlier versions have it in the reply's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<AttemptKind>,
}

/// A duplicate or conflict that was answered from the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionView {
    /// When it came.
    pub at: String,
    /// The address of the client that sent it.
    pub client: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RecordView {
    /// One object on one line, harmless to a terminal.
    pub fn to_json(&self) -> String {
        // Text, numbers and lists of them can always be written.
        let json = serde_json::to_string(self).unwrap_or_default();
        // serde_json leaves what is no ASCII control character as it is; a
        // terminal or a line-based reader may act on some of it.
        escape::json_for_terminal(&json)
    }
}

impl From<&Record> for RecordView {
    fn from(record: &Record) -> Self {
        let present = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let attempts = record.attempts.iter();
        let suppressed = record.suppressed.iter();
        let reply = match &record.state {
            State::Settled(outcome) => Some(outcome.reply()),
            State::Pending { .. } | State::Committing { .. } => None,
        };
        Self {
            id: record.id.to_string(),
            tenant: record.tenant.clone(),
            strategy: record.strategy.clone(),
            key: record.key.clone(),
            recipient: record.recipient.clone(),
            sender: record.sender.clone(),
            rule: present(&record.rule),
            fingerprint: record.fingerprint.to_string(),
            state: record.state.name(),
            reply: reply.map(Reply::to_string),
            upstream: present(&record.upstream),
            message_id: record.message_id(),
            size: record.size,
            attempts: attempts.map(AttemptView::from).collect(),
            first_seen: record.first_seen.to_rfc3339(),
            last_seen: record.last_seen.to_rfc3339(),
            duplicates: record.duplicates,
            expires: record.expires.to_rfc3339(),
            date: record.names.date.as_ref().map(WrittenField::text),
            message_id_wire: record.names.message_id.as_ref().and_then(|field| written("Message-ID", field)),
            date_wire: record.names.date.as_ref().and_then(|field| written("Date", field)),
            attempt_count: Some(record.attempt_count).filter(|n| *n != record.attempts.len() as u64),
            settled_at: record.settled_at.map(Timestamp::to_rfc3339),
            window_ms: millis(record.window),
            unheard_window_ms: millis(record.unheard_window),
            heard: (!record.heard).then_some(false),
            delivered: digits(&record.marks.delivered),
            owed: digits(&record.marks.owed),
            doubtful: digits(&record.marks.doubtful),
            suppressed: suppressed
                .map(|s| SuppressionView { at: s.at.to_rfc3339(), client: s.client.clone() })
                .collect(),
            reply_wire: reply.and_then(wire_text),
            holder: match record.state {
                State::Committing { holder } => Some(token_text(holder)),
                State::Pending { .. } | State::Settled(_) => None,
            },
            // Nothing but a resend asks for it. What is being committed is in doubt
            // where it is imported.
            series: matches!(record.state.name(), StateName::InDoubt | StateName::Committing)
                .then(|| token_text(record.series)),
        }
    }
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        let Attempt { at, kind, reply } = attempt;
        Self { at: at.to_rfc3339(), kind: Some(*kind), reply: reply.clone() }
    }
}

impl AttemptView {
    /// How it ended.
    pub fn kind(&self) -> AttemptKind {
        self.kind.unwrap_or_else(|| AttemptKind::of_words(&self.reply))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A field that its value alone can't give back.
fn written(name: &str, field: &WrittenField) -> Option<String> {
    let exact = WrittenField::of_text(name, &field.text()).is_some_and(|same| same == *field);
    (!exact).then(|| BASE64.encode(field.octets()))
}

/// A field by its value, or as it was written.
fn field(
    member: &str,
    name: &str,
    text: Option<&str>,
    wire: Option<&str>,
) -> Result<Option<WrittenField>, String> {
    if let Some(wire) = wire {
        let octets = BASE64.decode(wire).map_err(|_| wrong(member, wire, "base64"))?;
        // It goes into a message: it must be one field and nothing else.
        let alone = Bytes::from([&octets[..], b"\r\n"].concat());
        let is_field = Headers::parse(&alone).is_ok_and(|headers| headers.is_only(name));
        let field = WrittenField::new(&octets).filter(|_| is_field);
        return field.map(Some).ok_or_else(|| wrong(member, wire, "one header field of that name in base64"));
    }
    let Some(text) = text else { return Ok(None) };
    WrittenField::of_text(name, text).map(Some).ok_or_else(|| wrong(member, text, "one short line"))
}

/// The text of a reply that its one line can't give back.
fn wire_text(reply: &Reply) -> Option<String> {
    let exact = parse_line(&reply.to_string()).is_some_and(|parsed| parsed == *reply);
    (!exact).then(|| BASE64.encode(reply.lines().collect::<Vec<_>>().join(&b'\n')))
}

/// A reply out of its one line.
fn parse_line(line: &str) -> Option<Reply> {
    let (code, text) = line.split_once(' ')?;
    Some(Reply::new(code.parse().ok()?, text))
}

impl TryFrom<&RecordView> for Record {
    /// Which member is wrong, and how.
    type Error = String;

    /// Pending records can't be taken back: they mean nothing outside of the
    /// process that holds them.
    fn try_from(view: &RecordView) -> Result<Self, String> {
        let attempt = |a: &AttemptView| {
            Ok(Attempt { at: time("attempts", &a.at)?, kind: a.kind(), reply: a.reply.clone() })
        };
        let of = |member, name, text: &Option<String>, wire: &Option<String>| {
            field(member, name, text.as_deref(), wire.as_deref())
        };
        let suppression = |s: &SuppressionView| {
            Ok(Suppression { at: time("suppressed", &s.at)?, client: s.client.clone() })
        };
        let id = ClaimId::parse(&view.id).ok_or_else(|| wrong("id", &view.id, "64 hex digits"))?;
        let print = &view.fingerprint;
        let fingerprint = unhex(print).ok_or_else(|| wrong("fingerprint", print, "64 hex digits"))?;
        Ok(Self {
            id,
            tenant: view.tenant.clone(),
            strategy: view.strategy.clone(),
            key: view.key.clone(),
            recipient: view.recipient.clone(),
            sender: view.sender.clone(),
            rule: view.rule.clone().unwrap_or_default(),
            fingerprint: Fingerprint(fingerprint),
            state: state(view)?,
            upstream: view.upstream.clone().unwrap_or_default(),
            names: Names {
                message_id: of("message_id", "Message-ID", &view.message_id, &view.message_id_wire)?,
                date: of("date", "Date", &view.date, &view.date_wire)?,
            },
            series: token("series", view.series.as_deref())?,
            size: view.size,
            attempts: view.attempts.iter().map(attempt).collect::<Result<_, String>>()?,
            attempt_count: view.attempt_count.unwrap_or(view.attempts.len() as u64),
            first_seen: time("first_seen", &view.first_seen)?,
            last_seen: time("last_seen", &view.last_seen)?,
            settled_at: view.settled_at.as_deref().map(|at| time("settled_at", at)).transpose()?,
            duplicates: view.duplicates,
            window: Duration::from_millis(view.window_ms),
            unheard_window: Duration::from_millis(view.unheard_window_ms),
            heard: view.heard.unwrap_or(true),
            expires: time("expires", &view.expires)?,
            marks: marks(view)?,
            suppressed: view.suppressed.iter().map(suppression).collect::<Result<_, String>>()?,
        })
    }
}

fn wrong(member: &str, text: &str, instead: &str) -> String {
    let text: String = text.chars().take(100).collect();
    format!("the member {member} is {text:?} and should be {instead}")
}

fn time(member: &str, text: &str) -> Result<Timestamp, String> {
    let parsed = text.parse::<jiff::Timestamp>().ok();
    let millis = parsed.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let form = "a time since 1970 such as 2026-11-21T08:15:00.123Z";
    millis.map(Timestamp::from_millis).ok_or_else(|| wrong(member, text, form))
}

fn digits(marks: &[u64]) -> Vec<String> {
    marks.iter().map(|mark| format!("{mark:016x}")).collect()
}

/// A mark in two lists counts by the one that comes first.
fn marks(view: &RecordView) -> Result<Marks, String> {
    let list = |member: &str, texts: &[String]| {
        texts.iter().map(|text| mark(member, text)).collect::<Result<Vec<u64>, _>>()
    };
    let marks = Marks {
        delivered: list("delivered", &view.delivered)?,
        owed: list("owed", &view.owed)?,
        doubtful: list("doubtful", &view.doubtful)?,
    };
    match marks.len() {
        0..=MAX_MARKS => Ok(marks),
        many => Err(format!(
            "delivered, owed and doubtful have {many} marks, and a record has at most {MAX_MARKS}"
        )),
    }
}

fn mark(member: &str, text: &str) -> Result<u64, String> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mark = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    mark.ok_or_else(|| wrong(member, text, "16 hex digits each"))
}

fn state(view: &RecordView) -> Result<State, String> {
    let outcome = match view.state {
        StateName::Pending => {
            return Err(wrong("state", "pending", "another: a pending claim has sent nothing"));
        }
        StateName::Committing => {
            return Ok(State::Committing { holder: token("holder", view.holder.as_deref())? });
        }
        StateName::Accepted => Outcome::Accepted,
        StateName::Deferred => Outcome::Deferred,
        StateName::Refused => Outcome::Refused,
        StateName::InDoubt => Outcome::InDoubt,
    };
    let state = State::Settled(outcome(reply(view)?));
    let is_of_before = view.attempts.iter().any(|attempt| attempt.kind.is_none());
    let kinds = view.attempts.iter().map(AttemptView::kind);
    Ok(if is_of_before { attempt::still_doubtful(state, kinds) } else { state })
}

fn reply(view: &RecordView) -> Result<Reply, String> {
    let line = view.reply.as_deref().unwrap_or_default();
    let parsed = parse_line(line).filter(|reply| (200..600).contains(&reply.code()));
    // Duplicates hear the reply of what was accepted.
    let fits = |reply: &Reply| view.state != StateName::Accepted || reply.is_success();
    let reply =
        parsed.filter(fits).ok_or_else(|| wrong("reply", line, "a code and text such as 250 2.0.0 ok"))?;
    let Some(wire) = &view.reply_wire else { return Ok(reply) };
    let text = BASE64.decode(wire).map_err(|_| wrong("reply_wire", wire, "base64"))?;
    Ok(Reply::from_wire(reply.code(), text))
}

fn token_text(token: Token) -> String {
    format!("{:x}-{:x}", token.owner, token.attempt)
}

/// An attempt of another process. It means little here, and may be missing.
fn token(member: &str, text: Option<&str>) -> Result<Token, String> {
    let Some(text) = text else { return Ok(Token { owner: 0, attempt: 0 }) };
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let token = text
        .split_once('-')
        .and_then(|(owner, attempt)| Some(Token { owner: number(owner)?, attempt: number(attempt)? }));
    token.ok_or_else(|| wrong(member, text, "two hexadecimal numbers with a - between them"))
}

#[cfg(test)]
mod tests;
