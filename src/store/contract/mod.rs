//! What every engine must do, as one suite of tests.
//!
//! An engine joins by implementing [`Engine`] and writing
//! `contract_suite!(name, engine expression)` in its tests.

pub(crate) mod figures;
pub(crate) mod former;
pub(crate) mod heard;
pub(crate) mod lasting;
pub(crate) mod life;
pub(crate) mod marks;
pub(crate) mod mend;
pub(crate) mod policy;
pub(crate) mod races;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{
    Census, ClaimId, ClaimRequest, Claimed, Durability, Fingerprint, Names, Outcome, Query, Record,
    Selection, Settlement, Slot, Store, StoreFault, Token,
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

    /// Opens what a process that was killed now would leave. The store that is
    /// open goes on beside it.
    async fn killed(&self, at: Timestamp) -> (Arc<dyn Store>, Vec<Record>) {
        self.open(at).await
    }
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
            marks::marks_are_kept_unless_another_text_takes_over,
            marks::the_marks_of_a_record_are_about_its_own_text,
            marks::a_record_about_all_stays_about_all,
            marks::one_who_is_owed_it_makes_the_claim_new,
            marks::a_rendering_for_the_rest_leaves_the_claim_to_the_first_text,
            marks::a_doubt_about_one_outlasts_what_comes_of_another,
            marks::a_commit_tells_who_is_in_doubt_after_a_crash,
            marks::a_doubt_is_resolved_for_those_it_is_about,
            marks::a_window_begins_with_the_last_who_got_it,
            marks::who_has_the_first_text_has_it_when_another_is_put_off,
            marks::more_recipients_than_can_be_told_apart_are_not_claimed,
            life::a_sweep_takes_only_what_is_due,
            life::lists_come_in_pages,
            policy::a_lapsed_lease_is_taken_over_and_fenced,
            policy::a_commit_outlives_its_lease,
            policy::one_lost_claim_fences_a_commit_but_not_the_outcome_of_the_others,
            policy::a_token_that_never_claimed_is_fenced,
            policy::conflicts_follow_the_slot,
            policy::a_conflict_in_flight_can_be_taken_over,
            policy::a_holder_ends_the_doubt_of_a_takeover,
            policy::the_end_of_a_takeover_leaves_a_later_doubt,
            policy::the_end_of_a_takeover_keeps_the_marks_of_others,
            policy::in_doubt_follows_the_slot,
            policy::a_resend_keeps_the_first_message_id,
            policy::a_resend_keeps_a_name_that_only_a_later_attempt_had,
            policy::a_lapsed_resend_uncovers_the_doubt,
            policy::what_is_known_outlasts_an_attempt_that_sends_nothing,
            policy::what_lies_beneath_a_pending_claim_answers_its_own_retry,
            policy::a_duplicate_of_what_was_taken_over_does_not_pass_for_sent,
            policy::a_resend_beside_another_text_keeps_its_names,
            policy::a_series_lasts_as_long_as_its_doubt,
            lasting::accepted_survives_a_restart,
            lasting::a_clock_set_back_makes_no_window_longer_than_it_is,
            lasting::committing_is_in_doubt_after_a_restart,
            lasting::pending_is_forgotten_by_a_restart,
            lasting::a_closed_store_says_so,
            lasting::what_operators_did_outlives_a_kill,
            lasting::figures_and_keys_are_found_again,
            life::those_suppressed_are_noted,
            mend::what_is_forgotten_is_new_again,
            mend::what_is_in_flight_is_not_forgotten,
            mend::what_was_taken_over_is_left_to_its_attempt,
            mend::a_doubt_is_resolved_either_way,
            mend::only_a_doubt_is_resolved,
            mend::an_import_keeps_what_is_newer_and_may_be_repeated,
            mend::an_import_takes_nothing_that_is_no_outcome,
            mend::an_import_unites_what_both_stores_know,
            heard::one_that_no_client_heard_is_remembered_for_longer,
            heard::one_that_was_heard_is_remembered_for_its_window,
            heard::one_that_turns_out_unheard_is_remembered_for_longer,
            heard::a_longer_window_stays,
            heard::a_late_note_leaves_a_newer_settlement_alone,
            heard::one_whose_client_comes_again_is_remembered_whatever_others_hear,
            heard::one_whose_client_comes_again_is_remembered_over_later_attempts,
            heard::a_note_reaches_the_record_beneath_a_claim,
            heard::a_note_leaves_a_claim_what_it_goes_on_with,
            heard::a_restart_keeps_what_is_known_of_the_clients,
            mend::a_record_without_a_window_keeps_its_expiry,
            mend::the_longer_memory_lasts_over_a_restart,
            mend::an_import_leaves_a_doubt_in_doubt,
            mend::an_import_beneath_an_attempt_keeps_its_marks,
            former::a_record_under_a_former_id_suppresses,
            former::a_moved_record_is_found_again_after_a_kill,
            former::a_moved_record_is_judged_by_its_state,
            former::another_rendering_leaves_the_record_to_its_own_text,
            former::who_of_a_whole_message_has_it_moves_along,
            former::a_record_of_another_text_stays_where_it_is,
            former::what_says_more_goes_before_what_says_less,
            former::an_expired_record_is_under_no_former_id,
            former::a_flight_under_a_former_id_is_waited_for,
            former::many_records_of_one_message_move_at_once,
            former::a_new_store_looks_for_no_former_id,
            figures::the_census_follows_every_change,
            figures::what_expired_counts_until_it_is_swept,
            figures::a_tenant_over_its_cap_claims_nothing_new,
            figures::counts_add_up_and_old_ones_go,
            figures::many_counts_come_whole,
            figures::a_key_finds_its_records_in_pages,
            figures::ids_between_two_are_listed_in_pages,
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
        former: Vec::new(),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: format!("order-{number}"),
        recipient: "ann@example.org".into(),
        sender: "shop@example.com".into(),
        client: "192.0.2.1:40000".into(),
        rule: String::new(),
        fingerprint: Fingerprint([1; 32]),
        marks: Vec::new(),
        names: Names::of_texts(Some("<first@example.com>"), Some("Sat, 21 Nov 2026 08:15:00 +0000")),
        size: 1234,
        window: WINDOW,
        unheard_window: Duration::ZERO,
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
    Settlement::new(id(number), outcome, "mx.example.net:25")
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
    store.commit(token(attempt), vec![id(number).into()], now).await.unwrap();
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

/// The census, once everything is counted.
pub(crate) async fn counted(store: &dyn Store) -> Census {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let census = store.census().await.unwrap();
        if census.complete {
            return census;
        }
        assert!(Instant::now() < deadline, "the census does not end: {census:?}");
        tokio::task::yield_now().await;
    }
}

/// The numbers of the records that are listed, page by page.
pub(crate) async fn pages(store: &dyn Store, of: Selection, scan: usize) -> Vec<u8> {
    let mut query = Query { of, after: None, scan };
    let mut found = Vec::new();
    loop {
        let (page, next) = store.list(query.clone(), at(0)).await.unwrap();
        assert!(page.len() <= scan);
        found.extend(page.iter().map(|record| record.id.0[0]));
        if next.is_none() {
            return found;
        }
        query.after = next;
    }
}

/// The numbers of the records with this key.
pub(crate) async fn by_key(store: &dyn Store, key: &str, scan: usize) -> Vec<u8> {
    pages(store, Selection::Key(key.to_owned()), scan).await
}
