//! `mailonce keys release` and `keys resolve`: what an operator does to claims.

use std::io::{BufRead, IsTerminal, Write};

use clap::ValueEnum;

use crate::cli::reach::{Changed, Reach};
use crate::cli::{CliFault, ConfigArgs, print};
use crate::escape::for_terminal;
use crate::store::Resolution;
use crate::store::search::SHORTEST_PREFIX;
use crate::store::view::RecordView;

/// Arguments of `keys release`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mailonce keys release 3f9a0c1d\n  mailonce keys release --yes 3f9a0c1d 77b02e4c"
)]
pub struct ReleaseArgs {
    /// Where the configuration, and in it the admin address and the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Claim ids, or at least their first 8 digits; a key that only one record has
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Do not ask first
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `keys resolve`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mailonce keys list --state in_doubt\n  mailonce keys resolve 3f9a0c1d --as sent"
)]
pub struct ResolveArgs {
    /// Where the configuration, and in it the admin address and the store, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Claim ids, or at least their first 8 digits; a key that only one record has
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// What became of it
    #[arg(long = "as", value_name = "OUTCOME")]
    pub as_: Became,
}

/// What an operator found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Became {
    /// The upstream has it: suppress duplicates
    Sent,
    /// The upstream does not have it: relay the next attempt
    NotSent,
}

/// Whether the operator means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    Given,
    Ask,
}

impl Consent {
    /// Nobody can be asked without a terminal; that is known before anything
    /// is touched.
    pub(super) fn of(args: &ReleaseArgs) -> Result<Self, CliFault> {
        match args.yes {
            true => Ok(Consent::Given),
            false if std::io::stdin().is_terminal() => Ok(Consent::Ask),
            false => Err(CliFault::Usage(
                "release forgets that these e-mails were sent, and there is no terminal to ask on; say --yes \
                 to do it"
                    .to_owned(),
            )),
        }
    }
}

pub(super) fn release(reach: &Reach, args: &ReleaseArgs, consent: Consent) -> Result<(), CliFault> {
    let mut tally = Outcomes::default();
    let records = tally.meant(reach, &args.ids)?;
    if consent == Consent::Ask
        && !records.is_empty()
        && !agreed(&records, std::io::stdin().lock(), std::io::stderr().lock())?
    {
        return Err(CliFault::Failed("nothing was released".to_owned()));
    }
    for view in &records {
        let changed = reach.forget(&view.id)?;
        tally.note(view, changed, "released: the next attempt is relayed")?;
    }
    tally.end(args.ids.len(), "released")
}

pub(super) fn resolve(reach: &Reach, args: &ResolveArgs) -> Result<(), CliFault> {
    let mut tally = Outcomes::default();
    let (as_, said) = match args.as_ {
        Became::Sent => (Resolution::Sent, "resolved as sent: duplicates are suppressed"),
        Became::NotSent => (Resolution::NotSent, "resolved as not sent: the next attempt is relayed"),
    };
    for view in tally.meant(reach, &args.ids)? {
        let changed = reach.resolve(&view.id, as_)?;
        tally.note(&view, changed, said)?;
    }
    tally.end(args.ids.len(), "resolved")
}

/// What came of each id; those that failed are named as they come.
#[derive(Default)]
struct Outcomes {
    failed: usize,
}

impl Outcomes {
    /// The records that the ids name, each once.
    fn meant(&mut self, reach: &Reach, ids: &[String]) -> Result<Vec<RecordView>, CliFault> {
        let mut records: Vec<RecordView> = Vec::new();
        for id in ids {
            let mut found = reach.find(id)?;
            match (found.pop(), found.len()) {
                (Some(view), 0) if records.iter().any(|known| known.id == view.id) => {}
                (Some(view), 0) => records.push(view),
                (Some(_), others) => {
                    self.fail(id, &format!("{} records match; name one by more of its id", others + 1));
                }
                (None, _) => {
                    let why = format!(
                        "no record has this id or key; an id needs at least {SHORTEST_PREFIX} digits"
                    );
                    self.fail(id, &why);
                }
            }
        }
        Ok(records)
    }

    fn note(&mut self, view: &RecordView, changed: Changed, done: &str) -> Result<(), CliFault> {
        match changed {
            Changed::Done => print(format!("{}: {done}\n", line(view)).as_bytes()),
            Changed::Absent => {
                self.fail(&view.id, "it has just expired or was released");
                Ok(())
            }
            Changed::Refused(why) => {
                self.fail(&view.id, &why);
                Ok(())
            }
        }
    }

    fn fail(&mut self, id: &str, why: &str) {
        self.failed += 1;
        eprintln!("mailonce: {}: {}", for_terminal(id), for_terminal(why));
    }

    fn end(self, all: usize, done: &str) -> Result<(), CliFault> {
        match self.failed {
            0 => Ok(()),
            failed => Err(CliFault::Failed(format!("{failed} of {all} could not be {done}"))),
        }
    }
}

/// A record on one line.
fn line(view: &RecordView) -> String {
    let recipient = if view.recipient.is_empty() { "the whole message" } else { &view.recipient };
    let id: String = view.id.chars().take(16).collect();
    let text = format!("{id} ({}, {} {}, to {recipient})", view.state, view.strategy, view.key);
    for_terminal(&text).into_owned()
}

/// Asks whether to forget these; only a yes is one.
pub(super) fn agreed(
    records: &[RecordView],
    mut answers: impl BufRead,
    mut questions: impl Write,
) -> Result<bool, CliFault> {
    for view in records {
        writeln!(questions, "{}", line(view))?;
    }
    let what = match records.len() {
        1 => "this record".to_owned(),
        more => format!("these {more} records"),
    };
    write!(
        questions,
        "Forget {what}? The next attempt at each is relayed, whether or not it was sent before. [y/N] "
    )?;
    questions.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
