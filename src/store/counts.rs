//! What became of messages, hour by hour: the figures of `stats`.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Milliseconds of an hour.
const HOUR: u64 = 3_600_000;

/// Whole hours for which counts are kept: 90 days.
const KEPT: u64 = 90 * 24;

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Sent, and accepted by the upstream.
    pub relayed: u64,
    /// Duplicates answered without sending.
    pub suppressed: u64,
    /// The same key with another content.
    pub conflicts: u64,
    /// Attempts whose outcome nobody knows.
    pub in_doubt: u64,
    /// Relayed without a key.
    pub unkeyed: u64,
    /// 4yz, or the upstream could not be reached.
    pub deferred: u64,
    /// 5yz.
    pub refused: u64,
    /// Of all that was sent, what observe mode let through although enforcing
    /// would have answered it as a duplicate, a conflict or a bad key.
    pub observed: u64,
}

impl AddAssign for Tally {
    /// Stops at the largest number instead of wrapping.
    fn add_assign(&mut self, other: Self) {
        let add = |ours: &mut u64, theirs: u64| *ours = ours.saturating_add(theirs);
        add(&mut self.relayed, other.relayed);
        add(&mut self.suppressed, other.suppressed);
        add(&mut self.conflicts, other.conflicts);
        add(&mut self.in_doubt, other.in_doubt);
        add(&mut self.unkeyed, other.unkeyed);
        add(&mut self.deferred, other.deferred);
        add(&mut self.refused, other.refused);
        add(&mut self.observed, other.observed);
    }
}

/// The tally of one tenant and rule in one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Whole hours since 1970-01-01T00:00:00Z.
    pub hour: u64,
    /// Whose messages.
    pub tenant: String,
    /// The rule that matched; empty without one.
    pub rule: String,
    /// What became of them.
    pub tally: Tally,
}

/// The whole hours between 1970 and `at`: the hour that `at` is in.
pub fn hour_of(at: Timestamp) -> u64 {
    at.as_millis() / HOUR
}

/// The oldest hour that is still kept at `now`.
pub(super) fn oldest_kept(now: Timestamp) -> u64 {
    hour_of(now).saturating_sub(KEPT)
}
