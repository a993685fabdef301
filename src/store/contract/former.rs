//! Claims that an earlier version recorded under an id of its own.

use super::{
    Claimed, Engine, LEASE, Record, Slot, Store, WINDOW, accepted, at, by_key, claim, counted, deferred, id,
    in_doubt, is_new, pages, previous, request, send, settle, settled, slot, token,
};
use crate::config::{InDoubt, OnConflict};
use crate::store::{Census, Fingerprint, Marks, Names, Outcome, Selection};

/// What an earlier version called the claim of this number.
fn former(number: u8) -> u8 {
    number + 100
}

/// The slot of today, whose record may stand under the id of before.
fn now(number: u8) -> Slot {
    Slot { former: vec![id(former(number))], ..slot(number) }
}

/// Makes a store of an earlier version of one that is new.
async fn age(store: &dyn Store) {
    store.import(Vec::new(), at(0)).await.unwrap();
}

/// Records an outcome under the id of before, with the key of today.
async fn sent_before(store: &dyn Store, number: u8, outcome: Outcome) -> Record {
    age(store).await;
    let before = Slot { id: id(former(number)), ..slot(number) };
    send(store, 90, at(0), before, outcome).await;
    store.get(id(former(number)), at(0)).await.unwrap().unwrap()
}

pub(crate) async fn a_record_under_a_former_id_suppresses(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let before = sent_before(&*store, 1, accepted()).await;
    let census = Census { accepted: 1, complete: true, ..Census::default() };
    assert_eq!(counted(&*store).await, census);
    let (record, conflict) = settled(claim(&*store, 1, at(5), now(1)).await);
    let touched = (record.last_seen, record.duplicates, record.suppressed.len());
    assert_eq!((touched, conflict), ((at(5), 1, 1), false));
    let moved = Record {
        id: id(1),
        last_seen: at(5),
        duplicates: 1,
        suppressed: record.suppressed.clone(),
        ..before
    };
    assert_eq!(record, moved, "nothing else of it has changed");
    // It is there once: by its id, by its key, in the figures, for the sweeper.
    assert_eq!(store.get(id(former(1)), at(5)).await.unwrap(), None);
    assert_eq!(store.get(id(1), at(5)).await.unwrap(), Some(moved));
    assert_eq!(by_key(&*store, "order-1", 10).await, [1]);
    assert_eq!(pages(&*store, Selection::All, 10).await, [1]);
    assert_eq!(counted(&*store).await, census);
    settled(claim(&*store, 2, at(6), now(1)).await);
    // Its window goes on as it was.
    assert!(is_new(&claim(&*store, 3, at(0).plus(WINDOW), now(1)).await));
    store.release(token(3), vec![id(1)]).await.unwrap();
    assert_eq!(store.sweep(at(0).plus(WINDOW), 10).await.unwrap(), 1);
    assert_eq!(counted(&*store).await, Census { complete: true, ..Census::default() });
    store.close().await.unwrap();
}

pub(crate) async fn a_moved_record_is_found_again_after_a_kill(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    sent_before(&*store, 1, accepted()).await;
    settled(claim(&*store, 1, at(5), now(1)).await);
    let (killed, doubtful) = engine.killed(at(6)).await;
    assert!(doubtful.is_empty());
    settled(claim(&*killed, 2, at(6), now(1)).await);
    killed.close().await.unwrap();
    store.close().await.unwrap();
    let (store, _) = engine.open(at(7)).await;
    settled(claim(&*store, 3, at(7), now(1)).await);
    assert_eq!(pages(&*store, Selection::All, 10).await, [1]);
    assert_eq!(counted(&*store).await.all(), 1);
    store.close().await.unwrap();
}

pub(crate) async fn a_moved_record_is_judged_by_its_state(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for (number, outcome) in [(1, deferred()), (2, in_doubt()), (3, in_doubt()), (4, accepted())] {
        sent_before(&*store, number, outcome).await;
    }
    let put_off = previous(claim(&*store, 1, at(1), now(1)).await).unwrap();
    assert_eq!((put_off.id, put_off.attempt_count), (id(1), 1));
    // Given up, it is as it was.
    store.release(token(1), vec![id(1)]).await.unwrap();
    assert_eq!(store.get(id(1), at(1)).await.unwrap().as_ref(), Some(&put_off));
    assert_eq!(store.get(id(former(1)), at(1)).await.unwrap(), None);
    settled(claim(&*store, 2, at(1), now(2)).await);
    let resend =
        Slot { in_doubt: InDoubt::Resend, names: Names::of_texts(Some("<again@x>"), None), ..now(3) };
    let doubt = previous(claim(&*store, 3, at(1), resend).await).unwrap();
    assert_eq!(doubt.message_id().as_deref(), Some("<first@example.com>"));
    // A rendering that differs is the same mail under this policy, and may be another tenant's.
    let suppress = Slot { fingerprint: Fingerprint([2; 32]), on_conflict: OnConflict::Suppress, ..now(4) };
    let (record, conflict) = settled(claim(&*store, 4, at(1), suppress).await);
    assert_eq!((record.id, conflict), (id(former(4)), true));
    store.close().await.unwrap();
}

/// Two tenants of today were one before. A rendering of the one's e-mail that differs, or an
/// e-mail of its own, does not take the other's record away.
pub(crate) async fn another_rendering_leaves_the_record_to_its_own_text(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    sent_before(&*store, 1, accepted()).await;
    let theirs =
        Slot { id: id(2), fingerprint: Fingerprint([2; 32]), on_conflict: OnConflict::Suppress, ..now(1) };
    let (record, conflict) = settled(claim(&*store, 1, at(1), theirs).await);
    assert_eq!((record.id, conflict), (id(former(1)), true));
    let (record, conflict) = settled(claim(&*store, 2, at(2), now(1)).await);
    assert_eq!((record.id, conflict), (id(1), false));
    store.close().await.unwrap();
}

pub(crate) async fn who_of_a_whole_message_has_it_moves_along(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    age(&*store).await;
    let whole = |slot: Slot, marks: &[u64]| Slot { marks: marks.to_vec(), ..slot };
    let before = Slot { id: id(former(1)), ..slot(1) };
    assert!(is_new(&claim(&*store, 1, at(0), whole(before, &[1, 2])).await));
    store.commit(token(1), vec![id(former(1)).into()], at(0)).await.unwrap();
    let marks = Marks { delivered: vec![1], owed: vec![2], ..Marks::default() };
    let mut outcome = super::settlement(former(1), accepted());
    outcome.marks = marks.clone();
    store.settle(token(1), at(0), vec![outcome], super::Durability::Now).await.unwrap();
    settled(claim(&*store, 2, at(1), whole(now(1), &[1])).await);
    let known = previous(claim(&*store, 3, at(2), whole(now(1), &[2])).await).unwrap();
    assert_eq!((known.id, known.marks), (id(1), marks));
    store.close().await.unwrap();
}

/// It may be another tenant's, who was told apart from this one only now: that
/// tenant's retry must find it.
pub(crate) async fn a_record_of_another_text_stays_where_it_is(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    sent_before(&*store, 1, accepted()).await;
    let another = |on_conflict| Slot {
        id: id(50),
        former: vec![id(former(1))],
        fingerprint: Fingerprint([2; 32]),
        on_conflict,
        ..slot(1)
    };
    let conflict = claim(&*store, 1, at(1), another(OnConflict::Reject)).await;
    assert!(matches!(&conflict, Claimed::Conflict { record } if record.id == id(former(1))), "{conflict:?}");
    assert_eq!(store.get(id(50), at(1)).await.unwrap(), None);
    assert_eq!(previous(claim(&*store, 2, at(2), another(OnConflict::Relay)).await), None);
    store.commit(token(2), vec![id(50).into()], at(2)).await.unwrap();
    settle(&*store, 2, at(2), 50, accepted()).await.unwrap();
    settled(claim(&*store, 3, at(3), now(1)).await);
    settled(claim(&*store, 4, at(3), another(OnConflict::Reject)).await);
    assert_eq!(pages(&*store, Selection::All, 10).await, [1, 50]);
    store.close().await.unwrap();
}

pub(crate) async fn what_says_more_goes_before_what_says_less(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in 1..=3 {
        send(&*store, 1, at(0), slot(number), if number == 1 { in_doubt() } else { deferred() }).await;
    }
    for (number, outcome) in [(1, accepted()), (2, accepted()), (3, deferred())] {
        sent_before(&*store, number, outcome).await;
    }
    // What stands under the id of today decides,
    let (doubt, _) = settled(claim(&*store, 2, at(1), now(1)).await);
    assert_eq!(doubt.state.name().as_str(), "in_doubt");
    // unless it says nothing and the other one does.
    let (sent, _) = settled(claim(&*store, 3, at(1), now(2)).await);
    assert_eq!((sent.id, sent.state.name().as_str()), (id(2), "accepted"));
    assert!(is_new(&claim(&*store, 4, at(1), now(3)).await));
    store.release(token(4), vec![id(3)]).await.unwrap();
    assert_eq!(pages(&*store, Selection::All, 10).await, [1, 2, 3, 101, 103]);
    assert_eq!(counted(&*store).await.all(), 5);
    store.close().await.unwrap();
}

pub(crate) async fn an_expired_record_is_under_no_former_id(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    sent_before(&*store, 1, accepted()).await;
    assert_eq!(previous(claim(&*store, 1, at(0).plus(WINDOW), now(1)).await), None);
    assert_eq!(store.get(id(former(1)), at(0)).await.unwrap().map(|record| record.id), Some(id(former(1))));
    store.close().await.unwrap();
}

/// Not in one process; but an engine that two share may have it.
pub(crate) async fn a_flight_under_a_former_id_is_waited_for(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    age(&*store).await;
    let before = Slot { id: id(former(1)), ..slot(1) };
    assert!(is_new(&claim(&*store, 1, at(0), before).await));
    let flight = claim(&*store, 2, at(1), now(1)).await;
    assert!(matches!(&flight, Claimed::InFlight { record, .. } if record.id == id(former(1))), "{flight:?}");
    // A claim whose lease has run out is no flight.
    let late = at(0).plus(LEASE);
    assert_eq!(previous(claim(&*store, 3, late, now(1)).await), None);
    store.close().await.unwrap();
}

pub(crate) async fn many_records_of_one_message_move_at_once(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in 1..=40 {
        sent_before(&*store, number, accepted()).await;
    }
    let slots = (1..=41).map(now).collect();
    let answers = store.claim(request(1, at(1), slots)).await.unwrap();
    let (new, known): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| is_new(answer));
    assert_eq!((new.len(), known.len()), (1, 40));
    store.release(token(1), vec![id(41)]).await.unwrap();
    assert_eq!(pages(&*store, Selection::All, 100).await, (1..=40).collect::<Vec<u8>>());
    assert_eq!(counted(&*store).await.all(), 40);
    store.close().await.unwrap();
}

/// So it pays nothing for what it can't have.
pub(crate) async fn a_new_store_looks_for_no_former_id(engine: &dyn Engine) {
    let (mut store, _) = engine.open(at(0)).await;
    let other = Slot { id: id(former(1)), ..slot(1) };
    send(&*store, 1, at(0), other, accepted()).await;
    let exported = store.get(id(former(1)), at(0)).await.unwrap().unwrap();
    if engine.durable() {
        store.close().await.unwrap();
        store = engine.open(at(1)).await.0;
    }
    assert_eq!(previous(claim(&*store, 2, at(1), now(1)).await), None);
    store.release(token(2), vec![id(1)]).await.unwrap();
    // Until it has what an earlier version exported.
    store.import(vec![exported], at(2)).await.unwrap();
    if engine.durable() {
        store.close().await.unwrap();
        store = engine.open(at(3)).await.0;
    }
    settled(claim(&*store, 3, at(3), now(1)).await);
    store.close().await.unwrap();
}
