//! What is foreseen is what the store then does.

use std::time::Duration;

use super::*;
use crate::clock::Timestamp;
use crate::config::{Dedup, InDoubt, Mode, OnConflict, OnDuplicate};
use crate::smtp::reply::Reply;
use crate::store::memory::MemoryStore;
use crate::store::view::RecordView;
use crate::store::{
    ClaimId, ClaimRequest, Claimed, Durability, Fingerprint, Marks, Names, Outcome, Settlement, Slot, Store,
    Token,
};
use fate::Course;

const NOW: Timestamp = Timestamp::from_millis(1_795_248_900_123);
const ID: ClaimId = ClaimId([7; 32]);

fn dedup() -> Dedup {
    Config::parse("[upstream]\naddress = \"a:25\"", "m.toml", std::iter::empty()).unwrap().dedup
}

fn request(attempt: u64, fingerprint: u8, policy: &Dedup) -> ClaimRequest {
    let slot = Slot {
        id: ID,
        former: Vec::new(),
        tenant: "t".into(),
        strategy: "header".into(),
        key: "k".into(),
        recipient: "ann@b.test".into(),
        sender: String::new(),
        client: "192.0.2.1:1".into(),
        rule: String::new(),
        fingerprint: Fingerprint([fingerprint; 32]),
        marks: vec![1, 2],
        names: Names::default(),
        size: 1,
        window: Duration::from_secs(60),
        unheard_window: Duration::ZERO,
        on_conflict: policy.on_conflict,
        in_doubt: policy.in_doubt,
    };
    let token = Token { owner: 1, attempt };
    let lease_until = NOW.plus(Duration::from_secs(60));
    ClaimRequest { token, at: NOW, lease_until, slots: vec![slot], tenant_cap: None }
}

/// How far the first attempt came.
#[derive(Clone, Copy, Debug)]
enum First {
    None,
    Pending,
    Committing,
    Settled(fn(Reply) -> Outcome),
}

const FIRSTS: [First; 7] = [
    First::None,
    First::Pending,
    First::Committing,
    First::Settled(Outcome::Accepted),
    First::Settled(Outcome::Deferred),
    First::Settled(Outcome::Refused),
    First::Settled(Outcome::InDoubt),
];

async fn after(first: First, policy: &Dedup, marks: Marks) -> MemoryStore {
    let store = MemoryStore::new();
    let token = Token { owner: 1, attempt: 1 };
    if let First::None = first {
        return store;
    }
    store.claim(request(1, 1, policy)).await.unwrap();
    if let First::Pending = first {
        return store;
    }
    store.commit(token, vec![ID.into()], NOW).await.unwrap();
    if let First::Settled(outcome) = first {
        let outcome = outcome(Reply::new(250, "2.0.0 ok"));
        let settled = Settlement { marks, ..Settlement::new(ID, outcome, "a:25") };
        store.settle(token, NOW, vec![settled], Durability::Now).await.unwrap();
    }
    store
}

fn course(claimed: &Claimed, policy: &Dedup) -> Course {
    match claimed {
        Claimed::New { .. } => Course::Relayed,
        Claimed::InFlight { .. } => Course::InFlight,
        Claimed::Conflict { .. } => Course::Conflict,
        Claimed::Settled { record, .. } => match (record.state.name().as_str(), policy.in_doubt) {
            ("in_doubt", InDoubt::Hold) => Course::Held,
            _ => Course::Suppressed,
        },
        Claimed::OverCap | Claimed::TooMany => unreachable!("there is no cap"),
    }
}

#[tokio::test]
async fn every_fate_is_the_one_that_the_store_decides() {
    for (first, owed) in FIRSTS.into_iter().flat_map(|first| [(first, false), (first, true)]) {
        for on_conflict in [OnConflict::Reject, OnConflict::Suppress, OnConflict::Relay] {
            for in_doubt in [InDoubt::Suppress, InDoubt::Resend, InDoubt::Hold] {
                for fingerprint in [1, 2] {
                    let policy = Dedup { on_conflict, in_doubt, ..dedup() };
                    let marks =
                        if owed { Marks { owed: vec![2], ..Marks::default() } } else { Marks::default() };
                    let store = after(first, &policy, marks).await;
                    let view = store.get(ID, NOW).await.unwrap().as_ref().map(RecordView::from);
                    let foreseen = Fate::of(view.as_ref(), &policy, &Fingerprint([fingerprint; 32]), &[1, 2]);
                    let claimed = store.claim(request(2, fingerprint, &policy)).await.unwrap();
                    let happened = course(&claimed[0], &policy);
                    assert_eq!(
                        foreseen.course, happened,
                        "{first:?} {owed} {on_conflict:?} {in_doubt:?} {fingerprint}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_fate_tells_what_the_client_hears() {
    let policy = Dedup { on_duplicate: OnDuplicate::Reject, ..dedup() };
    let store = after(First::Settled(Outcome::Accepted), &policy, Marks::default()).await;
    let view = store.get(ID, NOW).await.unwrap().as_ref().map(RecordView::from);
    let fate = |policy: &Dedup, print: u8| Fate::of(view.as_ref(), policy, &Fingerprint([print; 32]), &[]);
    let reply = fate(&policy, 1).reply.unwrap();
    assert_eq!(reply, "554 5.5.0 [DUPLICATE] accepted 2026-11-21T08:15:00.123Z: 2.0.0 ok");
    assert_eq!(fate(&dedup(), 1).text, "would be suppressed: accepted 2026-11-21T08:15:00.123Z by a:25");
    assert_eq!(fate(&dedup(), 1).reply.as_deref(), Some("250 2.0.0 ok"));
    let observed = fate(&Dedup { mode: Mode::Observe, ..dedup() }, 1);
    assert_eq!((observed.course, observed.reply), (Course::Relayed, None));
    assert!(observed.text.contains("enforced, it would be suppressed: "), "{}", observed.text);
}

fn mail(text: &str, to: &[&str]) -> Mail {
    let to: Vec<String> = to.iter().map(|to| (*to).to_owned()).collect();
    Mail::new("a.eml".to_owned(), text.as_bytes(), None, &to, 1000).unwrap()
}

#[test]
fn the_envelope_comes_from_the_header_fields() {
    let envelope = |text: &str| {
        let mail = mail(text, &[]);
        let to = mail.envelope.recipients.iter().map(|recipient| recipient.path.as_str().to_owned());
        (mail.envelope.reverse_path.as_str().to_owned(), to.collect::<Vec<_>>())
    };
    let text = "Return-Path: <bounce@a.test>\nFrom: App <app@a.test>\nTo: friends: Ann <ann@b.test>,\n  bob@b.test;\n\
        Cc: ANN@b.test\nBcc: \"x, y\" <eve@b.test>\n\nhi";
    assert_eq!(
        envelope(text),
        ("bounce@a.test".to_owned(), ["ann@b.test", "bob@b.test", "eve@b.test"].map(str::to_owned).to_vec())
    );
    assert_eq!(envelope("From: app@a.test\n\n").0, "app@a.test");
    assert_eq!(
        envelope("Return-Path: <>\nFrom: app@a.test\nTo: nobody at all\n\n"),
        (String::new(), Vec::new())
    );
}

#[test]
fn lines_may_end_in_any_way() {
    assert_eq!(&*mail("A: 1\n\nhi\r\nyou", &[]).content, b"A: 1\r\n\r\nhi\r\nyou\r\n");
    assert!(mail(&"x".repeat(2000), &[]).refused.unwrap().to_string().starts_with("552 5.3.4"));
    assert!(mail("A: 1\n\n\0", &[]).refused.unwrap().to_string().starts_with("554 5.6.0"));
    let bad = Mail::new(String::new(), b"", None, &["not an address".to_owned()], 1000).unwrap_err();
    assert!(matches!(bad, CliFault::Usage(_)), "{bad}");
}

#[test]
fn a_window_says_who_set_it() {
    let rule = "[[rule]]\nname = \"r\"\nmatch = { key = \"r*\" }\nwindow = \"1h\"\n";
    let text = format!("[upstream]\naddress = \"a:25\"\n[dedup]\nmax_window = \"30d\"\n{rule}");
    let config = Config::parse(&text, "m.toml", std::iter::empty()).unwrap();
    let terms = Terms { listener: &config.listeners[0], tenant: Some("t".into()) };
    let from = |head: &str| {
        let mail = mail(&format!("{head}\n\nhi"), &["a@b.test"]);
        match reason(&config, &mail, &terms).standing {
            reason::Standing::Keyed { key, window_from } => (key.window.as_secs(), window_from),
            other => panic!("{other:?}"),
        }
    };
    let key = |key: &str| format!("X-Idempotency-Key: {key}");
    assert_eq!(from(&key("x")), (7 * 86_400, "dedup.window".to_owned()));
    assert_eq!(from(&key("r")), (3600, "the rule \"r\"".to_owned()));
    assert_eq!(from("A: 1"), (900, "dedup.content_window".to_owned()));
    let own = format!("{}\nX-Idempotency-TTL: 60d", key("r"));
    let cut = "the field X-Idempotency-TTL, which says 60d, cut by dedup.max_window";
    assert_eq!(from(&own), (30 * 86_400, cut.to_owned()));
}
