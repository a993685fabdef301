//! The command line: one file a command.

pub mod check;
pub mod demo;
pub mod keys;
pub mod record_view;
pub mod serve;
pub mod sink;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigFault};
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
    /// Look into the claims: what was sent to whom, and when
    Keys(keys::KeysArgs),
    /// Run a receiving SMTP server for trying things out
    ///
    /// Keeps messages as .eml files and prints a line for each.
    Sink(sink::SinkArgs),
    /// Show what the proxy does with 32 workers that send one e-mail at once
    ///
    /// Starts a sink and a proxy on free ports, shows that one e-mail arrived and how the other 31
    /// attempts were answered, then keeps running and prints what to try next.
    Demo(demo::DemoArgs),
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
    /// The store can't be read.
    Store(StoreFault),
    /// Anything else, said in full.
    Failed(String),
}

impl fmt::Display for CliFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliFault::Config(fault) => write!(f, "{fault}"),
            CliFault::Store(StoreFault::Locked(what)) => write!(
                f,
                "the store is in use by a running mailonce ({what}). Stop the proxy and run this again, \
                 or copy the store's directory and name the copy: MAILONCE_STORE__PATH=COPY mailonce keys ..."
            ),
            CliFault::Store(fault) => write!(f, "the store can't be read: {fault}"),
            CliFault::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CliFault {}

impl From<StoreFault> for CliFault {
    fn from(fault: StoreFault) -> Self {
        CliFault::Store(fault)
    }
}

impl From<std::io::Error> for CliFault {
    fn from(error: std::io::Error) -> Self {
        CliFault::Failed(error.to_string())
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
        Err(fault) => {
            for line in fault.to_string().lines() {
                eprintln!("mailonce: {}", crate::journal::escape::for_terminal(line));
            }
            ExitCode::FAILURE
        }
    }
}

/// Writes what a command found to standard output.
fn print(out: &[u8]) -> Result<(), CliFault> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(out) {
        // `| head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn dispatch(command: Command) -> Result<(), CliFault> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Sink(args) => sink::run(&args),
        Command::Demo(args) => demo::run(&args),
    }
}
