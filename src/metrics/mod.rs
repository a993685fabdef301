//! What is counted and measured, and how Prometheus reads it.
//!
//! Everything on a message's path is a few atomic operations: counters and
//! histograms are looked up once, and gauges are read off only when somebody
//! asks. Labels come from the program and its configuration, never from mail,
//! so there is a bound on how many series there are.

mod histogram;
mod timed;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use histogram::{Histogram, Scale};
pub use timed::TimedStore;

/// The media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A part of what an upstream does for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamPhase {
    /// From looking its name up to its answer to EHLO or AUTH, without TLS.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The waits for MAIL, RCPT and DATA.
    Envelope,
    /// Sending the content.
    Body,
    /// The last octets and the reply to them.
    Completion,
}

/// A call of the claim store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Claims are asked for.
    Claim,
    /// The commit point.
    Commit,
    /// Outcomes are written.
    Settle,
    /// Claims are given up.
    Release,
    /// One record is read.
    Get,
    /// A page of records is read.
    List,
    /// A record is forgotten.
    Forget,
    /// A doubt is resolved.
    Resolve,
    /// Records of another store are taken over.
    Import,
    /// The figures of `stats` are added to.
    Count,
    /// They are read.
    Counts,
    /// Claims are counted by state.
    Census,
    /// Expired records are removed.
    Sweep,
}

/// How an AUTH command of a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthResult {
    /// The credentials are good.
    Accepted,
    /// They are not.
    Refused,
    /// Nobody could tell, or there were too many tries.
    Deferred,
}

/// How a TLS handshake with a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    /// The connection is encrypted.
    Completed,
    /// There is no connection.
    Failed,
}

const PHASES: [&str; 5] = ["connect", "tls", "envelope", "body", "completion"];
const OPERATIONS: [&str; 13] = [
    "claim", "commit", "settle", "release", "get", "list", "forget", "resolve", "import", "count", "counts",
    "census", "sweep",
];
const AUTH_RESULTS: [&str; 3] = ["accepted", "refused", "deferred"];
const HANDSHAKE_RESULTS: [&str; 2] = ["completed", "failed"];

/// Buckets in seconds: an upstream takes milliseconds when all is well, and
/// may take ten minutes.
const UPSTREAM_BUCKETS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// Buckets in seconds: a commit is one wait for the disk.
const STORE_BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// Buckets in octets: 1 KiB to 64 MiB.
const SIZE_BUCKETS: &[f64] =
    &[1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    outcome: &'static str,
    strategy: &'static str,
    rule: String,
}

/// One label and its value.
type Label = [(&'static str, &'static str); 1];

/// The counters and histograms of one process.
pub struct Metrics {
    registry: Registry,
    messages: Family<MessageLabels, Counter>,
    claims: Family<Label, Gauge>,
    sessions: Gauge,
    connections: Family<Label, Gauge>,
    upstream: Vec<Histogram>,
    store: Vec<Histogram>,
    message_bytes: Histogram,
    auth: Vec<Counter>,
    handshakes: Vec<Counter>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What a scrape reads off at its moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many claims are in each state, by its name; `None` while the store
    /// does not say.
    pub claims: Option<Vec<(&'static str, u64)>>,
    /// Clients connected.
    pub sessions: usize,
    /// Connections to the upstream that wait for use.
    pub idle: usize,
    /// Connections to the upstream with something under way.
    pub in_use: usize,
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let messages = Family::<MessageLabels, Counter>::default();
        let claims = Family::<Label, Gauge>::default();
        let sessions = Gauge::default();
        let connections = Family::<Label, Gauge>::default();
        registry.register(
            "mailonce_messages",
            "Decisions, one for each recipient, by outcome, by the strategy that yielded the key, and by rule",
            messages.clone(),
        );
        registry.register("mailonce_claims", "Claims that are remembered, by state", claims.clone());
        registry.register("mailonce_sessions", "Clients connected", sessions.clone());
        registry.register(
            "mailonce_upstream_connections",
            "Connections to the upstream: idle ones are kept for the next message",
            connections.clone(),
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("mailonce_build", "The version that runs", Info::new(version));
        let upstream = histograms(
            &mut registry,
            ("mailonce_upstream_seconds", "How long the upstream took, by phase of a message"),
            ("phase", &PHASES),
            UPSTREAM_BUCKETS,
        );
        let store = histograms(
            &mut registry,
            ("mailonce_store_seconds", "How long the claim store took, by operation"),
            ("operation", &OPERATIONS),
            STORE_BUCKETS,
        );
        let message_bytes = Histogram::new(SIZE_BUCKETS, Scale::Whole);
        let help = "Octets of the messages that were received whole";
        registry.register("mailonce_message_bytes", help, message_bytes.clone());
        let auth =
            counters(&mut registry, ("mailonce_auth", "AUTH commands of clients, by result"), &AUTH_RESULTS);
        let handshakes = counters(
            &mut registry,
            ("mailonce_tls_handshakes", "TLS handshakes with clients, by result"),
            &HANDSHAKE_RESULTS,
        );
        Arc::new(Self {
            registry,
            messages,
            claims,
            sessions,
            connections,
            upstream,
            store,
            message_bytes,
            auth,
            handshakes,
        })
    }

    /// Lets a series stand at zero before the first decision of its kind, so
    /// that its first increase is seen as one.
    pub fn expect_outcome(&self, outcome: &'static str) {
        let labels = MessageLabels { outcome, strategy: "", rule: String::new() };
        let _ = self.messages.get_or_create(&labels);
    }

    /// Counts a decision about one recipient. `strategy` and `rule` are empty
    /// where there is none.
    pub fn decided(&self, outcome: &'static str, strategy: &'static str, rule: &str) {
        let labels = MessageLabels { outcome, strategy, rule: rule.to_owned() };
        self.messages.get_or_create(&labels).inc();
    }

    /// Notes the size of a message that was received whole.
    pub fn received(&self, octets: u64) {
        self.message_bytes.observe(octets);
    }

    /// Notes how long a phase of a message took at the upstream.
    pub fn upstream_took(&self, phase: UpstreamPhase, span: Duration) {
        if let Some(histogram) = self.upstream.get(phase as usize) {
            histogram.observe_span(span);
        }
    }

    /// Notes how long a call of the store took, whether or not it succeeded.
    pub fn store_took(&self, operation: Operation, span: Duration) {
        if let Some(histogram) = self.store.get(operation as usize) {
            histogram.observe_span(span);
        }
    }

    /// Counts an AUTH command.
    pub fn authenticated(&self, result: AuthResult) {
        if let Some(counter) = self.auth.get(result as usize) {
            counter.inc();
        }
    }

    /// Counts a TLS handshake.
    pub fn shook_hands(&self, result: HandshakeResult) {
        if let Some(counter) = self.handshakes.get(result as usize) {
            counter.inc();
        }
    }

    /// Everything in the text format of OpenMetrics, which is [`MEDIA_TYPE`].
    pub fn render(&self, reading: &Reading) -> String {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.sessions.set(gauge(reading.sessions));
        self.connections.get_or_create(&[("state", "idle")]).set(gauge(reading.idle));
        self.connections.get_or_create(&[("state", "in_use")]).set(gauge(reading.in_use));
        match &reading.claims {
            // A number that is known to be old is worse than none.
            None => self.claims.clear(),
            Some(claims) => {
                for (state, count) in claims {
                    let count = i64::try_from(*count).unwrap_or(i64::MAX);
                    self.claims.get_or_create(&[("state", state)]).set(count);
                }
            }
        }
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn histograms(
    registry: &mut Registry,
    (name, help): (&str, &str),
    (label, values): (&'static str, &[&'static str]),
    buckets: &'static [f64],
) -> Vec<Histogram> {
    let family = Family::<Label, Histogram, _>::new_with_constructor(histogram::of_seconds(buckets));
    registry.register(name, help, family.clone());
    values.iter().map(|value| family.get_or_create_owned(&[(label, value)])).collect()
}

fn counters(registry: &mut Registry, (name, help): (&str, &str), results: &[&'static str]) -> Vec<Counter> {
    let family = Family::<Label, Counter>::default();
    registry.register(name, help, family.clone());
    results.iter().map(|result| family.get_or_create_owned(&[("result", result)])).collect()
}

#[cfg(test)]
mod tests;
