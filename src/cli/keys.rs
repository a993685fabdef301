//! `mailonce keys`: the audit trail, read from the store.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::record_view::{RecordView, short_time, state_name, table, to_text};
use super::{CliFault, ConfigArgs, print};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{self, values::parse_duration};
use crate::store::search::{self, Filter, SHORTEST_PREFIX, Search, StateName};
use crate::store::sled::SledStore;
use crate::store::{Record, Store};

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
    /// Show one record with its attempts
    Show(ShowArgs),
}

/// Arguments of `keys list`; a record is listed that passes all of them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce keys list --recipient ann@example.com --since 24h\n  \
    mailonce keys list --key 'order-*' --json | jq .state")]
pub struct ListArgs {
    /// Where the configuration, and in it the store, is.
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

/// Arguments of `keys show`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce keys show 3f9a0c1d\n  mailonce keys show order-7 --json")]
pub struct ShowArgs {
    /// Where the configuration, and in it the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A claim id, at least its first 8 digits, or a key
    #[arg(value_name = "ID-OR-KEY")]
    pub what: String,
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

fn age(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write 90s, 30m, 24h or 7d".to_owned())
}

/// Opens the store and does what the arguments ask for.
pub fn run(args: KeysArgs) -> Result<(), CliFault> {
    let config = match &args.command {
        KeysCommand::List(list) => list.config.load()?,
        KeysCommand::Show(show) => show.config.load()?,
    };
    let store = open_store(&config.store)?;
    let now = SystemClock.now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut out = Vec::new();
    let done = runtime.block_on(async {
        match &args.command {
            KeysCommand::List(args) => list(&*store, args, now, &mut out).await,
            KeysCommand::Show(args) => show(&*store, args, now, &mut out).await,
        }
    });
    print(&out)?;
    done
}

/// Opens the configured store for reading, without settling what a crash left.
fn open_store(store: &config::Store) -> Result<Box<dyn Store>, CliFault> {
    match store {
        config::Store::Memory => Err(CliFault::Failed(
            "store.engine is memory: its records live and end with the proxy and can't be read from outside"
                .to_owned(),
        )),
        config::Store::Sled { path } => Ok(Box::new(SledStore::open_without_recovery(path)?)),
    }
}

fn filter(args: &ListArgs, now: Timestamp) -> Filter {
    let since = args.since.map(|age| {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(age))
    });
    let ListArgs { state, tenant, recipient, key, limit, .. } = args;
    Filter::new(*state, tenant.as_deref(), recipient.as_deref(), key.as_deref(), since, *limit)
}

/// Writes the records that the arguments ask for: with a limit the newest
/// first, without one in the order of their ids.
async fn list(store: &dyn Store, args: &ListArgs, now: Timestamp, out: &mut Vec<u8>) -> Result<(), CliFault> {
    let filter = filter(args, now);
    let mut search = Search::new(store, &filter, now);
    let mut records = Vec::new();
    while let Some(page) = search.next().await? {
        if args.json {
            write_records(&page, args.json, out)?;
        } else {
            records.extend(page);
        }
    }
    if args.json {
        return Ok(());
    }
    write_records(&records, args.json, out)?;
    if search.found() > records.len() {
        writeln!(out, "{} more; see them with --limit 0", search.found() - records.len())?;
    }
    Ok(())
}

fn write_records(records: &[Record], json: bool, out: &mut Vec<u8>) -> Result<(), CliFault> {
    if json {
        for record in records {
            writeln!(out, "{}", RecordView::from(record).to_json())?;
        }
        return Ok(());
    }
    if records.is_empty() {
        writeln!(out, "no records")?;
        return Ok(());
    }
    let row = |record: &Record| {
        vec![
            record.id.short(),
            state_name(&record.state).to_owned(),
            short_time(record.last_seen),
            record.tenant.clone(),
            if record.recipient.is_empty() { "(message)".to_owned() } else { record.recipient.clone() },
            record.strategy.clone(),
            record.key.clone(),
            record.duplicates.to_string(),
        ]
    };
    let head = ["ID", "STATE", "LAST SEEN (UTC)", "TENANT", "RECIPIENT", "STRATEGY", "KEY", "DUPLICATES"];
    let rows: Vec<_> = records.iter().map(row).collect();
    out.extend_from_slice(table(&head, &rows).as_bytes());
    Ok(())
}

/// Writes the record that is meant; where several are, lists them.
async fn show(store: &dyn Store, args: &ShowArgs, now: Timestamp, out: &mut Vec<u8>) -> Result<(), CliFault> {
    let what = args.what.as_str();
    let records = search::find(store, what, now).await?;
    match records.as_slice() {
        [] => Err(CliFault::Failed(format!(
            "no record has the id or key {what:?}; an id needs at least {SHORTEST_PREFIX} digits, and expired records are gone"
        ))),
        [record] if !args.json => {
            out.extend_from_slice(to_text(&RecordView::from(record)).as_bytes());
            Ok(())
        }
        several => {
            write_records(several, args.json, out)?;
            if !args.json {
                writeln!(out, "{} records match; show one by its id", several.len())?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
