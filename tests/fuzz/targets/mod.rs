//! The fuzz targets: what must hold for any input, as plain functions that
//! panic where it does not. `tests/fuzz.rs` runs them in every test run,
//! `tests/fuzz/run` for as long as wanted, guided by coverage.
//!
//! An input mostly begins with one octet that chooses settings and how the rest
//! is split; the rest is what comes over the wire.

mod command;
mod config;
mod data;
mod decode;
mod fingerprint;
mod headers;
mod identity;
mod proxy;
mod records;
mod replies;
mod sasl;
mod session;
mod wire;

/// One target.
pub(crate) struct Target {
    /// What its corpus and dictionary are called.
    pub(crate) name: &'static str,
    /// Panics where something does not hold.
    pub(crate) run: fn(&[u8]),
    /// The longest input worth trying, in octets.
    pub(crate) longest: usize,
}

const fn target(name: &'static str, run: fn(&[u8]), longest: usize) -> Target {
    Target { name, run, longest }
}

/// Every target. A new parser of what comes from outside gets a line here, one
/// at the end of `tests/fuzz.rs`, a file beside this one, a folder with three
/// seeds or more in the corpus, and perhaps a dictionary.
pub(crate) const TARGETS: [Target; 12] = [
    target("command", command::run, 2_500),
    target("config", config::run, 4_000),
    target("data", data::run, 4_000),
    target("decode", decode::run, 4_000),
    target("fingerprint", fingerprint::run, 8_000),
    target("headers", headers::run, 4_000),
    target("identity", identity::run, 4_000),
    target("proxy", proxy::run, 4_500),
    target("records", records::run, 4_000),
    target("replies", replies::run, 6_000),
    target("sasl", sasl::run, 1_000),
    target("session", session::run, 6_000),
];

/// The first octet, which chooses, and the rest.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}
