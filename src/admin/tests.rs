//! The answers themselves, without sockets: over a store in memory that fails
//! on demand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tower_service::Service;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::clock::ManualClock;
use crate::config::{Config, Redact};
use crate::journal::{Context, Decision, DecisionOutcome};
use crate::store::contract::{accepted, at, in_doubt, send, slot};
use crate::store::faulty::FaultyStore;
use crate::store::memory::MemoryStore;
use crate::store::{ClaimId, Slot};
use crate::upstream::Access;

struct Fake {
    upstream: Upstream,
    closing: AtomicBool,
}

impl Proxy for Fake {
    fn sessions(&self) -> usize {
        3
    }

    fn upstream(&self) -> Upstream {
        self.upstream.clone()
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

/// The admin address over a store of its own.
struct Admin {
    router: Router,
    store: Arc<FaultyStore>,
    proxy: Arc<Fake>,
    journal: Journal,
    closing: CancellationToken,
    _directory: tempfile::TempDir,
}

/// A status, and the body as far as it came.
#[derive(Debug)]
struct Heard {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
    whole: bool,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

async fn heard(response: Response) -> Heard {
    let (parts, body) = response.into_parts();
    let mut body = Box::pin(body);
    let (mut bytes, mut whole) = (Vec::new(), true);
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => whole = false,
        }
    }
    Heard { status: parts.status, headers: parts.headers, body: String::from_utf8(bytes).unwrap(), whole }
}

impl Admin {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "secret").unwrap();
        // Nobody listens on port 1, and nobody connects unless asked to.
        let config = "[upstream]\naddress = \"127.0.0.1:1\"\n";
        let config = Config::parse(config, "test", std::iter::empty()).unwrap();
        let proxy = Arc::new(Fake {
            upstream: Upstream::new(config.upstream, Access::default(), "relay.test".to_owned()),
            closing: AtomicBool::new(false),
        });
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let metrics = Metrics::new();
        let journal = Journal::new(Redact::None, metrics.clone());
        let desk = Desk {
            store: store.clone(),
            journal: journal.clone(),
            metrics,
            clock: Arc::new(ManualClock::new(at(100))),
            proxy: proxy.clone(),
        };
        let closing = CancellationToken::new();
        let router = routes::router(desk, Token::read_or_make(&path).unwrap(), closing.clone());
        Self { router, store, proxy, journal, closing, _directory: directory }
    }

    async fn call(&self, request: Request<Body>) -> Response {
        self.router.clone().call(request).await.unwrap()
    }

    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Heard {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        heard(self.call(request.body(body.into()).unwrap()).await).await
    }

    async fn get(&self, uri: &str) -> Heard {
        self.ask("GET", uri, &[TOKEN], "").await
    }

    async fn post(&self, uri: &str, body: &str) -> Heard {
        self.ask("POST", uri, &[TOKEN], body.to_owned()).await
    }

    async fn import(&self, body: String) -> Heard {
        self.ask("POST", "/v1/claims", &[TOKEN, ("content-type", answer::JSON_LINES)], body).await
    }

    /// A record of the claim with this number.
    async fn sent(&self, number: u8) {
        send(&*self.store, u64::from(number), at(u64::from(number)), slot(number), accepted()).await;
    }
}

const TOKEN: (&str, &str) = ("authorization", "Bearer secret");

fn ids(records: &Value) -> Vec<&str> {
    records.as_array().unwrap().iter().map(|record| &record["id"].as_str().unwrap()[..2]).collect()
}

#[tokio::test]
async fn all_but_health_and_metrics_wants_the_token() {
    let admin = Admin::new();
    for uri in ["/", "/v1/claims", "/v1/claims/0101010101", "/v1/stats", "/v1/events", "/nowhere"] {
        for header in ["", "secret", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret2"] {
            let heard = admin.ask("GET", uri, &[("authorization", header)], "").await;
            assert_eq!(heard.status, StatusCode::UNAUTHORIZED, "{uri} {header:?}");
            assert_eq!(heard.headers["www-authenticate"], "Bearer");
            assert!(heard.error().contains("Authorization: Bearer"), "{heard:?}");
        }
        let twice = admin.ask("GET", uri, &[TOKEN, TOKEN], "").await;
        assert_eq!(twice.status, StatusCode::UNAUTHORIZED, "{uri}");
    }
    for uri in ["/v1/claims", "/v1/claims/0101010101/release", "/v1/claims/0101010101/resolve"] {
        assert_eq!(admin.ask("POST", uri, &[], "").await.status, StatusCode::UNAUTHORIZED, "{uri}");
    }
    for uri in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(admin.ask("GET", uri, &[], "").await.status, StatusCode::OK, "{uri}");
    }
    let overview = admin.ask("GET", "/", &[("authorization", "bearer  secret ")], "").await;
    assert!(overview.body.contains("/v1/events"), "{overview:?}");
    assert_eq!(admin.get("/nowhere").await.status, StatusCode::NOT_FOUND);
    let wrong = admin.ask("DELETE", "/v1/claims", &[TOKEN], "").await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong.error().contains("GET /"), "{wrong:?}");
}

#[tokio::test]
async fn readiness_names_every_reason_against_it() {
    let admin = Admin::new();
    let ready = admin.get("/readyz").await;
    assert_eq!((ready.status, &*ready.body), (StatusCode::OK, "ready\n"), "nothing is known yet");
    admin.store.fail_next("ready", 1);
    admin.proxy.closing.store(true, Ordering::SeqCst);
    assert!(admin.proxy.upstream.probe().await.is_err());
    let out = admin.get("/readyz").await;
    assert_eq!(out.status, StatusCode::SERVICE_UNAVAILABLE);
    let lines: Vec<_> = out.body.lines().collect();
    assert_eq!(lines[..2], ["closing", "store: planned fault of ready"], "{out:?}");
    assert!(lines[2].starts_with("upstream: 127.0.0.1:1: "), "{out:?}");
    assert_eq!(lines.len(), 3);
    assert_eq!(admin.get("/livez").await.body, "ok\n");
}

#[tokio::test]
async fn a_scrape_shows_what_is_so_at_its_moment() {
    let admin = Admin::new();
    admin.sent(1).await;
    let scrape = admin.get("/metrics").await;
    assert_eq!(scrape.headers["content-type"], crate::metrics::MEDIA_TYPE);
    for line in [
        "mailonce_claims{state=\"accepted\"} 1\n",
        "mailonce_claims{state=\"in_doubt\"} 0\n",
        "mailonce_sessions 3\n",
        "mailonce_upstream_connections{state=\"in_use\"} 0\n",
    ] {
        assert!(scrape.body.contains(line), "{line} in {}", scrape.body);
    }
    admin.store.fail_next("census", 1);
    assert!(!admin.get("/metrics").await.body.contains("mailonce_claims{"));
}

#[tokio::test]
async fn records_come_newest_first_as_an_array_or_as_lines() {
    let admin = Admin::new();
    assert_eq!(admin.get("/v1/claims").await.json(), serde_json::json!([]));
    for number in 1..=5 {
        admin.sent(number).await;
    }
    let all = admin.get("/v1/claims").await;
    assert_eq!(all.headers["content-type"], "application/json");
    assert_eq!(ids(&all.json()), ["05", "04", "03", "02", "01"]);
    assert_eq!(ids(&admin.get("/v1/claims?limit=2").await.json()), ["05", "04"]);
    assert_eq!(ids(&admin.get("/v1/claims?limit=0").await.json()), ["01", "02", "03", "04", "05"]);
    let after = format!("/v1/claims?after={}", ClaimId([3; 32]));
    assert_eq!(ids(&admin.get(&after).await.json()), ["04", "05"]);
    assert_eq!(ids(&admin.get("/v1/claims?key=order-3&state=accepted").await.json()), ["03"]);
    assert_eq!(
        ids(&admin.get("/v1/claims?recipient=ANN@*&since=98s").await.json()),
        ["05", "04", "03", "02"]
    );
    for none in ["state=in_doubt", "tenant=else", "key=order", "since=1s"] {
        assert_eq!(admin.get(&format!("/v1/claims?{none}")).await.body, "[]\n", "{none}");
    }
    assert_eq!(ids(&admin.get("/v1/claims?find=order-4").await.json()), ["04"]);
    assert_eq!(ids(&admin.get("/v1/claims?find=02020202").await.json()), ["02"]);
    let lines = [TOKEN, ("accept", answer::JSON_LINES)];
    let lines = admin.ask("GET", "/v1/claims?limit=0", &lines, "").await;
    assert_eq!(lines.headers["content-type"], answer::JSON_LINES);
    let keys = lines.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].clone());
    assert!(keys.eq((1..=5).map(|number| Value::from(format!("order-{number}")))), "{lines:?}");
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_by_name() {
    let admin = Admin::new();
    for (uri, says) in [
        ("/v1/claims?stat=accepted", "\"stat\"; known here: state, tenant"),
        (
            "/v1/claims?state=sent",
            "state: \"sent\" is not usable; write one of pending, committing, accepted",
        ),
        ("/v1/claims?since=yesterday", "since: \"yesterday\""),
        ("/v1/claims?limit=-1", "limit: \"-1\""),
        ("/v1/claims?limit=10001", "up to 10000, or 0 for all"),
        ("/v1/claims?after=12", "after: \"12\""),
        ("/v1/claims?key=a&key=b", "\"key\" stands there twice"),
        ("/v1/claims?find=k&state=accepted", "\"state\"; known here: find, which stands alone"),
        ("/v1/claims/xyz", "64 hex digits, of which at least 8"),
        ("/v1/claims/0101010%C3%A9", "64 hex digits"),
        ("/v1/stats?since=x", "since: \"x\""),
        ("/v1/stats?rule=x", "known here: since"),
        ("/v1/events?outcome=sent", "outcome: \"sent\" is not usable; write one of relayed"),
    ] {
        let heard = admin.get(uri).await;
        assert_eq!(heard.status, StatusCode::BAD_REQUEST, "{uri}: {heard:?}");
        assert!(heard.error().contains(says), "{uri}: {}", heard.error());
    }
}

#[tokio::test]
async fn one_record_is_named_by_enough_digits() {
    let admin = Admin::new();
    let mut close = slot(1);
    close.id.0[31] = 9;
    admin.sent(1).await;
    let whole = ClaimId([1; 32]).to_string();
    for id in [&whole[..8], &whole[..63], &whole, &whole.to_uppercase()] {
        assert_eq!(admin.get(&format!("/v1/claims/{id}")).await.json()["key"], "order-1", "{id}");
    }
    assert_eq!(admin.get("/v1/claims/02020202").await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/v1/claims/0101010").await.status, StatusCode::BAD_REQUEST);
    claim_of(&admin, close).await;
    assert_eq!(admin.get("/v1/claims/01010101").await.status, StatusCode::CONFLICT);
    assert_eq!(admin.get(&format!("/v1/claims/{whole}")).await.json()["id"], *whole);
}

/// Claims and leaves it in flight.
async fn claim_of(admin: &Admin, slot: Slot) {
    crate::store::contract::claim(&*admin.store, 77, at(99), slot).await;
}

#[tokio::test]
async fn a_claim_is_released_unless_it_is_in_flight() {
    let admin = Admin::new();
    admin.sent(1).await;
    claim_of(&admin, slot(2)).await;
    let released = admin.post("/v1/claims/01010101/release", "").await;
    assert_eq!((released.status, &released.json()["state"]), (StatusCode::OK, &"accepted".into()));
    assert_eq!(admin.post("/v1/claims/01010101/release", "").await.status, StatusCode::NOT_FOUND);
    let refused = admin.post("/v1/claims/02020202/release", "").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.error().contains("pending"), "{refused:?}");
}

#[tokio::test]
async fn a_doubt_is_resolved_either_way_and_nothing_else_is() {
    for (word, state) in [("sent", "accepted"), ("not-sent", "deferred")] {
        let admin = Admin::new();
        admin.sent(1).await;
        send(&*admin.store, 2, at(2), slot(2), in_doubt()).await;
        let body = format!("{{\"as\": \"{word}\"}}");
        for bad in ["", "{}", "{\"as\": \"lost\"}", "{\"as\": \"sent\", \"by\": \"me\"}"] {
            let heard = admin.post("/v1/claims/02020202/resolve", bad).await;
            assert_eq!(heard.status, StatusCode::BAD_REQUEST, "{bad}");
        }
        let large = admin.post("/v1/claims/02020202/resolve", &" ".repeat(100_000)).await;
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(!large.error().is_empty(), "in the form of every refusal");
        let resolved = admin.post("/v1/claims/02020202/resolve", &body).await;
        assert_eq!((resolved.status, &resolved.json()["state"]), (StatusCode::OK, &state.into()));
        for (id, status) in [
            ("02020202", StatusCode::CONFLICT),
            ("01010101", StatusCode::CONFLICT),
            ("03030303", StatusCode::NOT_FOUND),
        ] {
            let heard = admin.post(&format!("/v1/claims/{id}/resolve"), &body).await;
            assert_eq!(heard.status, status, "{id}: {heard:?}");
        }
    }
}

#[tokio::test]
async fn what_was_exported_can_be_imported() {
    let (old, new) = (Admin::new(), Admin::new());
    for number in 1..=5 {
        old.sent(number).await;
    }
    let exported = old.ask("GET", "/v1/claims?limit=0", &[TOKEN, ("accept", answer::JSON_LINES)], "").await;
    let imported = new.import(format!("\n{}", exported.body)).await;
    assert_eq!(imported.json(), serde_json::json!({ "added": 5, "kept": 0, "expired": 0 }));
    let again = new.import(exported.body.trim_end().to_owned()).await;
    assert_eq!(again.json(), serde_json::json!({ "added": 0, "kept": 5, "expired": 0 }));
    let found = new.ask("GET", "/v1/claims?limit=0", &[TOKEN, ("accept", answer::JSON_LINES)], "").await;
    assert_eq!(found.body, exported.body);
}

#[tokio::test]
async fn an_import_names_the_line_that_is_wrong() {
    let admin = Admin::new();
    admin.sent(1).await;
    let good = admin.get("/v1/claims/01010101").await.body;
    let no_time = good.replace("\"first_seen\":\"20", "\"first_seen\":\"XX");
    for (body, line) in [
        (format!("{good}\nnonsense\n"), "line 3: "),
        (format!("{good}{no_time}"), "line 2: the member first_seen"),
        (format!("{good}{}", "x".repeat(300_000)), "line 2: is too long"),
    ] {
        let heard = admin.import(body).await;
        assert_eq!(heard.status, StatusCode::BAD_REQUEST, "{line}");
        assert!(heard.error().starts_with(line), "{}", heard.error());
    }
    let untyped = admin.ask("POST", "/v1/claims", &[TOKEN], good).await;
    assert_eq!(untyped.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_store_that_is_out_is_said_before_a_list_and_cuts_it_short_afterwards() {
    let admin = Admin::new();
    admin.sent(1).await;
    for uri in ["/v1/claims", "/v1/claims?limit=0", "/v1/claims/01010101"] {
        admin.store.fail_next("list", 1);
        let heard = admin.get(uri).await;
        assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE, "{uri}");
        assert!(heard.error().contains("planned fault"), "{heard:?}");
    }
    let (pieces, body) = body::streamed();
    let cut = tokio::spawn(async move {
        pieces.add("begun").await.unwrap();
        pieces.fail(crate::store::StoreFault::Fenced).await;
    });
    let heard = heard(answer::with_type("text/plain", body.behind(None))).await;
    cut.await.unwrap();
    assert_eq!((&*heard.body, heard.whole), ("begun", false));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_not_waited_for() {
    let (pieces, stuck) = body::streamed();
    let started = tokio::time::Instant::now();
    while pieces.add("piece").await.is_ok() {}
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    drop(stuck);
    pieces.gone().await;
}

fn decide(admin: &Admin, outcome: DecisionOutcome, tenant: &str, to: &str, rule: &str) {
    let context = Context { tenant: tenant.into(), ..Context::default() };
    let mut decision = Decision::new(at(100), outcome, Arc::new(context), to);
    decision.rule = Some(rule.to_owned()).filter(|rule| !rule.is_empty());
    admin.journal.record(&decision);
}

#[tokio::test]
async fn figures_hold_everything_that_was_decided_before_the_request() {
    let admin = Admin::new();
    for _ in 0..3 {
        decide(&admin, DecisionOutcome::Relayed, "shop", "a@b.test", "codes");
    }
    decide(&admin, DecisionOutcome::Duplicate, "shop", "a@b.test", "");
    decide(&admin, DecisionOutcome::BadKey, "", "a@b.test", "");
    let stats = admin.get("/v1/stats").await.json();
    let tally = |relayed: u64, suppressed: u64, refused: u64| {
        serde_json::json!({
            "relayed": relayed, "suppressed": suppressed, "conflicts": 0, "in_doubt": 0, "unkeyed": 0, "observed": 0, "deferred": 0,
            "refused": refused,
        })
    };
    let mut expected = tally(3, 1, 1);
    expected["by_rule"] = serde_json::json!({ "codes": tally(3, 0, 0), "(none)": tally(0, 1, 1) });
    expected["by_tenant"] = serde_json::json!({ "shop": tally(3, 1, 0), "(none)": tally(0, 0, 1) });
    assert_eq!(stats, expected);
    assert_eq!(admin.get("/v1/stats?since=1h").await.json(), expected);
    admin.store.fail_next("counts", 1);
    assert_eq!(admin.get("/v1/stats").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// The next piece of a stream of events.
async fn piece(body: &mut Body) -> Option<String> {
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn events_are_the_decisions_that_a_reader_wants() {
    let admin = Admin::new();
    let open = async |query: &str| {
        let request = Request::builder().uri(format!("/v1/events{query}")).header(TOKEN.0, TOKEN.1);
        let response = admin.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        assert_eq!(piece(&mut body).await.unwrap(), ": following\n\n");
        body
    };
    let mut all = open("").await;
    let mut some = open("?outcome=relayed&tenant=shop&recipient=ann@*").await;
    decide(&admin, DecisionOutcome::Duplicate, "shop", "ann@b.test", "");
    decide(&admin, DecisionOutcome::Relayed, "else", "ann@b.test", "");
    decide(&admin, DecisionOutcome::Relayed, "shop", "bob@b.test", "");
    decide(&admin, DecisionOutcome::Relayed, "shop", "Ann@B.test", "");
    for outcome in ["duplicate", "relayed", "relayed", "relayed"] {
        let event = piece(&mut all).await.unwrap();
        let json = event.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert_eq!(serde_json::from_str::<Value>(json).unwrap()["outcome"], outcome);
    }
    assert!(piece(&mut some).await.unwrap().contains("\"to\":\"Ann@B.test\""));
    // With nothing to tell, time passes until the reader hears that all is well.
    assert_eq!(piece(&mut some).await.unwrap(), ": still here\n\n");
    admin.closing.cancel();
    assert_eq!(piece(&mut some).await, None);
}

#[tokio::test]
async fn there_is_a_bound_on_readers_of_events() {
    let admin = Admin::new();
    let mut open = Vec::new();
    for _ in 0..32 {
        let request = Request::builder().uri("/v1/events").header(TOKEN.0, TOKEN.1);
        let response = admin.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        open.push(response);
    }
    assert_eq!(admin.get("/v1/events").await.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(open);
    // Their places are free as soon as their tasks have noticed.
    let again = async {
        loop {
            let request = Request::builder().uri("/v1/events").header(TOKEN.0, TOKEN.1);
            if admin.call(request.body(Body::empty()).unwrap()).await.status() == StatusCode::OK {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.unwrap();
}

/// Serves on a free port; time passes whenever nobody has anything to do.
async fn served(admin: &Admin) -> (Running, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (Running::start(listener, admin.router.clone(), admin.closing.clone()), address)
}

async fn rest_of(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A connection that is reset has ended, too.
    let _ = stream.read_to_string(&mut text).await;
    text
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go() {
    let admin = Admin::new();
    let (running, address) = served(&admin).await;
    for (said, heard) in
        [("", ""), ("GET /livez HTTP/1.1\r\n", ""), ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "ok\n")]
    {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let text = rest_of(stream).await;
        assert!(text.ends_with(heard), "{text}");
        assert!(started.elapsed() < Duration::from_secs(20), "{said:?} took {:?}", started.elapsed());
    }
    running.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_comes_when_all_places_are_taken_waits_for_one() {
    let admin = Admin::new();
    let (running, address) = served(&admin).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let text = rest_of(late).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    running.stop().await;
}
