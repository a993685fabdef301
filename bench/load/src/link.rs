//! A link that takes its time and has no other limit.
//!
//! A connection is made as it would be over such a link: the other side hears
//! of it after one and a half round trips, so a greeting takes two from the
//! client's first step, and what a client says first takes as long as it would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use crate::Failure;

/// Bytes, and when they arrive.
type Flight = (Instant, Vec<u8>);

/// Passes on every connection.
pub(crate) async fn serve(listen: SocketAddr, to: SocketAddr, delay: Duration) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (near, _) = listener.accept().await?;
        // A side that has gone is gone for the other one, too: nothing to report.
        tokio::spawn(async move { pass(near, to, delay).await.ok() });
    }
}

async fn pass(near: TcpStream, to: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let arrives = Instant::now() + 3 * delay;
    near.set_nodelay(true)?;
    let (near_in, near_out) = near.into_split();
    let (sending, sent) = unbounded_channel();
    tokio::spawn(take(near_in, sending, delay));
    sleep_until(arrives).await;
    let far = TcpStream::connect(to).await?;
    far.set_nodelay(true)?;
    let (far_in, far_out) = far.into_split();
    let (answering, answered) = unbounded_channel();
    tokio::spawn(take(far_in, answering, delay));
    tokio::spawn(give(sent, far_out));
    give(answered, near_out).await;
    Ok(())
}

/// Reads as fast as it comes.
async fn take(mut from: impl AsyncRead + Unpin, to: UnboundedSender<Flight>, delay: Duration) {
    loop {
        let mut bytes = Vec::with_capacity(64 * 1024);
        match from.read_buf(&mut bytes).await {
            Ok(1..) if to.send((Instant::now() + delay, bytes)).is_ok() => {}
            _ => return,
        }
    }
}

/// Writes what has arrived, and ends its side after the last.
async fn give(mut from: UnboundedReceiver<Flight>, mut to: impl AsyncWrite + Unpin) {
    while let Some((arrives, bytes)) = from.recv().await {
        sleep_until(arrives).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}
