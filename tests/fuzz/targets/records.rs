//! Records as they are exported and taken back, and what operators type.

use mailonce::store::record::{hex, unhex};
use mailonce::store::view::RecordView;
use mailonce::store::{ClaimId, Outcome, Record, State, StateName};

use super::wire::reply_lines;

pub(super) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        typed(text);
    }
    let Ok(view) = serde_json::from_slice::<RecordView>(data) else { return };
    let record = match Record::try_from(&view) {
        Ok(record) => record,
        Err(fault) => {
            assert!(!fault.contains(['\n', '\r']) && fault.len() < 3000, "{fault:?}");
            return;
        }
    };
    if let State::Settled(outcome) = &record.state {
        answers(outcome);
    }
    let line = RecordView::from(&record).to_json();
    assert!(!line.contains(mailonce::escape::is_unsafe), "{line:?}");
    let again: RecordView = serde_json::from_str(&line).expect("its own JSON");
    assert_eq!(Record::try_from(&again).as_ref(), Ok(&record));
    assert_eq!(RecordView::from(&record), again);
}

/// A duplicate hears the stored reply: it must be one.
fn answers(outcome: &Outcome) {
    let mut wire = Vec::new();
    outcome.reply().write_to(&mut wire);
    let lines = reply_lines(&wire);
    assert!(lines.iter().all(|(code, ..)| *code == outcome.reply().code()));
    if let Outcome::Accepted(reply) = outcome {
        assert!(reply.is_success(), "accepted with {reply}");
    }
}

fn typed(text: &str) {
    if let Some(id) = ClaimId::parse(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    assert_eq!(unhex(text).map(|octets| hex(&octets)), unhex(text).map(|_| text.to_ascii_lowercase()));
    if let Ok(state) = text.parse::<StateName>() {
        assert_eq!(state.as_str(), text.replace('-', "_"));
    }
    if let Some(span) = mailonce::config::parse_ttl(text) {
        assert!(!span.is_zero());
    }
    let _ = mailonce::config::parse_duration(text);
    let shown = mailonce::escape::for_terminal(text);
    assert!(!shown.contains(mailonce::escape::is_unsafe));
    let mut json = String::new();
    mailonce::escape::push_json(&mut json, text);
    assert!(!json.contains(mailonce::escape::is_unsafe));
    assert_eq!(serde_json::from_str::<String>(&json).ok().as_deref(), Some(text));
}
