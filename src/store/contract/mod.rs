//! What every engine must do, as one suite of tests.
//!
//! An engine joins by implementing [`Engine`] and writing
//! `contract_suite!(name, engine expression)` in its tests.

pub(crate) mod lasting;
pub(crate) mod life;
pub(crate) mod policy;
pub(crate) mod races;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    ClaimId, ClaimRequest, Claimed, Durability, Fingerprint, Outcome, Record, Settlement, Slot, Store,
    StoreFault, Token,
};
use crate::clock::Timestamp;
use crate::config::{InDoubt, OnConflict};
use crate::smtp::reply::Reply;

/// An engine under test, with somewhere to keep its claims.
#[async_trait]
pub(crate) trait Engine: Send + std::marker::Sync {
    /// Opens the store, again after it was closed; with the records that the
    /// opening found in doubt.
    async fn open(&self, at: Timestamp) -> (Arc<dyn Store>, Vec<Record>);

    /// Whether claims outlive closing and opening again.
    fn durable(&self) -> bool;
}

/// One test for each case of the suite.
macro_rules! contract_suite {
    ($name:ident, $engine:expr) => {
        $crate::store::contract::contract_suite!(@cases $name, $engine,
            races::one_of_many_tasks_gets_the_claim,
            races::overlapping_messages_neither_deadlock_nor_share_a_recipient,
            races::duplicates_are_counted_without_loss,
            life::an_accepted_claim_answers_later_attempts,
            life::a_deferred_or_refused_claim_may_be_taken_again,
            life::a_refusal_before_the_commit_is_recorded,
            life::an_expired_claim_is_absent_swept_or_not,
            life::the_window_starts_at_the_settlement_and_does_not_slide,
            life::release_restores_the_earlier_record,
            life::release_leaves_alone_what_is_not_held_pending,
            life::attempts_are_kept_cut_and_counted,
            life::each_slot_is_judged_on_its_own,
            life::a_settlement_may_be_repeated,
            life::delivered_marks_are_kept_while_the_message_is_the_same,
            life::a_sweep_takes_only_what_is_due,
            life::lists_come_in_pages,
            policy::a_lapsed_lease_is_taken_over_and_fenced,
            policy::a_commit_outlives_its_lease,
            policy::one_lost_claim_fences_a_commit_but_not_the_outcome_of_the_others,
            policy::a_token_that_never_claimed_is_fenced,
            policy::conflicts_follow_the_slot,
            policy::a_conflict_in_flight_can_be_taken_over,
            policy::in_doubt_follows_the_slot,
            policy::a_resend_keeps_the_first_message_id,
            policy::a_lapsed_resend_uncovers_the_doubt,
            lasting::accepted_survives_a_restart,
            lasting::committing_is_in_doubt_after_a_restart,
            lasting::pending_is_forgotten_by_a_restart,
            lasting::a_closed_store_says_so,
        );
    };
    (@cases $name:ident, $engine:expr, $($file:ident :: $case:ident),* $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::store::contract::$file::$case(&$engine).await;
                }
            )*
        }
    };
}
pub(crate) use contract_suite;

pub(crate) const WINDOW: Duration = Duration::from_secs(3600);
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// A moment `seconds` after some start.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
}

pub(crate) fn id(number: u8) -> ClaimId {
    ClaimId([number; 32])
}

pub(crate) fn token(attempt: u64) -> Token {
    Token { owner: 7, attempt }
}

pub(crate) fn slot(number: u8) -> Slot {
    Slot {
        id: id(number),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: format!("order-{number}"),
        recipient: "ann@example.org".into(),
        sender: "shop@example.com".into(),
        client: "192.0.2.1:40000".into(),
        rule: String::new(),
        fingerprint: Fingerprint([1; 32]),
        message_id: Some("<first@example.com>".into()),
        date: Some("Sat, 21 Nov 2026 08:15:00 +0000".into()),
        size: 1234,
        window: WINDOW,
        on_conflict: OnConflict::Reject,
        in_doubt: InDoubt::Suppress,
    }
}

pub(crate) fn request(attempt: u64, now: Timestamp, slots: Vec<Slot>) -> ClaimRequest {
    ClaimRequest { token: token(attempt), at: now, lease_until: now.plus(LEASE), slots, tenant_cap: None }
}

pub(crate) async fn claim(store: &dyn Store, attempt: u64, now: Timestamp, slot: Slot) -> Claimed {
    store.claim(request(attempt, now, vec![slot])).await.unwrap().remove(0)
}

pub(crate) fn accepted() -> Outcome {
    Outcome::Accepted(Reply::new(250, "2.0.0 ok queued as 42"))
}

pub(crate) fn deferred() -> Outcome {
    Outcome::Deferred(Reply::new(451, "4.7.1 try later"))
}

pub(crate) fn refused() -> Outcome {
    Outcome::Refused(Reply::new(550, "5.1.1 no such user"))
}

pub(crate) fn in_doubt() -> Outcome {
    Outcome::InDoubt(Reply::new(451, "4.4.2 [IN-DOUBT] no answer"))
}

pub(crate) fn settlement(number: u8, outcome: Outcome) -> Settlement {
    Settlement { id: id(number), outcome, upstream: "mx.example.net:25".into(), delivered: Vec::new() }
}

pub(crate) async fn settle(
    store: &dyn Store,
    attempt: u64,
    now: Timestamp,
    number: u8,
    outcome: Outcome,
) -> Result<(), StoreFault> {
    store.settle(token(attempt), now, vec![settlement(number, outcome)], Durability::Now).await
}

/// The whole life of one attempt.
pub(crate) async fn send(store: &dyn Store, attempt: u64, now: Timestamp, slot: Slot, outcome: Outcome) {
    let number = slot.id.0[0];
    assert!(is_new(&claim(store, attempt, now, slot).await));
    store.commit(token(attempt), vec![id(number)], now).await.unwrap();
    settle(store, attempt, now, number, outcome).await.unwrap();
}

pub(crate) fn is_new(claimed: &Claimed) -> bool {
    matches!(claimed, Claimed::New { .. })
}

/// The record that a claim was answered with, and whether as a conflict.
pub(crate) fn settled(claimed: Claimed) -> (Record, bool) {
    match claimed {
        Claimed::Settled { record, conflict } => (*record, conflict),
        other => panic!("not settled: {other:?}"),
    }
}

/// The record that a new claim replaced.
pub(crate) fn previous(claimed: Claimed) -> Option<Record> {
    match claimed {
        Claimed::New { previous } => previous.map(|record| *record),
        other => panic!("not new: {other:?}"),
    }
}
