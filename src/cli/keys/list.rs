//! `mailonce keys list`.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::reach::{Reach, Wanted};
use crate::cli::record_view::{Table, short_time};
use crate::cli::{CliFault, ConfigArgs, age};
use crate::store::search::StateName;
use crate::store::view::RecordView;

/// Arguments of `keys list`; a record is listed that passes all of them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce keys list --recipient ann@example.com --since 24h\n  \
    mailonce keys list --key 'order-*' --json | jq .state")]
pub struct ListArgs {
    /// Where the configuration, and in it the admin address and the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only records in this state
    #[arg(long, value_name = "STATE", value_parser = states())]
    pub state: Option<StateName>,
    /// Only records of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Only records for this recipient; * and ? stand for anything
    #[arg(long, value_name = "ADDRESS")]
    pub recipient: Option<String>,
    /// Only records with such a key; * and ? stand for anything
    #[arg(long, value_name = "GLOB")]
    pub key: Option<String>,
    /// Only records seen within this time, such as 30m, 24h or 7d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub since: Option<Duration>,
    /// At most so many records, the newest; 0 for all, in the order of their ids
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// The states by their names.
fn states() -> impl TypedValueParser<Value = StateName> {
    let names = StateName::ALL.map(|state| {
        let name = PossibleValue::new(state.as_str()).help(meaning(state));
        if state == StateName::InDoubt { name.alias("in-doubt") } else { name }
    });
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

fn meaning(state: StateName) -> &'static str {
    match state {
        StateName::Pending => "Claimed, nothing sent",
        StateName::Committing => "The last byte may have left",
        StateName::Accepted => "Accepted by the upstream",
        StateName::Deferred => "4xx; may be sent again",
        StateName::Refused => "5xx; may be sent again",
        StateName::InDoubt => "Nobody knows whether it was sent",
    }
}

/// Writes the records that the arguments ask for, as they come.
pub(super) fn run(reach: &Reach, args: &ListArgs, out: &mut dyn Write) -> Result<(), CliFault> {
    let mut table = Table::new(&HEAD);
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut more = false;
    reach.each(&wanted(args), &mut |view| {
        if left == 0 {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        left -= 1;
        match args.json {
            true => writeln!(out, "{}", view.to_json())?,
            false => table.add(row(&view), out)?,
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if args.json {
        return Ok(());
    }
    match table.finish(out)? {
        0 => writeln!(out, "no records")?,
        _ if more => writeln!(out, "these are the newest; see all with --limit 0")?,
        _ => {}
    }
    Ok(())
}

/// The most that the proxy searches the newest of.
const MOST: usize = 10_000;

/// One more than the limit shows whether there are more.
fn wanted(args: &ListArgs) -> Wanted {
    let ListArgs { state, tenant, recipient, key, since, limit, .. } = args.clone();
    let limit = if (1..MOST).contains(&limit) { limit + 1 } else { limit };
    Wanted { state, tenant, recipient, key, since, limit, after: None }
}

const HEAD: [&str; 8] =
    ["ID", "STATE", "LAST SEEN (UTC)", "TENANT", "RECIPIENT", "STRATEGY", "KEY", "DUPLICATES"];

/// Writes some records as a table.
pub(super) fn write_table(views: &[RecordView], out: &mut dyn Write) -> Result<(), CliFault> {
    let mut table = Table::new(&HEAD);
    for view in views {
        table.add(row(view), out)?;
    }
    table.finish(out)?;
    Ok(())
}

fn row(view: &RecordView) -> Vec<String> {
    vec![
        view.id.chars().take(16).collect(),
        view.state.to_string(),
        short_time(&view.last_seen),
        view.tenant.clone(),
        if view.recipient.is_empty() { "(message)".to_owned() } else { view.recipient.clone() },
        view.strategy.clone(),
        view.key.clone(),
        view.duplicates.to_string(),
    ]
}
