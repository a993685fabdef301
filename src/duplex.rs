//! Bytes both ways, whatever carries them.

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection that is no TCP socket: what the simulation's network makes. The
/// proxy itself is only ever given sockets.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Duplex for S {}
