//! `/v1/claims`: the audit trail, and what an operator may do to it.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Desk;
use super::answer::{Refusal, with_type};
use crate::store::search::SHORTEST_PREFIX;
use crate::store::view::RecordView;
use crate::store::{Change, ClaimId, Query, Record, Resolution, Selection};

pub(super) use list::list;

mod list;

/// One record.
pub(super) async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(shown(&named(&desk, &id).await?))
}

/// Forgets a record: the next attempt is relayed.
pub(super) async fn release(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let id = named(&desk, &id).await?.id;
    match desk.store.forget(id, desk.clock.now()).await? {
        Change::Done(record) => {
            let state = record.state.name().as_str();
            tracing::info!(claim = %record.id, state, "an operator released a claim");
            Ok(shown(&record))
        }
        Change::Absent => Err(absent(&id.to_string())),
        Change::Refused(record) => {
            let state = record.state.name();
            let text = format!("the claim is {state}: an attempt is under way; wait for its end");
            Err(Refusal::new(StatusCode::CONFLICT, text))
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    #[serde(rename = "as")]
    what: What,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    Sent,
    NotSent,
}

/// Settles a claim in doubt as an operator says.
pub(super) async fn resolve(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let Finding { what } = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad(format!("write {{\"as\": \"sent\"}} or {{\"as\": \"not-sent\"}}: {error}"))
    })?;
    let resolution = match what {
        What::Sent => Resolution::Sent,
        What::NotSent => Resolution::NotSent,
    };
    let id = named(&desk, &id).await?.id;
    match desk.store.resolve(id, resolution, desk.clock.now()).await? {
        Change::Done(record) => {
            let state = record.state.name().as_str();
            tracing::info!(claim = %record.id, state, "an operator resolved a claim");
            Ok(shown(&record))
        }
        Change::Absent => Err(absent(&id.to_string())),
        Change::Refused(record) => {
            let text = format!("the claim is {}, not in doubt", record.state.name());
            Err(Refusal::new(StatusCode::CONFLICT, text))
        }
    }
}

/// The record that an id, or the start of one, names.
async fn named(desk: &Desk, text: &str) -> Result<Record, Refusal> {
    let of = ids(text).ok_or_else(|| {
        Refusal::bad(format!("an id has 64 hex digits, of which at least {SHORTEST_PREFIX} must be written"))
    })?;
    let mut query = Query { of, ..Query::default() };
    let mut found = Vec::new();
    loop {
        let (page, next) = desk.store.list(query.clone(), desk.clock.now()).await?;
        found.extend(page);
        if found.len() > 1 {
            let text = format!("{text} is the start of more than one id; write more digits");
            return Err(Refusal::new(StatusCode::CONFLICT, text));
        }
        match next {
            None => return found.pop().ok_or_else(|| absent(text)),
            after => query.after = after,
        }
    }
}

/// The ids that start with these digits.
fn ids(digits: &str) -> Option<Selection> {
    let missing = 64usize.checked_sub(digits.len())?;
    let bound = |fill: &str| ClaimId::parse(&format!("{digits}{}", fill.repeat(missing)));
    (digits.len() >= SHORTEST_PREFIX).then(|| Some(Selection::Ids(bound("0")?..=bound("f")?)))?
}

fn absent(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no record has the id {id}; expired ones are gone"))
}

fn shown(record: &Record) -> Response {
    with_type("application/json", format!("{}\n", RecordView::from(record).to_json()))
}
