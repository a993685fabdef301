//! One claim from its beginning to its end.

use super::{
    Claimed, Engine, Outcome, WINDOW, accepted, at, claim, deferred, id, in_doubt, is_new, previous, refused,
    request, send, settle, settled, slot, token,
};
use crate::smtp::reply::Reply;
use crate::store::{Fingerprint, Query, State, StoreFault};

pub(crate) async fn an_accepted_claim_answers_later_attempts(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), accepted()).await;
    let (record, conflict) = settled(claim(&*store, 2, at(9), slot(1)).await);
    assert!(!conflict);
    assert_eq!(record.state, State::Settled(accepted()));
    assert_eq!((record.duplicates, record.first_seen, record.last_seen), (1, at(0), at(9)));
    assert_eq!(record.upstream, "mx.example.net:25");
    store.close().await.unwrap();
}

pub(crate) async fn a_deferred_or_refused_claim_may_be_taken_again(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), deferred()).await;
    let other = super::Slot { fingerprint: Fingerprint([2; 32]), ..slot(1) };
    let before = previous(claim(&*store, 2, at(1), other).await).unwrap();
    assert_eq!(before.state, State::Settled(deferred()));
    store.commit(token(2), vec![id(1).into()], at(1)).await.unwrap();
    settle(&*store, 2, at(2), 1, refused()).await.unwrap();
    let before = previous(claim(&*store, 3, at(3), slot(1)).await).unwrap();
    assert_eq!(before.state, State::Settled(refused()));
    assert_eq!((before.attempt_count, before.first_seen), (2, at(0)));
    let now = store.get(id(1), at(3)).await.unwrap().unwrap();
    assert!(matches!(now.state, State::Pending { .. }));
    assert_eq!((now.attempt_count, now.first_seen), (2, at(0)));
    store.close().await.unwrap();
}

pub(crate) async fn a_refusal_before_the_commit_is_recorded(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    settle(&*store, 1, at(1), 1, refused()).await.unwrap();
    let record = store.get(id(1), at(1)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Settled(refused()));
    assert_eq!(record.settled_at, Some(at(1)));
    assert_eq!(settle(&*store, 1, at(2), 1, accepted()).await, Err(StoreFault::Fenced));
    store.close().await.unwrap();
}

pub(crate) async fn an_expired_claim_is_absent_swept_or_not(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), accepted()).await;
    let end = at(0).plus(WINDOW);
    let last = crate::clock::Timestamp::from_millis(end.as_millis() - 1);
    settled(claim(&*store, 2, last, slot(1)).await);
    assert!(store.get(id(1), last).await.unwrap().is_some());
    assert!(store.get(id(1), end).await.unwrap().is_none());
    assert!(store.list(Query { scan: 10, ..Query::default() }, end).await.unwrap().0.is_empty());
    assert!(previous(claim(&*store, 3, end, slot(1)).await).is_none());
    let record = store.get(id(1), end).await.unwrap().unwrap();
    assert_eq!((record.first_seen, record.attempt_count, record.duplicates), (end, 0, 0));
    // What is being sent must not vanish under its holder.
    store.sweep(end, 10).await.unwrap();
    store.commit(token(3), vec![id(1).into()], end).await.unwrap();
    let later = end.plus(WINDOW).plus(WINDOW);
    store.sweep(later, 10).await.unwrap();
    assert!(store.get(id(1), later).await.unwrap().is_some());
    settle(&*store, 3, later, 1, accepted()).await.unwrap();
    settled(claim(&*store, 4, later, slot(1)).await);
    store.close().await.unwrap();
}

pub(crate) async fn the_window_starts_at_the_settlement_and_does_not_slide(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    settle(&*store, 1, at(500), 1, in_doubt()).await.unwrap();
    let longer = super::Slot { window: WINDOW * 9, ..slot(1) };
    let (record, _) = settled(claim(&*store, 2, at(1000), longer).await);
    assert_eq!(record.expires, at(500).plus(WINDOW));
    store.close().await.unwrap();
}

pub(crate) async fn release_restores_the_earlier_record(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.release(token(1), vec![id(1)]).await.unwrap();
    assert_eq!(store.get(id(1), at(0)).await.unwrap(), None);

    send(&*store, 2, at(1), slot(1), deferred()).await;
    let before = store.get(id(1), at(1)).await.unwrap();
    assert!(is_new(&claim(&*store, 3, at(2), slot(1)).await));
    store.release(token(3), vec![id(1)]).await.unwrap();
    assert_eq!(store.get(id(1), at(2)).await.unwrap(), before);
    assert_eq!(store.commit(token(3), vec![id(1).into()], at(2)).await, Err(StoreFault::Fenced));
    store.close().await.unwrap();
}

pub(crate) async fn release_leaves_alone_what_is_not_held_pending(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    store.release(token(2), vec![id(1), id(2)]).await.unwrap();
    assert!(matches!(claim(&*store, 2, at(0), slot(1)).await, Claimed::InFlight { .. }));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    store.release(token(1), vec![id(1)]).await.unwrap();
    assert!(matches!(claim(&*store, 2, at(0), slot(1)).await, Claimed::InFlight { .. }));
    settle(&*store, 1, at(1), 1, accepted()).await.unwrap();
    store.release(token(1), vec![id(1)]).await.unwrap();
    settled(claim(&*store, 2, at(1), slot(1)).await);
    store.close().await.unwrap();
}

pub(crate) async fn attempts_are_kept_cut_and_counted(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for attempt in 0..10 {
        let outcome = Outcome::Deferred(Reply::new(451, "ü".repeat(1000)));
        send(&*store, attempt, at(attempt), slot(1), outcome).await;
    }
    let record = store.get(id(1), at(10)).await.unwrap().unwrap();
    assert_eq!((record.attempts.len(), record.attempt_count), (8, 10));
    assert_eq!(record.attempts[0].at, at(2));
    assert!(record.attempts.iter().all(|attempt| attempt.reply.chars().count() == 256));
    store.close().await.unwrap();
}

pub(crate) async fn each_slot_is_judged_on_its_own(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), accepted()).await;
    assert!(is_new(&claim(&*store, 2, at(0), slot(2)).await));
    send(&*store, 3, at(0), slot(3), accepted()).await;
    let other = super::Slot { fingerprint: Fingerprint([2; 32]), ..slot(3) };
    let claimed = store.claim(request(4, at(1), vec![slot(4), slot(2), other, slot(1)])).await.unwrap();
    assert!(is_new(&claimed[0]));
    assert!(matches!(claimed[1], Claimed::InFlight { .. }));
    assert!(matches!(&claimed[2], Claimed::Conflict { record } if record.duplicates == 0));
    assert!(matches!(claimed[3], Claimed::Settled { .. }));
    store.close().await.unwrap();
}

pub(crate) async fn a_settlement_may_be_repeated(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), accepted()).await;
    let before = store.get(id(1), at(1)).await.unwrap();
    assert_eq!(settle(&*store, 1, at(1), 1, accepted()).await, Ok(()));
    assert_eq!(store.get(id(1), at(1)).await.unwrap(), before);
    assert_eq!(settle(&*store, 1, at(1), 1, refused()).await, Err(StoreFault::Fenced));
    assert_eq!(settle(&*store, 2, at(1), 1, accepted()).await, Err(StoreFault::Fenced));
    store.close().await.unwrap();
}

pub(crate) async fn a_sweep_takes_only_what_is_due(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in 1..=4 {
        send(&*store, 1, at(u64::from(number)), slot(number), deferred()).await;
    }
    // Settled anew: its first expiry means nothing any more.
    send(&*store, 2, at(1000), slot(1), accepted()).await;
    let due = at(3).plus(WINDOW);
    assert_eq!(store.sweep(at(100), 10).await.unwrap(), 0);
    assert_eq!(store.sweep(due, 1).await.unwrap(), 1);
    assert_eq!(store.sweep(due, 10).await.unwrap(), 1);
    assert_eq!(store.sweep(due, 10).await.unwrap(), 0);
    let (left, _) = store.list(Query { scan: 10, ..Query::default() }, at(100)).await.unwrap();
    assert_eq!(left.iter().map(|record| record.id).collect::<Vec<_>>(), [id(1), id(4)]);
    store.close().await.unwrap();
}

pub(crate) async fn lists_come_in_pages(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in [9, 2, 7, 4] {
        send(&*store, 1, at(0), slot(number), accepted()).await;
    }
    for number in [1, 5, 4] {
        claim(&*store, 2, at(0), slot(number)).await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let (page, next) = store.list(Query { after, scan: 2, ..Query::default() }, at(0)).await.unwrap();
        assert!(page.len() <= 2);
        seen.extend(page.iter().map(|record| record.id.0[0]));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 4, 5, 7, 9]);
    store.close().await.unwrap();
}

/// In flight, settled, and as a conflict; only the last of them are kept.
pub(crate) async fn those_suppressed_are_noted(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let from = |client: &str| super::Slot { client: client.into(), ..slot(1) };
    assert!(is_new(&claim(&*store, 1, at(0), from("first")).await));
    claim(&*store, 2, at(1), from("waiting")).await;
    let other = super::Slot { fingerprint: Fingerprint([2; 32]), ..from("other") };
    claim(&*store, 3, at(2), other).await;
    store.commit(token(1), vec![id(1).into()], at(2)).await.unwrap();
    settle(&*store, 1, at(3), 1, accepted()).await.unwrap();
    let (record, _) = settled(claim(&*store, 4, at(4), from("later")).await);
    let noted: Vec<_> = record.suppressed.iter().map(|s| (s.at, s.client.as_str())).collect();
    assert_eq!(noted, [(at(1), "waiting"), (at(2), "other"), (at(4), "later")]);
    assert_eq!((record.duplicates, record.last_seen), (2, at(4)));
    for second in 10..20 {
        claim(&*store, 5, at(second), from("many")).await;
    }
    let record = store.get(id(1), at(20)).await.unwrap().unwrap();
    let times: Vec<_> = record.suppressed.iter().map(|s| s.at).collect();
    assert_eq!(times, (12..20).map(at).collect::<Vec<_>>());
    store.close().await.unwrap();
}
