//! Accepts clients: turns away those for whom there is no place, and gives
//! each of the others a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::config::Limits;

use super::Shared;
use super::connection;
use super::gate::Guest;
use super::peer::{Names, Peer};
use super::port::Port;
use super::proxy_protocol::{self, Ends, HeaderFault, Origin};
use super::sparing::Sparing;
use super::wire::Wire;

/// The longest that a PROXY header may take; less where a command may take
/// less. A balancer sends it with the first octets of the connection.
const PROXY_HEADER: Duration = Duration::from_secs(10);

const UNUSABLE: &str = "a connection that must begin with a PROXY header is closed";

/// Accepts until the process closes. Connections go on in `tasks`.
pub async fn accept(shared: Arc<Shared>, listener: TcpListener, name: String, tasks: TaskTracker) {
    let failed = Sparing::default();
    loop {
        let accepted = tokio::select! {
            () = shared.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                tasks.spawn(admit(shared.clone(), stream, address, name.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: give sessions time to end.
                if let Some(times) = failed.count() {
                    tracing::error!(%error, listener = name, times, "no connection can be accepted; trying again");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn admit(shared: Arc<Shared>, mut stream: TcpStream, address: SocketAddr, name: String) {
    let live = shared.live.load_full();
    let Some(port) = live.port(&name) else { return };
    let Some(place) = shared.gate.enter(&live.limits) else {
        return no_place(&shared, stream, address, port).await;
    };
    let Some((Ends { client, local }, names)) = ends(&shared, &live.limits, &mut stream, address, port).await
    else {
        return;
    };
    let peer = Peer { address: client, local, names, port: port.clone() };
    let guest = if peer.is_listed() { Guest::Known } else { Guest::Stranger };
    let Some(place) = place.taken_by(client.ip(), guest, &live.limits) else {
        return no_place(&shared, stream, client, port).await;
    };
    let mut wire = Wire::Clear(stream);
    if let Some(tls) = port.implicit() {
        wire = wire.secure(&shared, &live.limits, tls, client).await;
        let Wire::Encrypted(_) = wire else { return };
    }
    connection::serve(shared.clone(), &live, wire, peer).await;
    drop(place);
}

/// Who is at the ends of a connection: those of the socket, or, where `peer`
/// is a balancer whom we believe, those that its PROXY header names. `None`
/// where the connection must not go on; the log says why.
async fn ends(
    shared: &Shared,
    limits: &Limits,
    stream: &mut TcpStream,
    peer: SocketAddr,
    port: &Port,
) -> Option<(Ends, Names)> {
    let listener = &port.listener;
    // It fails where the connection is gone.
    let own = Ends::new(peer, stream.local_addr().ok()?);
    if !listener.proxy_from.iter().any(|network| network.contains(&own.client.ip())) {
        return Some((own, Names::Client));
    }
    let within = PROXY_HEADER.min(limits.command_timeout);
    let received = tokio::select! {
        received = proxy_protocol::receive(stream, within) => received,
        () = shared.closing.cancelled() => return None,
    };
    match received {
        Ok(Origin::Client(ends)) => Some((ends, Names::Client)),
        Ok(Origin::Sender) => Some((own, Names::Balancer)),
        Err(fault) => {
            let (peer, listener) = (own.client, &*listener.name);
            match fault {
                // A check that comes every second or two must not fill the log.
                HeaderFault::SaidNothing => tracing::debug!(%peer, listener, %fault, "{UNUSABLE}"),
                _ => tracing::warn!(%peer, listener, %fault, "{UNUSABLE}"),
            }
            None
        }
    }
}

/// Turns a client away for whom there is no place.
async fn no_place(shared: &Shared, stream: TcpStream, client: SocketAddr, port: &Port) {
    if let Some(times) = shared.gate.turned_away.count() {
        tracing::warn!(%client, listener = port.listener.name, times, "too many connections");
    }
    // A handshake is more than such a client gets.
    if port.implicit().is_none() {
        turn_away(stream, b"421 4.3.2 too many connections, try again later\r\n").await;
    }
}

async fn turn_away(mut stream: impl AsyncWrite + Unpin, reply: &[u8]) {
    let farewell = async {
        stream.write_all(reply).await?;
        stream.shutdown().await
    };
    // Whether it arrives is the client's affair.
    let _ = tokio::time::timeout(Duration::from_secs(5), farewell).await;
}
