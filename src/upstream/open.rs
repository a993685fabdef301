//! From an address to a connection that has greeted us.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::access::{Access, Tls};
use super::auth::{Answer, Party, Refusal, authenticate};
use super::connection::Connection;
use super::deadline::Deadline;
use super::fault::{At, Phase, UpstreamFault};
use super::pool::Link;
use super::tls::{Wire, handshake};
use crate::config::{TlsManner, UpstreamTimeouts};
use crate::duplex::Duplex;
use crate::smtp::client::Capabilities;
use crate::smtp::reply::Reply;

/// Makes connections that are not TCP's, for the simulation.
#[async_trait]
pub trait Dial: Send + Sync + std::fmt::Debug {
    /// A connection to `address`, which is `host:port` as configured.
    async fn dial(&self, address: &str) -> io::Result<Box<dyn Duplex>>;
}

/// A connection that has greeted us, is secured and knows who we are, as far
/// as that is asked for.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Link,
    /// How long the TLS handshake took.
    pub(super) handshake: Option<Duration>,
    /// The reply to AUTH.
    pub(super) welcome: Option<Reply>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Unopened {
    /// Another address may serve.
    Fault(UpstreamFault),
    /// It has answered to the account of a client, and the answer is no.
    Refused(Box<Refusal>),
}

impl From<UpstreamFault> for Unopened {
    fn from(fault: UpstreamFault) -> Self {
        Unopened::Fault(fault)
    }
}

impl From<Unopened> for UpstreamFault {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Fault(fault) => fault,
            Unopened::Refused(refusal) => refusal.fault,
        }
    }
}

/// An address, and what is to be done there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening<'a> {
    /// `host:port` as configured.
    pub(super) address: &'a Arc<str>,
    /// Our name.
    pub(super) hostname: &'a str,
    pub(super) access: &'a Access,
    pub(super) timeouts: UpstreamTimeouts,
    pub(super) party: Party<'a>,
    pub(super) deadline: Deadline,
    /// Where it is put what the upstream offers.
    pub(super) seen: &'a ArcSwapOption<Capabilities>,
}

impl Opening<'_> {
    /// Connects, introduces us, and logs in. Each address that the name stands
    /// for is tried in order; the fault is that of the last.
    ///
    /// # Errors
    /// When none of them has a connection, or one has refused a client.
    pub(super) async fn open(self) -> Result<Opened, Unopened> {
        let mut fault = None;
        let targets = self.deadline.hold(self.at(Phase::Resolve), self.resolve()).await?;
        for (index, target) in targets.iter().enumerate() {
            let deadline = self.deadline.share(targets.len() - index);
            match (Self { deadline, ..self }).open_at(*target).await {
                Ok(opened) => return Ok(opened),
                Err(Unopened::Fault(error)) => fault = Some(error),
                Err(refused @ Unopened::Refused(_)) => return Err(refused),
            }
        }
        let nothing = || self.unresolved("name has no address".to_owned());
        Err(fault.unwrap_or_else(nothing).into())
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, UpstreamFault> {
        if self.access.dial.is_some() {
            // It knows names only.
            return Ok(vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))]);
        }
        match timeout(self.timeouts.connect, lookup_host(&**self.address)).await {
            Ok(Ok(found)) => Ok(found.collect()),
            Ok(Err(error)) => Err(self.unresolved(error.to_string())),
            Err(_) => Err(UpstreamFault::TimedOut { at: self.at(Phase::Resolve) }),
        }
    }

    async fn open_at(&self, target: SocketAddr) -> Result<Opened, Unopened> {
        self.check_secrecy(target)?;
        let secure = Box::pin(self.secure(target));
        let mut opened = self.deadline.hold(self.at(Phase::Connect), secure).await?;
        self.seen.store(Some(Arc::new(opened.connection.client.capabilities().clone())));
        let Some(credentials) = self.party.credentials() else { return Ok(opened) };
        let login = authenticate(&mut opened.connection, self.party, credentials);
        match (self.deadline.hold(self.at(Phase::Auth), login).await?, self.party.account()) {
            (Answer::Accepted(welcome), account) => {
                opened.connection.account = account.cloned();
                Ok(Opened { welcome: Some(welcome), ..opened })
            }
            (Answer::Refused(refusal), None) => Err(refusal.fault.into()),
            (Answer::Refused(refusal), Some(_)) => {
                opened.connection.dismiss();
                Err(Unopened::Refused(refusal))
            }
        }
    }

    /// Passwords travel under TLS that is verified, or never leave the machine.
    /// The configuration sees to that; but a client may have logged in under
    /// another one than that by which its mail goes out.
    fn check_secrecy(&self, target: SocketAddr) -> Result<(), UpstreamFault> {
        let verifies = self.access.tls.as_ref().is_some_and(|tls| tls.manner.verifies());
        if self.party.credentials().is_none() || verifies || target.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let error = "a password could be read on its way there; write upstream.tls = \"starttls\" or \
                     \"implicit\""
            .to_owned();
        Err(UpstreamFault::Tls { at: self.at(Phase::Auth), error })
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
        let stream = self.in_time(TcpStream::connect(target)).await?;
        // Whole commands and blocks are written at once; Nagle's delay would
        // only hold back the final dot.
        stream.set_nodelay(true).map_err(|error| self.unconnected(&error))?;
        Ok(stream)
    }

    async fn in_time<S>(&self, connect: impl Future<Output = io::Result<S>>) -> Result<S, UpstreamFault> {
        timeout(self.timeouts.connect, connect)
            .await
            .map_err(|_| UpstreamFault::TimedOut { at: self.at(Phase::Connect) })?
            .map_err(|error| self.unconnected(&error))
    }

    async fn clear(&self, target: SocketAddr) -> Result<Opened, UpstreamFault> {
        let stream = match &self.access.dial {
            None => Wire::Clear(self.connect(target).await?),
            Some(dial) => Wire::Made(self.in_time(dial.dial(self.address)).await?),
        };
        let mut connection = Box::new(Connection::new(stream, self.address.clone(), self.timeouts));
        connection.hello(self.hostname).await?;
        Ok(Opened { connection, handshake: None, welcome: None })
    }

    async fn implicit(&self, target: SocketAddr, tls: &Tls) -> Result<Opened, UpstreamFault> {
        let stream = self.connect(target).await?;
        let (stream, took) = self.shake_hands(stream, tls).await?;
        let mut connection = Box::new(Connection::new(stream, self.address.clone(), self.timeouts));
        connection.hello(self.hostname).await?;
        Ok(Opened { connection, handshake: Some(took), welcome: None })
    }

    /// STARTTLS, the handshake, and EHLO anew: what was offered in clear
    /// counts no more.
    async fn upgrade(&self, connection: Link, tls: &Tls) -> Result<Opened, UpstreamFault> {
        let Wire::Clear(stream) = connection.start_tls().await? else {
            let error = "STARTTLS over TLS".to_owned();
            return Err(UpstreamFault::Tls { at: self.at(Phase::Tls), error });
        };
        let (stream, took) = self.shake_hands(stream, tls).await?;
        let mut connection = Box::new(Connection::secured(stream, self.address.clone(), self.timeouts));
        connection.introduce(self.hostname).await?;
        Ok(Opened { connection, handshake: Some(took), welcome: None })
    }

    async fn shake_hands(&self, stream: TcpStream, tls: &Tls) -> Result<(Wire, Duration), UpstreamFault> {
        let started = Instant::now();
        let wire = handshake(stream, tls, self.address, self.timeouts.connect).await?;
        Ok((wire, started.elapsed()))
    }

    fn at(&self, phase: Phase) -> At {
        At { address: self.address.clone(), phase }
    }

    fn unconnected(&self, error: &io::Error) -> UpstreamFault {
        UpstreamFault::Unconnected { at: self.at(Phase::Connect), error: error.to_string() }
    }

    fn unresolved(&self, error: String) -> UpstreamFault {
        UpstreamFault::Unresolved { at: self.at(Phase::Resolve), error }
    }
}
