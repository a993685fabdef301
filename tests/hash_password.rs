//! `mailonce hash-password` as operators use it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use mailonce::auth::hash::Hash;

fn hash_password(input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailonce"));
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_hash_of_a_line_is_all_that_is_printed() {
    let done = hash_password("päss wörd\n".as_bytes());
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(done.stderr, b"");
    let printed = String::from_utf8(done.stdout).unwrap();
    let hash = Hash::parse(printed.strip_suffix('\n').unwrap()).unwrap();
    assert!(hash.verify("päss wörd") && !hash.is_weak());
}

#[test]
fn an_empty_password_is_refused() {
    let refused = hash_password(b"\n");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(refused.stdout, b"");
    assert!(refused.stderr.starts_with(b"mailonce: there is no password; "));
}
