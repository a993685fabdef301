//! The running proxy, asked over HTTP at its admin address.

use std::io::BufReader;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Response;
use ureq::{Agent, Body, BodyReader};

use super::{Changed, Lines, Stats, Take, Wanted};
use crate::cli::CliFault;
use crate::config::values::format_duration;
use crate::store::view::RecordView;
use crate::store::{ClaimId, Imported, Record, Resolution};

/// How long the proxy may take to be connected to.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to begin its answer: the newest of millions of records
/// are known only when all were looked at.
const ANSWER: Duration = Duration::from_secs(120);

/// The longest answer that is read at once, in octets.
const MOST: u64 = 64 * 1024 * 1024;

/// Speaks to the proxy. Follows no redirection, and uses no HTTP proxy that
/// the environment names: the token is for nobody else.
#[derive(Debug)]
pub struct AdminClient {
    agent: Agent,
    base: String,
    token: String,
}

/// Why the proxy can't be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoProxy {
    /// Nothing answers.
    Silent(String),
    /// Something does, and does not know our token.
    Stranger(String),
}

/// What the proxy says when it does not do what it was asked for.
#[derive(Deserialize)]
struct Said {
    error: String,
}

impl Said {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// What the proxy says of an import.
#[derive(Deserialize)]
struct Took {
    added: usize,
    kept: usize,
    expired: usize,
}

type Answer = Response<Body>;

/// How a stream of records ended.
enum Ended {
    /// All were there, or whoever takes them has had enough.
    AtItsEnd,
    /// It was cut off.
    Early(CliFault),
}

impl AdminClient {
    /// The proxy at `address`, if it knows the token.
    pub fn reach(address: SocketAddr, token: Option<&str>) -> Result<Self, NoProxy> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .build();
        let (base, token) = (format!("http://{address}"), token.unwrap_or_default().to_owned());
        let client = Self { agent: config.into(), base, token };
        // Asks for a claim that can't be: one look-up, and an answer that only
        // mailonce gives.
        match client.get_claim(&"0".repeat(64)) {
            Err(error) => Err(silent_or_stranger(&error)),
            Ok(answer) if answer.status() == 401 => Err(NoProxy::Stranger(match client.token.as_str() {
                "" => "it wants a token, and the token file is not there".to_owned(),
                _ => "it does not take the token of the token file".to_owned(),
            })),
            Ok(answer) => {
                match (answer.status().as_u16(), text(answer).ok().as_deref().and_then(Said::parse)) {
                    (404, Some(_)) => Ok(client),
                    // A mailonce whose store is out: it will say so again.
                    (503 | 504, Some(_)) => Ok(client),
                    (status, _) => {
                        Err(NoProxy::Stranger(format!("it answers {status}, as no mailonce does")))
                    }
                }
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Asks, with parameters; those without a value are left out.
    fn ask(
        &self,
        path: &str,
        accept: &str,
        parameters: &[(&str, Option<String>)],
    ) -> Result<Answer, CliFault> {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in parameters {
            if let Some(value) = value {
                request = request.query(*name, value);
            }
        }
        request.header("Authorization", self.bearer()).header("Accept", accept).call().map_err(failed)
    }

    fn get_claim(&self, id: &str) -> Result<Answer, ureq::Error> {
        let request = self.agent.get(self.url(&format!("/v1/claims/{id}")));
        request.header("Authorization", self.bearer()).header("Accept", "application/json").call()
    }

    fn post(&self, path: &str, kind: &str, body: &str) -> Result<Answer, CliFault> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.bearer());
        request.content_type(kind).send(body).map_err(failed)
    }

    pub(super) fn each(&self, wanted: &Wanted, take: &mut Take<'_>) -> Result<(), CliFault> {
        let mut after = wanted.after;
        loop {
            let parameters = [
                ("state", wanted.state.map(|state| state.to_string())),
                ("tenant", wanted.tenant.clone()),
                ("recipient", wanted.recipient.clone()),
                ("key", wanted.key.clone()),
                ("since", wanted.since.map(format_duration)),
                ("limit", Some(wanted.limit.to_string())),
                ("after", after.map(|id| id.to_string())),
            ];
            let mut last = None;
            let ended = self.records(&parameters, &mut |view| {
                last = ClaimId::parse(&view.id);
                take(view)
            })?;
            // The proxy does not wait long for who reads slowly, a pager say.
            // What comes in the order of ids goes on where it was cut off.
            match ended {
                Ended::AtItsEnd => return Ok(()),
                Ended::Early(_) if wanted.limit == 0 && last.is_some() => after = last,
                Ended::Early(fault) => return Err(fault),
            }
        }
    }

    pub(super) fn find(&self, what: &str) -> Result<Vec<RecordView>, CliFault> {
        let mut found = Vec::new();
        let ended = self.records(&[("find", Some(what.to_owned()))], &mut |view| {
            found.push(view);
            Ok(ControlFlow::Continue(()))
        })?;
        match ended {
            Ended::AtItsEnd => Ok(found),
            Ended::Early(fault) => Err(fault),
        }
    }

    fn records(&self, parameters: &[(&str, Option<String>)], take: &mut Take<'_>) -> Result<Ended, CliFault> {
        let answer = done(self.ask("/v1/claims", "application/x-ndjson", parameters)?)?;
        let mut lines = Lines::new(BufReader::new(answer.into_body().into_reader()));
        loop {
            match lines.next_line() {
                Ok(None) => return Ok(Ended::AtItsEnd),
                Ok(Some(line)) => {
                    if take(parse(&line)?)?.is_break() {
                        return Ok(Ended::AtItsEnd);
                    }
                }
                Err(error) => return Ok(Ended::Early(cut_off(&error))),
            }
        }
    }

    pub(super) fn get(&self, id: &ClaimId) -> Result<Option<RecordView>, CliFault> {
        let answer = self.get_claim(&id.to_string()).map_err(failed)?;
        if answer.status() == 404 {
            return Ok(None);
        }
        parse(&text(done(answer)?)?).map(Some)
    }

    pub(super) fn forget(&self, id: &str) -> Result<Changed, CliFault> {
        changed(self.post(&format!("/v1/claims/{id}/release"), "application/json", "{}")?)
    }

    pub(super) fn resolve(&self, id: &str, as_: Resolution) -> Result<Changed, CliFault> {
        let body = match as_ {
            Resolution::Sent => "{\"as\":\"sent\"}",
            Resolution::NotSent => "{\"as\":\"not-sent\"}",
        };
        changed(self.post(&format!("/v1/claims/{id}/resolve"), "application/json", body)?)
    }

    pub(super) fn import(&self, records: &[Record]) -> Result<Imported, CliFault> {
        let line = |record| RecordView::from(record).to_json() + "\n";
        let body: String = records.iter().map(line).collect();
        let answer = done(self.post("/v1/claims", "application/x-ndjson", &body)?)?;
        let Took { added, kept, expired } = parse(&text(answer)?)?;
        Ok(Imported { added, kept, expired })
    }

    pub(super) fn stats(&self, since: Option<Duration>) -> Result<Stats, CliFault> {
        let since = [("since", since.map(format_duration))];
        parse(&text(done(self.ask("/v1/stats", "application/json", &since)?)?)?)
    }

    /// Follows decisions as they are made: the lines of a stream of events.
    pub fn events(
        &self,
        parameters: &[(&str, Option<String>)],
    ) -> Result<Lines<BufReader<BodyReader<'static>>>, CliFault> {
        let answer = done(self.ask("/v1/events", "text/event-stream", parameters)?)?;
        Ok(Lines::new(BufReader::new(answer.into_body().into_reader())))
    }
}

/// What came of a change to one record.
fn changed(answer: Answer) -> Result<Changed, CliFault> {
    match answer.status().as_u16() {
        404 => Ok(Changed::Absent),
        409 => Ok(Changed::Refused(said(answer))),
        _ => done(answer).map(|_| Changed::Done),
    }
}

fn done(answer: Answer) -> Result<Answer, CliFault> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    Err(CliFault::Failed(format!("the proxy answers {status}: {}", said(answer))))
}

fn said(answer: Answer) -> String {
    let status = answer.status();
    let said = text(answer).ok().as_deref().and_then(Said::parse);
    said.map_or_else(|| status.to_string(), |said| said.error)
}

fn text(answer: Answer) -> Result<String, CliFault> {
    answer.into_body().into_with_config().limit(MOST).read_to_string().map_err(failed)
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, CliFault> {
    serde_json::from_str(text).map_err(|error| {
        CliFault::Failed(format!(
            "the proxy's answer can't be read ({error}); is it of the same version as this command?"
        ))
    })
}

fn failed(error: ureq::Error) -> CliFault {
    CliFault::Failed(format!("the proxy did not answer: {error}"))
}

fn cut_off(error: &std::io::Error) -> CliFault {
    CliFault::Failed(format!("the proxy's answer ended early: {error}"))
}

fn silent_or_stranger(error: &ureq::Error) -> NoProxy {
    match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            NoProxy::Silent("connection refused".to_owned())
        }
        ureq::Error::Protocol(error) => NoProxy::Stranger(format!("it does not speak HTTP: {error}")),
        other => NoProxy::Silent(other.to_string()),
    }
}
