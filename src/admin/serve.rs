//! Connections to the admin address.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// Connections at once. Who comes later waits.
const MOST: usize = 64;

/// How long the head of a request may take, and how long a connection may wait
/// for the next one.
const HEAD: Duration = Duration::from_secs(15);

/// How long a client may take nothing of an answer.
const STUCK: Duration = Duration::from_secs(10);

/// How long connections may take to end when the process does.
const FAREWELL: Duration = Duration::from_secs(1);

/// Octets of the head of a request.
const HEAD_OCTETS: usize = 32 * 1024;

/// The admin address while it is served.
#[derive(Debug)]
pub struct Running {
    closing: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Serves `router` on `listener` until `closing` is cancelled.
    pub(super) fn start(listener: TcpListener, router: Router, closing: CancellationToken) -> Self {
        let task = tokio::spawn(accept(listener, router, closing.clone()));
        Self { closing, task }
    }

    /// Stops: requests under way have a moment to end.
    pub async fn stop(self) {
        self.closing.cancel();
        let _ = self.task.await;
    }
}

async fn accept(listener: TcpListener, router: Router, closing: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = next(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                connections.spawn(serve(stream, place, router.clone(), closing.clone()));
            }
            Err(error) => {
                tracing::error!(%error, "no connection to the admin address can be accepted; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, ended).await;
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn serve(stream: TcpStream, _place: OwnedSemaphorePermit, router: Router, closing: CancellationToken) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STUCK));
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_OCTETS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    // What a client does wrong is its own affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
