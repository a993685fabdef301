//! `/v1/events`: decisions as they are made, as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::Desk;
use super::answer::{Refusal, with_type};
use super::body::{Gone, Pieces, streamed};
use super::query::Parameters;
use crate::journal::{DecisionOutcome, Event, Follower};
use crate::store::search::AddressGlob;

/// Readers at once: each takes one of the connections that there may be, and
/// some must remain for everything else.
const MOST: usize = 32;

/// How often a reader hears that it is still connected.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Places for readers, until the process ends.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    closing: CancellationToken,
}

impl Places {
    pub(super) fn new(closing: CancellationToken) -> Self {
        Self { free: Arc::new(Semaphore::new(MOST)), closing }
    }
}

/// Which decisions a reader wants.
#[derive(Debug)]
struct Wanted {
    outcome: Option<DecisionOutcome>,
    tenant: Option<String>,
    recipient: Option<AddressGlob>,
}

impl Wanted {
    fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut parameters = Parameters::parse(query)?;
        let names = DecisionOutcome::ALL.map(DecisionOutcome::as_str).join(", ");
        let wanted = Self {
            outcome: parameters.convert("outcome", &format!("one of {names}"), DecisionOutcome::parse)?,
            tenant: parameters.take("tenant"),
            recipient: parameters.take("recipient").map(|glob| AddressGlob::new(&glob)),
        };
        parameters.close("outcome, tenant, recipient")?;
        Ok(wanted)
    }

    fn is(&self, event: &Event) -> bool {
        self.outcome.is_none_or(|outcome| outcome == event.outcome)
            && self.tenant.as_ref().is_none_or(|tenant| *tenant == event.tenant)
            && self.recipient.as_ref().is_none_or(|glob| glob.matches(&event.to))
    }
}

/// Every decision from now on, one event each.
pub(super) async fn events(
    State(desk): State<Desk>,
    Extension(places): Extension<Places>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let wanted = Wanted::parse(query.as_deref())?;
    let Ok(place) = places.free.try_acquire_owned() else {
        let text = format!("{MOST} others read events already; close one of them");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let follower = desk.journal.follow();
    let (pieces, body) = streamed();
    tokio::spawn(async move {
        places.closing.run_until_cancelled(pump(follower, wanted, pieces)).await;
        drop(place);
    });
    Ok(with_type("text/event-stream", body.behind(Some(": following\n\n".into()))))
}

/// Hands decisions over until the reader is gone or too slow.
async fn pump(mut follower: Follower, wanted: Wanted, pieces: Pieces) {
    let mut alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    loop {
        let handed = tokio::select! {
            () = pieces.gone() => return,
            _ = alive.tick() => pieces.add(": still here\n\n").await,
            next = follower.next() => match next {
                Ok(Some(event)) if wanted.is(&event) => {
                    pieces.add(format!("data: {}\n\n", event.json)).await
                }
                Ok(Some(_)) => Ok(()),
                Ok(None) => return,
                Err(_) => Err(Gone),
            },
        };
        if handed.is_err() {
            tracing::info!("a reader of events was too slow, and is dropped");
            return;
        }
    }
}
