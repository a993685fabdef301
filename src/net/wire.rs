//! A client's connection, in clear or encrypted, and the way from one to the
//! other.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::config::Limits;
use crate::duplex::Duplex;
use crate::metrics::HandshakeResult;

use super::Shared;
use super::tls::Tls;

/// The longest that a handshake may take; less where a command may take less.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// What a client's bytes come over.
#[derive(Debug)]
pub enum Wire {
    /// As they are.
    Clear(TcpStream),
    /// Under TLS.
    Encrypted(Box<TlsStream<TcpStream>>),
    /// As they are, over what is no socket.
    Made(Box<dyn Duplex>),
    /// Nothing comes any more.
    Closed,
}

impl Wire {
    /// Shakes hands, and is closed where that fails, takes too long, or the
    /// process is to end. The handshake is counted, and a failed one logged.
    ///
    /// It reads from the socket: what was received in clear before stays with
    /// whoever received it.
    pub async fn secure(self, shared: &Shared, limits: &Limits, tls: &Tls, client: SocketAddr) -> Self {
        let Wire::Clear(stream) = self else { return Wire::Closed };
        let within = HANDSHAKE.min(limits.command_timeout);
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(within, Box::pin(tls.accept(stream))) => shaken,
            () = shared.closing.cancelled() => return Wire::Closed,
        };
        let shaken =
            shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")));
        match shaken {
            Ok(stream) => {
                shared.metrics.shook_hands(HandshakeResult::Completed);
                Wire::Encrypted(Box::new(stream))
            }
            Err(error) => {
                shared.metrics.shook_hands(HandshakeResult::Failed);
                tracing::info!(%client, %error, "the TLS handshake failed");
                Wire::Closed
            }
        }
    }

    /// The certificate that the client has shown, which was verified.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Wire::Encrypted(stream) => stream.get_ref().1.peer_certificates()?.first(),
            Wire::Clear(_) | Wire::Made(_) | Wire::Closed => None,
        }
    }

    /// Whether bytes are there that came before our greeting: no client that
    /// knows the protocol sends any (RFC 5321 §4.3.1).
    pub fn talks_early(&mut self) -> bool {
        match self {
            Wire::Clear(stream) => is_waiting(stream),
            Wire::Encrypted(stream) => {
                let (socket, session) = stream.get_mut();
                let read = session.process_new_packets();
                read.is_ok_and(|state| state.plaintext_bytes_to_read() > 0) || is_waiting(socket)
            }
            Wire::Made(_) | Wire::Closed => false,
        }
    }
}

/// Whether the socket has something to read.
fn is_waiting(stream: &TcpStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    let mut byte = [0u8; 1];
    matches!(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, count)) if count > 0)
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Made(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Made(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Made(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Made(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Closed => Poll::Ready(Ok(())),
        }
    }
}
