//! Real faults: the real binary with its store on a disk that is full, read-only
//! or broken, with too few file descriptors, too little memory, a clock that is
//! set, stopped by a signal, cut off from its upstream. Each with a stream of
//! e-mails before, during and after, from clients that try again until they
//! hear a 2xx; judged by what the upstream got. docs/guarantees.md says what is
//! promised.
//!
//! They mount, make namespaces and control groups, and so need root on Linux:
//! without, they fail and say so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers are tests")]

#[path = "crash/checker.rs"]
mod checker;
mod proc;

#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/errors.rs"]
mod errors;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/paused.rs"]
mod paused;
#[path = "faults/place.rs"]
mod place;
#[path = "faults/stream.rs"]
mod stream;
#[path = "faults/trial.rs"]
mod trial;
