//! `mailonce keys`: the audit trail, and what an operator may do to it.

mod list;
mod mend;
mod show;
#[cfg(test)]
mod tests;
mod transfer;

use clap::Subcommand;

pub use list::ListArgs;
pub use mend::{ReleaseArgs, ResolveArgs};
pub use show::ShowArgs;
pub use transfer::{ExportArgs, ImportArgs};

use super::reach::{Missing, Notice, Reach};
use super::{CliFault, ConfigArgs, to_stdout};
use crate::config::Config;

/// Arguments of `keys`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce keys list --state in_doubt\n  mailonce keys show order-7")]
pub struct KeysArgs {
    /// What to do with the records.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What `keys` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// List records, the newest first
    List(ListArgs),
    /// Show one record: was it sent, and once?
    Show(ShowArgs),
    /// Forget records: the next attempt at each is relayed
    ///
    /// Asks first, unless --yes. A claim whose attempt is under way is not released.
    Release(ReleaseArgs),
    /// Settle claims in doubt, once you know what became of them
    ///
    /// As sent, duplicates are suppressed; as not sent, the next attempt is relayed.
    Resolve(ResolveArgs),
    /// Write all records as JSON Lines, in the order of their ids
    Export(ExportArgs),
    /// Read records that `keys export` wrote
    ///
    /// May be run again: what the store has already, as new or newer, stays.
    Import(ImportArgs),
}

/// Reaches the claims and does what the arguments ask for.
pub fn run(args: &KeysArgs) -> Result<(), CliFault> {
    match &args.command {
        KeysCommand::List(args) => with(&args.config, notice(args.json), Missing::Fault, |reach, _| {
            to_stdout(|out| list::run(reach, args, out))
        }),
        KeysCommand::Show(args) => with(&args.config, notice(args.json), Missing::Fault, |reach, config| {
            to_stdout(|out| show::run(reach, config, args, out))
        }),
        KeysCommand::Release(args) => {
            let consent = mend::Consent::of(args)?;
            with(&args.config, Notice::Say, Missing::Fault, |reach, _| mend::release(reach, args, consent))
        }
        KeysCommand::Resolve(args) => {
            with(&args.config, Notice::Say, Missing::Fault, |reach, _| mend::resolve(reach, args))
        }
        KeysCommand::Export(args) => {
            with(&args.config, Notice::Say, Missing::Fault, |reach, _| transfer::export(reach, args))
        }
        KeysCommand::Import(args) => {
            with(&args.config, Notice::Say, Missing::Create, |reach, _| transfer::import(reach, args))
        }
    }
}

fn notice(json: bool) -> Notice {
    if json { Notice::Silent } else { Notice::Say }
}

/// Does something with the claims, and lets go of them whatever came of it.
fn with(
    config: &ConfigArgs,
    notice: Notice,
    missing: Missing,
    work: impl FnOnce(&Reach, &Config) -> Result<(), CliFault>,
) -> Result<(), CliFault> {
    let config = config.load()?;
    let reach = Reach::of(&config, notice, missing)?;
    let done = work(&reach, &config);
    let closed = reach.close();
    done.and(closed)
}
