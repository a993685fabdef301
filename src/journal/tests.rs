//! Golden lines, with values that try to be more than one.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;

use super::format::LineFormat;
use super::log::subscriber;
use super::*;
use crate::clock::ManualClock;

/// 2026-11-21T08:15:00.123Z
const NOW: Timestamp = Timestamp::from_millis(1_795_248_900_123);

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `act` logs.
fn logged_at(level: LevelFilter, json: bool, act: impl FnOnce()) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let format = LineFormat { json, colour: false, clock: Arc::new(ManualClock::new(NOW)) };
    tracing::subscriber::with_default(subscriber(format, level, move || writer.clone()), act);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn logged(json: bool, act: impl FnOnce()) -> String {
    logged_at(LevelFilter::INFO, json, act)
}

fn journal(redact: Redact) -> Journal {
    Journal::new(redact, Metrics::new())
}

fn decision() -> Decision {
    let context = Context {
        session: "7f3a".into(),
        tenant: "shop".into(),
        listener: "submission".into(),
        client: "127.0.0.1".into(),
        from: "shop@example.com".into(),
        size: Some(1234),
        message_id: Some("<a@b>".into()),
    };
    Decision {
        strategy: Some("header"),
        key: Some("order-7".into()),
        claim: Some(ClaimId([0xab; 32])),
        rule: Some("one-time codes".into()),
        reply: Some(Reply::new(250, "2.0.0 queued as 12")),
        upstream: Some("smtp.example.com:25".into()),
        attempt: Some(1),
        first_seen: Some(NOW),
        upstream_ms: Some(12),
        total_ms: Some(15),
        heard: Some(true),
        ..Decision::new(NOW, DecisionOutcome::Relayed, Arc::new(context), "Ann@example.com")
    }
}

fn hostile() -> Decision {
    let context = Context {
        from: "a\u{1b}[31m@b".into(),
        message_id: Some("<x y=\"z\"\\>".into()),
        ..Context::default()
    };
    Decision {
        key: Some("one\ntwo\r\nlevel=error".into()),
        rule: Some("'".into()),
        reply: Some(Reply::from_wire(550, b"5.1.1 \x1b]0;t\x07 \xff".to_vec())),
        ..Decision::new(NOW, DecisionOutcome::Conflict, Arc::new(context), "\u{202e}moc\u{2028}\u{e0041}@x")
    }
}

#[test]
fn a_decision_in_json() {
    let line = logged(true, || journal(Redact::None).record(&decision()));
    let golden = "{\"timestamp\":\"2026-11-21T08:15:00.123Z\",\"level\":\"info\",\"event\":\"message\",\"session\":\"7f3a\",\
        \"tenant\":\"shop\",\"listener\":\"submission\",\"client\":\"127.0.0.1\",\"from\":\"shop@example.com\",\
        \"to\":\"Ann@example.com\",\"outcome\":\"relayed\",\"strategy\":\"header\",\"key\":\"order-7\",\
        \"claim\":\"abababababababab\",\"rule\":\"one-time codes\",\"reply\":\"250 2.0.0 queued as 12\",\
        \"upstream\":\"smtp.example.com:25\",\"size\":1234,\"message_id\":\"<a@b>\",\"attempt\":1,\
        \"first_seen\":\"2026-11-21T08:15:00.123Z\",\"upstream_ms\":12,\"total_ms\":15,\"heard\":true}\n";
    assert_eq!(line, golden);
}

#[test]
fn a_decision_in_text() {
    let line = logged(false, || journal(Redact::None).record(&decision()));
    let golden = "2026-11-21T08:15:00.123Z info  event=message session=7f3a tenant=shop listener=submission \
        client=127.0.0.1 from=shop@example.com to=Ann@example.com outcome=relayed strategy=header key=order-7 \
        claim=abababababababab rule=\"one-time codes\" reply=\"250 2.0.0 queued as 12\" \
        upstream=smtp.example.com:25 size=1234 message_id=<a@b> attempt=1 first_seen=2026-11-21T08:15:00.123Z \
        upstream_ms=12 total_ms=15 heard=true\n";
    assert_eq!(line, golden);
}

#[test]
fn hostile_values_stay_on_one_line_of_text() {
    let line = logged(false, || journal(Redact::None).record(&hostile()));
    let golden = "2026-11-21T08:15:00.123Z warn  event=message from=\"a\\u{1b}[31m@b\" \
        to=\"\\u{202e}moc\\u{2028}\\u{e0041}@x\" outcome=conflict key=\"one\\ntwo\\r\\nlevel=error\" rule=\"'\" \
        reply=\"550 5.1.1 \\u{1b}]0;t\\u{7} \u{fffd}\" message_id=\"<x y=\\\"z\\\"\\\\>\"\n";
    assert_eq!(line, golden);
}

#[test]
fn hostile_values_stay_on_one_line_of_json() {
    let line = logged(true, || journal(Redact::None).record(&hostile()));
    let golden = "{\"timestamp\":\"2026-11-21T08:15:00.123Z\",\"level\":\"warn\",\"event\":\"message\",\
        \"from\":\"a\\u001b[31m@b\",\"to\":\"\\u202emoc\\u2028\\udb40\\udc41@x\",\"outcome\":\"conflict\",\
        \"key\":\"one\\ntwo\\r\\nlevel=error\",\"rule\":\"'\",\"reply\":\"550 5.1.1 \\u001b]0;t\\u0007 \u{fffd}\",\
        \"message_id\":\"<x y=\\\"z\\\"\\\\>\"}\n";
    assert_eq!(line, golden);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["to"], "\u{202e}moc\u{2028}\u{e0041}@x");
    assert_eq!(value["key"], "one\ntwo\r\nlevel=error");
}

#[test]
fn other_lines_have_the_same_form() {
    let act = || tracing::warn!(error = %"disk\nfull", tries = 3, "store is slow\nevent=message");
    assert_eq!(
        logged(true, act),
        "{\"timestamp\":\"2026-11-21T08:15:00.123Z\",\"level\":\"warn\",\"message\":\"store is slow\\nevent=message\",\
         \"error\":\"disk\\nfull\",\"tries\":3}\n"
    );
    let act = || tracing::error!(error = %"disk\nfull", ratio = f64::INFINITY, ok = false, "store is slow\n\u{1b}[0m");
    assert_eq!(
        logged(false, act),
        "2026-11-21T08:15:00.123Z error store is slow\\n\\u{1b}[0m error=\"disk\\nfull\" ratio=inf ok=false\n"
    );
}

#[test]
fn the_level_holds_decisions_back() {
    let act = || journal(Redact::None).record(&decision());
    assert_eq!(logged_at(LevelFilter::WARN, true, act), "");
    let act = || journal(Redact::None).record(&hostile());
    assert_eq!(logged_at(LevelFilter::WARN, true, act).lines().count(), 1);
    let act = || journal(Redact::None).record(&hostile());
    assert_eq!(logged_at(LevelFilter::ERROR, true, act), "");
}

fn redacted(redact: Redact, reply: &str) -> serde_json::Value {
    let decision = Decision {
        key: Some("otp:ann@example.com:7".into()),
        reply: Some(Reply::new(550, reply)),
        ..decision()
    };
    let line = logged(true, || journal(redact).record(&decision));
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_recipient_is_hidden_wherever_it_is_named() {
    let ann = crate::store::record::hex(&<sha2::Sha256 as sha2::Digest>::digest(b"ann")[..6]);
    let bob = crate::store::record::hex(&<sha2::Sha256 as sha2::Digest>::digest(b"bob")[..6]);
    let line =
        redacted(Redact::Recipient, "5.1.1 <ANN@example.com>: user ann unknown, nor bob@x.org; annual plan");
    assert_eq!(line["to"], format!("{ann}@example.com"));
    assert_eq!(line["from"], "shop@example.com");
    assert_eq!(line["key"], format!("otp:{ann}@example.com:7"));
    assert_eq!(
        line["reply"],
        format!("550 5.1.1 <{ann}@example.com>: user {ann} unknown, nor {bob}@x.org; annual plan")
    );
}

#[test]
fn everything_about_people_is_hidden() {
    let line = redacted(Redact::All, "5.1.1 <ann@example.com>: unknown");
    for field in ["to", "from", "key", "message_id"] {
        let text = line[field].as_str().unwrap();
        assert!(text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit()), "{field}: {text}");
    }
    assert_eq!(line["reply"], "550 5.1.1");
    assert_eq!(line["tenant"], "shop");
}

#[test]
fn hiding_survives_odd_addresses() {
    for to in ["", "@", "postmaster", "\"a b\"@x", "é@ü", "İ@x", "a@b@c"] {
        let decision = Decision { reply: Some(Reply::new(550, format!("<{to}> İİ é no"))), ..decision() };
        let decision = Decision { to: to.into(), ..decision };
        let line = logged(true, || journal(Redact::Recipient).record(&decision));
        assert_eq!(line.lines().count(), 1, "{to}");
    }
}

#[test]
fn over_long_values_are_cut_between_characters() {
    let context = Context { from: format!("x{}", "é".repeat(5000)), ..Context::default() };
    let decision = Decision::new(NOW, DecisionOutcome::Rejected, Arc::new(context), "");
    let line = logged(true, || journal(Redact::None).record(&decision));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["from"].as_str().unwrap().len(), 4095 + "…".len());
}

#[tokio::test]
async fn a_follower_hears_exactly_what_is_logged_as_json() {
    for redact in [Redact::None, Redact::Recipient, Redact::All] {
        for decision in [decision(), hostile()] {
            let journal = journal(redact);
            let mut follower = journal.follow();
            let line = logged(true, || journal.record(&decision));
            let event = follower.next().await.unwrap().unwrap();
            assert_eq!(format!("{}\n", event.json), line);
            assert_eq!((event.outcome, &event.to), (decision.outcome, &decision.to));
        }
    }
}

#[tokio::test]
async fn a_follower_hears_what_the_log_is_too_quiet_for() {
    let journal = journal(Redact::None);
    let mut follower = journal.follow();
    assert_eq!(logged_at(LevelFilter::ERROR, true, || journal.record(&decision())), "");
    let event = follower.next().await.unwrap().unwrap();
    assert!(event.json.contains("\"outcome\":\"relayed\""), "{}", event.json);
}

#[tokio::test]
async fn a_follower_that_reads_nothing_holds_nobody_up_and_loses_its_place() {
    let journal = journal(Redact::None);
    let (mut stuck, mut quick) = (journal.follow(), journal.follow());
    for _ in 0..5000 {
        journal.record(&decision());
        assert!(quick.next().await.unwrap().is_some());
    }
    assert_eq!(stuck.next().await, Err(Lagged));
    drop((stuck, quick));
    assert!(!journal.shared.followers.any());
}

#[test]
fn outcomes_are_read_as_they_are_written() {
    for outcome in DecisionOutcome::ALL {
        assert_eq!(DecisionOutcome::parse(outcome.as_str()), Some(outcome));
    }
    assert_eq!(DecisionOutcome::parse("Relayed"), None);
}

#[test]
fn a_decision_is_counted_though_nobody_logs_it() {
    let metrics = Metrics::new();
    let journal = Journal::new(Redact::None, metrics.clone());
    journal.record(&decision());
    let series =
        "mailonce_messages_total{outcome=\"relayed\",strategy=\"header\",rule=\"one-time codes\"} 1\n";
    let text = metrics.render(&crate::metrics::Reading::default());
    assert!(text.contains(series), "{text}");
    assert!(
        text.contains("mailonce_messages_total{outcome=\"observed_bad_key\",strategy=\"\",rule=\"\"} 0\n")
    );
}
