//! Sockets: listeners that let clients in, TLS, and connections that obey the
//! session machine.

pub mod connection;
pub mod files;
pub mod gate;
pub mod listener;
pub mod peer;
pub mod port;
pub mod proxy_protocol;
pub mod reception;
pub mod sparing;
pub mod tls;
pub mod wire;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::config::Limits;
use crate::dedup::{Heart, Services};
use crate::message::Budget;
use crate::metrics::Metrics;

use port::Port;

/// What every connection works with.
#[derive(Debug)]
pub struct Shared {
    /// Where messages go.
    pub heart: Arc<Heart>,
    /// What a reload may change.
    pub live: ArcSwap<Live>,
    /// Who checks credentials, and counts failures.
    pub authenticator: Authenticator,
    /// The memory that messages may take together.
    pub budget: Arc<Budget>,
    /// Where handshakes are counted.
    pub metrics: Arc<Metrics>,
    /// Who is in.
    pub gate: Arc<gate::Gate>,
    /// Cancelled when the process is to end: no new connections, and idle
    /// sessions close.
    pub closing: CancellationToken,
}

/// What a reload of the configuration may change. A connection takes it anew
/// for each message; the bounds of a session hold from its start.
#[derive(Debug)]
pub struct Live {
    /// What the heart needs.
    pub services: Arc<Services>,
    /// Bounds on what one client or message may cost.
    pub limits: Limits,
    /// The listeners, by name, with their certificates; their addresses do not
    /// change.
    pub ports: Vec<Arc<Port>>,
}

impl Live {
    /// The listener of this name.
    pub fn port(&self, name: &str) -> Option<&Arc<Port>> {
        self.ports.iter().find(|port| port.listener.name == name)
    }
}
