//! The wire under attack, with the real program: whatever a client or an
//! upstream says, one message stays one message, a line of the log stays a
//! line, and the proxy goes on serving. docs/security.md lists the threats.

#![allow(unreachable_pub, reason = "what parts of one test share")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

#[path = "attack/bombs.rs"]
mod bombs;
#[path = "attack/commands.rs"]
mod commands;
#[path = "attack/hostile.rs"]
mod hostile;
#[path = "attack/injection.rs"]
mod injection;
#[path = "attack/raw.rs"]
mod raw;
#[path = "attack/smuggling.rs"]
mod smuggling;
