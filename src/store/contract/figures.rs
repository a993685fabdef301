//! What is counted, and the cap that stands on it.

use super::{
    Claimed, Engine, LEASE, Slot, WINDOW, accepted, at, by_key, claim, counted, deferred, id, in_doubt,
    is_new, refused, request, send, settle, settled, slot, token,
};
use crate::clock::Timestamp;
use crate::config::OnConflict;
use crate::store::{Census, Count, Fingerprint, Query, Resolution, Selection, Tally};

fn zero() -> Census {
    Census { complete: true, ..Census::default() }
}

pub(crate) async fn the_census_follows_every_change(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert_eq!(counted(&*store).await, zero());
    assert!(is_new(&claim(&*store, 1, at(0), slot(1)).await));
    assert_eq!(counted(&*store).await, Census { pending: 1, ..zero() });
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    assert_eq!(counted(&*store).await, Census { committing: 1, ..zero() });
    settle(&*store, 1, at(0), 1, deferred()).await.unwrap();
    assert_eq!(counted(&*store).await, Census { deferred: 1, ..zero() });
    // A claim hides the record underneath, and gives it back.
    assert!(is_new(&claim(&*store, 2, at(1), slot(1)).await));
    assert_eq!(counted(&*store).await, Census { pending: 1, ..zero() });
    store.release(token(2), vec![id(1)]).await.unwrap();
    assert_eq!(counted(&*store).await, Census { deferred: 1, ..zero() });
    send(&*store, 3, at(2), slot(1), in_doubt()).await;
    send(&*store, 3, at(2), slot(2), refused()).await;
    send(&*store, 3, at(2), slot(3), accepted()).await;
    let census = Census { accepted: 1, refused: 1, in_doubt: 1, ..zero() };
    assert_eq!(counted(&*store).await, census);
    settled(claim(&*store, 4, at(2), slot(3)).await);
    store.resolve(id(1), Resolution::Sent, at(3)).await.unwrap();
    let kept = store.get(id(2), at(3)).await.unwrap().unwrap();
    store.forget(id(2), at(3)).await.unwrap();
    assert_eq!(counted(&*store).await, Census { accepted: 2, ..zero() });
    store.import(vec![kept], at(3)).await.unwrap();
    assert_eq!(counted(&*store).await, Census { accepted: 2, refused: 1, ..zero() });
    // Taken over while it may have been sent, then abandoned.
    assert!(is_new(&claim(&*store, 5, at(4), slot(4)).await));
    store.commit(token(5), vec![id(4).into()], at(4)).await.unwrap();
    let other = Slot { fingerprint: Fingerprint([2; 32]), on_conflict: OnConflict::Relay, ..slot(4) };
    assert!(is_new(&claim(&*store, 6, at(5), other).await));
    assert_eq!(counted(&*store).await, Census { accepted: 2, refused: 1, pending: 1, ..zero() });
    store.sweep(at(5).plus(LEASE).plus(WINDOW), 100).await.unwrap();
    // The lease ran out an hour ago, and everything else has expired.
    assert_eq!(counted(&*store).await, zero());
    store.close().await.unwrap();
}

pub(crate) async fn what_expired_counts_until_it_is_swept(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(0), slot(1), accepted()).await;
    send(&*store, 1, at(0), slot(2), accepted()).await;
    let late = at(0).plus(WINDOW);
    assert_eq!(counted(&*store).await, Census { accepted: 2, ..zero() });
    // Swept from under a new claim, which is counted in its place.
    assert!(is_new(&claim(&*store, 2, late, slot(1)).await));
    assert_eq!(store.sweep(late, 10).await.unwrap(), 2);
    assert_eq!(counted(&*store).await, Census { pending: 1, ..zero() });
    assert_eq!(by_key(&*store, "order-1", 10).await, [1]);
    store.release(token(2), vec![id(1)]).await.unwrap();
    assert_eq!(counted(&*store).await, zero());
    assert!(is_new(&claim(&*store, 3, late, slot(1)).await));
    settle(&*store, 3, late, 1, accepted()).await.unwrap();
    assert_eq!(by_key(&*store, "order-1", 10).await, [1], "its key is entered anew");
    assert_eq!(counted(&*store).await, Census { accepted: 1, ..zero() });
    store.close().await.unwrap();
}

pub(crate) async fn a_tenant_over_its_cap_claims_nothing_new(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    counted(&*store).await;
    let capped =
        |attempt, now, slots| super::ClaimRequest { tenant_cap: Some(2), ..request(attempt, now, slots) };
    let over = |claimed: &Claimed| matches!(claimed, Claimed::OverCap);
    let claimed = store.claim(capped(1, at(0), vec![slot(1), slot(2), slot(3)])).await.unwrap();
    assert!(is_new(&claimed[0]) && is_new(&claimed[1]) && over(&claimed[2]));
    assert_eq!(store.get(id(3), at(0)).await.unwrap(), None);
    let foreign = Slot { tenant: "other".into(), ..slot(4) };
    assert!(is_new(&store.claim(capped(2, at(0), vec![foreign])).await.unwrap()[0]));
    settle(&*store, 1, at(0), 1, deferred()).await.unwrap();
    settle(&*store, 1, at(0), 2, accepted()).await.unwrap();
    // What is known already costs nothing more.
    let claimed = store.claim(capped(3, at(1), vec![slot(1), slot(2), slot(3)])).await.unwrap();
    assert!(is_new(&claimed[0]) && matches!(claimed[1], Claimed::Settled { .. }) && over(&claimed[2]));
    store.release(token(3), vec![id(1)]).await.unwrap();
    // Expired ones count until they are swept, and may be claimed again.
    let late = at(0).plus(WINDOW);
    let claimed = store.claim(capped(4, late, vec![slot(1), slot(3)])).await.unwrap();
    assert!(is_new(&claimed[0]) && over(&claimed[1]));
    store.sweep(late, 10).await.unwrap();
    assert!(is_new(&store.claim(capped(5, late, vec![slot(3)])).await.unwrap()[0]));
    assert!(over(&store.claim(capped(6, late, vec![slot(5)])).await.unwrap()[0]));
    store.forget(id(4), late).await.unwrap();
    assert!(is_new(&claim(&*store, 7, late, slot(5)).await), "without a cap there is none");
    store.close().await.unwrap();
}

fn count(hour: u64, tenant: &str, rule: &str, relayed: u64) -> Count {
    let tally = Tally { relayed, suppressed: 1, ..Tally::default() };
    Count { hour, tenant: tenant.into(), rule: rule.into(), tally }
}

pub(crate) async fn counts_add_up_and_old_ones_go(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let start = |hour: u64| Timestamp::from_millis(hour * 3_600_000);
    let hour = 500_000;
    let deltas = vec![count(hour, "a", "b", 1), count(hour, "a", "b", 2), count(hour - 1, "ab", "", 4)];
    store.count(deltas).await.unwrap();
    store.count(vec![count(hour, "a", "", 8), count(hour, "a", "b", 16)]).await.unwrap();
    let all = store.counts(Timestamp::default()).await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[0], count(hour - 1, "ab", "", 4));
    let sum = all.iter().find(|count| (count.hour, count.rule.as_str()) == (hour, "b")).unwrap();
    assert_eq!((sum.tally.relayed, sum.tally.suppressed), (19, 3));
    assert_eq!(store.counts(start(hour)).await.unwrap().len(), 2, "the hour before has ended by then");
    let last = Timestamp::from_millis(start(hour).as_millis() - 1);
    assert_eq!(store.counts(last).await.unwrap().len(), 3);
    assert_eq!(store.counts(start(hour + 1)).await.unwrap(), []);
    let kept = 90 * 24;
    store.sweep(start(hour - 1 + kept), 10).await.unwrap();
    assert_eq!(store.counts(Timestamp::default()).await.unwrap().len(), 3);
    store.sweep(start(hour + kept), 10).await.unwrap();
    assert_eq!(store.counts(Timestamp::default()).await.unwrap().len(), 2);
    store.close().await.unwrap();
}

/// More than are read in one piece.
pub(crate) async fn many_counts_come_whole(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let counts: Vec<Count> = (0..2500).map(|tenant| count(7, &format!("{tenant:04}"), "", tenant)).collect();
    store.count(counts.clone()).await.unwrap();
    assert_eq!(store.counts(Timestamp::default()).await.unwrap(), counts);
    store.close().await.unwrap();
}

pub(crate) async fn a_key_finds_its_records_in_pages(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let shared = |number| Slot { key: "shared".into(), ..slot(number) };
    for number in [9, 3, 5] {
        send(&*store, 1, at(0), shared(number), accepted()).await;
    }
    send(&*store, 1, at(0), slot(4), accepted()).await;
    // Held only, and held over a settled one.
    assert!(is_new(&claim(&*store, 2, at(0), shared(7)).await));
    send(&*store, 3, at(0), shared(1), deferred()).await;
    assert!(is_new(&claim(&*store, 4, at(0), shared(1)).await));
    for scan in 1..=7 {
        assert_eq!(by_key(&*store, "shared", scan).await, [1, 3, 5, 7, 9], "{scan} at once");
    }
    assert_eq!(by_key(&*store, "order-4", 2).await, [4]);
    assert_eq!(by_key(&*store, "order", 2).await, [0; 0]);
    store.release(token(2), vec![id(7)]).await.unwrap();
    store.forget(id(3), at(0)).await.unwrap();
    assert_eq!(by_key(&*store, "shared", 2).await, [1, 5, 9]);
    store.sweep(at(0).plus(WINDOW), 100).await.unwrap();
    assert_eq!(by_key(&*store, "shared", 2).await, [1], "the one in flight");
    store.close().await.unwrap();
}

pub(crate) async fn ids_between_two_are_listed_in_pages(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    for number in [2, 4, 6, 8] {
        send(&*store, 1, at(0), slot(number), accepted()).await;
    }
    assert!(is_new(&claim(&*store, 2, at(0), slot(5)).await));
    for (first, last, expected) in
        [(0, 255, &[2, 4, 5, 6, 8][..]), (4, 6, &[4, 5, 6]), (5, 5, &[5]), (3, 3, &[]), (8, 2, &[])]
    {
        for scan in [1, 2, 10] {
            let of = Selection::Ids(id(first)..=id(last));
            assert_eq!(super::pages(&*store, of, scan).await, expected, "{first} to {last}");
        }
    }
    // From behind the end there is nothing, and nothing goes wrong.
    for after in [6, 7, 255] {
        let query = Query { of: Selection::Ids(id(2)..=id(6)), after: Some(id(after)), scan: 10 };
        assert_eq!(store.list(query, at(0)).await.unwrap(), (Vec::new(), None));
    }
    store.close().await.unwrap();
}
