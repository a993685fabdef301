//! `mailonce keys show`: was it sent, and once?

use std::io::Write;

use super::list::write_table;
use crate::cli::reach::Reach;
use crate::cli::record_view::{Duplicates, Held, to_text};
use crate::cli::{CliFault, ConfigArgs};
use crate::config::Config;
use crate::store::search::SHORTEST_PREFIX;

/// Arguments of `keys show`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce keys show 3f9a0c1d\n  mailonce keys show order-7 --json")]
pub struct ShowArgs {
    /// Where the configuration, and in it the admin address and the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A claim id, at least its first 8 digits, or a key
    #[arg(value_name = "ID-OR-KEY")]
    pub what: String,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Writes the record that is meant; where several are, lists them.
pub(super) fn run(
    reach: &Reach,
    config: &Config,
    args: &ShowArgs,
    out: &mut dyn Write,
) -> Result<(), CliFault> {
    let what = args.what.as_str();
    let views = reach.find(what)?;
    if views.is_empty() {
        return Err(CliFault::Failed(format!(
            "no record has the id or key {what:?}; an id needs at least {SHORTEST_PREFIX} digits, and expired records are gone"
        )));
    }
    if args.json {
        for view in &views {
            writeln!(out, "{}", view.to_json())?;
        }
        return Ok(());
    }
    let held = if reach.is_live() { Held::ByTheProxy } else { Held::ByNobody };
    if let [view] = views.as_slice() {
        return Ok(out.write_all(to_text(view, held, Duplicates::of(config, view)).as_bytes())?);
    }
    write_table(&views, out)?;
    writeln!(out, "{} records match; show one by its id", views.len())?;
    Ok(())
}
