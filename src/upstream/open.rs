//! From an address to a connection that has greeted us.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::connection::Connection;
use super::fault::{At, Phase, UpstreamFault};
use crate::config::UpstreamTimeouts;

/// Connects to `address` and introduces us as `hostname`. Each address that
/// the name stands for is tried in order; the fault is that of the last.
pub(super) async fn open(
    address: &Arc<str>,
    hostname: &str,
    timeouts: UpstreamTimeouts,
) -> Result<Connection<TcpStream>, UpstreamFault> {
    let mut fault = None;
    for target in resolve(address, timeouts).await? {
        match greet(address, target, hostname, timeouts).await {
            Ok(connection) => return Ok(connection),
            Err(error) => fault = Some(error),
        }
    }
    let nothing = || unresolved(address, "name has no address".to_owned());
    Err(fault.unwrap_or_else(nothing))
}

async fn resolve(address: &Arc<str>, timeouts: UpstreamTimeouts) -> Result<Vec<SocketAddr>, UpstreamFault> {
    match timeout(timeouts.connect, lookup_host(&**address)).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(unresolved(address, error.to_string())),
        Err(_) => Err(UpstreamFault::TimedOut { at: at(address, Phase::Resolve) }),
    }
}

async fn greet(
    address: &Arc<str>,
    target: SocketAddr,
    hostname: &str,
    timeouts: UpstreamTimeouts,
) -> Result<Connection<TcpStream>, UpstreamFault> {
    let unconnected = |error: std::io::Error| UpstreamFault::Unconnected {
        at: at(address, Phase::Connect),
        error: error.to_string(),
    };
    let stream = timeout(timeouts.connect, TcpStream::connect(target))
        .await
        .map_err(|_| UpstreamFault::TimedOut { at: at(address, Phase::Connect) })?
        .map_err(unconnected)?;
    // Whole commands and blocks are written at once; Nagle's delay would only
    // hold back the final dot.
    stream.set_nodelay(true).map_err(unconnected)?;
    let mut connection = Connection::new(stream, address.clone(), timeouts);
    connection.hello(hostname).await?;
    Ok(connection)
}

fn at(address: &Arc<str>, phase: Phase) -> At {
    At { address: address.clone(), phase }
}

fn unresolved(address: &Arc<str>, error: String) -> UpstreamFault {
    UpstreamFault::Unresolved { at: at(address, Phase::Resolve), error }
}
