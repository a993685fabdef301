//! The upstream: connections to it, and one transaction at a time on each.
//!
//! [`Upstream::prepare`] brings a message to the point where only the final
//! dot is missing; [`Transaction::complete`] sends it. Between the two lies
//! the commit point of the claims. Everything that goes wrong before the last
//! octet may have left is an [`UpstreamFault`] of a message certainly not
//! sent; after it, only a reply of the right class settles anything.

mod access;
mod auth;
mod connection;
mod deadline;
mod fault;
mod health;
mod kept;
mod login;
mod open;
mod pool;
mod reach;
mod tls;
mod transaction;

pub use access::Access;
pub use auth::Account;
pub use fault::{At, Phase, UpstreamFault};
pub use health::Probed;
pub use login::Login;
pub use open::Dial;
pub use pool::{Completion, Prepared, Transaction, Upstream};

#[cfg(test)]
mod tests;
