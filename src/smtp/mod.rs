//! The SMTP protocol without I/O and without a clock.
//!
//! Both machines here, the server's [`session`] and the upstream's
//! [`client`], are fed bytes and hand out actions; neither ever sees a
//! socket. So both run in tests without ports, threads or sleeps.

pub mod address;
pub mod client;
pub mod command;
pub mod data;
pub mod envelope;
pub mod reply;
pub mod sasl;
pub mod session;
pub mod stuff;
