//! Forgetting, resolving, importing.

use std::time::Duration;

use super::{
    Claimed, Engine, LEASE, Outcome, Record, Slot, Store, WINDOW, accepted, at, by_key, claim, counted,
    deferred, id, in_doubt, is_new, previous, refused, send, settle, settled, settlement, slot, token,
};
use crate::config::{InDoubt, OnConflict};
use crate::smtp::reply::Reply;
use crate::store::{
    Change, Durability, Fingerprint, Imported, Marks, Resolution, Settlement, State, StateName, StoreFault,
};

fn done(change: Change) -> Record {
    match change {
        Change::Done(record) => *record,
        other => panic!("not done: {other:?}"),
    }
}

fn is_refused(change: &Change) -> bool {
    matches!(change, Change::Refused(_))
}

pub(crate) async fn what_is_forgotten_is_new_again(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for (attempt, outcome) in [(1, accepted()), (2, deferred()), (3, refused()), (4, in_doubt())] {
        send(&*store, attempt, at(attempt), slot(1), outcome.clone()).await;
        let forgotten = done(store.forget(id(1), at(9)).await.unwrap());
        assert_eq!(forgotten.state, State::Settled(outcome));
        assert_eq!(store.get(id(1), at(9)).await.unwrap(), None);
        assert_eq!(by_key(&*store, "order-1", 10).await, [0; 0]);
        assert_eq!(store.forget(id(1), at(9)).await.unwrap(), Change::Absent);
    }
    assert!(previous(claim(&*store, 5, at(10), slot(1)).await).is_none());
    store.release(token(5), vec![id(1)]).await.unwrap();
    assert_eq!(store.sweep(at(10).plus(WINDOW), 10).await.unwrap(), 0, "nothing is left of it");
    // Its settler may still repeat itself, and brings nothing back.
    assert_eq!(settle(&*store, 4, at(11), 1, in_doubt()).await, Err(StoreFault::Fenced));
    assert_eq!(store.get(id(1), at(11)).await.unwrap(), None);
    store.close().await.unwrap();
}

pub(crate) async fn what_is_in_flight_is_not_forgotten(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert_eq!(store.forget(id(1), at(0)).await.unwrap(), Change::Absent);
    send(&*store, 1, at(0), slot(1), deferred()).await;
    assert!(is_new(&claim(&*store, 2, at(1), slot(1)).await));
    assert!(is_refused(&store.forget(id(1), at(1)).await.unwrap()));
    // Its lease ran out: nobody holds it any more.
    let late = at(1).plus(LEASE);
    assert_eq!(done(store.forget(id(1), late).await.unwrap()).state, State::Settled(deferred()));
    assert!(is_new(&claim(&*store, 3, late, slot(1)).await));
    store.commit(token(3), vec![id(1).into()], late).await.unwrap();
    let change = store.forget(id(1), late.plus(WINDOW)).await.unwrap();
    assert!(matches!(change, Change::Refused(record) if matches!(record.state, State::Committing { .. })));
    settle(&*store, 3, late, 1, accepted()).await.unwrap();
    assert_eq!(store.forget(id(1), late.plus(WINDOW)).await.unwrap(), Change::Absent, "it expired");
    store.close().await.unwrap();
}

/// Another text took the claim over while it was being committed, and was given up. The first
/// attempt is still under way, and its outcome is not known yet.
pub(crate) async fn what_was_taken_over_is_left_to_its_attempt(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    let other = Slot { fingerprint: Fingerprint([2; 32]), on_conflict: OnConflict::Relay, ..slot(1) };
    assert!(is_new(&claim(&*store, 2, at(1), other).await));
    store.release(token(2), vec![id(1)]).await.unwrap();
    let changes = [
        store.forget(id(1), at(2)).await.unwrap(),
        store.resolve(id(1), Resolution::NotSent, at(2)).await.unwrap(),
        store.resolve(id(1), Resolution::Sent, at(2)).await.unwrap(),
    ];
    for change in changes {
        assert!(
            matches!(&change, Change::Refused(record) if record.state.name() == StateName::Committing),
            "{change:?}"
        );
    }
    settle(&*store, 1, at(3), 1, accepted()).await.unwrap();
    assert_eq!(settled(claim(&*store, 3, at(3), slot(1)).await).0.state, State::Settled(accepted()));
    assert_eq!(done(store.forget(id(1), at(4)).await.unwrap()).state, State::Settled(accepted()));
    store.close().await.unwrap();
}

pub(crate) async fn a_doubt_is_resolved_either_way(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in [1, 2] {
        send(&*store, number.into(), at(0), slot(number), in_doubt()).await;
    }
    let sent = done(store.resolve(id(1), Resolution::Sent, at(50)).await.unwrap());
    let reply = Reply::new(250, "2.0.0 sent earlier, confirmed by an operator");
    assert_eq!(sent.state, State::Settled(Outcome::Accepted(reply)));
    let last = sent.attempts.last().unwrap();
    assert_eq!((last.at, last.reply.as_str()), (at(50), "resolved as sent by an operator"));
    assert_eq!((sent.expires, sent.attempt_count), (at(0).plus(WINDOW), 1));
    assert_eq!(store.get(id(1), at(50)).await.unwrap(), Some(sent.clone()));
    assert_eq!(settled(claim(&*store, 3, at(51), slot(1)).await).0.state, sent.state);

    let unsent = done(store.resolve(id(2), Resolution::NotSent, at(50)).await.unwrap());
    let reply = Reply::new(451, "4.4.2 not sent, as an operator found out");
    assert_eq!(unsent.state, State::Settled(Outcome::Deferred(reply)));
    assert_eq!(unsent.attempts.last().unwrap().reply, "resolved as not sent by an operator");
    assert_eq!(previous(claim(&*store, 4, at(51), slot(2)).await), Some(unsent));
    store.release(token(4), vec![id(2)]).await.unwrap();
    assert_eq!(store.sweep(at(0).plus(WINDOW), 10).await.unwrap(), 2, "the expiry did not slide");
    store.close().await.unwrap();
}

pub(crate) async fn only_a_doubt_is_resolved(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert_eq!(store.resolve(id(1), Resolution::Sent, at(0)).await.unwrap(), Change::Absent);
    for (number, outcome) in [(1, accepted()), (2, deferred()), (3, refused())] {
        send(&*store, 1, at(0), slot(number), outcome).await;
    }
    assert!(is_new(&claim(&*store, 4, at(0), slot(4)).await));
    assert!(is_new(&claim(&*store, 5, at(0), slot(5)).await));
    store.commit(token(5), vec![id(5).into()], at(0)).await.unwrap();
    for number in 1..=5 {
        let before = store.get(id(number), at(0)).await.unwrap().unwrap();
        let change = store.resolve(id(number), Resolution::NotSent, at(0)).await.unwrap();
        assert_eq!(change, Change::Refused(Box::new(before)));
    }
    store.close().await.unwrap();
}

/// A record as another store would give it.
async fn record(store: &dyn Store, number: u8) -> Record {
    store.get(id(number), at(0)).await.unwrap().unwrap()
}

pub(crate) async fn an_import_keeps_what_is_newer_and_may_be_repeated(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in 1..=3 {
        send(&*store, 1, at(0), slot(number), accepted()).await;
    }
    let mut foreign = Vec::new();
    for number in 1..=3 {
        foreign.push(record(&*store, number).await);
    }
    store.forget(id(1), at(0)).await.unwrap();
    settled(claim(&*store, 2, at(5), slot(2)).await);
    // The third was asked for later there, under another key and window.
    foreign[2].last_seen = at(7);
    foreign[2].key = "order-33".into();
    foreign[2].expires = at(100);
    let imported = store.import(foreign.clone(), at(9)).await.unwrap();
    assert_eq!(imported, Imported { added: 2, kept: 1, expired: 0 });
    assert_eq!(store.get(id(1), at(9)).await.unwrap(), Some(foreign[0].clone()));
    assert_eq!(store.get(id(2), at(9)).await.unwrap().unwrap().last_seen, at(5));
    let longer = Record { expires: at(0).plus(WINDOW), ..foreign[2].clone() };
    assert_eq!(store.get(id(3), at(9)).await.unwrap(), Some(longer), "the longer memory stays");
    assert_eq!(by_key(&*store, "order-33", 10).await, [3]);
    assert_eq!(by_key(&*store, "order-3", 10).await, [0; 0]);
    let again = store.import(foreign, at(9)).await.unwrap();
    assert_eq!(again, Imported { added: 0, kept: 3, expired: 0 });
    assert_eq!(store.sweep(at(100), 10).await.unwrap(), 0);
    settled(claim(&*store, 3, at(10), slot(1)).await);
    store.close().await.unwrap();
}

pub(crate) async fn an_import_takes_nothing_that_is_no_outcome(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in 1..=4 {
        assert!(is_new(&claim(&*store, 1, at(0), slot(number)).await));
    }
    let pending = record(&*store, 1).await;
    store.commit(token(1), vec![id(2).into(), id(3).into()], at(0)).await.unwrap();
    let (committing, held) = (record(&*store, 2).await, record(&*store, 3).await);
    settle(&*store, 1, at(0), 4, accepted()).await.unwrap();
    let expired = Record { expires: at(5), ..record(&*store, 4).await };
    store.release(token(1), vec![id(1)]).await.unwrap();
    settle(&*store, 1, at(0), 2, deferred()).await.unwrap();
    for number in [2, 4] {
        store.forget(id(number), at(0)).await.unwrap();
    }
    let held = Record { state: State::Settled(accepted()), last_seen: at(8), ..held };
    let imported = store.import(vec![pending, committing, held, expired], at(9)).await.unwrap();
    assert_eq!(imported, Imported { added: 2, kept: 0, expired: 2 });
    assert_eq!(store.get(id(1), at(9)).await.unwrap(), None);
    assert_eq!(store.get(id(4), at(4)).await.unwrap(), None);
    let doubt = settled(claim(&*store, 2, at(9), slot(2)).await).0;
    assert!(matches!(&doubt.state, State::Settled(Outcome::InDoubt(reply)) if reply.code() == 451));
    assert_eq!(doubt.expires, at(9).plus(WINDOW));
    let flight = claim(&*store, 3, at(9), slot(3)).await;
    assert!(matches!(flight, Claimed::InFlight { .. }), "an attempt under way stays");
    let renamed = Slot { key: "order-4b".into(), ..slot(4) };
    assert!(is_new(&claim(&*store, 4, at(9), renamed).await));
    store.close().await.unwrap();
}

/// Accepted before in doubt before the rest, the longer memory, whichever store
/// has which.
pub(crate) async fn an_import_unites_what_both_stores_know(engine: &dyn Engine) {
    let outcomes = [accepted(), in_doubt(), deferred(), refused()];
    let rank = |outcome: &Outcome| match outcome {
        Outcome::Accepted(_) => 2,
        Outcome::InDoubt(_) => 1,
        Outcome::Deferred(_) | Outcome::Refused(_) => 0,
    };
    for here in &outcomes {
        for there in &outcomes {
            let (store, _) = engine.open(at(0)).await;
            send(&*store, 1, at(0), slot(1), there.clone()).await;
            let foreign = Record { last_seen: at(9), expires: at(50), ..record(&*store, 1).await };
            store.forget(id(1), at(0)).await.unwrap();
            send(&*store, 2, at(1), slot(1), here.clone()).await;
            // An attempt that is under way does not keep it out.
            let under_way = claim(&*store, 3, at(2), slot(1)).await;
            store.import(vec![foreign.clone()], at(3)).await.unwrap();
            if is_new(&under_way) {
                store.commit(token(3), vec![id(1).into()], at(4)).await.unwrap();
                settle(&*store, 3, at(4), 1, deferred()).await.unwrap();
            }
            let known = store.get(id(1), at(5)).await.unwrap().unwrap();
            let most = if rank(there) > rank(here) { there } else { here };
            if rank(most) > 0 {
                assert_eq!(known.state, State::Settled(most.clone()), "{here:?} here, {there:?} there");
                assert_eq!(known.expires, at(1).plus(WINDOW), "the longer memory");
            }
            store.import(vec![foreign.clone()], at(6)).await.unwrap();
            let again = store.import(vec![foreign], at(6)).await.unwrap();
            assert_eq!((again.added, again.kept), (0, 1), "{here:?} here, {there:?} there");
            store.forget(id(1), at(6)).await.unwrap();
            store.close().await.unwrap();
        }
    }
}

/// A record without a window keeps its expiry: what was being sent elsewhere, and
/// what a start finds.
pub(crate) async fn a_record_without_a_window_keeps_its_expiry(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let mut foreign = Vec::new();
    for number in [1, 2] {
        assert!(is_new(&claim(&*store, 1, at(0), slot(number)).await));
        store.commit(token(1), vec![id(number).into()], at(0)).await.unwrap();
        if number == 2 {
            settle(&*store, 1, at(0), number, accepted()).await.unwrap();
        }
        let bare = Record { window: Duration::ZERO, expires: at(500), ..record(&*store, number).await };
        foreign.push(bare);
        settle(&*store, 1, at(0), number, accepted()).await.ok();
        store.forget(id(number), at(0)).await.unwrap();
    }
    store.import(foreign, at(9)).await.unwrap();
    for number in [1, 2] {
        let (record, _) = settled(claim(&*store, 2, at(10), slot(number)).await);
        assert_eq!(record.expires, at(500));
    }
    store.close().await.unwrap();
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(20)).await;
    counted(&*store).await;
    for number in [1, 2] {
        let (record, _) = settled(claim(&*store, 3, at(21), slot(number)).await);
        assert_eq!(record.expires, at(500));
    }
    store.close().await.unwrap();
}

/// The longer of two memories lasts over a restart.
pub(crate) async fn the_longer_memory_lasts_over_a_restart(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let long = Slot { window: WINDOW * 24, ..slot(1) };
    send(&*store, 1, at(0), long, in_doubt()).await;
    let foreign = record(&*store, 1).await;
    store.forget(id(1), at(0)).await.unwrap();
    send(&*store, 2, at(1), slot(1), accepted()).await;
    store.import(vec![foreign], at(2)).await.unwrap();
    store.close().await.unwrap();
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(3)).await;
    counted(&*store).await;
    let (record, _) = settled(claim(&*store, 3, at(4).plus(WINDOW * 23), slot(1)).await);
    assert_eq!(record.expires, at(0).plus(WINDOW * 24));
    store.close().await.unwrap();
}

/// One claim for a whole message: two stores that know of different recipients
/// leave the doubt in doubt, so that it is sent again under `resend`, held under `hold`
/// and can be resolved.
pub(crate) async fn an_import_leaves_a_doubt_in_doubt(engine: &dyn Engine) {
    let to = |recipient: u64| Slot { marks: vec![recipient], in_doubt: InDoubt::Resend, ..slot(1) };
    let known = [
        (1, accepted(), Marks { delivered: vec![1], ..Marks::default() }),
        (2, in_doubt(), Marks { doubtful: vec![2], ..Marks::default() }),
    ];
    for here in 0..2 {
        let (store, _) = engine.open(at(0)).await;
        let send = async |(recipient, outcome, marks): (u64, Outcome, Marks)| {
            assert!(is_new(&claim(&*store, recipient, at(recipient), to(recipient)).await));
            let settled = vec![Settlement { marks, ..settlement(1, outcome) }];
            store.settle(token(recipient), at(recipient), settled, Durability::Now).await.unwrap();
        };
        send(known[1 - here].clone()).await;
        let foreign = record(&*store, 1).await;
        store.forget(id(1), at(0)).await.unwrap();
        send(known[here].clone()).await;
        store.import(vec![foreign.clone()], at(3)).await.unwrap();
        let again = store.import(vec![foreign], at(3)).await.unwrap();
        assert_eq!(again.kept, 1);

        let united = record(&*store, 1).await;
        let marks = Marks { delivered: vec![1], doubtful: vec![2], ..Marks::default() };
        assert_eq!(united.marks, marks);
        assert_eq!((united.state.name(), united.series), (StateName::InDoubt, token(2)));
        assert!(is_new(&claim(&*store, 9, at(4), to(2)).await), "a doubt is sent again");
        store.release(token(9), vec![id(1)]).await.unwrap();
        let change = store.resolve(id(1), Resolution::Sent, at(5)).await.unwrap();
        assert!(matches!(change, Change::Done(record) if record.state.name() == StateName::Accepted));
        store.forget(id(1), at(6)).await.unwrap();
        store.close().await.unwrap();
    }
}

/// What an import brings of some recipients stays, though an attempt at others
/// was under way.
pub(crate) async fn an_import_beneath_an_attempt_keeps_its_marks(engine: &dyn Engine) {
    let to = |recipient: u64| Slot { marks: vec![recipient], ..slot(1) };
    let delivered = |recipients: &[u64]| Marks { delivered: recipients.to_vec(), ..Marks::default() };
    let (store, _) = engine.open(at(0)).await;
    let send = async |recipient: u64| {
        let settled = vec![Settlement { marks: delivered(&[recipient]), ..settlement(1, accepted()) }];
        store.settle(token(recipient), at(recipient), settled, Durability::Now).await.unwrap();
    };
    assert!(is_new(&claim(&*store, 2, at(0), to(2)).await));
    send(2).await;
    let foreign = record(&*store, 1).await;
    store.forget(id(1), at(0)).await.unwrap();
    assert!(is_new(&claim(&*store, 1, at(0), to(1)).await));
    store.import(vec![foreign], at(1)).await.unwrap();
    send(1).await;
    settled(claim(&*store, 3, at(3), to(2)).await);
    settled(claim(&*store, 3, at(3), to(1)).await);
    store.close().await.unwrap();
}
