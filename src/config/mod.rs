//! The configuration, valid by construction: what the rest of the program may
//! rely on. Reading and checking the file is in the files beside this one.

mod auth;
mod check;
mod convert;
mod file;
mod load;
mod policy;
mod rule;
mod section;
mod secure;
#[cfg(test)]
mod tests;
mod tls;
mod tree;
pub mod values;
mod warnings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use crate::message::fingerprint::Exclude;
pub use crate::secret::Secret;
pub use crate::smtp::data::BareNewlines;
pub use auth::{Auth, TenantFrom};
pub use file::NamedFile;
pub use policy::{
    Dedup, FieldRef, InDoubt, Mode, OnConflict, OnDuplicate, OnPartial, OnStoreFailure, Scope, Strategy,
    Unkeyed,
};
pub use rule::{Glob, Match, Rule};
pub use section::ConfigFault;
pub use secure::{Credentials, Password, TlsManner, UpstreamTls};
pub use tls::{KeyPair, ListenerTls, TlsStart};
pub use values::{parse_duration, parse_ttl};

/// A configuration that can be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Our name, in the greeting and the Received field.
    pub hostname: String,
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Where mail goes.
    pub upstream: Upstream,
    /// Where claims are kept.
    pub store: Store,
    /// Which e-mail is the same, and what follows.
    pub dedup: Dedup,
    /// What holds for some of the mail instead; the first that matches counts.
    pub rules: Vec<Rule>,
    /// Bounds on what one client or message may cost.
    pub limits: Limits,
    /// How to write the log.
    pub log: Log,
    /// How long attempts under way may go on after SIGTERM.
    pub drain: Duration,
    /// Where operators and their tools ask; `None` when that is turned off.
    pub admin: Option<Admin>,
    /// Environment variables with our prefix that are no settings.
    pub passed_over: Vec<String>,
}

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name; the tenant of its clients unless something else names one.
    pub name: String,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Who may relay.
    pub allow_from: Vec<IpNet>,
    /// A header field that names the tenant.
    pub tenant_header: Option<String>,
    /// How it speaks TLS; `None` when that is off.
    pub tls: Option<ListenerTls>,
    /// How clients prove who they are.
    pub auth: Auth,
    /// Whose connections begin with a PROXY header, which is believed. Empty
    /// when the protocol is off.
    pub proxy_from: Vec<IpNet>,
}

/// `[upstream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `host:port`, tried in order; at least one.
    pub addresses: Vec<String>,
    /// How connections are secured; `None`: not at all.
    pub tls: Option<UpstreamTls>,
    /// The account that we have there.
    pub credentials: Option<Credentials>,
    /// Idle connections kept.
    pub pool_size: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Send the key upstream under this name.
    pub idempotency_header: Option<String>,
    /// Whether to add our Received field.
    pub received_header: bool,
    /// Deadlines of each phase.
    pub timeouts: UpstreamTimeouts,
}

/// How long the upstream may take, by phase (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpstreamTimeouts {
    /// TCP connection, each address. Default 30 s.
    pub connect: Duration,
    /// The greeting, and each reply to EHLO, RSET and the like. Default 5 min.
    pub greeting: Duration,
    /// Replies to MAIL and RCPT. Default 5 min.
    pub envelope: Duration,
    /// The reply to DATA. Default 2 min.
    pub data: Duration,
    /// One block of the body. Default 3 min.
    pub block: Duration,
    /// The reply after the final dot. Default 10 min.
    pub completion: Duration,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where that address comes from.
    pub address_from: AddressFrom,
    /// The file with the token that requests must bring; made at first start.
    pub token_file: PathBuf,
}

/// Where an address comes from: one that somebody asked for must be had, one
/// that nobody did may be taken by another proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFrom {
    /// Nothing was written.
    Default,
    /// The file or the environment.
    Operator,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    /// Nothing survives the process.
    Memory,
    /// A sled directory.
    Sled {
        /// The directory.
        path: PathBuf,
        /// Octets of its disk that are kept for what is under way: with less
        /// left, nothing new is claimed. 0 is none.
        reserve: u64,
    },
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Octets of one message.
    pub max_message_size: u64,
    /// RCPT commands of one message.
    pub max_recipients: usize,
    /// Client connections at once.
    pub max_connections: usize,
    /// The same from one address.
    pub max_connections_per_ip: usize,
    /// Octets of one message kept in memory; the rest goes to a file.
    pub memory_per_message: u64,
    /// How long a client may take for one whole command.
    pub command_timeout: Duration,
    /// How long a message may take beyond one second for each KiB of it.
    pub data_timeout: Duration,
    /// Bad commands before `421 4.7.0`.
    pub max_errors: usize,
    /// What a bare LF or CR means.
    pub bare_newlines: BareNewlines,
    /// Octets of all messages in memory together.
    pub in_memory_total: u64,
    /// Live claims of one tenant; `None`: as many as it wants.
    pub max_claims_per_tenant: Option<u64>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least level that is written.
    pub level: LogLevel,
    /// A file instead of standard error, rotated daily.
    pub file: Option<PathBuf>,
    /// What is hidden.
    pub redact: Redact,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// `key=value`.
    Text,
    /// One object a line.
    Json,
}

/// The least level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `error`
    Error,
    /// `warn`
    Warn,
    /// `info`
    Info,
    /// `debug`
    Debug,
    /// `trace`
    Trace,
}

/// What the log hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redact {
    /// Nothing.
    None,
    /// Local parts of recipients are hashed.
    Recipient,
    /// Recipients, senders, keys, Message-IDs and reply texts are hashed.
    All,
}
