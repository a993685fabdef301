//! Whether all is well, for whatever watches over the process.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::time::timeout;

use super::Desk;
use super::answer::with_type;
use crate::metrics::{self, Reading};
use crate::store::Census;

const TEXT: &str = "text/plain; charset=utf-8";

/// How long the store may take before it counts as out.
const STORE: Duration = Duration::from_secs(5);

/// The process answers.
pub(super) async fn livez() -> Response {
    with_type(TEXT, "ok\n")
}

/// Mail can be taken and passed on; else 503 with the reasons, one a line.
pub(super) async fn readyz(State(desk): State<Desk>) -> Response {
    let mut reasons = Vec::new();
    if desk.proxy.is_closing() {
        reasons.push("closing".to_owned());
    }
    match timeout(STORE, desk.store.ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => reasons.push(format!("store: {fault}")),
        Err(_) => reasons.push("store: no answer in time".to_owned()),
    }
    if let Some(fault) = desk.proxy.upstream().outage() {
        reasons.push(format!("upstream: {}", fault.quoted()));
    }
    if reasons.is_empty() {
        return with_type(TEXT, "ready\n");
    }
    let line = |reason: &String| format!("{}\n", crate::escape::for_terminal(reason));
    let mut response = with_type(TEXT, reasons.iter().map(line).collect::<String>());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// What Prometheus reads.
pub(super) async fn metrics(State(desk): State<Desk>) -> Response {
    let census = timeout(STORE, desk.store.census()).await;
    let upstream = desk.proxy.upstream();
    let reading = Reading {
        claims: census.ok().and_then(Result::ok).map(|census| states(&census).to_vec()),
        sessions: desk.proxy.sessions(),
        idle: upstream.idle_connections(),
        in_use: upstream.busy_connections(),
    };
    with_type(metrics::MEDIA_TYPE, desk.metrics.render(&reading))
}

fn states(census: &Census) -> [(&'static str, u64); 6] {
    [
        ("pending", census.pending),
        ("committing", census.committing),
        ("accepted", census.accepted),
        ("deferred", census.deferred),
        ("refused", census.refused),
        ("in_doubt", census.in_doubt),
    ]
}
