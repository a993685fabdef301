//! Who wins: leases, tokens, conflicts, doubts.

use super::{
    Claimed, Engine, LEASE, Slot, WINDOW, accepted, at, by_key, claim, counted, deferred, id, in_doubt,
    is_new, previous, refused, request, send, settle, settled, settlement, slot, token,
};
use crate::clock::Timestamp;
use crate::config::{InDoubt, OnConflict};
use crate::store::{
    AttemptKind, Commit, Durability, Fingerprint, Marks, Names, Resolution, Settlement, Share, State,
    StateName, Store, StoreFault, Token,
};

fn other(on_conflict: OnConflict) -> Slot {
    Slot { fingerprint: Fingerprint([2; 32]), on_conflict, ..slot(1) }
}

fn resend(message_id: &str) -> Slot {
    Slot { in_doubt: InDoubt::Resend, names: Names::of_texts(Some(message_id), None), ..slot(1) }
}

pub(crate) async fn a_lapsed_lease_is_taken_over_and_fenced(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    assert!(matches!(claim(&*store, 2, at(59), slot(1)).await, Claimed::InFlight { .. }));
    assert!(is_new(&claim(&*store, 3, at(0).plus(LEASE), slot(1)).await));
    assert_eq!(store.commit(token(1), vec![id(1).into()], at(61)).await, Err(StoreFault::Fenced));
    assert_eq!(settle(&*store, 1, at(61), 1, accepted()).await, Err(StoreFault::Fenced));
    store.release(token(1), vec![id(1)]).await.unwrap();
    store.commit(token(3), vec![id(1).into()], at(61)).await.unwrap();
    settle(&*store, 3, at(62), 1, accepted()).await.unwrap();
    assert_eq!(settle(&*store, 1, at(63), 1, accepted()).await, Err(StoreFault::Fenced));
    store.close().await.unwrap();
}

pub(crate) async fn a_commit_outlives_its_lease(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1).into()], at(1)).await.unwrap();
    // May be repeated by its holder, and is nobody else's.
    store.commit(token(1), vec![id(1).into()], at(2)).await.unwrap();
    assert_eq!(store.commit(token(2), vec![id(1).into()], at(2)).await, Err(StoreFault::Fenced));
    assert!(matches!(claim(&*store, 2, at(9_999_999), slot(1)).await, Claimed::InFlight { .. }));
    settle(&*store, 1, at(9_999_999), 1, accepted()).await.unwrap();
    store.close().await.unwrap();
}

pub(crate) async fn one_lost_claim_fences_a_commit_but_not_the_outcome_of_the_others(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    store.claim(request(1, at(0), vec![slot(1), slot(2)])).await.unwrap();
    assert!(is_new(&claim(&*store, 2, at(99), slot(2)).await));
    let both = vec![id(1).into(), id(2).into()];
    assert_eq!(store.commit(token(1), both, at(99)).await, Err(StoreFault::Fenced));
    let record = store.get(id(1), at(99)).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Pending { .. }));
    let both = vec![settlement(1, deferred()), settlement(2, deferred())];
    assert_eq!(store.settle(token(1), at(99), both, Durability::Now).await, Err(StoreFault::Fenced));
    let record = store.get(id(1), at(99)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Settled(deferred()));
    let record = store.get(id(2), at(99)).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Pending { holder, .. } if holder == token(2)));
    store.close().await.unwrap();
}

/// The holder of the attempt that was taken over and that the claim's own duplicate is
/// to wait for, beside the doubt that a crash would leave.
async fn under_way(store: &dyn Store, attempt: u64, now: Timestamp) -> Token {
    let kept = store.get(id(1), now).await.unwrap().unwrap();
    assert!(matches!(kept.state, State::Settled(super::Outcome::InDoubt(_))), "{kept:?}");
    for in_doubt in [InDoubt::Suppress, InDoubt::Hold, InDoubt::Resend] {
        let answer = claim(store, attempt, now, Slot { in_doubt, ..slot(1) }).await;
        let Claimed::InFlight { record, conflict: false } = answer else {
            panic!("{in_doubt:?}: {answer:?}")
        };
        assert_eq!(record.state.name(), StateName::Committing);
    }
    let Claimed::InFlight { record, .. } = claim(store, attempt, now, slot(1)).await else { panic!() };
    record.state.holder().unwrap()
}

pub(crate) async fn a_token_that_never_claimed_is_fenced(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert_eq!(store.commit(token(1), vec![id(1).into()], at(0)).await, Err(StoreFault::Fenced));
    assert_eq!(settle(&*store, 1, at(0), 1, accepted()).await, Err(StoreFault::Fenced));
    assert_eq!(store.get(id(1), at(0)).await.unwrap(), None);
    store.close().await.unwrap();
}

pub(crate) async fn conflicts_follow_the_slot(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for (attempt, outcome) in [(1, accepted()), (5, in_doubt())] {
        let now = at(attempt * 10_000);
        send(&*store, attempt, now, slot(1), outcome.clone()).await;
        let conflict = claim(&*store, 90, now, other(OnConflict::Reject)).await;
        assert!(matches!(&conflict, Claimed::Conflict { record } if record.duplicates == 0));
        let (record, conflict) = settled(claim(&*store, 91, now, other(OnConflict::Suppress)).await);
        assert!(conflict);
        assert_eq!((record.duplicates, record.fingerprint), (1, Fingerprint([1; 32])));
        let taken = previous(claim(&*store, 92, now, other(OnConflict::Relay)).await).unwrap();
        assert_eq!(taken.state, State::Settled(outcome.clone()));
        // Given up: what was accepted is accepted still.
        store.release(token(92), vec![id(1)]).await.unwrap();
        assert_eq!(settled(claim(&*store, 93, now, slot(1)).await).0.state, State::Settled(outcome));
    }
    store.close().await.unwrap();
}

pub(crate) async fn a_conflict_in_flight_can_be_taken_over(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    assert!(matches!(claim(&*store, 2, at(0), other(OnConflict::Reject)).await, Claimed::Conflict { .. }));
    let suppressed = claim(&*store, 2, at(0), other(OnConflict::Suppress)).await;
    assert!(matches!(suppressed, Claimed::InFlight { conflict: true, .. }));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    assert!(is_new(&claim(&*store, 3, at(1), other(OnConflict::Relay)).await));
    // Given up, it leaves a doubt, not a flight without a pilot.
    store.release(token(3), vec![id(1)]).await.unwrap();
    assert_eq!(under_way(&*store, 4, at(2)).await, token(1));
    // Sent, it takes its place.
    assert!(is_new(&claim(&*store, 5, at(3), other(OnConflict::Relay)).await));
    store.commit(token(5), vec![id(1).into()], at(3)).await.unwrap();
    settle(&*store, 5, at(3), 1, refused()).await.unwrap();
    assert_eq!(under_way(&*store, 6, at(3)).await, token(1), "it sent nothing");
    // The first holder still knows better.
    settle(&*store, 1, at(4), 1, accepted()).await.unwrap();
    assert_eq!(store.get(id(1), at(4)).await.unwrap().unwrap().state, State::Settled(accepted()));
    store.close().await.unwrap();
}

pub(crate) async fn a_holder_ends_the_doubt_of_a_takeover(engine: &dyn Engine) {
    for outcome in [accepted(), deferred(), refused()] {
        for given_up_before in [true, false] {
            let (store, _) = engine.open(at(0)).await;
            assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
            store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
            assert!(is_new(&claim(&*store, 2, at(1), other(OnConflict::Relay)).await));
            let give_up = async || store.release(token(2), vec![id(1)]).await.unwrap();
            if given_up_before {
                give_up().await;
            }
            settle(&*store, 1, at(2), 1, outcome.clone()).await.unwrap();
            if !given_up_before {
                give_up().await;
            }
            let record = store.get(id(1), at(3)).await.unwrap().unwrap();
            assert_eq!((&record.state, record.attempt_count), (&State::Settled(outcome.clone()), 1));
            let census = counted(&*store).await;
            assert_eq!((census.accepted + census.deferred + census.refused, census.in_doubt), (1, 0));
            assert_eq!(store.sweep(at(1).plus(WINDOW), 10).await.unwrap(), 0);
            assert_eq!(store.sweep(at(2).plus(WINDOW), 10).await.unwrap(), 1);
            store.close().await.unwrap();
        }
    }
}

pub(crate) async fn in_doubt_follows_the_slot(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), in_doubt()).await;
    settled(claim(&*store, 2, at(1), slot(1)).await);
    settled(claim(&*store, 3, at(1), Slot { in_doubt: InDoubt::Hold, ..slot(1) }).await);
    let before = previous(claim(&*store, 4, at(1), resend("<second@example.com>")).await).unwrap();
    assert_eq!(before.state, State::Settled(in_doubt()));
    assert_eq!(before.duplicates, 2);
    store.close().await.unwrap();
}

pub(crate) async fn a_resend_keeps_the_first_message_id(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    // Before any doubt the latest name counts.
    send(&*store, 1, at(0), resend("<zero@example.com>"), deferred()).await;
    send(&*store, 2, at(1), resend("<one@example.com>"), in_doubt()).await;
    for (attempt, outcome) in [(3, in_doubt()), (4, deferred()), (5, accepted())] {
        let slot = resend(&format!("<later-{attempt}@example.com>"));
        send(&*store, attempt, at(attempt), slot, outcome).await;
        let record = store.get(id(1), at(attempt)).await.unwrap().unwrap();
        assert_eq!(record.message_id().as_deref(), Some("<one@example.com>"));
    }
    store.close().await.unwrap();
}

/// A name that the first attempt in doubt lacked is that of the next attempt, so
/// that a third one is the same message as the second.
pub(crate) async fn a_resend_keeps_a_name_that_only_a_later_attempt_had(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let (id_field, date) = (Some("<one@example.com>"), Some("Sat, 21 Nov 2026 08:15:00 +0000"));
    for (attempt, names) in [
        (1, Names::default()),
        (2, Names::of_texts(id_field, None)),
        (3, Names::of_texts(Some("<three@example.com>"), date)),
        (4, Names::of_texts(Some("<four@example.com>"), Some("Sun, 22 Nov 2026 08:15:00 +0000"))),
    ] {
        let slot = Slot { names, ..resend("") };
        send(&*store, attempt, at(attempt), slot, in_doubt()).await;
    }
    let record = store.get(id(1), at(4)).await.unwrap().unwrap();
    assert_eq!(record.names, Names::of_texts(id_field, date));
    store.close().await.unwrap();
}

pub(crate) async fn a_lapsed_resend_uncovers_the_doubt(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), in_doubt()).await;
    assert!(is_new(&claim(&*store, 2, at(1), resend("<two@example.com>")).await));
    settled(claim(&*store, 3, at(500), slot(1)).await);
    assert_eq!(store.commit(token(2), vec![id(1).into()], at(500)).await, Err(StoreFault::Fenced));
    store.close().await.unwrap();
}

/// What the upstream has, or may have, outlasts a later attempt that sent
/// nothing, whatever let that attempt begin.
pub(crate) async fn what_is_known_outlasts_an_attempt_that_sends_nothing(engine: &dyn Engine) {
    let another_text = || other(OnConflict::Relay);
    let again = || resend("<again@example.com>");
    for (known, later) in [(accepted(), another_text()), (in_doubt(), another_text()), (in_doubt(), again())]
    {
        for nothing in [deferred(), refused()] {
            let (store, _) = engine.open(at(0)).await;
            send(&*store, 1, at(0), slot(1), known.clone()).await;
            let first = store.get(id(1), at(0)).await.unwrap().unwrap();
            assert!(is_new(&claim(&*store, 2, at(1), later.clone()).await));
            let listed = by_key(&*store, "order-1", 10).await;
            assert_eq!(listed, [1, 1], "the list shows the attempt, and what lies beneath");
            store.commit(token(2), vec![id(1).into()], at(1)).await.unwrap();
            settle(&*store, 2, at(2), 1, nothing.clone()).await.unwrap();
            settle(&*store, 2, at(2), 1, nothing.clone()).await.expect("a settlement may be repeated");

            let record = store.get(id(1), at(3)).await.unwrap().unwrap();
            assert_eq!(record.state, State::Settled(known.clone()));
            assert_eq!((record.fingerprint, record.expires), (first.fingerprint, first.expires));
            assert_eq!((record.attempt_count, record.attempts[1].kind), (2, AttemptKind::of(&nothing)));
            let (answers, conflict) = settled(claim(&*store, 3, at(3), slot(1)).await);
            assert_eq!((answers.state, conflict), (State::Settled(known.clone()), false));
            let census = counted(&*store).await;
            assert_eq!((census.accepted + census.in_doubt, census.deferred + census.refused), (1, 0));
            store.close().await.unwrap();

            let (store, doubtful) = engine.open(at(4)).await;
            assert!(doubtful.is_empty(), "no attempt was under way");
            if engine.durable() {
                assert_eq!(
                    store.get(id(1), at(4)).await.unwrap().unwrap().state,
                    State::Settled(known.clone())
                );
                store.forget(id(1), at(4)).await.unwrap();
            }
            store.close().await.unwrap();
        }
    }
}

/// A provider that honours keys is to take a resend for the first attempt, and
/// everything else for another e-mail.
pub(crate) async fn a_series_lasts_as_long_as_its_doubt(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let series = async |attempt: u64, slot: Slot, outcome| {
        send(&*store, attempt, at(attempt), slot, outcome).await;
        store.get(id(1), at(attempt)).await.unwrap().unwrap().series
    };
    let again = || resend("<again@example.com>");
    assert_eq!(series(1, again(), deferred()).await, token(1));
    assert_eq!(series(2, again(), in_doubt()).await, token(2), "a deferral ends a series");
    for (attempt, outcome) in [(3, in_doubt()), (4, deferred()), (5, refused()), (6, in_doubt())] {
        assert_eq!(series(attempt, again(), outcome).await, token(2));
    }
    assert_eq!(series(7, other(OnConflict::Relay), in_doubt()).await, token(7), "another text");
    store.resolve(id(1), Resolution::NotSent, at(8)).await.unwrap();
    assert_eq!(series(9, other(OnConflict::Relay), in_doubt()).await, token(9), "resolved as not sent");
    store.forget(id(1), at(10)).await.unwrap();
    assert_eq!(series(11, again(), in_doubt()).await, token(11), "released");
    store.close().await.unwrap();
}

/// A retry of what the upstream has is a duplicate, though another text is about
/// to take the claim over.
pub(crate) async fn what_lies_beneath_a_pending_claim_answers_its_own_retry(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), accepted()).await;
    assert!(is_new(&claim(&*store, 2, at(1), other(OnConflict::Relay)).await));
    for on_conflict in [OnConflict::Relay, OnConflict::Reject, OnConflict::Suppress] {
        let again = Slot { on_conflict, ..slot(1) };
        let (record, conflict) = settled(claim(&*store, 3, at(2), again).await);
        assert_eq!((record.state, conflict), (State::Settled(accepted()), false), "{on_conflict:?}");
    }
    store.commit(token(2), vec![id(1).into()], at(3)).await.expect("the other text keeps its claim");
    store.close().await.unwrap();
}

/// The end of an attempt that was taken over ends its own doubt. It says nothing of
/// a later attempt at the same text, which has a doubt of its own.
pub(crate) async fn the_end_of_a_takeover_leaves_a_later_doubt(engine: &dyn Engine) {
    let first = || Slot { on_conflict: OnConflict::Relay, ..slot(1) };
    for late in [deferred(), refused()] {
        let (store, _) = engine.open(at(0)).await;
        assert!(is_new(&claim(&*store, 1, at(0), first()).await));
        store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
        send(&*store, 2, at(1), other(OnConflict::Relay), accepted()).await;
        send(&*store, 3, at(2), first(), in_doubt()).await;
        let answer = settle(&*store, 1, at(3), 1, late).await;
        assert_eq!(answer, Err(StoreFault::Fenced));
        let (record, _) = settled(claim(&*store, 4, at(4), first()).await);
        assert_eq!(record.state, State::Settled(in_doubt()));
        store.forget(id(1), at(4)).await.unwrap();
        store.close().await.unwrap();
    }
}

/// One claim for a whole message: the end of an attempt that was taken over leaves
/// alone who received the message since.
pub(crate) async fn the_end_of_a_takeover_keeps_the_marks_of_others(engine: &dyn Engine) {
    let first = |recipient| Slot { marks: vec![recipient], on_conflict: OnConflict::Relay, ..slot(1) };
    let delivered = Marks { delivered: vec![2], doubtful: vec![1], ..Marks::default() };
    for (late, marks) in [
        (accepted(), Marks { delivered: vec![1], ..Marks::default() }),
        (deferred(), Marks { owed: vec![1], ..Marks::default() }),
    ] {
        let (store, _) = engine.open(at(0)).await;
        assert!(is_new(&claim(&*store, 1, at(0), first(1)).await));
        let doubt = Marks { doubtful: vec![1], ..Marks::default() };
        store.commit(token(1), vec![Commit { id: id(1), marks: doubt }], at(0)).await.unwrap();
        assert!(is_new(&claim(&*store, 2, at(1), other(OnConflict::Relay)).await));
        store.release(token(2), vec![id(1)]).await.unwrap();
        assert!(is_new(&claim(&*store, 3, at(2), first(2)).await));
        let since = Settlement { marks: delivered.clone(), ..settlement(1, accepted()) };
        store.settle(token(3), at(2), vec![since], Durability::Now).await.unwrap();
        let late = Settlement { marks, ..settlement(1, late) };
        store.settle(token(1), at(3), vec![late], Durability::Now).await.unwrap();
        let record = store.get(id(1), at(4)).await.unwrap().unwrap();
        assert_eq!(record.marks.share(2), Some(Share::Delivered), "{record:?}");
        store.forget(id(1), at(4)).await.unwrap();
        store.close().await.unwrap();
    }
}

/// A claim that was taken over while its holder lives is no doubt yet to its own
/// duplicate, though another text is about to be sent.
pub(crate) async fn a_duplicate_of_what_was_taken_over_does_not_pass_for_sent(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    assert!(is_new(&claim(&*store, 2, at(1), other(OnConflict::Relay)).await));
    let own = || Slot { on_conflict: OnConflict::Relay, ..slot(1) };
    let answer = claim(&*store, 3, at(2), own()).await;
    let Claimed::InFlight { record, conflict: false } = answer else { panic!("{answer:?}") };
    assert_eq!(record.state, State::Committing { holder: token(1) });
    settle(&*store, 1, at(3), 1, in_doubt()).await.unwrap();
    let (record, _) = settled(claim(&*store, 4, at(4), own()).await);
    assert_eq!(record.state, State::Settled(in_doubt()), "its holder does not know either");
    store.close().await.unwrap();
}

/// Another text holds a claim in doubt and has sent nothing yet. A resend of the first
/// text keeps the first names and the first series.
pub(crate) async fn a_resend_beside_another_text_keeps_its_names(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), in_doubt()).await;
    let doubt = store.get(id(1), at(0)).await.unwrap().unwrap();
    assert!(is_new(&claim(&*store, 2, at(1), other(OnConflict::Relay)).await));
    let again = Slot { on_conflict: OnConflict::Relay, ..resend("<again@example.com>") };
    let known = previous(claim(&*store, 3, at(2), again.clone()).await).unwrap();
    assert_eq!((known.names_for(&again), known.series), (Some(&doubt.names), doubt.series));
    assert_eq!(store.commit(token(2), vec![id(1).into()], at(3)).await, Err(StoreFault::Fenced));
    store.release(token(3), vec![id(1)]).await.unwrap();
    assert_eq!(store.get(id(1), at(3)).await.unwrap(), Some(doubt));
    store.close().await.unwrap();
}
