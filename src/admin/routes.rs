//! Which request goes where, and who may make it.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio_util::sync::CancellationToken;

use super::answer::{Refusal, with_type};
use super::events::Places;
use super::token::Token;
use super::{Desk, claims, events, health, import, stats};

/// How long a request may take until its answer begins.
const DEADLINE: Duration = Duration::from_secs(30);

/// Octets of a body that is read as a whole.
const SMALL: usize = 64 * 1024;

const OVERVIEW: &str = "\
mailonce

GET  /livez                       the process runs
GET  /readyz                      mail can be taken and passed on
GET  /metrics                     for Prometheus
GET  /v1/claims                   records: state, tenant, recipient, key, since, limit; find; after
GET  /v1/claims/{id}              one record
POST /v1/claims/{id}/release      forgets it
POST /v1/claims/{id}/resolve      {\"as\": \"sent\"} or {\"as\": \"not-sent\"}
POST /v1/claims                   takes records over, as JSON Lines
GET  /v1/stats                    what became of messages: since
GET  /v1/events                   decisions as they are made: outcome, tenant, recipient

All but the first three want the header \"Authorization: Bearer TOKEN\".
";

/// Everything that there is. Streams without an end of their own end with
/// `closing`.
pub(super) fn router(desk: Desk, token: Token, closing: CancellationToken) -> Router {
    let open = Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .layer(from_fn(in_time));
    let quick = Router::new()
        .route("/", get(async || with_type("text/plain; charset=utf-8", OVERVIEW)))
        .route("/v1/claims", get(claims::list))
        .route("/v1/claims/{id}", get(claims::show))
        .route("/v1/claims/{id}/release", post(claims::release))
        .route("/v1/claims/{id}/resolve", post(claims::resolve))
        .route("/v1/stats", get(stats::stats))
        .route("/v1/events", get(events::events))
        .layer(from_fn(in_time))
        .layer(DefaultBodyLimit::max(SMALL));
    // Takes as long as it brings records.
    let long = Router::new().route("/v1/claims", post(import::import));
    let closed = quick
        .merge(long)
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "there is nothing here; see GET /"))
        .layer(Extension(Places::new(closing)))
        .layer(from_fn_with_state(token, authorized));
    let elsewhere =
        async || Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this can't be done here; see GET /");
    open.merge(closed).method_not_allowed_fallback(elsewhere).with_state(desk)
}

async fn in_time(request: Request, next: Next) -> Result<Response, Refusal> {
    let late =
        |_| Refusal::new(StatusCode::GATEWAY_TIMEOUT, "this took too long; ask for less, or try again");
    tokio::time::timeout(DEADLINE, next.run(request)).await.map_err(late)
}

async fn authorized(State(token): State<Token>, request: Request, next: Next) -> Result<Response, Refusal> {
    match bearer(request.headers()) {
        Some(given) if token.is(given) => in_json(next.run(request).await),
        _ => Err(Refusal::unauthorized()),
    }
}

/// What was refused before it came to us is said in the form of the rest.
fn in_json(response: Response) -> Result<Response, Refusal> {
    let status = response.status();
    let ours = response.headers().get(CONTENT_TYPE).is_some_and(|given| given == "application/json");
    if ours || !status.is_client_error() {
        return Ok(response);
    }
    Err(Refusal::new(status, status.canonical_reason().unwrap_or("this can't be taken")))
}

/// The token that a request brings (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
