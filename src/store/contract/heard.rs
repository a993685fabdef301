//! How long a claim is remembered whose client did not receive the reply.

use std::time::Duration;

use super::{
    Claimed, Durability, Engine, Outcome, Settlement, WINDOW, accepted, at, claim, deferred, id, in_doubt,
    is_new, send, settlement, slot, token,
};
use crate::clock::Timestamp;
use crate::store::{Heard, Marks, Reception, Record, Slot, State, Store};

const UNHEARD: Duration = WINDOW.saturating_mul(24);

fn content(number: u8) -> Slot {
    Slot { unheard_window: UNHEARD, ..slot(number) }
}

/// One attempt, settled as not heard as long as nothing else is known.
async fn send_unheard(store: &dyn Store, attempt: u64, now: Timestamp, number: u8, outcome: Outcome) {
    assert!(is_new(&claim(store, attempt, now, content(number)).await));
    store.commit(token(attempt), vec![id(number).into()], now).await.unwrap();
    let unheard = Settlement { heard: false, ..settlement(number, outcome) };
    store.settle(token(attempt), now, vec![unheard], Durability::Now).await.unwrap();
}

fn note(store: &dyn Store, number: u8, reception: Reception) {
    note_at(store, at(10), number, reception);
}

fn note_at(store: &dyn Store, now: Timestamp, number: u8, reception: Reception) {
    store.note_heard(vec![Heard { id: id(number), reception }], now);
}

/// Until when a claim is remembered, and whether it is heard.
async fn memory(store: &dyn Store, number: u8) -> (Timestamp, bool) {
    let record: Record = store.get(id(number), at(0)).await.unwrap().unwrap();
    (record.expires, record.heard)
}

fn received(settled_at: Timestamp) -> Reception {
    Reception::Final { settled_at }
}

pub(crate) async fn one_that_no_client_heard_is_remembered_for_longer(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send_unheard(&*store, 1, at(7), 1, accepted()).await;
    send_unheard(&*store, 2, at(7), 2, in_doubt()).await;
    for number in [1, 2] {
        assert_eq!(memory(&*store, number).await, (at(7).plus(UNHEARD), false));
        let late = at(7).plus(WINDOW * 2);
        assert!(matches!(claim(&*store, 9, late, content(number)).await, Claimed::Settled { .. }));
    }
    assert_eq!(store.sweep(at(7).plus(WINDOW * 2), 10).await.unwrap(), 0);
    assert_eq!(store.sweep(at(7).plus(UNHEARD), 10).await.unwrap(), 2);
    store.close().await.unwrap();
}

pub(crate) async fn one_that_was_heard_is_remembered_for_its_window(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send_unheard(&*store, 1, at(7), 1, accepted()).await;
    note(&*store, 1, received(at(7)));
    assert_eq!(memory(&*store, 1).await, (at(7).plus(WINDOW), true));
    let end = at(7).plus(WINDOW);
    assert!(store.get(id(1), end).await.unwrap().is_none());
    assert_eq!(store.sweep(end, 10).await.unwrap(), 1, "its entry is where its end is");
    assert_eq!(store.sweep(at(7).plus(UNHEARD), 10).await.unwrap(), 0, "it left none behind");
    store.close().await.unwrap();
}

pub(crate) async fn one_that_turns_out_unheard_is_remembered_for_longer(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send(&*store, 1, at(7), content(1), accepted()).await;
    assert_eq!(memory(&*store, 1).await, (at(7).plus(WINDOW), true));
    note(&*store, 1, Reception::Missed { settled_at: at(7) });
    assert_eq!(memory(&*store, 1).await, (at(7).plus(UNHEARD), false));
    assert_eq!(store.sweep(at(7).plus(WINDOW), 10).await.unwrap(), 0);
    // Another client waited for the same attempt, and received the reply.
    note(&*store, 1, received(at(7)));
    assert_eq!(memory(&*store, 1).await, (at(7).plus(WINDOW), true));
    store.close().await.unwrap();
}

pub(crate) async fn a_longer_window_stays(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    let long = Slot { window: UNHEARD * 7, ..content(1) };
    send(&*store, 1, at(7), long, accepted()).await;
    let end = at(7).plus(UNHEARD * 7);
    for (reception, heard) in [
        (Reception::Missed { settled_at: at(7) }, false),
        (received(at(7)), true),
        (Reception::ComeAgain, false),
    ] {
        note(&*store, 1, reception);
        assert_eq!(memory(&*store, 1).await, (end, heard), "{reception:?}");
    }
    store.close().await.unwrap();
}

pub(crate) async fn a_late_note_leaves_a_newer_settlement_alone(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send_unheard(&*store, 1, at(7), 1, deferred()).await;
    send_unheard(&*store, 2, at(9), 1, accepted()).await;
    note(&*store, 1, received(at(7)));
    assert_eq!(memory(&*store, 1).await, (at(9).plus(UNHEARD), false));
    note(&*store, 1, received(at(9)));
    note(&*store, 1, Reception::Missed { settled_at: at(7) });
    assert_eq!(memory(&*store, 1).await, (at(9).plus(WINDOW), true));
    // One about a claim that is unknown, or that has expired, does nothing.
    note(&*store, 2, received(at(9)));
    assert!(store.get(id(2), at(9)).await.unwrap().is_none());
    let late = at(9).plus(WINDOW);
    note_at(&*store, late, 1, Reception::ComeAgain);
    assert!(store.get(id(1), late).await.unwrap().is_none());
    store.close().await.unwrap();
}

pub(crate) async fn one_whose_client_comes_again_is_remembered_whatever_others_hear(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    // It was told so while the claim was under way, or when it was settled.
    assert!(is_new(&claim(&*store, 1, at(6), content(1)).await));
    note(&*store, 1, Reception::ComeAgain);
    store.commit(token(1), vec![id(1).into()], at(7)).await.unwrap();
    let unheard = Settlement { heard: false, ..settlement(1, accepted()) };
    store.settle(token(1), at(7), vec![unheard], Durability::Now).await.unwrap();
    send_unheard(&*store, 2, at(7), 2, accepted()).await;
    note(&*store, 2, Reception::ComeAgain);
    for number in [1, 2] {
        note(&*store, number, received(at(7)));
        assert_eq!(memory(&*store, number).await, (at(7).plus(UNHEARD), true), "claim {number}");
    }
    // What no recipient has may be sent again at any time.
    send(&*store, 3, at(7), content(3), deferred()).await;
    note(&*store, 3, Reception::ComeAgain);
    assert_eq!(memory(&*store, 3).await, (at(7).plus(WINDOW), true));
    store.close().await.unwrap();
}

/// A client that was told to come again does so, also where another client's retry is sent
/// before.
pub(crate) async fn one_whose_client_comes_again_is_remembered_over_later_attempts(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    // It waited for an attempt that was deferred later.
    assert!(is_new(&claim(&*store, 1, at(6), content(1)).await));
    note(&*store, 1, Reception::ComeAgain);
    super::settle(&*store, 1, at(7), 1, deferred()).await.unwrap();
    // One of its recipients has the message, and the other one lacks it.
    let whole = Slot { marks: vec![1, 2], ..content(2) };
    let marks = Marks { delivered: vec![1], owed: vec![2], ..Marks::default() };
    assert!(is_new(&claim(&*store, 2, at(6), whole.clone()).await));
    let first = Settlement { heard: false, marks, ..settlement(2, deferred()) };
    store.settle(token(2), at(7), vec![first], Durability::Now).await.unwrap();
    note(&*store, 2, Reception::ComeAgain);
    // It was told of a doubt.
    send_unheard(&*store, 3, at(7), 3, in_doubt()).await;
    note(&*store, 3, Reception::ComeAgain);
    for slot in [content(1), whole, Slot { in_doubt: crate::config::InDoubt::Resend, ..content(3) }] {
        let number = slot.id.0[0];
        assert!(is_new(&claim(&*store, 4, at(8), slot.clone()).await));
        let delivered = Marks { delivered: slot.marks, ..Marks::default() };
        let then = Settlement { heard: false, marks: delivered, ..settlement(number, accepted()) };
        store.settle(token(4), at(9), vec![then], Durability::Now).await.unwrap();
        note(&*store, number, received(at(9)));
        assert_eq!(memory(&*store, number).await, (at(9).plus(UNHEARD), true), "claim {number}");
    }
    // Where no client comes again, each attempt has its own window.
    send(&*store, 5, at(7), content(4), deferred()).await;
    send_unheard(&*store, 6, at(8), 4, accepted()).await;
    note(&*store, 4, received(at(8)));
    assert_eq!(memory(&*store, 4).await, (at(8).plus(WINDOW), true));
    store.close().await.unwrap();
}

pub(crate) async fn a_note_reaches_the_record_beneath_a_claim(engine: &dyn Engine) {
    let (store, _) = engine.open(at(0)).await;
    send_unheard(&*store, 1, at(7), 1, in_doubt()).await;
    let resend = Slot { in_doubt: crate::config::InDoubt::Resend, ..content(1) };
    assert!(is_new(&claim(&*store, 2, at(8), resend.clone()).await));
    note(&*store, 1, received(at(7)));
    store.release(token(2), vec![id(1)]).await.unwrap();
    assert_eq!(memory(&*store, 1).await, (at(7).plus(WINDOW), true));
    // The claim's end takes the place of the entry that the note has written.
    assert!(is_new(&claim(&*store, 3, at(8), resend).await));
    note(&*store, 1, Reception::Missed { settled_at: at(7) });
    store.commit(token(3), vec![id(1).into()], at(9)).await.unwrap();
    super::settle(&*store, 3, at(9), 1, accepted()).await.unwrap();
    assert_eq!(store.sweep(at(9).plus(WINDOW), 10).await.unwrap(), 1);
    assert_eq!(store.sweep(at(9).plus(UNHEARD), 10).await.unwrap(), 0);
    store.close().await.unwrap();
}

/// One claim for a whole message: a note about the first recipient's client comes
/// while the message is sent to the second one.
pub(crate) async fn a_note_leaves_a_claim_what_it_goes_on_with(engine: &dyn Engine) {
    let to = |recipient: u64| Slot { marks: vec![recipient], ..content(1) };
    let (store, _) = engine.open(at(0)).await;
    assert!(is_new(&claim(&*store, 1, at(7), to(1)).await));
    let delivered = Marks { delivered: vec![1], ..Marks::default() };
    let first = Settlement { heard: false, marks: delivered.clone(), ..settlement(1, accepted()) };
    store.settle(token(1), at(7), vec![first], Durability::Now).await.unwrap();
    assert!(is_new(&claim(&*store, 2, at(8), to(2)).await));
    note(&*store, 1, received(at(7)));
    let marks = Marks { owed: vec![2], ..delivered };
    let second = Settlement { marks: marks.clone(), ..settlement(1, deferred()) };
    store.settle(token(2), at(9), vec![second], Durability::Now).await.unwrap();
    let record = store.get(id(1), at(9)).await.unwrap().unwrap();
    assert_eq!((record.state, record.marks), (State::Settled(accepted()), marks));
    store.close().await.unwrap();
}

pub(crate) async fn a_restart_keeps_what_is_known_of_the_clients(engine: &dyn Engine) {
    if !engine.durable() {
        return;
    }
    let (store, _) = engine.open(at(0)).await;
    send_unheard(&*store, 1, at(7), 1, accepted()).await;
    send_unheard(&*store, 2, at(7), 2, accepted()).await;
    note(&*store, 2, received(at(7)));
    store.close().await.unwrap();
    let (store, _) = engine.open(at(8)).await;
    super::counted(&*store).await;
    assert_eq!(memory(&*store, 1).await, (at(7).plus(UNHEARD), false));
    assert_eq!(memory(&*store, 2).await, (at(7).plus(WINDOW), true));
    store.close().await.unwrap();
}
