//! `mailonce keys`: the audit trail, read from the store.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use wildmatch::WildMatch;

use super::record_view::{RecordView, short_time, state_name, table};
use super::{CliFault, ConfigArgs, print};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{self, values::parse_duration};
use crate::smtp::address::Path;
use crate::store::sled::SledStore;
use crate::store::{ClaimId, Query, Record, Store};

/// Records looked at in one call of the store.
const PAGE: usize = 1000;

/// The fewest hex digits that are taken for the start of an id.
const SHORTEST_PREFIX: usize = 8;

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
    #[arg(long, value_enum, value_name = "STATE")]
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
    /// At most so many records, the newest; 0 for all
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

/// A state, as it is named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum StateName {
    /// Claimed, nothing sent
    Pending,
    /// The last byte may have left
    Committing,
    /// Accepted by the upstream
    Accepted,
    /// 4xx; may be sent again
    Deferred,
    /// 5xx; may be sent again
    Refused,
    /// Nobody knows whether it was sent
    #[value(alias = "in-doubt")]
    InDoubt,
}

impl StateName {
    fn as_str(self) -> &'static str {
        match self {
            StateName::Pending => "pending",
            StateName::Committing => "committing",
            StateName::Accepted => "accepted",
            StateName::Deferred => "deferred",
            StateName::Refused => "refused",
            StateName::InDoubt => "in_doubt",
        }
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

/// Which records are wanted.
struct Filter<'a> {
    args: &'a ListArgs,
    recipient: Option<WildMatch>,
    key: Option<WildMatch>,
    since: Option<Timestamp>,
}

impl<'a> Filter<'a> {
    fn new(args: &'a ListArgs, now: Timestamp) -> Self {
        let since = args.since.map(|age| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(age))
        });
        Self {
            args,
            recipient: args.recipient.as_deref().map(|glob| WildMatch::new(&address(glob))),
            key: args.key.as_deref().map(WildMatch::new),
            since,
        }
    }

    fn wants(&self, record: &Record) -> bool {
        self.args.state.is_none_or(|state| state.as_str() == state_name(&record.state))
            && self.args.tenant.as_ref().is_none_or(|tenant| *tenant == record.tenant)
            && self.recipient.as_ref().is_none_or(|glob| glob.matches(&address(&record.recipient)))
            && self.key.as_ref().is_none_or(|glob| glob.matches(&record.key))
            && self.since.is_none_or(|since| record.last_seen >= since)
    }
}

/// The form in which spellings of one address are equal.
fn address(text: &str) -> String {
    Path::parse(text).map_or_else(|| text.to_lowercase(), |path| path.identity())
}

/// Sees every unexpired record, a page at a time.
async fn each_record(store: &dyn Store, now: Timestamp, mut see: impl FnMut(Record)) -> Result<(), CliFault> {
    let mut after = None;
    loop {
        let (records, next) = store.list(Query { after, scan: PAGE }, now).await?;
        records.into_iter().for_each(&mut see);
        if next.is_none() {
            return Ok(());
        }
        after = next;
    }
}

/// A record in the order of when it was last seen.
struct ByTime(Record);

impl ByTime {
    fn rank(&self) -> (Timestamp, Reverse<ClaimId>) {
        (self.0.last_seen, Reverse(self.0.id))
    }
}

impl PartialEq for ByTime {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for ByTime {}

impl PartialOrd for ByTime {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTime {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// Writes the records that the arguments ask for, the newest first. Only as
/// many are held in memory as are shown.
async fn list(store: &dyn Store, args: &ListArgs, now: Timestamp, out: &mut Vec<u8>) -> Result<(), CliFault> {
    let filter = Filter::new(args, now);
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let (mut newest, mut found) = (BinaryHeap::new(), 0usize);
    each_record(store, now, |record| {
        if filter.wants(&record) {
            found += 1;
            newest.push(Reverse(ByTime(record)));
            if newest.len() > limit {
                newest.pop();
            }
        }
    })
    .await?;
    // Reverse turns the heap's ascending order into the newest first.
    let records: Vec<Record> =
        newest.into_sorted_vec().into_iter().map(|Reverse(ByTime(record))| record).collect();
    write_records(&records, args.json, out)?;
    if found > records.len() && !args.json {
        writeln!(out, "{} more; see them with --limit 0", found - records.len())?;
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
    let mut records = match full_id(what) {
        Some(id) => store.get(id, now).await?.into_iter().collect(),
        None => Vec::new(),
    };
    if records.is_empty() {
        let digits = what.to_ascii_lowercase();
        let prefix = digits.len() >= SHORTEST_PREFIX && digits.bytes().all(|b| b.is_ascii_hexdigit());
        each_record(store, now, |record| {
            if record.key == what || prefix && record.id.to_string().starts_with(&digits) {
                records.push(record);
            }
        })
        .await?;
    }
    match records.as_slice() {
        [] => Err(CliFault::Failed(format!(
            "no record has the id or key {what:?}; an id needs at least {SHORTEST_PREFIX} digits, and expired records are gone"
        ))),
        [record] if !args.json => {
            out.extend_from_slice(RecordView::from(record).to_text().as_bytes());
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

/// An id with all of its 64 digits.
fn full_id(text: &str) -> Option<ClaimId> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut id = [0; 32];
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(ClaimId(id))
}

#[cfg(test)]
mod tests;
