//! What a restart leaves.

use super::{
    Census, ClaimRequest, Claimed, Engine, Outcome, WINDOW, accepted, at, by_key, claim, counted, deferred,
    id, in_doubt, is_new, request, send, settle, settled, slot, token,
};
use crate::clock::Timestamp;
use crate::store::{Count, Durability, Query, Resolution, State, StoreFault, Tally};

pub(crate) async fn accepted_survives_a_restart(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), accepted()).await;
    // Not waited for, and yet on disk once the store is closed.
    assert!(is_new(&claim(&*store, 2, at(0), slot(2)).await));
    let soon = vec![super::settlement(2, deferred())];
    store.settle(token(2), at(0), soon, Durability::Soon).await.unwrap();
    settled(claim(&*store, 3, at(1), slot(1)).await);
    let before = store.list(Query { scan: 10, ..Query::default() }, at(1)).await.unwrap();
    store.close().await.unwrap();

    let (store, doubtful) = engine.open(at(2)).await;
    assert!(doubtful.is_empty());
    assert_eq!(store.list(Query { scan: 10, ..Query::default() }, at(2)).await.unwrap(), before);
    settled(claim(&*store, 4, at(3), slot(1)).await);
    assert_eq!(store.sweep(at(9).plus(WINDOW), 10).await.unwrap(), 2);
    store.close().await.unwrap();
}

/// The clock ran ahead and was set back: nothing is remembered for longer than
/// its window from the start that found it.
pub(crate) async fn a_clock_set_back_makes_no_window_longer_than_it_is(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let ahead = at(0).plus(WINDOW * 50);
    let (store, _) = engine.open(ahead).await;
    send(&*store, 1, ahead, slot(1), accepted()).await;
    store.close().await.unwrap();

    let (store, _) = engine.open(at(0)).await;
    counted(&*store).await;
    let (record, _) = settled(claim(&*store, 2, at(1), slot(1)).await);
    assert_eq!(record.expires, at(0).plus(WINDOW));
    assert!(is_new(&claim(&*store, 3, at(0).plus(WINDOW), slot(1)).await), "a window later it is new");
    store.close().await.unwrap();
}

pub(crate) async fn committing_is_in_doubt_after_a_restart(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    store.close().await.unwrap();

    let (store, doubtful) = engine.open(at(100)).await;
    assert_eq!(doubtful.len(), 1);
    assert_eq!(store.get(id(1), at(100)).await.unwrap().as_ref(), doubtful.first());
    let (record, _) = settled(claim(&*store, 2, at(100), slot(1)).await);
    assert!(matches!(&record.state, State::Settled(Outcome::InDoubt(reply)) if reply.code() == 451));
    assert_eq!(record.expires, at(100).plus(WINDOW));
    assert_eq!(settle(&*store, 1, at(100), 1, accepted()).await, Err(StoreFault::Fenced));
    store.close().await.unwrap();

    let (store, doubtful) = engine.open(at(200)).await;
    assert!(doubtful.is_empty(), "one doubt is found once");
    assert_eq!(store.sweep(at(100).plus(WINDOW), 10).await.unwrap(), 1);
    store.close().await.unwrap();
}

pub(crate) async fn pending_is_forgotten_by_a_restart(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), deferred()).await;
    assert!(is_new(&claim(&*store, 2, at(1), slot(1)).await));
    assert!(is_new(&claim(&*store, 2, at(1), slot(2)).await));
    store.close().await.unwrap();

    let (store, doubtful) = engine.open(at(2)).await;
    assert!(doubtful.is_empty());
    let record = store.get(id(1), at(2)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Settled(deferred()));
    assert_eq!(store.get(id(2), at(2)).await.unwrap(), None);
    assert!(!matches!(claim(&*store, 3, at(2), slot(2)).await, Claimed::InFlight { .. }));
    store.close().await.unwrap();
}

pub(crate) async fn a_closed_store_says_so(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    let answer = store.get(id(1), at(0)).await;
    assert!(matches!(answer, Err(StoreFault::Failed(text)) if text.contains("closed")));
}

/// What was answered is on disk, whatever the commit log still says of it.
pub(crate) async fn what_operators_did_outlives_a_kill(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    for (number, outcome) in [(1, accepted()), (2, in_doubt()), (3, in_doubt()), (4, accepted())] {
        send(&*store, number.into(), at(0), slot(number), outcome).await;
    }
    let foreign = store.get(id(4), at(0)).await.unwrap().unwrap();
    store.forget(id(4), at(0)).await.unwrap();
    store.import(vec![foreign], at(1)).await.unwrap();
    store.forget(id(1), at(1)).await.unwrap();
    store.resolve(id(2), Resolution::Sent, at(1)).await.unwrap();
    // The clock went back meanwhile.
    store.resolve(id(3), Resolution::NotSent, Timestamp::default()).await.unwrap();
    let before = store.list(Query::default(), at(2)).await.unwrap();

    let (killed, doubtful) = engine.killed(at(2)).await;
    assert!(doubtful.is_empty());
    assert_eq!(killed.list(Query::default(), at(2)).await.unwrap(), before);
    assert!(is_new(&claim(&*killed, 9, at(2), slot(1)).await));
    settled(claim(&*killed, 9, at(2), slot(2)).await);
    assert!(is_new(&claim(&*killed, 9, at(2), slot(3)).await));
    settled(claim(&*killed, 9, at(2), slot(4)).await);
    killed.close().await.unwrap();
    store.close().await.unwrap();

    let (store, _) = engine.open(at(3)).await;
    assert_eq!(store.list(Query::default(), at(3)).await.unwrap(), before);
    store.close().await.unwrap();
}

pub(crate) async fn figures_and_keys_are_found_again(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    for number in 1..=3 {
        send(&*store, 1, at(0), slot(number), accepted()).await;
    }
    assert!(is_new(&claim(&*store, 2, at(0), slot(4)).await));
    store.commit(token(2), vec![id(4).into()], at(0)).await.unwrap();
    let tally = Tally { relayed: 3, ..Tally::default() };
    let count = Count { hour: 7, tenant: "shop".into(), rule: String::new(), tally };
    store.count(vec![count.clone()]).await.unwrap();
    store.close().await.unwrap();

    let (store, _) = engine.open(at(1)).await;
    let census = Census { accepted: 3, in_doubt: 1, complete: true, ..Census::default() };
    assert_eq!(counted(&*store).await, census);
    for number in 1..=4 {
        assert_eq!(by_key(&*store, &format!("order-{number}"), 2).await, [number]);
    }
    assert_eq!(store.counts(Timestamp::default()).await.unwrap(), [count]);
    let capped = ClaimRequest { tenant_cap: Some(4), ..request(3, at(1), vec![slot(5)]) };
    assert!(matches!(store.claim(capped).await.unwrap()[0], Claimed::OverCap));
    store.close().await.unwrap();
}
