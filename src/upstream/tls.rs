//! TLS under a connection, and a stream that may have it or not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::access::Tls;
use super::connection::Stream;
use super::fault::{At, Phase, UpstreamFault};
use crate::config::values::host_of;
use crate::duplex::Duplex;

/// The octets in front of each TLS record (RFC 8446 §5.1).
const HEADER: usize = 5;

/// What carries a connection to an upstream.
#[derive(Debug)]
pub(super) enum Wire {
    /// TCP alone.
    Clear(TcpStream),
    /// TLS over it.
    Secure(Box<TlsStream<Records<TcpStream>>>),
    /// What a [`Dial`](super::Dial) has made.
    Made(Box<dyn Duplex>),
}

impl Wire {
    /// The version of TLS, where there is TLS.
    pub(super) fn tls_version(&self) -> Option<&'static str> {
        let Wire::Secure(stream) = self else { return None };
        Some(match stream.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS",
        })
    }
}

/// Makes the connection to `address` one over TLS, within `limit`.
pub(super) async fn handshake(
    stream: TcpStream,
    tls: &Tls,
    address: &Arc<str>,
    limit: Duration,
) -> Result<Wire, UpstreamFault> {
    let at = || At { address: address.clone(), phase: Phase::Tls };
    let host = host_of(address);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| UpstreamFault::Tls {
        at: at(),
        error: format!("{host} is no name that a certificate could hold"),
    })?;
    let connector = TlsConnector::from(tls.client.clone());
    let connect = Box::pin(connector.connect(name, Records::new(stream)));
    match timeout(limit, connect).await {
        Ok(Ok(stream)) => Ok(Wire::Secure(Box::new(stream))),
        Ok(Err(error)) => Err(UpstreamFault::Tls { at: at(), error: explain(&error) }),
        Err(_) => Err(UpstreamFault::TimedOut { at: at() }),
    }
}

/// Why a handshake failed, and what to do about it where that is known.
fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "connection closed".to_owned();
    }
    let text = error.to_string();
    let remedy = match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "; if its CA is to be trusted, name it in upstream.ca_file"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "; upstream.address must hold the name in the certificate",
        Some(Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        )) => "; it may want a client_certificate",
        Some(Error::InvalidMessage(_)) => "; what it sent is not TLS: look at upstream.tls and the port",
        _ => "",
    };
    text + remedy
}

impl Stream for Wire {
    fn holds_part(&self) -> bool {
        match self {
            Wire::Clear(_) | Wire::Made(_) => false,
            Wire::Secure(stream) => stream.get_ref().0.is_inside(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Made(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Made(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Secure(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Made(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Made(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Sees how TLS records begin and end in what is read, so that a record of
/// which only a part has come is noticed: a reply that has begun to arrive
/// can't answer what is sent only then.
#[derive(Debug)]
pub(super) struct Records<S> {
    stream: S,
    /// The octets of the header under way.
    header: [u8; HEADER],
    seen: usize,
    /// How much of the record is still to come.
    left: usize,
}

impl<S> Records<S> {
    fn new(stream: S) -> Self {
        Self { stream, header: [0; HEADER], seen: 0, left: 0 }
    }

    /// Whether a record has begun and not ended.
    fn is_inside(&self) -> bool {
        self.seen > 0 || self.left > 0
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let body = self.left.min(bytes.len());
                self.left -= body;
                bytes = &bytes[body..];
                continue;
            }
            self.header[self.seen] = first;
            self.seen += 1;
            if self.seen == HEADER {
                self.seen = 0;
                self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            }
            bytes = rest;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Records<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.follow(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Records<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_begin_and_end_wherever_they_are_cut() {
        let bytes = [&[23, 3, 3, 0, 2, 1, 2][..], &[22, 3, 3, 0, 0], &[23, 3, 3, 1, 0], &[7; 256]].concat();
        let ends = [0, 7, 12, 12 + 5 + 256];
        for cut in 0..=bytes.len() {
            let mut records = Records::new(());
            records.follow(&bytes[..cut]);
            assert_eq!(records.is_inside(), !ends.contains(&cut), "cut at {cut}");
            records.follow(&bytes[cut..]);
            assert!(!records.is_inside(), "cut at {cut}");
        }
    }
}
