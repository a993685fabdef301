//! What can be asked of a store as a whole.

use std::ops::RangeInclusive;

use super::ClaimId;

/// Which records [`super::Store::list`] gives.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Of which records.
    pub of: Selection,
    /// Start behind this id.
    pub after: Option<ClaimId>,
    /// At most so many records are looked at; a page may hold fewer matches.
    /// 0 for as many as the store looks at in one call.
    pub scan: usize,
}

/// A part of the records that can be found without looking at the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Every record.
    #[default]
    All,
    /// Those with exactly this key.
    Key(String),
    /// Those whose ids lie between these two, both included.
    Ids(RangeInclusive<ClaimId>),
}

/// How many claims there are in each state; expired ones count until they are
/// swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Claimed, nothing sent.
    pub pending: u64,
    /// The last byte may have left.
    pub committing: u64,
    /// Accepted by the upstream.
    pub accepted: u64,
    /// 4yz; may be sent again.
    pub deferred: u64,
    /// 5yz; may be sent again.
    pub refused: u64,
    /// Nobody knows whether it was sent.
    pub in_doubt: u64,
    /// Every record was counted. After an opening that takes a while, and what
    /// was not counted yet is missing here.
    pub complete: bool,
}

impl Census {
    /// Claims in any state.
    pub fn all(&self) -> u64 {
        self.pending + self.committing + self.accepted + self.deferred + self.refused + self.in_doubt
    }
}
