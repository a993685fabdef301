//! Where log lines go.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::format::LineFormat;
use super::queue::{self, Drain, Loss};
use crate::clock::SystemClock;
use crate::config::{Log, LogFormat, LogLevel};

/// Keeps the log open. Dropping it writes what is still waiting, so it must
/// live until the very end.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct LogGuard {
    _drain: Drain,
}

/// Why there is no log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFault(String);

impl std::fmt::Display for LogFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogFault {}

/// Starts the log of this process. May be called once.
pub fn init(log: &Log) -> Result<LogGuard, LogFault> {
    let started = match &log.file {
        Some(file) => {
            let place = file.display().to_string();
            queue::start(rolling(file)?, move |loss| {
                if let Loss::Failing(error) = &loss {
                    // The only other place there is.
                    let _ = writeln!(
                        io::stderr(),
                        "mailonce: the log {place} can't be written: {error}. Mail goes on; lines are lost until it can"
                    );
                }
                report(loss);
            })
        }
        None => queue::start(io::stderr(), report),
    };
    let no_thread = |error| LogFault(format!("the log can't be started: {error}"));
    let (writer, drain) = started.map_err(no_thread)?;
    let terminal = log.file.is_none() && io::stderr().is_terminal();
    let format = LineFormat {
        json: match log.format {
            LogFormat::Auto => !terminal,
            LogFormat::Text => false,
            LogFormat::Json => true,
        },
        colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        clock: Arc::new(SystemClock),
    };
    subscriber(format, level(log.level), writer)
        .try_init()
        .map_err(|error| LogFault(format!("the log can't be started: {error}")))?;
    Ok(LogGuard { _drain: drain })
}

fn report(loss: Loss) {
    if let Loss::Lines(lost) = loss {
        tracing::warn!(lost, "log lines were lost: they could not be written, or nobody took them in time");
    }
}

/// What turns events into lines; apart from [`init`] so that tests can have
/// one of their own.
pub(super) fn subscriber<W>(
    format: LineFormat,
    level: LevelFilter,
    writer: W,
) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().event_format(format).with_writer(writer);
    tracing_subscriber::registry().with(level).with(lines)
}

/// `mailonce.log` becomes `mailonce.log.2026-11-21`, and a link under the plain
/// name to the newest.
fn rolling(file: &Path) -> Result<RollingFileAppender, LogFault> {
    let fault = |why: String| LogFault(format!("log.file: {}: {why}", file.display()));
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| fault("is not a file name".to_owned()))?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The link would look for a relative path beside itself.
    let directory = std::path::absolute(directory).map_err(|error| fault(error.to_string()))?;
    let builder = RollingFileAppender::builder().rotation(Rotation::DAILY).filename_prefix(name);
    // A file of that name from elsewhere is left alone; then there is no link.
    let linkable = std::fs::symlink_metadata(file).map_or(true, |found| found.is_symlink());
    let builder = if linkable { builder.latest_symlink(name) } else { builder };
    builder.build(directory).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        fault(cause)
    })
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_gets_the_day_and_a_link_under_its_own_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mailonce.log");
        for line in ["one\n", "two\n"] {
            let (mut writer, drain) = queue::start(rolling(&file).unwrap(), report).unwrap();
            writer.write_all(line.as_bytes()).unwrap();
            drop(drain);
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        let dated = std::fs::read_link(&file).unwrap();
        assert!(dated.to_string_lossy().contains("mailonce.log.2"), "{dated:?}");
    }

    #[test]
    fn a_file_from_elsewhere_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mailonce.log");
        std::fs::write(&file, "precious").unwrap();
        rolling(&file).unwrap().write_all(b"line\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn a_log_that_can_not_be_written_names_its_key() {
        let fault = rolling(Path::new("/proc/nowhere/m.log")).unwrap_err().to_string();
        assert!(fault.starts_with("log.file: /proc/nowhere/m.log: "), "{fault}");
        assert!(rolling(Path::new("/")).is_err());
    }
}
