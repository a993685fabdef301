//! What a crash of the whole machine leaves of the store: a run is recorded,
//! call by call, and cut off at any point, with what was not synced by then
//! there, gone, torn or in another order. The engine opens each such state, and
//! must have all that it had promised. `docs/crash-consistency.md` tells how,
//! and what that shows.
//!
//! `MAILONCE_CUTS` sets the number of states of each recording, or is `all`;
//! `MAILONCE_CUT` repeats one, as the line says that a fault is told with, and
//! `MAILONCE_RECORDING` takes a recording that a fault has kept.
//! `MAILONCE_CRASH_SEED` repeats the choice of states, though not the run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers are tests")]

#[path = "crash_consistency/content.rs"]
mod content;
#[path = "crash_consistency/cut.rs"]
mod cut;
#[path = "crash_consistency/disk.rs"]
mod disk;
#[path = "crash_consistency/history.rs"]
mod history;
#[path = "crash_consistency/judge.rs"]
mod judge;
mod proc;
#[path = "crash_consistency/recorder.rs"]
mod recorder;
#[path = "crash_consistency/replay.rs"]
mod replay;
#[path = "crash_consistency/workload.rs"]
mod workload;

use content::COPY;
use cut::{Cut, Recording, Verdicts};
use history::History;
use mailonce::store::Store;
use proc::Random;
use recorder::{Call, Place};
use workload::{End, Life};

/// The test that is the workload, and what tells it to be that.
const WORKLOAD: &str = "a_workload_finds_what_it_was_promised";
const LIFE: &str = "MAILONCE_CUT_LIFE";
const PLACE: &str = "MAILONCE_CUT_PLACE";

/// Recorded by the other tests, in a process of its own. By itself it is held
/// to its journal without a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_finds_what_it_was_promised() {
    if let Ok(life) = std::env::var(LIFE) {
        let place = Place { root: std::env::var(PLACE).unwrap().into() };
        return workload::live(Life::read(&life), &place.store(), &place.journal()).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Place { root: directory.path().to_owned() };
    for number in 1..4 {
        let life = Life { number, seed: number, tasks: 3, steps: 40, weight: 0, end: End::Closed };
        workload::live(life, &place.store(), &place.journal()).await;
    }
    let history = History::read(&std::fs::read_to_string(place.journal()).unwrap());
    assert!(history.promised() > 10);
    let (store, _) = workload::open(&place.store(), workload::at(1 << 40)).unwrap();
    history.check(&workload::everything(&store).await.unwrap()).unwrap();
    store.close().await.unwrap();
}

/// Four processes with one store, two of which are killed.
fn lives(random: &mut Random, steps: u64, weight: usize) -> Vec<Life> {
    let ends = (1..).zip([End::Killed, End::Closed, End::Killed, End::Closed]);
    ends.map(|(number, end)| Life { number, seed: random.next() >> 1, tasks: 3, steps, weight, end })
        .collect()
}

fn cuts(recording: &Recording, some: usize, random: &mut Random) -> Vec<Cut> {
    match std::env::var("MAILONCE_CUTS").as_deref() {
        Ok("all") => recording.all_cuts(2, random),
        Ok(count) => recording.some_cuts(count.parse().unwrap(), random),
        Err(_) => recording.some_cuts(some, random),
    }
}

/// Records, cuts and judges.
fn crash(what: &str, steps: u64, weight: usize, some: usize) {
    if let Ok(cut) = std::env::var("MAILONCE_CUT") {
        return Recording::repeat(&cut);
    }
    let mut random = Random::seeded();
    let recording = match std::env::var("MAILONCE_RECORDING") {
        Ok(kept) => Recording::kept(&kept),
        Err(_) => Recording::of(&lives(&mut random, steps, weight)),
    };
    assert!(recording.renames_a_copy(), "the store was never written anew");
    let cuts = cuts(&recording, some, &mut random);
    let verdicts = recording.hold(what, cuts);
    assert!(verdicts.promised > some, "little was promised: {verdicts}");
}

#[test]
fn what_was_promised_outlives_a_power_failure() {
    crash("what_was_promised_outlives_a_power_failure", 60, 0, 1200);
}

/// Records so large that sled fills its segments and uses them again, and the
/// commit log its files.
#[test]
fn it_does_so_when_the_files_are_written_over() {
    crash("it_does_so_when_the_files_are_written_over", 150, 4000, 600);
}

/// A second crash while the store is opened after a first one.
#[test]
fn a_crash_while_opening_after_a_crash_loses_nothing() {
    let what = "a_crash_while_opening_after_a_crash_loses_nothing";
    if let Ok(cut) = std::env::var("MAILONCE_CUT") {
        return Recording::repeat(&cut);
    }
    let mut random = Random::seeded();
    let first = Recording::of(&lives(&mut random, 30, 0));
    for cut in first.some_cuts(8, &mut random) {
        let life =
            Life { number: 1, seed: random.next() >> 1, tasks: 1, steps: 0, weight: 0, end: End::Closed };
        let second = first.second(cut, life);
        let cuts = cuts(&second, 60, &mut random);
        second.hold(what, cuts);
    }
}

/// These tests see what they are for: where a sync is left out of a recording,
/// something is lost.
#[test]
fn a_sync_that_is_left_out_is_missed() {
    let mut random = Random::seeded();
    let lives = lives(&mut random, 30, 0);
    let missed = |left_out: fn(&Call) -> bool, random: &mut Random| {
        let recording = Recording::of(&lives).without(left_out);
        let cuts = recording.some_cuts(150, random);
        let Verdicts { faults, .. } = recording.judged(cuts);
        !faults.is_empty()
    };
    assert!(missed(|call| matches!(call, Call::Sync(name) if name.starts_with("commits")), &mut random));
    assert!(missed(|call| matches!(call, Call::Sync(name) if name == "db"), &mut random));
    assert!(missed(|call| matches!(call, Call::SyncDirectory), &mut random));
    assert!(missed(|call| matches!(call, Call::Sync(name) if name.starts_with(COPY)), &mut random));
}
