//! From an address to a connection that has greeted us.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::access::{Access, Tls};
use super::auth::authenticate;
use super::connection::Connection;
use super::fault::{At, Phase, UpstreamFault};
use super::tls::{Wire, handshake};
use crate::config::{TlsManner, UpstreamTimeouts};

/// A connection that has greeted us, is secured and knows who we are, as far
/// as that is asked for.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection<Wire>,
    /// How long the TLS handshake took.
    pub(super) handshake: Option<Duration>,
}

/// Connects to `address` and introduces us as `hostname`. Each address that
/// the name stands for is tried in order; the fault is that of the last.
pub(super) async fn open(
    address: &Arc<str>,
    hostname: &str,
    access: &Access,
    timeouts: UpstreamTimeouts,
) -> Result<Opened, UpstreamFault> {
    let opening = Opening { address, hostname, access, timeouts };
    let mut fault = None;
    for target in opening.resolve().await? {
        match opening.open(target).await {
            Ok(opened) => return Ok(opened),
            Err(error) => fault = Some(error),
        }
    }
    let nothing = || opening.unresolved("name has no address".to_owned());
    Err(fault.unwrap_or_else(nothing))
}

struct Opening<'a> {
    /// `host:port` as configured.
    address: &'a Arc<str>,
    hostname: &'a str,
    access: &'a Access,
    timeouts: UpstreamTimeouts,
}

impl Opening<'_> {
    async fn resolve(&self) -> Result<Vec<SocketAddr>, UpstreamFault> {
        match timeout(self.timeouts.connect, lookup_host(&**self.address)).await {
            Ok(Ok(found)) => Ok(found.collect()),
            Ok(Err(error)) => Err(self.unresolved(error.to_string())),
            Err(_) => Err(UpstreamFault::TimedOut { at: self.at(Phase::Resolve) }),
        }
    }

    async fn open(&self, target: SocketAddr) -> Result<Opened, UpstreamFault> {
        let mut opened = self.secure(target).await?;
        if let Some(account) = &self.access.account {
            authenticate(&mut opened.connection, account).await?;
        }
        Ok(opened)
    }

    /// With TLS, or without where that is allowed.
    async fn secure(&self, target: SocketAddr) -> Result<Opened, UpstreamFault> {
        let Some(tls) = &self.access.tls else { return self.clear(target).await };
        if tls.manner == TlsManner::Implicit {
            return self.implicit(target, tls).await;
        }
        let clear = self.clear(target).await?;
        let offered = clear.connection.client.capabilities().starttls;
        match tls.manner {
            TlsManner::Opportunistic if !offered => Ok(clear),
            TlsManner::Opportunistic => match self.upgrade(clear.connection, tls).await {
                Ok(opened) => Ok(opened),
                Err(fault) => {
                    tracing::warn!(%fault, "STARTTLS is offered and fails; mail goes in clear");
                    self.clear(target).await
                }
            },
            _ if !offered => {
                let error = "STARTTLS is required and not offered; if mail may go in clear, write \
                             upstream.tls = \"off\""
                    .to_owned();
                Err(UpstreamFault::Tls { at: self.at(Phase::Tls), error })
            }
            _ => self.upgrade(clear.connection, tls).await,
        }
    }

    async fn connect(&self, target: SocketAddr) -> Result<TcpStream, UpstreamFault> {
        let unconnected = |error: std::io::Error| UpstreamFault::Unconnected {
            at: self.at(Phase::Connect),
            error: error.to_string(),
        };
        let stream = timeout(self.timeouts.connect, TcpStream::connect(target))
            .await
            .map_err(|_| UpstreamFault::TimedOut { at: self.at(Phase::Connect) })?
            .map_err(unconnected)?;
        // Whole commands and blocks are written at once; Nagle's delay would
        // only hold back the final dot.
        stream.set_nodelay(true).map_err(unconnected)?;
        Ok(stream)
    }

    async fn clear(&self, target: SocketAddr) -> Result<Opened, UpstreamFault> {
        let stream = Wire::Clear(self.connect(target).await?);
        let mut connection = Connection::new(stream, self.address.clone(), self.timeouts);
        connection.hello(self.hostname).await?;
        Ok(Opened { connection, handshake: None })
    }

    async fn implicit(&self, target: SocketAddr, tls: &Tls) -> Result<Opened, UpstreamFault> {
        let stream = self.connect(target).await?;
        let (stream, took) = self.shake_hands(stream, tls).await?;
        let mut connection = Connection::new(stream, self.address.clone(), self.timeouts);
        connection.hello(self.hostname).await?;
        Ok(Opened { connection, handshake: Some(took) })
    }

    /// STARTTLS, the handshake, and EHLO anew: what was offered in clear
    /// counts no more.
    async fn upgrade(&self, connection: Connection<Wire>, tls: &Tls) -> Result<Opened, UpstreamFault> {
        let Wire::Clear(stream) = connection.start_tls().await? else {
            let error = "STARTTLS over TLS".to_owned();
            return Err(UpstreamFault::Tls { at: self.at(Phase::Tls), error });
        };
        let (stream, took) = self.shake_hands(stream, tls).await?;
        let mut connection = Connection::secured(stream, self.address.clone(), self.timeouts);
        connection.introduce(self.hostname).await?;
        Ok(Opened { connection, handshake: Some(took) })
    }

    async fn shake_hands(&self, stream: TcpStream, tls: &Tls) -> Result<(Wire, Duration), UpstreamFault> {
        let started = Instant::now();
        let wire = handshake(stream, tls, self.address, self.timeouts.connect).await?;
        Ok((wire, started.elapsed()))
    }

    fn at(&self, phase: Phase) -> At {
        At { address: self.address.clone(), phase }
    }

    fn unresolved(&self, error: String) -> UpstreamFault {
        UpstreamFault::Unresolved { at: self.at(Phase::Resolve), error }
    }
}
