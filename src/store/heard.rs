//! What becomes known of a claim's clients after it was settled.

use super::ClaimId;
use crate::clock::Timestamp;

/// A note about a claim whose client was answered. A store never waits for
/// one: where a crash loses it, the claim is remembered as it was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which claim.
    pub id: ClaimId,
    /// What is known.
    pub reception: Reception,
}

/// What a client received of the reply to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// A final reply to the settlement of this time: 2yz or 5yz, or 4yz where
    /// no recipient has the message or may have it. The claim is remembered for
    /// its window from then on, and no longer.
    Final {
        /// When the claim was settled. A later settlement is left alone.
        settled_at: Timestamp,
    },
    /// None: the client had closed its connection. The claim is remembered for
    /// [`super::Slot::unheard_window`] at least.
    Missed {
        /// When the claim was settled. A later settlement is left alone.
        settled_at: Timestamp,
    },
    /// 4yz, though a recipient has the message or may have it: that client comes
    /// again. The claim, settled or under way, is remembered for
    /// [`super::Slot::unheard_window`] at least, whatever other clients receive.
    ComeAgain,
}
