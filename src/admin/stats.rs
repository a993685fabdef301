//! `/v1/stats`: what became of messages, in figures.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::Desk;
use super::answer::{Refusal, with_type};
use super::query::Parameters;
use crate::escape::json_for_terminal;
use crate::store::{Count, Tally};

/// How mail without a rule, or before its tenant was known, is called.
const NONE: &str = "(none)";

#[derive(Debug, Default, Serialize)]
struct Stats {
    #[serde(flatten)]
    all: Tally,
    by_rule: BTreeMap<String, Tally>,
    by_tenant: BTreeMap<String, Tally>,
}

impl Stats {
    fn of(counts: Vec<Count>) -> Self {
        let named = |name: String| if name.is_empty() { NONE.to_owned() } else { name };
        let mut stats = Self::default();
        for Count { tenant, rule, tally, .. } in counts {
            stats.all += tally;
            *stats.by_rule.entry(named(rule)).or_default() += tally;
            *stats.by_tenant.entry(named(tenant)).or_default() += tally;
        }
        stats
    }
}

/// The figures since an age, or of all that is kept. What was decided before
/// the request is in them.
pub(super) async fn stats(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut parameters = Parameters::parse(query.as_deref())?;
    let now = desk.clock.now();
    let since = parameters.since(now)?;
    parameters.close("since")?;
    // In a task of its own, for a part may be lost when it is dropped half-way.
    let (journal, store) = (desk.journal.clone(), desk.store.clone());
    let flushed = tokio::spawn(async move { journal.flush(&*store, now).await }).await;
    let broken = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the figures could not be gathered");
    flushed.map_err(broken)??;
    let counts = desk.store.counts(since.unwrap_or_default()).await?;
    // Numbers and names can always be written.
    let json = serde_json::to_string(&Stats::of(counts)).unwrap_or_default();
    Ok(with_type("application/json", format!("{}\n", json_for_terminal(&json))))
}
