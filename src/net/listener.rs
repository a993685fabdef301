//! Accepts clients: turns away those for whom there is no place, and gives
//! each of the others a task of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::config::Listener;

use super::Shared;
use super::connection::{self, Peer};
use super::gate::Guest;
use super::wire::Wire;

/// Accepts until the process closes. Connections go on in `tasks`.
pub async fn accept(shared: Arc<Shared>, listener: TcpListener, name: String, tasks: TaskTracker) {
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
                tracing::error!(%error, listener = name, "no connection can be accepted; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn admit(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr, name: String) {
    let live = shared.live.load_full();
    let Some(port) = live.ports.iter().find(|port| port.listener.name == name) else { return };
    let ip = address.ip().to_canonical();
    let allowed = may_relay(&port.listener, ip);
    let guest = if allowed { Guest::Known } else { Guest::Stranger };
    let Some(place) = shared.gate.enter(ip, guest, &live.limits) else {
        if let Some(times) = shared.gate.turned_away.count() {
            tracing::warn!(client = %address, listener = name, times, "too many connections");
        }
        if port.implicit().is_some() {
            // A handshake is more than a client for whom there is no place gets.
            return;
        }
        return turn_away(stream, b"421 4.3.2 too many connections, try again later\r\n").await;
    };
    let mut wire = Wire::Clear(stream);
    if let Some(tls) = port.implicit() {
        wire = wire.secure(&shared, &live.limits, tls, address).await;
        let Wire::Encrypted(_) = wire else { return };
    }
    if wire.talks_early() {
        if let Some(times) = shared.gate.talked_early.count() {
            tracing::warn!(client = %address, listener = name, times, "the client talked before the greeting");
        }
        return turn_away(wire, b"554 5.5.0 you talked before the greeting\r\n").await;
    }
    let peer = Peer { address, allowed, port: port.clone() };
    connection::serve(shared.clone(), &live, wire, peer).await;
    drop(place);
}

fn may_relay(listener: &Listener, address: IpAddr) -> bool {
    listener.allow_from.iter().any(|network| network.contains(&address))
}

async fn turn_away(mut stream: impl AsyncWrite + Unpin, reply: &[u8]) {
    let farewell = async {
        stream.write_all(reply).await?;
        stream.shutdown().await
    };
    // Whether it arrives is the client's affair.
    let _ = tokio::time::timeout(Duration::from_secs(5), farewell).await;
}
