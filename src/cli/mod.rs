//! The command line: one file a command.

pub mod check;
pub mod demo;
pub mod dev_cert;
pub mod explain;
pub mod hash_password;

pub mod keys;
pub mod reach;
pub mod record_view;
pub mod serve;
pub mod sink;
pub mod stats;
pub mod tail;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigFault, parse_duration};
use crate::files::FileFault;
use crate::store::StoreFault;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "config/mailonce.toml";

/// An SMTP relay proxy that sends every e-mail once.
///
/// Point an application's SMTP host at it: retries, double clicks and crashed
/// workers no longer send an e-mail twice.
#[derive(Debug, Parser)]
#[command(name = "mailonce", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Example:\n  mailonce demo              see it at work\n  \
    mailonce check && mailonce serve\n\nExit codes: 0 done, 1 failed, 2 wrong usage.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of this version.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    ///
    /// Prints "listening on ADDRESS (NAME)" for each listener, then "ready"; the log goes to
    /// standard error. SIGTERM and SIGINT let attempts under way finish, a second one ends at once.
    /// SIGHUP reads the configuration again.
    Serve(serve::ServeArgs),
    /// Validate the configuration and try the upstream
    ///
    /// Names every fault with file, line and key.
    Check(check::CheckArgs),
    /// Explain what an e-mail counts as: its rule, key, fingerprint and claims, and why
    ///
    /// For designing keys. Asks the running proxy, or the store, whether the e-mail would be relayed
    /// or suppressed now. With --diff, says whether two files count as the same e-mail.
    Explain(explain::ExplainArgs),
    /// Follow the decisions of the running proxy
    Tail(tail::TailArgs),
    /// Look into the claims, and mend them: what was sent to whom, and when
    ///
    /// Asks the running proxy; where none runs, opens the store.
    Keys(keys::KeysArgs),
    /// Count what was relayed, suppressed, in conflict, in doubt
    ///
    /// Asks the running proxy; where none runs, opens the store.
    Stats(stats::StatsArgs),
    /// Run a receiving SMTP server for trying things out
    ///
    /// Keeps messages as .eml files and prints a line for each.
    Sink(sink::SinkArgs),
    /// Show what the proxy does with 32 workers that send one e-mail at once
    ///
    /// Starts a sink and a proxy on free ports, shows that one e-mail arrived and how the other 31
    /// attempts were answered, then keeps running and prints what to try next.
    Demo(demo::DemoArgs),
    /// Hash a password for the file of users
    ///
    /// Asks for it twice on a terminal, else takes the first line of standard input. Prints its
    /// argon2id hash and nothing else.
    HashPassword(hash_password::HashPasswordArgs),
    /// Make a CA and a server certificate for trying TLS out
    ///
    /// For localhost, 127.0.0.1, ::1 and this machine's name. Overwrites nothing, and prints what to
    /// put into the configuration.
    DevCert(dev_cert::DevCertArgs),
}

/// `--config FILE`, for every command that needs the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

impl ConfigArgs {
    /// The configuration with this process's environment laid over it.
    pub fn load(&self) -> Result<Config, CliFault> {
        load_config(&self.config)
    }
}

/// The runtime that a command works on.
fn runtime() -> Result<tokio::runtime::Runtime, CliFault> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Reads a configuration with this process's environment laid over it.
pub fn load_config(file: &Path) -> Result<Config, CliFault> {
    // Variables that are not UTF-8 are other programs' in all likelihood; of
    // ours, the damaged value is refused by its key.
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    let env = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    Config::load(file, env).map_err(CliFault::Config)
}

/// Why a command failed; its text goes to standard error, the exit code is 1.
#[derive(Debug)]
pub enum CliFault {
    /// The operator's: the configuration is faulty.
    Config(ConfigFault),
    /// The store can't be used.
    Store(StoreFault),
    /// Nobody reads standard output any more: `| head` has seen enough. No
    /// reason to complain.
    Closed,
    /// The command was not used as it should be; the exit code is 2.
    Usage(String),
    /// Anything else, said in full.
    Failed(String),
}

impl fmt::Display for CliFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliFault::Config(fault) => write!(f, "{fault}"),
            CliFault::Store(StoreFault::Locked(what)) => {
                write!(f, "the store is in use by a running mailonce: {what}")
            }
            CliFault::Store(fault) => write!(f, "the store can't be used: {fault}"),
            CliFault::Closed => f.write_str("standard output is closed"),
            CliFault::Usage(what) | CliFault::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CliFault {}

impl From<StoreFault> for CliFault {
    fn from(fault: StoreFault) -> Self {
        CliFault::Store(fault)
    }
}

impl From<FileFault> for CliFault {
    fn from(fault: FileFault) -> Self {
        CliFault::Failed(fault.to_string())
    }
}

impl From<std::io::Error> for CliFault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => CliFault::Closed,
            _ => CliFault::Failed(error.to_string()),
        }
    }
}

/// Runs the command that the arguments name: 0 done, 1 failed, 2 wrong usage.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(usage) => {
            // Help and version count as errors here, but go to standard output.
            let code = if usage.use_stderr() { 2 } else { 0 };
            let _ = usage.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliFault::Closed) => ExitCode::SUCCESS,
        Err(fault) => {
            for line in fault.to_string().lines() {
                eprintln!("mailonce: {}", crate::journal::escape::for_terminal(line));
            }
            ExitCode::from(if let CliFault::Usage(_) = fault { 2 } else { 1 })
        }
    }
}

/// Writes what a command found to standard output.
fn print(out: &[u8]) -> Result<(), CliFault> {
    match std::io::stdout().lock().write_all(out) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Lets a command write to standard output in large pieces.
fn to_stdout(work: impl FnOnce(&mut dyn Write) -> Result<(), CliFault>) -> Result<(), CliFault> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = work(&mut out);
    // What was found before a fault is worth seeing.
    let flushed = out.flush();
    done?;
    Ok(flushed?)
}

/// An age on the command line: 90s, 30m, 24h, 7d or whole seconds.
fn age(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write 90s, 30m, 24h or 7d".to_owned())
}

fn dispatch(command: Command) -> Result<(), CliFault> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(args),

        Command::Explain(args) => explain::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Sink(args) => sink::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::HashPassword(args) => hash_password::run(args),
        Command::DevCert(args) => dev_cert::run(&args),
    }
}
