//! Bodies that are written while they are sent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use crate::store::StoreFault;

/// Pieces that may wait for the client.
const WAITING: usize = 4;

/// How long a client may take to make room for a piece. It is dropped then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the pieces of a body go.
#[derive(Debug)]
pub(super) struct Pieces(mpsc::Sender<Result<Bytes, StoreFault>>);

/// The body at its other end: it ends when the [`Pieces`] are dropped. After a
/// fault it breaks off, and the client can tell that it is not whole.
#[derive(Debug)]
pub(super) struct Streamed(mpsc::Receiver<Result<Bytes, StoreFault>>);

/// The client is gone, or reads too slowly.
#[derive(Debug)]
pub(super) struct Gone;

/// A body and where its pieces go.
pub(super) fn streamed() -> (Pieces, Streamed) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Pieces(sender), Streamed(receiver))
}

impl Pieces {
    /// Adds a piece.
    pub(super) async fn add(&self, piece: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.send_timeout(Ok(piece.into()), PATIENCE).await.map_err(|_| Gone)
    }

    /// Breaks the body off.
    pub(super) async fn fail(&self, fault: StoreFault) {
        let _ = self.0.send_timeout(Err(fault), PATIENCE).await;
    }

    /// Returns when the client is gone.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

impl Streamed {
    /// Waits for the first piece, so that what goes wrong before it can still
    /// have a status of its own. `None` where the body is empty.
    pub(super) async fn first(&mut self) -> Result<Option<Bytes>, StoreFault> {
        self.0.recv().await.transpose()
    }

    /// The body with a piece in front that was taken out.
    pub(super) fn behind(self, first: Option<Bytes>) -> axum::body::Body {
        axum::body::Body::new(Behind { first, rest: self })
    }
}

struct Behind {
    first: Option<Bytes>,
    rest: Streamed,
}

impl Body for Behind {
    type Data = Bytes;
    type Error = StoreFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreFault>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.rest.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
