//! `mailonce keys export` and `keys import`: records as JSON Lines, for backup
//! and for moving between stores.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::cli::reach::{Lines, Reach, Wanted};
use crate::cli::{CliFault, ConfigArgs, print, to_stdout};
use crate::store::search::StateName;
use crate::store::view::RecordView;
use crate::store::{ClaimId, Imported, Record};

/// Records that are imported in one step: claims wait meanwhile.
const BATCH: usize = 250;

/// Octets of lines after which a batch is imported though it has fewer.
const BATCH_OCTETS: usize = 1024 * 1024;

/// Arguments of `keys export`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce keys export claims.jsonl\n  \
    mailonce keys export | ssh other mailonce keys import\n\nAn export that was cut off goes on behind its \
    last whole line:\n  mailonce keys export --after \"$(tail -n1 claims.jsonl | jq -r .id)\" >> claims.jsonl")]
pub struct ExportArgs {
    /// Where the configuration, and in it the admin address and the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only records behind this id (64 digits)
    #[arg(long, value_name = "ID", value_parser = whole_id)]
    pub after: Option<ClaimId>,
    /// Where to; - is standard output
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

/// Arguments of `keys import`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce keys import claims.jsonl")]
pub struct ImportArgs {
    /// Where the configuration, and in it the admin address and the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where from; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

fn whole_id(text: &str) -> Result<ClaimId, String> {
    ClaimId::parse(text).ok_or_else(|| "write all 64 digits of a claim id".to_owned())
}

fn is_dash(file: &Path) -> bool {
    file == Path::new("-")
}

/// Opening, reading or writing a file failed.
fn fault(file: &Path, error: &io::Error) -> CliFault {
    CliFault::Failed(format!("{}: {error}", file.display()))
}

pub(super) fn export(reach: &Reach, args: &ExportArgs) -> Result<(), CliFault> {
    if is_dash(&args.file) {
        return to_stdout(|out| write_records(reach, args.after, out));
    }
    let mut file = BufWriter::new(File::create(&args.file).map_err(|error| fault(&args.file, &error))?);
    write_records(reach, args.after, &mut file)?;
    // A backup is one when it is on the disk.
    let written = file.flush().and_then(|()| file.get_ref().sync_all());
    written.map_err(|error| fault(&args.file, &error))
}

/// Writes every record but pending ones: those have sent nothing, and mean
/// nothing to another store.
pub(super) fn write_records(
    reach: &Reach,
    after: Option<ClaimId>,
    out: &mut dyn Write,
) -> Result<(), CliFault> {
    reach.each(&Wanted { after, ..Wanted::default() }, &mut |view| {
        if view.state != StateName::Pending {
            writeln!(out, "{}", view.to_json())?;
        }
        Ok(ControlFlow::Continue(()))
    })
}

pub(super) fn import(reach: &Reach, args: &ImportArgs) -> Result<(), CliFault> {
    let stream: Box<dyn Read> = match is_dash(&args.file) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&args.file).map_err(|error| fault(&args.file, &error))?),
    };
    let imported = read_records(reach, stream)?;
    print(format!("{}\n", told(&imported)).as_bytes())
}

fn told(imported: &Imported) -> String {
    let Imported { added, kept, expired } = imported;
    format!("{added} added, {kept} kept as the store has them, {expired} expired")
}

/// Imports in batches, each durable before the next is read. A line that is no
/// record ends it; those before it are taken.
pub(super) fn read_records(reach: &Reach, stream: impl Read) -> Result<Imported, CliFault> {
    let mut lines = Lines::new(BufReader::new(stream));
    let mut intake = Intake { reach, batch: Vec::new(), octets: 0, imported: Imported::default() };
    for number in 1_usize.. {
        let record = match lines.next_line() {
            Ok(None) => break,
            Ok(Some(line)) if line.trim().is_empty() => continue,
            Ok(Some(line)) => parse(&line).map(|record| (record, line.len())),
            Err(error) => Err(error.to_string()),
        };
        match record {
            Ok((record, octets)) => intake.add(record, octets)?,
            Err(why) => {
                intake.flush()?;
                let Imported { added, kept, expired } = intake.imported;
                return Err(CliFault::Failed(format!(
                    "line {number} is no record: {why}. The {} before it were taken ({}); mend the line and run \
                     this again",
                    added + kept + expired,
                    told(&intake.imported)
                )));
            }
        }
    }
    intake.flush()?;
    Ok(intake.imported)
}

/// Records on their way into the store.
struct Intake<'a> {
    reach: &'a Reach,
    batch: Vec<Record>,
    /// How long the lines of the batch are together.
    octets: usize,
    imported: Imported,
}

impl Intake<'_> {
    /// `None` is a pending claim, which has sent nothing.
    fn add(&mut self, record: Option<Record>, octets: usize) -> Result<(), CliFault> {
        match record {
            Some(record) => self.batch.push(record),
            None => self.imported.expired += 1,
        }
        self.octets += octets;
        match self.batch.len() >= BATCH || self.octets >= BATCH_OCTETS {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), CliFault> {
        self.octets = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        self.imported += self.reach.import(std::mem::take(&mut self.batch)).map_err(|fault| {
            let before = told(&self.imported);
            CliFault::Failed(format!("{fault}. Before that: {before}; what was taken stays, run this again"))
        })?;
        Ok(())
    }
}

/// The record of a line; `None` for a pending one, which says nothing.
fn parse(line: &str) -> Result<Option<Record>, String> {
    let view: RecordView = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if view.state == StateName::Pending {
        return Ok(None);
    }
    Record::try_from(&view).map(Some)
}
