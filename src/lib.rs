//! mailonce: an SMTP relay proxy that sends every e-mail once.
//!
//! From the wire up, each module using only those before it (a test in
//! `tests/tidy.rs` holds them to that): [`clock`], [`crash`], [`duplex`],
//! [`escape`], [`planted`] and [`secret`]; [`smtp`], the protocol without I/O; [`message`]; [`config`];
//! [`files`]; [`store`], the claims; [`metrics`]; [`identity`]; [`journal`];
//! [`upstream`]; [`dedup`], the heart; [`auth`]; [`net`] and [`admin`];
//! [`server`], where all is wired; [`sink`] and
//! [`demo`]; [`cli`]. ARCHITECTURE.md tells the life of a message through them.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
pub mod dedup;
pub mod demo;
pub mod duplex;
pub mod escape;
pub mod files;
pub mod identity;
pub mod journal;
pub mod message;
pub mod metrics;
pub mod net;
pub mod planted;
pub mod secret;
pub mod server;
pub mod sink;
pub mod smtp;
pub mod store;
pub mod upstream;
