//! `mailonce explain`: what an e-mail counts as, and why. People design their
//! keys with it, so its output teaches.

mod diff;
mod fate;
mod json;
mod mail;
mod reason;
mod tenant;
mod text;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::reach::{Missing, Notice, Reach, Wanted};
use super::{CliFault, ConfigArgs, print};
use crate::config::{Config, Listener, Scope};
use crate::escape::json_for_terminal;
use crate::identity::Tenant;
use crate::store::record::recipient_mark;
use crate::store::view::RecordView;
use fate::Fate;
use mail::Mail;
use reason::{Reasoning, reason};

/// The most records of one tenant and key that are looked through.
const MOST_ALIKE: usize = 1000;

/// Arguments of `explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce explain welcome.eml --rcpt ann@example.com\n  \
    mailonce explain --diff first.eml retry.eml")]
pub struct ExplainArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The e-mail as a file; - is standard input
    #[arg(value_name = "FILE.eml", required = true, num_args = 1..=2)]
    pub files: Vec<PathBuf>,
    /// Say whether two files count as the same e-mail, and what differs first
    #[arg(long)]
    pub diff: bool,
    /// The sender in the envelope; else what Return-Path or From says
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// A recipient in the envelope; else what To, Cc and Bcc say
    #[arg(long, value_name = "ADDRESS")]
    pub rcpt: Vec<String>,
    /// The tenant; else what the listener makes of the e-mail
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// The listener that it comes in by; else the first
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Whether to explain or to compare.
enum Files<'a> {
    One(&'a Path),
    Two(&'a Path, &'a Path),
}

impl<'a> Files<'a> {
    fn of(args: &'a ExplainArgs) -> Result<Self, CliFault> {
        match (args.diff, args.files.as_slice()) {
            (false, [file]) => Ok(Files::One(file)),
            (true, [first, second]) => Ok(Files::Two(first, second)),
            (true, _) => Err(CliFault::Usage("explain --diff compares two files; name both".to_owned())),
            (false, _) => {
                Err(CliFault::Usage("explain takes one file; to compare two, say --diff".to_owned()))
            }
        }
    }
}

/// How the e-mail would come in.
#[derive(Clone, Debug)]
struct Terms<'c> {
    listener: &'c Listener,
    tenant: Option<String>,
}

/// Explains one e-mail, or compares two.
pub fn run(args: &ExplainArgs) -> Result<(), CliFault> {
    let files = Files::of(args)?;
    let config = args.config.load()?;
    let terms = Terms { listener: listener(&config, args.listener.as_deref())?, tenant: args.tenant.clone() };
    let out = match files {
        Files::One(file) => {
            let mail = Mail::read(file, args, &config)?;
            let reasoning = reason(&config, &mail, &terms);
            let (fates, asked) = foresee(&config, &mail, &reasoning);
            match args.json {
                true => json::one(&mail, &reasoning, &fates, &asked),
                false => text::one(&mail, &reasoning, &fates, &asked),
            }
        }
        Files::Two(first, second) => {
            let (mail, other_mail) = (Mail::read(first, args, &config)?, Mail::read(second, args, &config)?);
            let (one, other) = (reason(&config, &mail, &terms), reason(&config, &other_mail, &terms));
            let compared = diff::compare(&mail, &one, &other_mail, &other);
            if args.json { compared.to_json() } else { compared.to_text() }
        }
    };
    let out = if args.json { json_for_terminal(&out) } else { out };
    print(format!("{out}\n").as_bytes())
}

fn listener<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c Listener, CliFault> {
    let named = |listener: &&Listener| name.is_none_or(|name| name == listener.name);
    config.listeners.iter().find(named).ok_or_else(|| {
        let names: Vec<&str> = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
        let name = name.unwrap_or_default();
        CliFault::Usage(format!("there is no listener {name:?}; there is {}", names.join(", ")))
    })
}

/// What is known of each claim already, and who said so.
fn foresee(config: &Config, mail: &Mail, reasoning: &Reasoning<'_>) -> (Vec<Fate>, String) {
    let unknown =
        |why: String| (Vec::new(), format!("nobody could be asked whether it was sent before: {why}"));
    if reasoning.claims.is_empty() {
        return (Vec::new(), String::new());
    }
    let reach = match Reach::of(config, Notice::Silent, Missing::Fault) {
        Ok(reach) => reach,
        Err(fault) => return unknown(fault.to_string()),
    };
    let marks = match reasoning.policy.scope {
        Scope::Recipient => Vec::new(),
        Scope::Message => {
            mail.envelope.recipients.iter().map(|to| recipient_mark(&to.path.identity())).collect()
        }
    };
    let fate = |claim: &reason::Claim| {
        let view = look_up(&reach, reasoning, claim)?;
        Ok(Fate::of(view.as_ref(), reasoning.policy, &reasoning.fingerprint, &marks))
    };
    let fates: Result<Vec<Fate>, CliFault> = reasoning.claims.iter().map(fate).collect();
    let asked =
        if reach.is_live() { "asked the running proxy" } else { "no proxy runs; looked into its store" };
    match fates.and_then(|fates| reach.close().map(|()| fates)) {
        Ok(fates) => (fates, asked.to_owned()),
        Err(fault) => unknown(fault.to_string()),
    }
}

/// The record that would answer a claim. Where an unknown password is a part of
/// the tenant the claim's id is not known either: then the latest record that
/// looks like it.
fn look_up(
    reach: &Reach,
    reasoning: &Reasoning<'_>,
    claim: &reason::Claim,
) -> Result<Option<RecordView>, CliFault> {
    for id in std::iter::once(&claim.id).chain(&claim.others) {
        if let Some(view) = reach.get(id)? {
            return Ok(Some(view));
        }
    }
    let (Ok(tenant), Some(key), true) = (&reasoning.whose.tenant, reasoning.key(), reasoning.whose.password)
    else {
        return Ok(None);
    };
    let (tenant, value) = (Tenant::name(tenant).to_owned(), key.value.clone());
    let wanted = Wanted { tenant: Some(tenant), key: Some(value), limit: MOST_ALIKE, ..Wanted::default() };
    let mut found = None;
    reach.each(&wanted, &mut |view| {
        let same_key = view.key == key.value && view.strategy == key.strategy.as_str();
        if same_key && view.recipient == claim.recipient {
            found = Some(view);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests;
