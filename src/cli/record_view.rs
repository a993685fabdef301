//! A record as text for people.

use crate::clock::Timestamp;
use crate::escape::for_terminal;
pub use crate::store::view::{AttemptView, RecordView, state_name};

/// Everything known, a line for each field, for people.
pub fn to_text(view: &RecordView) -> String {
    let fields = [
        ("id", view.id.clone()),
        ("state", view.state.to_string()),
        ("tenant", view.tenant.clone()),
        ("strategy", view.strategy.clone()),
        ("key", view.key.clone()),
        (
            "recipient",
            if view.recipient.is_empty() { "(the whole message)" } else { &view.recipient }.to_owned(),
        ),
        ("sender", format!("<{}>", view.sender)),
        ("rule", view.rule.clone().unwrap_or_default()),
        ("fingerprint", view.fingerprint.clone()),
        ("message-id", view.message_id.clone().unwrap_or_default()),
        ("size", format!("{} octets", view.size)),
        ("upstream", view.upstream.clone().unwrap_or_default()),
        ("reply", view.reply.clone().unwrap_or_default()),
        ("first seen", view.first_seen.clone()),
        ("last seen", view.last_seen.clone()),
        ("duplicates", format!("{} suppressed", view.duplicates)),
        ("expires", view.expires.clone()),
    ];
    let attempts =
        view.attempts.iter().map(|attempt| ("attempt", format!("{}  {}", attempt.at, attempt.reply)));
    let lines = fields.into_iter().filter(|(_, text)| !text.is_empty()).chain(attempts);
    lines.map(|(name, text)| format!("{name:<12} {}\n", for_terminal(&text))).collect()
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
