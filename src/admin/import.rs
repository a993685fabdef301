//! `POST /v1/claims`: records of another store, as JSON Lines.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::BytesMut;
use tokio::time::timeout;

use super::Desk;
use super::answer::{JSON_LINES, Refusal, with_type};
use crate::store::view::RecordView;
use crate::store::{Imported, Record};

/// Records that the store takes over in one go.
const BATCH: usize = 256;

/// Octets of one line.
const LONGEST: usize = 256 * 1024;

/// How long the client may take for the next octets.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes records over while they come in.
pub(super) async fn import(
    State(desk): State<Desk>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(JSON_LINES) {
        let text = format!("records come as JSON Lines; send Content-Type: {JSON_LINES}");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let mut intake = Intake { desk, batch: Vec::new(), lines: 0, imported: Imported::default() };
    intake.read(body).await?;
    intake.flush().await?;
    let Imported { added, kept, expired } = intake.imported;
    tracing::info!(added, kept, expired, "an operator imported claims");
    let json = serde_json::json!({ "added": added, "kept": kept, "expired": expired });
    Ok(with_type("application/json", format!("{json}\n")))
}

struct Intake {
    desk: Desk,
    batch: Vec<Record>,
    lines: usize,
    imported: Imported,
}

impl Intake {
    async fn read(&mut self, mut body: Body) -> Result<(), Refusal> {
        let mut open = BytesMut::new();
        while let Some(data) = next(&mut body).await? {
            open.extend_from_slice(&data);
            while let Some(end) = memchr::memchr(b'\n', &open) {
                let line = open.split_to(end + 1);
                self.line(&line).await?;
            }
            if open.len() > LONGEST {
                self.lines += 1;
                return Err(self.wrong("is too long"));
            }
        }
        self.line(&open).await
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.lines += 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let view: RecordView =
            serde_json::from_slice(line).map_err(|error| self.wrong(&error.to_string()))?;
        let record = Record::try_from(&view).map_err(|what| self.wrong(&what))?;
        self.batch.push(record);
        if self.batch.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Refusal> {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.imported += self.desk.store.import(batch, self.desk.clock.now()).await?;
        }
        Ok(())
    }

    fn wrong(&self, what: &str) -> Refusal {
        let line = self.lines;
        Refusal::bad(format!(
            "line {line}: {what}; correct it and send all of it again: what was taken over before stays"
        ))
    }
}

/// The next octets of a body; `None` at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        match timeout(PATIENCE, frame).await {
            Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the records came too slowly")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(Refusal::bad(format!("the records broke off: {error}"))),
            // Trailers say nothing here.
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
