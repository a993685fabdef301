//! One claim for a whole message: what is known of its recipients.

use super::{
    Claimed, Engine, Outcome, Settlement, Slot, Store, WINDOW, accepted, at, claim, deferred, id, in_doubt,
    is_new, previous, refused, settled, settlement, slot, token,
};
use crate::clock::Timestamp;
use crate::config::{InDoubt, OnConflict};
use crate::store::{Commit, Durability, Fingerprint, MAX_MARKS, Marks, Resolution, State};

fn to(recipients: &[u64]) -> Slot {
    Slot { marks: recipients.to_vec(), ..slot(1) }
}

fn rendered_again(on_conflict: OnConflict) -> Slot {
    Slot { fingerprint: Fingerprint([2; 32]), on_conflict, ..to(&[1, 2]) }
}

fn marks(delivered: &[u64], owed: &[u64], doubtful: &[u64]) -> Marks {
    Marks { delivered: delivered.to_vec(), owed: owed.to_vec(), doubtful: doubtful.to_vec() }
}

/// An attempt that settles with these marks.
async fn attempt(store: &dyn Store, attempt: u64, slot: Slot, outcome: Outcome, marks: Marks) {
    let now = at(attempt);
    assert!(is_new(&claim(store, attempt, now, slot).await));
    let settled = vec![Settlement { marks, ..settlement(1, outcome) }];
    store.settle(token(attempt), now, settled, Durability::Now).await.unwrap();
}

async fn known(store: &dyn Store, now: Timestamp) -> Marks {
    store.get(id(1), now).await.unwrap().unwrap().marks
}

pub(crate) async fn marks_are_kept_unless_another_text_takes_over(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    attempt(&*store, 1, to(&[1, 2]), deferred(), marks(&[1], &[2], &[])).await;
    // Somebody has the first text: a key that is reused is to be seen.
    let other = claim(&*store, 2, at(2), rendered_again(OnConflict::Reject)).await;
    assert!(matches!(other, Claimed::Conflict { .. }));
    assert!(is_new(&claim(&*store, 2, at(2), rendered_again(OnConflict::Suppress)).await));
    assert_eq!(known(&*store, at(2)).await, marks(&[1], &[2], &[]));
    store.release(token(2), vec![id(1)]).await.unwrap();
    assert!(is_new(&claim(&*store, 3, at(3), rendered_again(OnConflict::Relay)).await));
    assert_eq!(known(&*store, at(3)).await, Marks::default());
    store.release(token(3), vec![id(1)]).await.unwrap();
    assert_eq!(known(&*store, at(4)).await, marks(&[1], &[2], &[]));
    store.close().await.unwrap();
}

/// A rendering of the e-mail for those who lack it leaves the claim to the first
/// text, which is no conflict when it comes again under another policy.
pub(crate) async fn a_rendering_for_the_rest_leaves_the_claim_to_the_first_text(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for (first, then) in [(deferred(), deferred()), (refused(), accepted()), (accepted(), in_doubt())] {
        attempt(&*store, 1, to(&[1, 2]), first, marks(&[1], &[2], &[])).await;
        attempt(&*store, 2, rendered_again(OnConflict::Suppress), then, marks(&[1], &[], &[2])).await;
        let again = claim(&*store, 3, at(3), Slot { marks: vec![1], ..to(&[1, 2]) }).await;
        assert!(!matches!(again, Claimed::Conflict { .. }), "{again:?}");
        assert_eq!(store.get(id(1), at(3)).await.unwrap().unwrap().fingerprint, slot(1).fingerprint);
        store.release(token(3), vec![id(1)]).await.unwrap();
        store.forget(id(1), at(3)).await.unwrap();
    }
    store.close().await.unwrap();
}

pub(crate) async fn one_who_is_owed_it_makes_the_claim_new(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    attempt(&*store, 1, to(&[1, 2, 3]), deferred(), marks(&[1], &[2, 3], &[])).await;
    attempt(&*store, 2, to(&[2]), accepted(), marks(&[1, 2], &[3], &[])).await;
    for covered in [&[1, 2][..], &[1]] {
        settled(claim(&*store, 3, at(3), to(covered)).await);
    }
    // One that no attempt has named lacks it, too.
    assert!(is_new(&claim(&*store, 3, at(3), to(&[1, 9])).await));
    store.release(token(3), vec![id(1)]).await.unwrap();
    // A key that is reused is to be seen, whoever lacks it.
    let other = Slot { marks: vec![3], ..rendered_again(OnConflict::Reject) };
    assert!(matches!(claim(&*store, 3, at(3), other).await, Claimed::Conflict { .. }));
    let before = previous(claim(&*store, 4, at(4), to(&[1, 3])).await).unwrap();
    assert_eq!(before.state, State::Settled(accepted()));
    assert!(matches!(claim(&*store, 5, at(5), to(&[3])).await, Claimed::InFlight { .. }));
    store.close().await.unwrap();
}

pub(crate) async fn a_doubt_about_one_outlasts_what_comes_of_another(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    attempt(&*store, 1, to(&[1, 2]), in_doubt(), marks(&[], &[2], &[1])).await;
    settled(claim(&*store, 2, at(2), to(&[1])).await);
    let held = Slot { in_doubt: InDoubt::Hold, ..to(&[2]) };
    settled(claim(&*store, 2, at(2), held).await);
    for (number, outcome, now) in [
        (3, deferred(), marks(&[], &[2], &[1])),
        (4, refused(), marks(&[], &[2], &[1])),
        (5, accepted(), marks(&[2], &[], &[1])),
    ] {
        let text = outcome.reply().to_string();
        attempt(&*store, number, to(&[1, 2]), outcome.clone(), now.clone()).await;
        let record = store.get(id(1), at(number)).await.unwrap().unwrap();
        assert!(matches!(record.state, State::Settled(Outcome::InDoubt(_))), "{record:?}");
        assert_eq!(record.attempts.last().unwrap().reply, text);
        // May be repeated after a fault.
        let again = vec![Settlement { marks: now, ..settlement(1, outcome) }];
        store.settle(token(number), at(number), again, Durability::Now).await.unwrap();
    }
    settled(claim(&*store, 6, at(6), to(&[1, 2])).await);
    store.close().await.unwrap();
}

pub(crate) async fn a_commit_tells_who_is_in_doubt_after_a_crash(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    attempt(&*store, 1, to(&[1, 2]), deferred(), marks(&[], &[1, 2], &[])).await;
    assert!(is_new(&claim(&*store, 2, at(2), to(&[1, 2])).await));
    let commit = Commit { id: id(1), marks: marks(&[], &[2], &[1]) };
    store.commit(token(2), vec![commit], at(2)).await.unwrap();

    let (killed, doubtful) = engine.killed(at(3)).await;
    assert_eq!(doubtful.len(), 1);
    assert_eq!(doubtful[0].marks, marks(&[], &[2], &[1]));
    settled(claim(&*killed, 3, at(3), to(&[1])).await);
    assert!(is_new(&claim(&*killed, 4, at(3), to(&[1, 2])).await));
    killed.close().await.unwrap();
    store.close().await.unwrap();
}

pub(crate) async fn a_doubt_is_resolved_for_those_it_is_about(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for (as_, resolved) in
        [(Resolution::Sent, marks(&[3, 1], &[2], &[])), (Resolution::NotSent, marks(&[3], &[2, 1], &[]))]
    {
        attempt(&*store, 1, to(&[1, 2, 3]), in_doubt(), marks(&[3], &[2], &[1])).await;
        store.resolve(id(1), as_, at(2)).await.unwrap();
        assert_eq!(known(&*store, at(2)).await, resolved);
        assert!(is_new(&claim(&*store, 3, at(3), to(&[2])).await));
        store.release(token(3), vec![id(1)]).await.unwrap();
        assert_eq!(is_new(&claim(&*store, 4, at(3), to(&[1])).await), as_ == Resolution::NotSent);
        store.release(token(4), vec![id(1)]).await.unwrap();
        store.forget(id(1), at(4)).await.unwrap();
    }
    store.close().await.unwrap();
}

pub(crate) async fn more_recipients_than_can_be_told_apart_are_not_claimed(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let all: Vec<u64> = (0..=MAX_MARKS as u64).collect();
    let most = &all[..MAX_MARKS];
    assert!(matches!(claim(&*store, 1, at(1), to(&all)).await, Claimed::TooMany));
    assert_eq!(store.get(id(1), at(1)).await.unwrap(), None);
    attempt(&*store, 2, to(most), deferred(), marks(&[], most, &[])).await;
    let more = &all[MAX_MARKS..];
    assert!(matches!(claim(&*store, 3, at(3), to(more)).await, Claimed::TooMany));
    assert!(is_new(&claim(&*store, 4, at(4), to(&most[..2])).await));
    store.close().await.unwrap();
}

/// A recipient that has the first text has it, though another text took the claim
/// over and was not sent.
pub(crate) async fn who_has_the_first_text_has_it_when_another_is_put_off(engine: &dyn Engine) {
    for (marks_before, outcome) in
        [(marks(&[1], &[2], &[]), deferred()), (marks(&[1], &[], &[2]), in_doubt())]
    {
        let (store, _) = engine.open(at(0)).await;
        attempt(&*store, 1, to(&[1, 2]), outcome, marks_before).await;
        let other = rendered_again(OnConflict::Relay);
        attempt(&*store, 2, other, refused(), marks(&[], &[1, 2], &[])).await;
        let known = known(&*store, at(2)).await;
        assert_eq!(known.delivered, [1]);
        store.forget(id(1), at(3)).await.unwrap();
        store.close().await.unwrap();
    }
}

/// What an attempt brought some of a message is remembered for a whole window,
/// though others were refused.
pub(crate) async fn a_window_begins_with_the_last_who_got_it(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    attempt(&*store, 1, to(&[1]), accepted(), marks(&[1], &[], &[])).await;
    attempt(&*store, 100, to(&[1, 2, 3]), refused(), marks(&[1, 2], &[3], &[])).await;
    let late = at(1).plus(WINDOW);
    assert_eq!(known(&*store, late).await, marks(&[1, 2], &[3], &[]));
    assert_eq!(store.get(id(1), at(100).plus(WINDOW)).await.unwrap(), None);
    store.close().await.unwrap();
}

fn another_text(recipients: &[u64]) -> Slot {
    Slot { fingerprint: Fingerprint([2; 32]), on_conflict: OnConflict::Relay, ..to(recipients) }
}

/// The record stands for one text. Its marks never tell of another one, and a
/// recipient who received a text keeps it over a later attempt that sends nothing.
pub(crate) async fn the_marks_of_a_record_are_about_its_own_text(engine: &dyn Engine) {
    // The second text reaches one of two recipients: its retry must spare that one.
    let (store, _) = engine.open(at(0)).await;
    attempt(&*store, 1, to(&[1, 2]), accepted(), marks(&[1, 2], &[], &[])).await;
    attempt(&*store, 2, another_text(&[1, 2]), deferred(), marks(&[1], &[2], &[])).await;
    let before = previous(claim(&*store, 3, at(3), another_text(&[1, 2])).await).unwrap();
    assert_eq!((before.fingerprint, before.marks), (Fingerprint([2; 32]), marks(&[1], &[2], &[])));
    store.release(token(3), vec![id(1)]).await.unwrap();
    store.forget(id(1), at(3)).await.unwrap();

    // The second text reaches no recipient: the first text stays as it was.
    for outcome in [deferred(), refused()] {
        attempt(&*store, 4, to(&[1, 2]), deferred(), marks(&[1], &[2], &[])).await;
        attempt(&*store, 5, another_text(&[1, 3]), outcome, marks(&[], &[1, 3], &[])).await;
        let first = Slot { on_conflict: OnConflict::Relay, ..to(&[1, 2]) };
        let before = previous(claim(&*store, 6, at(6), first).await).unwrap();
        assert_eq!((before.fingerprint, before.marks), (Fingerprint([1; 32]), marks(&[1], &[2], &[])));
        store.release(token(6), vec![id(1)]).await.unwrap();
        store.forget(id(1), at(6)).await.unwrap();
    }
    store.close().await.unwrap();
}

/// A record of an earlier version tells no recipients apart: it is about all of
/// them, also after an attempt that sends nothing.
pub(crate) async fn a_record_about_all_stays_about_all(engine: &dyn Engine) {
    for (known, later) in [
        (accepted(), another_text(&[1, 2])),
        (in_doubt(), another_text(&[1, 2])),
        (in_doubt(), Slot { in_doubt: InDoubt::Resend, ..to(&[1, 2]) }),
    ] {
        let (store, _) = engine.open(at(0)).await;
        attempt(&*store, 1, to(&[1, 2]), known, Marks::default()).await;
        attempt(&*store, 2, later, refused(), marks(&[], &[1, 2], &[])).await;
        settled(claim(&*store, 3, at(3), to(&[1, 2])).await);
        store.forget(id(1), at(3)).await.unwrap();
        store.close().await.unwrap();
    }
}
