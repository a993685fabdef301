//! Whether a client is still there for what is written to it.
//!
//! A client that closes its connection and one that only stops sending look the
//! same to TCP: both send a FIN. They differ when something is written. The
//! first one's system answers with a reset (RFC 9293 §3.10.7.4; RFC 1122
//! §4.2.2.13), the second one's takes it.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::wire::Wire;
use crate::dedup::Receipt;

impl Wire {
    /// Whether the client stopped sending: it closed its connection, or this
    /// direction of it alone. What it sent before may still be there to read,
    /// and is left there.
    pub fn has_stopped_sending(&self) -> bool {
        match self {
            Wire::Clear(stream) => has_sent_fin(stream),
            Wire::Encrypted(stream) => has_sent_fin(stream.get_ref().0),
            Wire::Made(stream) => stream.has_stopped_sending(),
            Wire::Closed => true,
        }
    }

    /// Waits until the client's system says that no program takes what was written.
    pub async fn reset(&mut self) {
        match self {
            Wire::Clear(stream) => is_reset(stream).await,
            Wire::Encrypted(stream) => is_reset(stream.get_ref().0).await,
            Wire::Made(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
            Wire::Closed => {}
        }
    }
}

/// What the system told so far, without asking it again: its events come in the
/// order of what happened, so a FIN that came before the outcome is known by now.
fn has_sent_fin(stream: &TcpStream) -> bool {
    let ready = stream.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}

/// A reset is an error of the socket. That both directions are closed is none:
/// it comes of a shutdown of our own, too.
async fn is_reset(stream: &TcpStream) {
    // It fails only where the runtime ends.
    let _ = stream.ready(Interest::ERROR).await;
}

/// How long the reset of a client that closed its connection may take.
const RESET: Duration = Duration::from_secs(1);

/// What a connection knows of the replies that its messages have.
#[derive(Debug, Default)]
pub struct Receipts {
    /// Of the message whose reply is among the output.
    expected: Option<Receipt>,
    /// The client had stopped sending when that was written.
    has_stopped: bool,
    /// Of a message whose reply was written to a client that had stopped
    /// sending, and until when a reset says that it had closed its connection.
    unconfirmed: Option<(Receipt, Instant)>,
    /// The client stopped sending, and takes replies all the same.
    listens: bool,
}

impl Receipts {
    /// The reply to a message is among what is written next.
    pub fn expect(&mut self, receipt: Receipt) {
        self.expected = Some(receipt);
    }

    /// The output is written next.
    pub fn before_writing(&mut self, wire: &Wire) {
        let Some(receipt) = &mut self.expected else { return };
        self.has_stopped = !self.listens && wire.has_stopped_sending();
        if !self.has_stopped {
            receipt.expected();
        }
    }

    /// The output was written, or could not be: gives the receipts back of which
    /// the end is known by that.
    pub fn written(&mut self, whole: bool) {
        if !whole && let Some((receipt, _)) = self.unconfirmed.take() {
            receipt.missed();
        }
        match self.expected.take() {
            Some(receipt) if !whole => receipt.missed(),
            Some(receipt) if self.has_stopped => self.unconfirmed = Some((receipt, Instant::now() + RESET)),
            Some(receipt) => receipt.received(),
            None => {}
        }
    }

    /// Whether it is not known yet if a client that had stopped sending listens.
    pub fn are_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Waits, once in a connection, until a client that had stopped sending is
    /// known to be gone or to listen. It has the reply by then, if it is there.
    pub async fn confirm(&mut self, wire: &mut Wire) {
        let Some((receipt, until)) = self.unconfirmed.take() else { return };
        if timeout_at(until, wire.reset()).await.is_ok() {
            return receipt.missed();
        }
        self.listens = true;
        receipt.received();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Our end of a connection, and the client's.
    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Wire::Clear(listener.accept().await.unwrap().0), client)
    }

    async fn stops_sending(wire: &Wire) {
        while !wire.has_stopped_sending() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_client_that_is_there_has_not_stopped() {
        let (mut wire, mut client) = pair().await;
        client.write_all(b"DATA\r\n").await.unwrap();
        let mut octets = [0; 6];
        wire.read_exact(&mut octets).await.unwrap();
        assert!(!wire.has_stopped_sending());
    }

    #[tokio::test]
    async fn a_closed_connection_answers_with_a_reset() {
        let (mut wire, mut client) = pair().await;
        // Commands in front of the FIN do not hide it, and stay to be read.
        client.write_all(b"QUIT\r\n").await.unwrap();
        drop(client);
        timeout(DEADLINE, stops_sending(&wire)).await.unwrap();
        wire.write_all(b"250 2.0.0 ok\r\n").await.unwrap();
        timeout(DEADLINE, wire.reset()).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_only_stops_sending_takes_what_is_written() {
        let (mut wire, mut client) = pair().await;
        client.write_all(b"QUIT\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        timeout(DEADLINE, stops_sending(&wire)).await.unwrap();
        wire.write_all(b"250 2.0.0 ok\r\n").await.unwrap();
        // Both directions are closed now, which is no reset.
        wire.shutdown().await.unwrap();
        let mut received = String::new();
        client.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "250 2.0.0 ok\r\n");
        drop(client);
        assert!(timeout(Duration::from_millis(100), wire.reset()).await.is_err());
    }
}
