//! Many records, written while they are read.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::Response;

use super::super::Desk;
use super::super::answer::{JSON_LINES, Refusal, with_type};
use super::super::body::{Gone, Pieces, streamed};
use super::super::query::Parameters;
use crate::clock::Timestamp;
use crate::store::search::{Filter, Search, find};
use crate::store::view::RecordView;
use crate::store::{ClaimId, Query, Record, StateName, Store, StoreFault};

/// Records unless a number is asked for.
const LIMIT: usize = 1000;

/// The most that may be asked for, short of all: they are held in memory to
/// find the newest.
const MOST: usize = 10_000;

/// Records that are written at once.
const PIECE: usize = 128;

const KNOWN: &str = "state, tenant, recipient, key, since, limit, after, find";

/// What a list is to hold.
enum Wanted {
    /// What an id, a key or the start of an id names.
    Named(String),
    /// What passes; the newest first, or all in the order of their ids.
    Filtered(Filter),
    /// What passes, in the order of their ids, behind one of them.
    Behind(ClaimId, Filter),
}

impl Wanted {
    fn parse(query: Option<&str>, now: Timestamp) -> Result<Self, Refusal> {
        let mut parameters = Parameters::parse(query)?;
        if let Some(what) = parameters.take("find") {
            parameters.close("find, which stands alone")?;
            return Ok(Wanted::Named(what));
        }
        let states = StateName::ALL.map(StateName::as_str).join(", ");
        let state = parameters.convert("state", &format!("one of {states}"), |text| text.parse().ok())?;
        let [tenant, recipient, key] = ["tenant", "recipient", "key"].map(|name| parameters.take(name));
        let since = parameters.since(now)?;
        let number = format!("a number up to {MOST}, or 0 for all");
        let limit = parameters.convert("limit", &number, |text| text.parse().ok().filter(|n| *n <= MOST))?;
        let after = parameters.convert("after", "an id of 64 hex digits", ClaimId::parse)?;
        parameters.close(KNOWN)?;
        let limit = if after.is_some() { 0 } else { limit.unwrap_or(LIMIT) };
        let filter =
            Filter::new(state, tenant.as_deref(), recipient.as_deref(), key.as_deref(), since, limit);
        Ok(match after {
            Some(after) => Wanted::Behind(after, filter),
            None => Wanted::Filtered(filter),
        })
    }
}

/// How records are put one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Array,
    Lines,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if accepted.any(|value| value.contains(JSON_LINES)) { Form::Lines } else { Form::Array }
    }

    fn media_type(self) -> &'static str {
        match self {
            Form::Array => "application/json",
            Form::Lines => JSON_LINES,
        }
    }
}

/// Records on their way to a client.
struct Writer {
    form: Form,
    pieces: Pieces,
    begun: bool,
}

impl Writer {
    async fn page(&mut self, records: &[Record]) -> Result<(), Gone> {
        for piece in records.chunks(PIECE) {
            let mut text = String::with_capacity(piece.len() * 1024);
            for record in piece {
                self.push(&mut text, record);
            }
            self.pieces.add(text).await?;
        }
        Ok(())
    }

    fn push(&mut self, text: &mut String, record: &Record) {
        match (self.form, self.begun) {
            (Form::Lines, _) => {}
            (Form::Array, false) => text.push_str("[\n"),
            (Form::Array, true) => text.push_str(",\n"),
        }
        self.begun = true;
        text.push_str(&RecordView::from(record).to_json());
        if self.form == Form::Lines {
            text.push('\n');
        }
    }

    async fn end(self) -> Result<(), Gone> {
        match (self.form, self.begun) {
            (Form::Lines, _) => Ok(()),
            (Form::Array, true) => self.pieces.add("\n]\n").await,
            (Form::Array, false) => self.pieces.add("[]\n").await,
        }
    }
}

/// Why a list ended before its end.
enum Cut {
    Gone,
    Store(StoreFault),
}

impl From<Gone> for Cut {
    fn from(Gone: Gone) -> Self {
        Cut::Gone
    }
}

impl From<StoreFault> for Cut {
    fn from(fault: StoreFault) -> Self {
        Cut::Store(fault)
    }
}

/// The records that are asked for, as a JSON array or JSON Lines.
pub(in super::super) async fn list(
    State(desk): State<Desk>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let now = desk.clock.now();
    let wanted = Wanted::parse(query.as_deref(), now)?;
    let form = Form::of(&headers);
    let (pieces, mut body) = streamed();
    tokio::spawn(write(desk.store, wanted, Writer { form, pieces, begun: false }, now));
    let first = body.first().await?;
    Ok(with_type(form.media_type(), body.behind(first)))
}

async fn write(store: Arc<dyn Store>, wanted: Wanted, mut writer: Writer, now: Timestamp) {
    match write_all(&*store, wanted, &mut writer, now).await {
        // Nobody is there to be told.
        Err(Cut::Gone) => {}
        Err(Cut::Store(fault)) => {
            tracing::warn!(%fault, "a list of claims was cut short");
            writer.pieces.fail(fault).await;
        }
        Ok(()) => {
            let _ = writer.end().await;
        }
    }
}

async fn write_all(
    store: &dyn Store,
    wanted: Wanted,
    writer: &mut Writer,
    now: Timestamp,
) -> Result<(), Cut> {
    match wanted {
        Wanted::Named(what) => writer.page(&find(store, &what, now).await?).await?,
        Wanted::Filtered(filter) => {
            let mut search = Search::new(store, &filter, now);
            loop {
                let page = tokio::select! {
                    page = search.next() => page?,
                    // A search of everything is not for nobody.
                    () = writer.pieces.gone() => return Err(Cut::Gone),
                };
                let Some(page) = page else { break };
                writer.page(&page).await?;
            }
        }
        Wanted::Behind(after, filter) => {
            let mut after = Some(after);
            while after.is_some() {
                let (mut page, next) = store.list(Query { after, ..Query::default() }, now).await?;
                page.retain(|record| filter.wants(record));
                writer.page(&page).await?;
                after = next;
            }
        }
    }
    Ok(())
}
