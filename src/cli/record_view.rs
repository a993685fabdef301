//! A record as text for people.

use std::io::{self, Write};

use crate::config::{Config, Mode, Rule};
use crate::escape::for_terminal;
use crate::store::AttemptKind;
use crate::store::search::StateName;
use crate::store::view::{AttemptView, RecordView};

/// Who may still be at work on a claim that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The proxy runs.
    ByTheProxy,
    /// No proxy runs: whoever held it is gone.
    ByNobody,
}

/// What was done with the duplicates that a record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// They were answered without sending.
    Suppressed,
    /// They were relayed all the same, for the mode is observe.
    Observed,
}

impl Duplicates {
    /// By the configuration as it is now, and the rule of the record.
    pub fn of(config: &Config, view: &RecordView) -> Self {
        let named = |rule: &&Rule| Some(rule.name.as_str()) == view.rule.as_deref();
        let policy = config.rules.iter().find(named).map_or(&config.dedup, |rule| &rule.dedup);
        match policy.mode {
            Mode::Observe => Duplicates::Observed,
            Mode::Enforce | Mode::Off => Duplicates::Suppressed,
        }
    }
}

/// Everything known, for people: first whether it was sent, and once.
pub fn to_text(view: &RecordView, held: Held, duplicates: Duplicates) -> String {
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
        ("date", view.date.clone().unwrap_or_default()),
        ("size", format!("{} octets", view.size)),
        ("upstream", view.upstream.clone().unwrap_or_default()),
        ("reply", view.reply.clone().unwrap_or_default()),
        ("first seen", view.first_seen.clone()),
        ("last seen", view.last_seen.clone()),
        ("duplicates", shown_duplicates(view)),
        ("expires", view.expires.clone()),
        ("has it", recipients(&view.delivered)),
        ("lacks it", recipients(&view.owed)),
        ("in doubt", recipients(&view.doubtful)),
    ];
    let attempts = view.attempts.iter().map(|a| ("attempt", format!("{}  {}", a.at, a.reply)));
    let word = match duplicates {
        Duplicates::Suppressed => "suppressed",
        Duplicates::Observed => "observed",
    };
    let suppressed = view.suppressed.iter().map(|s| (word, format!("{}  from {}", s.at, s.client)));
    let lines = fields.into_iter().chain(attempts).chain(suppressed).filter(|(_, text)| !text.is_empty());
    let lines: String = lines.map(|(name, text)| format!("{name:<12} {}\n", for_terminal(&text))).collect();
    format!("{}\n\n{lines}", for_terminal(&sent_once(view, held, duplicates)))
}

/// With one claim for a whole message, how many of its recipients.
fn recipients(marks: &[String]) -> String {
    match marks.len() {
        0 => String::new(),
        1 => "1 recipient".to_owned(),
        many => format!("{many} recipients"),
    }
}

fn shown_duplicates(view: &RecordView) -> String {
    match view.suppressed.len() as u64 {
        shown if shown < view.duplicates => format!("{}, the last {shown} are below", view.duplicates),
        _ => view.duplicates.to_string(),
    }
}

/// The one line that answers "was it sent, once?".
pub fn sent_once(view: &RecordView, held: Held, duplicates: Duplicates) -> String {
    let upstream = view.upstream.as_deref().unwrap_or("the upstream");
    let reply = view.reply.as_deref().unwrap_or("no reply");
    let at = settled_at(view);
    match view.state {
        StateName::Accepted if view.attempts.last().is_some_and(|last| last.kind().is_resolution()) => {
            format!("sent once to {upstream}, as an operator confirmed at {at}; {}", since(view, duplicates))
        }
        StateName::Accepted => format!("{}, at {at} by {upstream}; {}", how_often(view), since(view, duplicates)),
        StateName::InDoubt => format!(
            "in doubt: sent at {at} to {upstream}, and nobody knows whether it was accepted; {}. Look for it \
             there, then settle it with mailonce keys resolve --as sent (or --as not-sent)",
            since(view, duplicates)
        ),
        StateName::Deferred => {
            format!("not sent{}: put off at {at} ({reply}); the next attempt is relayed", perhaps_before(view))
        }
        StateName::Refused => {
            format!("not sent{}: refused at {at} ({reply}); the next attempt is relayed", perhaps_before(view))
        }
        StateName::Pending => format!("not sent yet{}: an attempt is under way", perhaps_before(view)),
        StateName::Committing if held == Held::ByTheProxy => {
            "being sent right now: its outcome is not known yet".to_owned()
        }
        StateName::Committing => {
            "perhaps sent: its attempt was at the last byte when the proxy ended. The next start puts it in doubt"
                .to_owned()
        }
    }
}

fn settled_at(view: &RecordView) -> &str {
    let attempt = view.attempts.last().map(|attempt| attempt.at.as_str());
    view.settled_at.as_deref().or(attempt).unwrap_or(&view.last_seen)
}

/// How often an accepted one went out, as far as its attempts tell.
fn how_often(view: &RecordView) -> String {
    let accepted = view.attempts.iter().filter(|attempt| attempt.kind() == AttemptKind::Accepted).count();
    let doubtful = doubts(view);
    let tries = view.attempt_count.unwrap_or(view.attempts.len() as u64);
    if accepted > 1 {
        return format!("accepted {accepted} times, the last");
    }
    match doubtful {
        0 if tries > 1 => format!("accepted once (attempt {tries})"),
        0 => "accepted once".to_owned(),
        1 => "accepted (an earlier attempt is in doubt, so it may have arrived twice)".to_owned(),
        more => format!("accepted ({more} earlier attempts are in doubt, so it may have arrived more often)"),
    }
}

/// Attempts of which nobody knows whether they sent it: what an operator found
/// out settles those before it.
fn doubts(view: &RecordView) -> usize {
    let kinds = view.attempts.iter().rev().map(AttemptView::kind);
    kinds.take_while(|kind| !kind.is_resolution()).filter(|kind| kind.is_doubt()).count()
}

fn perhaps_before(view: &RecordView) -> &'static str {
    if doubts(view) > 0 { ", unless by an earlier attempt that is in doubt" } else { "" }
}

fn since(view: &RecordView, duplicates: Duplicates) -> String {
    let count = match view.duplicates {
        0 => return "no duplicate since".to_owned(),
        1 => "1 duplicate".to_owned(),
        more => format!("{more} duplicates"),
    };
    match duplicates {
        Duplicates::Suppressed => format!("{count} suppressed since"),
        Duplicates::Observed => format!("{count} since, relayed all the same, for mode is observe"),
    }
}

/// Rows after which a table is written, whatever comes later: the widths of
/// its columns then stay.
const ROWS: usize = 1000;

/// Characters of a cell that are shown.
const CELL: usize = 48;

/// A table, columns as wide as the widest cell of its first rows. Cells are
/// escaped and cut to a length that leaves the line readable.
#[derive(Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Known once something was written.
    widths: Option<Vec<usize>>,
    count: usize,
}

impl Table {
    /// An empty table; the head is written with the first row.
    pub fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        Self { head, rows: Vec::new(), widths: None, count: 0 }
    }

    /// Adds a row, and writes rows now and then.
    pub fn add(&mut self, row: Vec<String>, out: &mut dyn Write) -> io::Result<()> {
        let clean = |cell: String| {
            let cell = for_terminal(&cell);
            match cell.char_indices().nth(CELL) {
                Some((end, _)) => format!("{}…", &cell[..end]),
                None => cell.into_owned(),
            }
        };
        self.rows.push(row.into_iter().map(clean).collect());
        self.count += 1;
        if self.rows.len() >= ROWS { self.write(out) } else { Ok(()) }
    }

    /// Writes what is left; answers how many rows there were.
    pub fn finish(mut self, out: &mut dyn Write) -> io::Result<usize> {
        if !self.rows.is_empty() {
            self.write(out)?;
        }
        Ok(self.count)
    }

    fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut lines = std::mem::take(&mut self.rows);
        if self.widths.is_none() {
            lines.insert(0, self.head.clone());
        }
        let widest = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths = self.widths.get_or_insert_with(|| (0..self.head.len()).map(widest).collect());
        for line in &lines {
            let cells = line.iter().zip(widths.iter()).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A time of a record for a table: to the second.
pub fn short_time(rfc3339: &str) -> String {
    let seconds = rfc3339.split(['.', 'Z']).next().unwrap_or(rfc3339);
    format!("{}Z", seconds.replacen('T', " ", 1))
}
