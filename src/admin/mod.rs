//! The admin address: what operators and their tools ask over HTTP.
//!
//! Health and metrics are for everybody who can connect; the rest wants the
//! token. Every request has a deadline, every body a bound, and a client that
//! reads nothing is dropped: nothing here ever holds mail up.

mod answer;
mod body;
mod claims;
mod events;
mod health;
mod import;
mod query;
mod routes;
mod serve;
mod stats;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::upstream::Upstream;

pub use serve::Running;
use token::Token;

/// What the admin address looks at.
#[derive(Clone)]
pub struct Desk {
    /// The claims.
    pub store: Arc<dyn Store>,
    /// The decisions.
    pub journal: Journal,
    /// The measurements.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rest of the program.
    pub proxy: Arc<dyn Proxy>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// What is to be known of the proxy as it runs.
pub trait Proxy: Send + Sync + 'static {
    /// Clients connected.
    fn sessions(&self) -> usize;
    /// Where mail goes at this moment.
    fn upstream(&self) -> Upstream;
    /// Whether it is about to end.
    fn is_closing(&self) -> bool;
}

/// The admin address, taken, and the token that goes with it.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    token: Token,
}

/// Why the admin address can't be served; says which key and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminFault(String);

impl fmt::Display for AdminFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AdminFault {}

/// A warning where everybody on this machine can read the token; `None` too
/// where there is no token yet.
pub fn exposed_token(config: &config::Admin) -> Option<String> {
    token::exposed(&config.token_file)
}

impl Bound {
    /// Takes the address by `listen`, and reads the token or makes one.
    ///
    /// # Errors
    /// When the address can't be had, or the token file neither be read nor be
    /// made.
    pub fn new(
        config: &config::Admin,
        listen: impl FnOnce(SocketAddr) -> io::Result<TcpListener>,
    ) -> Result<Self, AdminFault> {
        let config::Admin { address, token_file, .. } = config;
        let listener = listen(*address).map_err(|error| {
            let instead = "write another one, or \"\" for none";
            AdminFault(format!("admin.address: {address} can't be had: {error}; {instead}"))
        })?;
        let token = Token::read_or_make(token_file)?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "the admin address can be reached from other machines, and there is no TLS: whoever listens on \
                 the way learns the token"
            );
        }
        Ok(Self { listener, token })
    }

    /// The address that was taken.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves it until [`Running::stop`].
    pub fn serve(self, desk: Desk) -> Running {
        let closing = CancellationToken::new();
        let router = routes::router(desk, self.token, closing.clone());
        Running::start(self.listener, router, closing)
    }
}
