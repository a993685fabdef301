//! The claim store: who may send which e-mail, and what became of it.
//!
//! A claim is taken in one atomic step for all recipients of a message,
//! committed (durably) before the last byte goes upstream, and settled with
//! its outcome. Every write after the claim carries the claim's [`Token`], so
//! a slow old holder can never overwrite a newer claim.

pub mod attempt;
#[cfg(test)]
pub(crate) mod contract;
pub mod counts;
pub mod faulty;
mod heard;
pub mod ledger;
pub mod marks;
pub mod memory;
mod mend;
pub mod names;
mod query;
pub mod record;
pub mod search;
pub mod sled;
pub mod sweeper;
pub mod view;
mod worker;

use async_trait::async_trait;
pub use attempt::{Attempt, AttemptKind};
pub use counts::{Count, Tally};
pub use heard::{Heard, Reception};
pub use marks::{MAX_MARKS, Marks, Share};
pub use mend::{Change, Imported, Resolution};
pub use names::{Names, WrittenField};
pub use query::{Census, Query, Selection};
pub use record::{ClaimId, Fingerprint, Outcome, Record, State, StateName, Suppression, Token};

use crate::clock::Timestamp;
use crate::config::{InDoubt, OnConflict};
use std::time::Duration;

/// What one message wants to claim, in one atomic step.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Names this attempt in every later write.
    pub token: Token,
    /// The time now.
    pub at: Timestamp,
    /// When a claim that never got past `pending` may be taken by another.
    pub lease_until: Timestamp,
    /// One for each id; no id twice.
    pub slots: Vec<Slot>,
    /// How many live records a tenant may have; `None` for any number.
    pub tenant_cap: Option<u64>,
}

/// One id to claim, with what its record will say and which earlier records it
/// may replace.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What is claimed.
    pub id: ClaimId,
    /// The ids that earlier versions gave the same claim. Where nothing stands
    /// under `id`, a record under one of these is moved to it and judged as if
    /// it had always been there. A record of another text is judged where it is:
    /// it may be another tenant's.
    pub former: Vec<ClaimId>,
    /// For the record.
    pub tenant: String,
    /// For the record: the strategy that yielded the key.
    pub strategy: String,
    /// For the record: the key as given.
    pub key: String,
    /// For the record; empty where one claim covers the whole message.
    pub recipient: String,
    /// For the record.
    pub sender: String,
    /// The client's address, for the record where this is a duplicate.
    pub client: String,
    /// For the record; empty without a rule.
    pub rule: String,
    /// What the message means; another one under the same id is a conflict.
    pub fingerprint: Fingerprint,
    /// With one claim for a whole message: the marks of all its recipients
    /// ([`record::recipient_mark`]). Else empty.
    pub marks: Vec<u64>,
    /// For the record, and for a resend.
    pub names: Names,
    /// Octets of the message as received.
    pub size: u64,
    /// How long an outcome is remembered.
    pub window: Duration,
    /// How long at least, where the client received no final reply.
    pub unheard_window: Duration,
    /// What another fingerprint under the same id means.
    pub on_conflict: OnConflict,
    /// What an earlier attempt in doubt means.
    pub in_doubt: InDoubt,
}

impl Slot {
    /// Whether `record` is about the same e-mail. Under
    /// [`OnConflict::Suppress`] another rendering of it is.
    pub fn is_same_mail(&self, record: &Record) -> bool {
        record.fingerprint == self.fingerprint || self.on_conflict == OnConflict::Suppress
    }

    /// Whether what `record` says of single recipients holds for this message.
    /// It does for another text, too: who has the first one does not get the
    /// key's e-mail a second time, unless [`OnConflict::Relay`] asks for it.
    pub fn continues(&self, record: &Record) -> bool {
        record.fingerprint == self.fingerprint || self.on_conflict != OnConflict::Relay
    }

    /// Whether any of its recipients certainly lacks what `record` is about.
    pub fn is_owed(&self, record: &Record) -> bool {
        record.marks.is_lacked_by(&self.marks)
    }
}

/// The answer for one slot.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// The claim is ours. `previous` is the record it replaces (deferred,
    /// refused, in doubt, taken over in a conflict, or accepted while some of
    /// the message's recipients lack it).
    New {
        /// What was known of the id before.
        previous: Option<Box<Record>>,
    },
    /// Settled earlier, as accepted or in doubt; counted as a duplicate.
    Settled {
        /// The record that answers.
        record: Box<Record>,
        /// The fingerprint differs and `OnConflict::Suppress` let it pass.
        conflict: bool,
    },
    /// Another attempt holds it, pending or committing; counted as a duplicate.
    InFlight {
        /// The record as it is now.
        record: Box<Record>,
        /// The fingerprint differs and `OnConflict::Suppress` let it pass.
        conflict: bool,
    },
    /// The same id with another fingerprint, under `OnConflict::Reject`.
    Conflict {
        /// The record that stands in the way.
        record: Box<Record>,
    },
    /// The id is new, and its tenant has as many live records as it may
    /// ([`ClaimRequest::tenant_cap`]). Nothing was claimed.
    OverCap,
    /// The claim would be about more than [`MAX_MARKS`] recipients. Nothing was
    /// claimed.
    TooMany,
}

/// One claim at its commit point.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Which claim.
    pub id: ClaimId,
    /// What is to be known of the recipients should the outcome never be: those
    /// whom the upstream refused already are owed it, those whom the last byte
    /// is about are in doubt. Replaces what the record says.
    pub marks: Marks,
}

impl From<ClaimId> for Commit {
    /// The claim of a single recipient.
    fn from(id: ClaimId) -> Self {
        Self { id, marks: Marks::default() }
    }
}

/// How a claim ended.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Which claim.
    pub id: ClaimId,
    /// What the upstream finally answered. The claim stays in doubt beside it
    /// as long as `marks` has a doubt.
    pub outcome: Outcome,
    /// How the attempt ended, and what caused a doubt.
    pub kind: AttemptKind,
    /// Whether the client received the final reply, as far as is known yet. The
    /// claim is remembered for [`Slot::unheard_window`] at least where it did not.
    pub heard: bool,
    /// The upstream's address, for the record.
    pub upstream: String,
    /// With one claim for a whole message: what is known of its recipients from
    /// now on. Replaces what the record says.
    pub marks: Marks,
    /// With one claim for a whole message: the marks of the recipients of this
    /// attempt. Waiting duplicates need them; the store does not keep them.
    pub tried: Vec<u64>,
}

impl Settlement {
    /// The end of a claim that the upstream was asked about, whose client is
    /// there for the reply.
    pub fn new(id: ClaimId, outcome: Outcome, upstream: impl Into<String>) -> Self {
        let kind = AttemptKind::of(&outcome);
        Self {
            id,
            outcome,
            kind,
            heard: true,
            upstream: upstream.into(),
            marks: Marks::default(),
            tried: Vec::new(),
        }
    }
}

/// Whether a settlement is waited for until it is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Visible to every later call, on disk with the next flush. An engine may
    /// answer before it has looked at the claim, and then logs a fault instead
    /// of returning it.
    Soon,
    /// On stable storage before the call returns.
    Now,
}

/// What is wrong with the store. Whoever meets one has changed nothing that
/// he can rely on; the client hears `451 4.3.0 [STORE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Another process has the directory open.
    Locked(String),
    /// The engine failed: disk full, read-only, an I/O error. The text says
    /// where and what to do.
    Failed(String),
    /// The disk has too little room for new claims; what is under way goes on.
    /// Passes by itself once there is more. The text says where and what to do.
    Full(String),
    /// No answer within the deadline of the watchdog.
    Stalled {
        /// The call that hangs.
        operation: &'static str,
    },
    /// The claim is no longer ours: another holder has taken it over. Nothing
    /// was written.
    Fenced,
}

impl std::error::Error for StoreFault {}

impl std::fmt::Display for StoreFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreFault::Locked(what) | StoreFault::Failed(what) | StoreFault::Full(what) => f.write_str(what),
            StoreFault::Stalled { operation } => write!(f, "the store did not answer {operation} in time"),
            StoreFault::Fenced => f.write_str("the claim was taken over by another attempt"),
        }
    }
}

/// A claim store. Every engine passes the suite in `contract/`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Claims every slot, each on its own merits, in one step that no other
    /// call can interleave with. Answers in the order of the slots. Not
    /// durable: a crash forgets claims that were not committed.
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreFault>;

    /// Makes `pending` claims `committing`, and returns once that is on stable
    /// storage. [`StoreFault::Fenced`], and nothing written, unless the token
    /// holds all of them. With none, waits for what was written before.
    async fn commit(&self, token: Token, commits: Vec<Commit>, at: Timestamp) -> Result<(), StoreFault>;

    /// Ends claims with their outcomes, each on its own merits. Of those that
    /// the token does not hold any more, one that was taken over while it was
    /// committing gets its outcome in place of the doubt that stands for it;
    /// others are left alone, and the answer is then [`StoreFault::Fenced`],
    /// when the outcomes of the rest are as lasting as was asked for.
    async fn settle(
        &self,
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        durability: Durability,
    ) -> Result<(), StoreFault>;

    /// Notes what clients received of the replies to their messages. It returns
    /// at once, is on disk soon, and does nothing where the store has failed.
    fn note_heard(&self, notes: Vec<Heard>, now: Timestamp);

    /// Gives `pending` claims up, as if never claimed. Ids that the token does
    /// not hold as pending are left alone.
    async fn release(&self, token: Token, ids: Vec<ClaimId>) -> Result<(), StoreFault>;

    /// Whether claims can be made now, and if not, why. Goes all the way to
    /// where they are made.
    async fn ready(&self) -> Result<(), StoreFault>;

    /// The record, unless it has expired at `now`.
    async fn get(&self, id: ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault>;

    /// A page of unexpired records in the order of their ids, and where the
    /// next page starts (`None` at the end). A page may be empty though more
    /// follow. An accepted or doubtful record beneath a pending claim follows
    /// that claim, under the same id.
    async fn list(&self, query: Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault>;

    /// Forgets a settled record, durably: the next attempt at it is new.
    /// Refused for a claim in flight.
    async fn forget(&self, id: ClaimId, at: Timestamp) -> Result<Change, StoreFault>;

    /// Settles a claim in doubt as an operator says, durably. Its expiry stays.
    /// Refused for a claim that is not in doubt.
    async fn resolve(&self, id: ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault>;

    /// Takes records of another store over, durably. What was being committed
    /// there is in doubt here from `now` on. May be repeated. Claims wait
    /// meanwhile: bring many records in batches of some hundred.
    async fn import(&self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault>;

    /// Adds to the counts of these hours. Visible to every later call, on disk
    /// soon.
    async fn count(&self, deltas: Vec<Count>) -> Result<(), StoreFault>;

    /// The counts of every hour that ends after `since`, one for each hour,
    /// tenant and rule, in the order of the hours. Those of the last 90 days
    /// are kept.
    async fn counts(&self, since: Timestamp) -> Result<Vec<Count>, StoreFault>;

    /// How many claims there are in each state; costs nothing.
    async fn census(&self) -> Result<Census, StoreFault>;

    /// Removes up to `most` expired records; answers how many went.
    async fn sweep(&self, now: Timestamp, most: usize) -> Result<usize, StoreFault>;

    /// Writes everything down and lets go of the files.
    async fn close(&self) -> Result<(), StoreFault>;
}
