//! Many at once.

use std::collections::HashMap;

use super::{Claimed, Engine, accepted, at, claim, id, is_new, request, settle, slot, token};
use crate::store::Durability;

pub(crate) async fn one_of_many_tasks_gets_the_claim(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let tasks: Vec<_> = (0..64)
        .map(|attempt| {
            let store = store.clone();
            tokio::spawn(async move { is_new(&claim(&*store, attempt, at(0), slot(1)).await) })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += usize::from(task.await.unwrap());
    }
    assert_eq!(new, 1);
    store.close().await.unwrap();
}

/// Two orders of the same recipients, many times over: every call answers, and
/// each id has exactly one holder.
pub(crate) async fn overlapping_messages_neither_deadlock_nor_share_a_recipient(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let tasks: Vec<_> = (0..32_u64)
        .map(|attempt| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut numbers: Vec<u8> = (1..=20).collect();
                if attempt % 2 == 1 {
                    numbers.reverse();
                }
                let slots = numbers.iter().map(|number| slot(*number)).collect();
                let claimed = store.claim(request(attempt, at(0), slots)).await.unwrap();
                let won = numbers.into_iter().zip(&claimed).filter(|(_, claimed)| is_new(claimed));
                (attempt, won.map(|(number, _)| number).collect::<Vec<u8>>())
            })
        })
        .collect();
    let mut holders = HashMap::new();
    for task in tasks {
        let (attempt, won) = task.await.unwrap();
        for number in won {
            assert_eq!(holders.insert(number, attempt), None, "two holders of {number}");
        }
    }
    assert_eq!(holders.len(), 20);
    for (number, attempt) in holders {
        store.commit(token(attempt), vec![id(number).into()], at(1)).await.unwrap();
    }
    store.close().await.unwrap();
}

pub(crate) async fn duplicates_are_counted_without_loss(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 0, at(0), slot(1)).await));
    let duplicates = async |from: u64| {
        let ask = |attempt| {
            let store = store.clone();
            tokio::spawn(async move { claim(&*store, attempt, at(5), slot(1)).await })
        };
        let tasks: Vec<_> = (from..from + 10).map(ask).collect();
        for task in tasks {
            assert!(matches!(
                task.await.unwrap(),
                Claimed::InFlight { conflict: false, .. } | Claimed::Settled { conflict: false, .. }
            ));
        }
    };
    duplicates(10).await;
    store.commit(token(0), vec![id(1).into()], at(0)).await.unwrap();
    duplicates(20).await;
    settle(&*store, 0, at(1), 1, accepted()).await.unwrap();
    duplicates(30).await;
    let record = store.get(id(1), at(6)).await.unwrap().unwrap();
    assert_eq!((record.duplicates, record.last_seen), (30, at(5)));

    // Written without waiting, all the same: the store takes more on.
    assert!(is_new(&claim(&*store, 50, at(6), slot(2)).await));
    let none = store.settle(token(50), at(6), Vec::new(), Durability::Soon).await;
    assert_eq!(none, Ok(()));
    store.close().await.unwrap();
}
