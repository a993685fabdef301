//! mailonce: an SMTP relay proxy that sends every e-mail once.
//!
//! The modules in reading order, from the wire up; each may use only those
//! before it (a test in `tests/tidy.rs` holds them to that). ARCHITECTURE.md
//! tells the life of a message through them.

pub mod cli;
pub mod clock;
pub mod config;
pub mod journal;
pub mod message;
pub mod smtp;
pub mod store;
pub mod upstream;
