//! `mailonce stats`: what became of the mail.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use super::reach::{Missing, Notice, Reach, Stats};
use super::record_view::Table;
use super::{CliFault, ConfigArgs, age, to_stdout};
use crate::config::values::format_duration;
use crate::escape::json_for_terminal;
use crate::store::Tally;

/// Arguments of `stats`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mailonce stats --since 24h\n  mailonce stats --json | jq .suppressed\n\n\
    Counted by the hour and kept for 90 days: --since counts whole hours. OBSERVED are those\n    \
    that observe mode let through and enforcing would have suppressed or refused."
)]
pub struct StatsArgs {
    /// Where the configuration, and in it the admin address and the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only mail of this time, such as 24h or 7d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub since: Option<Duration>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Reaches the counts and writes them.
pub fn run(args: &StatsArgs) -> Result<(), CliFault> {
    let notice = if args.json { Notice::Silent } else { Notice::Say };
    let reach = Reach::of(&args.config.load()?, notice, Missing::Fault)?;
    let stats = reach.stats(args.since);
    let closed = reach.close();
    let stats = stats?;
    to_stdout(|out| match args.json {
        // Text and numbers can always be written.
        true => {
            Ok(writeln!(out, "{}", json_for_terminal(&serde_json::to_string(&stats).unwrap_or_default()))?)
        }
        false => write_text(&stats, args.since, out),
    })?;
    closed
}

fn write_text(stats: &Stats, since: Option<Duration>, out: &mut dyn Write) -> Result<(), CliFault> {
    match since {
        Some(age) => writeln!(out, "recipients in the last {}", format_duration(age))?,
        None => writeln!(out, "recipients in the last 90 days")?,
    }
    let mut table = Table::new(&HEAD);
    table.add(row("all", &stats.all), out)?;
    for (word, tallies) in [("rule", &stats.by_rule), ("tenant", &stats.by_tenant)] {
        add(&mut table, word, tallies, out)?;
    }
    table.finish(out)?;
    Ok(())
}

const HEAD: [&str; 9] =
    ["", "RELAYED", "SUPPRESSED", "CONFLICTS", "IN DOUBT", "UNKEYED", "DEFERRED", "REFUSED", "OBSERVED"];

fn add(
    table: &mut Table,
    word: &str,
    tallies: &BTreeMap<String, Tally>,
    out: &mut dyn Write,
) -> Result<(), CliFault> {
    for (name, tally) in tallies {
        table.add(row(&format!("{word} {name}"), tally), out)?;
    }
    Ok(())
}

fn row(name: &str, tally: &Tally) -> Vec<String> {
    let Tally { relayed, suppressed, conflicts, in_doubt, unkeyed, deferred, refused, observed } = tally;
    let counts = [relayed, suppressed, conflicts, in_doubt, unkeyed, deferred, refused, observed];
    std::iter::once(name.to_owned()).chain(counts.map(u64::to_string)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reach::NONE;

    #[test]
    fn the_figures_make_a_table_and_an_object() {
        let tally = Tally { relayed: 12, suppressed: 31, in_doubt: 1, ..Tally::default() };
        let mut stats = Stats { all: tally, ..Stats::default() };
        stats.by_rule.insert(NONE.to_owned(), tally);
        stats.by_tenant.insert("shop\n".to_owned(), tally);
        let mut out = Vec::new();
        write_text(&stats, Some(Duration::from_secs(7200)), &mut out).unwrap();
        let golden = "\
recipients in the last 2h
               RELAYED  SUPPRESSED  CONFLICTS  IN DOUBT  UNKEYED  DEFERRED  REFUSED  OBSERVED
all            12       31          0          1         0        0         0        0
rule (none)    12       31          0          1         0        0         0        0
tenant shop\\n  12       31          0          1         0        0         0        0
";
        assert_eq!(String::from_utf8(out).unwrap(), golden);
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["suppressed"], 31);
        assert_eq!(json["by_rule"]["(none)"]["in_doubt"], 1);
        assert_eq!(serde_json::from_value::<Stats>(json).unwrap(), stats);
    }
}
