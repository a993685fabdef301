//! Bytes both ways, whatever carries them.

use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection that is no TCP socket: what the simulation's network makes. The
/// proxy itself is only ever given sockets.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {
    /// Whether the other end stopped sending: it closed the connection, or this
    /// direction of it alone. What it sent before may still be there to read.
    fn has_stopped_sending(&self) -> bool;

    /// Ready when the other end said that it takes nothing any more.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}
