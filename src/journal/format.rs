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
        let mut line = Line { json: self.json, fields: String::with_capacity(512), ..Line::default() };
        event.record(&mut line);
        let at = line.at.unwrap_or_else(|| self.clock.now()).to_rfc3339();
        let level = event.metadata().level();
        if self.json {
            write_json(&mut writer, &line, &at, *level)
        } else {
            self.write_text(&mut writer, &line, &at, *level)
        }
    }
}

fn write_json(writer: &mut Writer<'_>, line: &Line, at: &str, level: Level) -> fmt::Result {
    let mut message = String::new();
    if let Some(text) = &line.message {
        message.push_str(",\"message\":");
        push_json(&mut message, text);
    }
    let level = level_name(level);
    writeln!(writer, "{{\"timestamp\":\"{at}\",\"level\":\"{level}\"{message}{}}}", line.fields)
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
        writeln!(writer, "{}", line.fields)
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

/// Collects the fields of one event, ready to be written.
#[derive(Default)]
struct Line {
    json: bool,
    at: Option<Timestamp>,
    message: Option<String>,
    fields: String,
}

impl Line {
    fn name(&mut self, field: &Field) {
        if self.json {
            self.fields.push(',');
            push_json(&mut self.fields, field.name());
            self.fields.push(':');
        } else {
            self.fields.push(' ');
            self.fields.push_str(field.name());
            self.fields.push('=');
        }
    }

    /// A value that is the same in both formats.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        // Writing to a String can't fail.
        let _ = write!(self.fields, "{value}");
    }

    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            self.message = Some(text.to_owned());
            return;
        }
        self.name(field);
        let text = cut(text);
        if self.json { push_json(&mut self.fields, &text) } else { push_text(&mut self.fields, &text) }
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
            self.plain(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinity.
        if value.is_finite() { self.plain(field, value) } else { self.text(field, &value.to_string()) }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}
