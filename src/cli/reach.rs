//! How a command reaches the claims: through the running proxy, which has the
//! store to itself, or in the store where no proxy runs.

mod admin_client;
mod lines;
mod own_store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CliFault;
use crate::config::{self, AddressFrom, Admin, Config};
use crate::store::search::StateName;
use crate::store::view::RecordView;
use crate::store::{ClaimId, Imported, Record, Resolution, Tally};
pub use admin_client::{AdminClient, NoProxy};
pub use lines::{Lines, MAX_LINE};
pub use own_store::OwnStore;

/// Where claims and counts are had.
#[derive(Debug)]
pub enum Reach {
    /// The running proxy answers for its store.
    Proxy(AdminClient),
    /// No proxy runs; the store is ours meanwhile.
    Store(OwnStore),
}

/// Whether to tell people that no proxy was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// On standard error.
    Say,
    /// The output is for programs.
    Silent,
}

/// What to do where there is no store yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is a fault: nothing can be in it.
    Fault,
    /// Make one.
    Create,
}

/// Which records are wanted, in the words of the command line.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// In this state.
    pub state: Option<StateName>,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// For such a recipient.
    pub recipient: Option<String>,
    /// With such a key.
    pub key: Option<String>,
    /// Last seen within this time.
    pub since: Option<Duration>,
    /// At most so many, the newest; 0 for all in the order of their ids.
    pub limit: usize,
    /// Only those behind this id; for `limit` 0.
    pub after: Option<ClaimId>,
}

/// What came of changing one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Done, and on stable storage.
    Done,
    /// No unexpired record has the id.
    Absent,
    /// Its state does not allow it; the text says why.
    Refused(String),
}

/// The figures of `stats`; the names are fixed, other programs read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Of all mail.
    #[serde(flatten)]
    pub all: Tally,
    /// The same for each rule; mail without one is under [`NONE`].
    pub by_rule: BTreeMap<String, Tally>,
    /// The same for each tenant.
    pub by_tenant: BTreeMap<String, Tally>,
}

/// Stands for the rule of mail that no rule matched, and for the tenant of mail
/// that was refused before its tenant was known.
pub const NONE: &str = "(none)";

/// Takes records one by one, and says when it has had enough.
pub type Take<'a> = dyn FnMut(RecordView) -> Result<ControlFlow<()>, CliFault> + 'a;

impl Reach {
    /// Asks for the proxy first, then opens the store.
    ///
    /// # Errors
    /// A text that says what to do, where neither can be had.
    pub fn of(config: &Config, notice: Notice, missing: Missing) -> Result<Self, CliFault> {
        let why = match proxy(config)? {
            Ok(client) => return Ok(Reach::Proxy(client)),
            Err(why) => why,
        };
        let config::Store::Sled { path, .. } = &config.store else {
            return Err(CliFault::Failed(format!(
                "{why}, and store.engine is memory: its records live and end with the proxy"
            )));
        };
        if missing == Missing::Fault && !exists(path) {
            return Err(CliFault::Failed(format!("{why}, and there is no store at {} yet", path.display())));
        }
        let store = OwnStore::open(path).map_err(|fault| locked(fault, &why))?;
        if notice == Notice::Say {
            eprintln!("{why}; reading the store in {}", path.display());
        }
        Ok(Reach::Store(store))
    }

    /// Gives every wanted record to `take`: with a limit the newest first,
    /// without one in the order of their ids, none of them held.
    pub fn each(&self, wanted: &Wanted, take: &mut Take<'_>) -> Result<(), CliFault> {
        match self {
            Reach::Proxy(client) => client.each(wanted, take),
            Reach::Store(store) => store.each(wanted, take),
        }
    }

    /// The records that a claim id, the start of one, or a key names.
    pub fn find(&self, what: &str) -> Result<Vec<RecordView>, CliFault> {
        match self {
            Reach::Proxy(client) => client.find(what),
            Reach::Store(store) => store.find(what),
        }
    }

    /// The record with this id.
    pub fn get(&self, id: &ClaimId) -> Result<Option<RecordView>, CliFault> {
        match self {
            Reach::Proxy(client) => client.get(id),
            Reach::Store(store) => store.get(id),
        }
    }

    /// Forgets a record, so that the next attempt is relayed.
    pub fn forget(&self, id: &str) -> Result<Changed, CliFault> {
        match self {
            Reach::Proxy(client) => client.forget(id),
            Reach::Store(store) => store.forget(id),
        }
    }

    /// Settles a claim in doubt.
    pub fn resolve(&self, id: &str, as_: Resolution) -> Result<Changed, CliFault> {
        match self {
            Reach::Proxy(client) => client.resolve(id, as_),
            Reach::Store(store) => store.resolve(id, as_),
        }
    }

    /// Takes records over that another store wrote.
    pub fn import(&self, records: Vec<Record>) -> Result<Imported, CliFault> {
        match self {
            Reach::Proxy(client) => client.import(&records),
            Reach::Store(store) => store.import(records),
        }
    }

    /// What became of the mail of this time, or of all that is counted.
    pub fn stats(&self, since: Option<Duration>) -> Result<Stats, CliFault> {
        match self {
            Reach::Proxy(client) => client.stats(since),
            Reach::Store(store) => store.stats(since),
        }
    }

    /// Whether the proxy runs that holds the claims.
    pub fn is_live(&self) -> bool {
        matches!(self, Reach::Proxy(_))
    }

    /// Lets go of the store, so that a proxy can have it at once.
    pub fn close(self) -> Result<(), CliFault> {
        match self {
            Reach::Proxy(_) => Ok(()),
            Reach::Store(store) => store.close(),
        }
    }
}

/// The running proxy of this configuration, or why there is none, in words
/// that other words can follow.
///
/// # Errors
/// Where something answers that was asked for and can't be used.
pub fn proxy(config: &Config) -> Result<Result<AdminClient, String>, CliFault> {
    let Some(Admin { address, address_from, token_file }) = &config.admin else {
        return Ok(Err("admin.address is \"\", so no proxy can be asked".to_owned()));
    };
    let token = token(token_file)?;
    match AdminClient::reach(*address, token.as_deref()) {
        Ok(client) => Ok(Ok(client)),
        Err(NoProxy::Silent(why)) => Ok(Err(format!("no proxy answers at {address} ({why})"))),
        Err(NoProxy::Stranger(why)) if *address_from == AddressFrom::Default => {
            Ok(Err(format!("what answers at {address} is not the proxy of this configuration ({why})")))
        }
        Err(NoProxy::Stranger(why)) => Err(CliFault::Failed(format!(
            "what answers at {address} is not the proxy of this configuration: {why}; look at admin.address \
             and admin.token_file ({})",
            token_file.display()
        ))),
    }
}

/// The token, where the file is there.
fn token(file: &Path) -> Result<Option<String>, CliFault> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliFault::Failed(format!(
            "the token for the proxy can't be read from {}: {error}; run this as the proxy's user",
            file.display()
        ))),
    }
}

/// Whether there is a store, and not only a directory that other files are in.
fn exists(path: &Path) -> bool {
    path.join("db").exists()
}

fn locked(fault: CliFault, why: &str) -> CliFault {
    match fault {
        CliFault::Store(crate::store::StoreFault::Locked(what)) => CliFault::Failed(format!(
            "{why}, and the store is in use: {what}. If that process is the proxy, let it serve its admin address: admin.address \
             and admin.token_file must be the same here and there (a changed address needs a restart)"
        )),
        other => other,
    }
}
