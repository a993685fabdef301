//! Accepts clients: turns away those for whom there is no place, and gives
//! each of the others a task of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::config::Listener;

use super::Shared;
use super::connection::{self, Peer};

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
    let Some(listener) = live.listeners.iter().find(|listener| listener.name == name) else { return };
    let ip = address.ip().to_canonical();
    let Some(place) = shared.gate.enter(ip, &live.limits) else {
        tracing::warn!(client = %address, listener = name, "too many connections");
        return turn_away(stream, b"421 4.3.2 too many connections, try again later\r\n").await;
    };
    if talks_early(&stream) {
        tracing::warn!(client = %address, listener = name, "the client talked before the greeting");
        return turn_away(stream, b"554 5.5.0 you talked before the greeting\r\n").await;
    }
    let peer = Peer { address, allowed: may_relay(listener, ip), listener: listener.clone() };
    connection::serve(shared, &live, stream, peer).await;
    drop(place);
}

fn may_relay(listener: &Listener, address: IpAddr) -> bool {
    listener.allow_from.iter().any(|network| network.contains(&address))
}

/// Whether bytes are there that came before our greeting: no client that knows
/// the protocol sends any (RFC 5321 §4.3.1).
fn talks_early(stream: &TcpStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    let mut byte = [0u8; 1];
    matches!(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, count)) if count > 0)
}

async fn turn_away(mut stream: TcpStream, reply: &[u8]) {
    // Whether it arrives is the client's affair.
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(reply)).await;
    let _ = stream.shutdown().await;
}
