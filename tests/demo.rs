//! The demonstration: it succeeds, and it would fail if claims did nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::process::Command;
use std::sync::Arc;

use common::program::{Process, mailonce as command};
use mailonce::cli::{self, CliFault};
use mailonce::config;
use mailonce::server;
use mailonce::store::Store;
use mailonce::store::faulty::FaultyStore;

fn store(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    server::open_store(&config::Store::Sled { path: directory.path().join("claims"), reserve: 0 })
        .unwrap()
        .store
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
    let output = command(&["demo", "--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("Sent once: 1 delivered, 31 answered"), "{said}");
    assert!(said.contains("32 clients heard:           250 2.0.0 kept as message 1"), "{said}");
}

#[test]
fn what_it_says_to_try_next_works() {
    let demo = Process::start(command(&["demo"]));
    let first = demo.stdout_line(|line| line.starts_with("  printf '"));
    let second = demo.stdout_line(|line| line.starts_with("    curl "));
    let script = format!("{first}\n{second}");
    let run = |script: &str| {
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}\nis curl there? apt-get install curl");
    };
    run(&script);
    run(&script);
    run(&script.replace("mine-1", "mine-2"));
    demo.stdout_line(|line| line.starts_with("  message 3 from <a@example.com> to <b@example.com>"));
    let arrived = demo.stdout().iter().filter(|line| line.starts_with("  message ")).count();
    assert_eq!(arrived, 2, "the second one was not sent: {:?}", demo.stdout());
}
