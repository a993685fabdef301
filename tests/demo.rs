//! The demonstration: it succeeds, and it would fail if claims did nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

use std::process::Command;
use std::sync::Arc;

use mailonce::cli::{self, CliFault};
use mailonce::config;
use mailonce::server;
use mailonce::store::Store;
use mailonce::store::faulty::FaultyStore;

fn store(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    server::open_store(&config::Store::Sled { path: directory.path().join("claims") }).unwrap().0
}

#[test]
fn one_of_thirty_two_arrives() {
    let directory = tempfile::tempdir().unwrap();
    cli::demo::show(store(&directory), true).unwrap();
}

#[test]
fn with_broken_claims_it_fails() {
    let directory = tempfile::tempdir().unwrap();
    let broken = FaultyStore::new(store(&directory));
    broken.break_claims();
    let Err(CliFault::Failed(what)) = cli::demo::show(Arc::new(broken), true) else {
        panic!("the demonstration does not notice that every client sent");
    };
    assert!(what.ends_with("arrived instead of one"), "{what}");
}

#[test]
fn the_command_says_so_and_exits_with_0() {
    let output = Command::new(env!("CARGO_BIN_EXE_mailonce")).args(["demo", "--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("Sent once: 1 delivered, 31 answered"), "{said}");
    assert!(said.contains("32 clients heard:           250 2.0.0 kept as message 1"), "{said}");
}
