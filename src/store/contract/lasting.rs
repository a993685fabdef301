//! What a restart leaves.

use super::{
    Claimed, Engine, Outcome, WINDOW, accepted, at, claim, deferred, id, is_new, send, settle, settled, slot,
    token,
};
use crate::store::{Durability, Query, State, StoreFault};

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

pub(crate) async fn committing_is_in_doubt_after_a_restart(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1)], at(0)).await.unwrap();
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
