//! Bugs to be planted, so that the simulation can show that it finds them.
//!
//! With the feature `planted-bugs`, [`plant`] lets one of them grow in the
//! thread that calls it. Without the feature none is ever there, and the
//! compiler leaves their code out.

/// A mistake that could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The commit is written when the last octets have left.
    CommitAfterDot,
    /// The last octets leave though the commit has failed.
    SendWithoutCommit,
    /// A holder whose claim was taken over commits and settles all the same.
    NoFence,
    /// A claim that is committing is given up when its outcome is unknown.
    CommittingReleased,
    /// A claim that is committing lapses with its lease.
    CommittingLapses,
    /// A client hears a refusal before that is on stable storage.
    ReplyBeforeSettled,
    /// A duplicate hears an acceptance before that is on stable storage, though
    /// a crash would have it sent again.
    DuplicateBeforeDurable,
    /// An expired claim goes on to suppress.
    ExpiryIgnored,
    /// Tenants share claims.
    TenantLeftOut,
    /// Who waits for a flight is not told that it has landed.
    WaiterNotWoken,
    /// An answer that was lost counts as a deferral.
    DoubtTakenForDeferred,
    /// The refusals of RCPT are given to the next recipient.
    RefusalOfAnother,
    /// What was committing at a crash is forgotten.
    OpenForgotten,
    /// A deferred claim answers its duplicates.
    DeferredSuppresses,
    /// Another text under the same key passes for a duplicate.
    ConflictIgnored,
    /// With one claim for a whole message, nobody notes who has it.
    MarksForgotten,
    /// Accepted for one recipient is accepted for all.
    PartialAccepted,
    /// A doubt about one recipient hides behind another's reply of its class.
    DoubtHidden,
    /// An attempt that sent nothing takes the place of what was known.
    KnowledgeReplaced,
    /// With one claim for a whole message, a recipient that no attempt named
    /// counts as sent to.
    UnnamedTakenForSent,
    /// A provider that honours keys receives the client's own.
    BareKeyUpstream,
    /// A resend carries its own names.
    NamesOfTheLast,
    /// A reply of an odd form counts as none.
    OddReplyDropped,
    /// Content leaves before the upstream has granted it.
    ContentBeforeGrant,
    /// A line that came unasked answers the next command.
    UnaskedAnswers,
    /// A claim whose client received no final reply is forgotten with its window.
    UnheardForgotten,
    /// Tenants of one name are one, however they were proven.
    ProofLeftOut,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::CommitAfterDot,
        Self::SendWithoutCommit,
        Self::NoFence,
        Self::CommittingReleased,
        Self::CommittingLapses,
        Self::ReplyBeforeSettled,
        Self::DuplicateBeforeDurable,
        Self::ExpiryIgnored,
        Self::TenantLeftOut,
        Self::WaiterNotWoken,
        Self::DoubtTakenForDeferred,
        Self::RefusalOfAnother,
        Self::OpenForgotten,
        Self::DeferredSuppresses,
        Self::ConflictIgnored,
        Self::MarksForgotten,
        Self::PartialAccepted,
        Self::DoubtHidden,
        Self::KnowledgeReplaced,
        Self::UnnamedTakenForSent,
        Self::BareKeyUpstream,
        Self::NamesOfTheLast,
        Self::OddReplyDropped,
        Self::ContentBeforeGrant,
        Self::UnaskedAnswers,
        Self::UnheardForgotten,
        Self::ProofLeftOut,
    ];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or takes the one that is there out.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted here.
#[cfg(feature = "planted-bugs")]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted here.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
