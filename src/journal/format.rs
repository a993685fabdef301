//! One event, one line: text for people, JSON for machines. Decisions and all
//! other lines of the program go through here.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::escape::{for_terminal, push_json, push_text};
use crate::clock::{Clock, Timestamp};

/// How lines look.
#[derive(Clone)]
pub(super) struct LineFormat {
    pub(super) json: bool,
    /// Colours, for a terminal.
    pub(super) colour: bool,
    /// For events that don't bring their own time.
    pub(super) clock: Arc<dyn Clock>,
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Line {
            of_decision: metadata.target() == super::TARGET,
            at: None,
            message: None,
            fields: Fields::new(self.json),
        };
        event.record(&mut line);
        let at = line.at.unwrap_or_else(|| self.clock.now());
        let (level, message) = (*metadata.level(), line.message.as_deref());
        if self.json {
            writeln!(writer, "{}", json_object(at, level, message, &line.fields))
        } else {
            self.write_text(&mut writer, &line, &at.to_rfc3339(), level)
        }
    }
}

/// What one line of the log is in JSON, without its end.
pub(super) fn json_object(at: Timestamp, level: Level, message: Option<&str>, fields: &Fields) -> String {
    let mut out = String::with_capacity(fields.text.len() + 128);
    // Writing to a String can't fail.
    let _ = write!(out, "{{\"timestamp\":\"{}\",\"level\":\"{}\"", at.to_rfc3339(), level_name(level));
    if let Some(text) = message {
        out.push_str(",\"message\":");
        push_json(&mut out, text);
    }
    out.push_str(&fields.text);
    out.push('}');
    out
}

impl LineFormat {
    fn write_text(&self, writer: &mut Writer<'_>, line: &Line, at: &str, level: Level) -> fmt::Result {
        let name = level_name(level);
        match (self.colour, level) {
            (true, Level::ERROR) => write!(writer, "{at} \x1b[31m{name:5}\x1b[0m")?,
            (true, Level::WARN) => write!(writer, "{at} \x1b[33m{name:5}\x1b[0m")?,
            _ => write!(writer, "{at} {name:5}")?,
        }
        if let Some(message) = &line.message {
            write!(writer, " {}", for_terminal(message))?;
        }
        writeln!(writer, "{}", line.fields.text)
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Named values in the form of a line. Those that are `None` are left out.
pub(super) struct Fields {
    json: bool,
    pub(super) text: String,
}

impl Fields {
    pub(super) fn new(json: bool) -> Self {
        Self { json, text: String::with_capacity(512) }
    }

    fn name(&mut self, name: &str) {
        if self.json {
            self.text.push(',');
            push_json(&mut self.text, name);
            self.text.push(':');
        } else {
            self.text.push(' ');
            self.text.push_str(name);
            self.text.push('=');
        }
    }

    /// A value that is the same in both formats.
    pub(super) fn plain(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.name(name);
            // Writing to a String can't fail.
            let _ = write!(self.text, "{value}");
        }
    }

    pub(super) fn text(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.name(name);
        let value = cut(value);
        if self.json { push_json(&mut self.text, &value) } else { push_text(&mut self.text, &value) }
    }
}

/// Collects the fields of one event, ready to be written.
struct Line {
    of_decision: bool,
    at: Option<Timestamp>,
    message: Option<String>,
    fields: Fields,
}

impl Line {
    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            self.message = Some(text.to_owned());
        } else {
            self.fields.text(field.name(), Some(text));
        }
    }
}

/// A header field may be a quarter of a megabyte; a log line need not be.
fn cut(text: &str) -> Cow<'_, str> {
    const MOST: usize = 4096;
    if text.len() <= MOST {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(MOST)]))
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "timestamp" {
            self.at = Some(Timestamp::from_millis(value));
        } else {
            self.fields.plain(field.name(), Some(value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.plain(field.name(), Some(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.plain(field.name(), Some(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinity.
        if value.is_finite() {
            self.fields.plain(field.name(), Some(value))
        } else {
            self.text(field, &value.to_string())
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match (self.of_decision, self.fields.json) {
            // A decision brings its fields along, in either form.
            (true, true) => self.fields.text.push_str(&format!("{value:?}")),
            (true, false) => self.fields.text.push_str(&format!("{value:#?}")),
            (false, _) => self.text(field, &format!("{value:?}")),
        }
    }
}
