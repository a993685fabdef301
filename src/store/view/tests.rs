use proptest::prelude::*;

use super::*;

/// Up to the end of the year 9999, which is as far as RFC 3339 goes.
fn time() -> impl Strategy<Value = Timestamp> {
    (0_u64..253_402_300_799_999).prop_map(Timestamp::from_millis)
}

fn reply(codes: std::ops::Range<u16>) -> impl Strategy<Value = Reply> {
    let text = prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes)];
    (codes, text).prop_map(|(code, text)| Reply::from_wire(code, text))
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        any::<[u64; 2]>().prop_map(|[owner, attempt]| State::Committing { holder: Token { owner, attempt } }),
        reply(200..300).prop_map(|reply| State::Settled(Outcome::Accepted(reply))),
        reply(200..600).prop_map(|reply| State::Settled(Outcome::Deferred(reply))),
        reply(200..600).prop_map(|reply| State::Settled(Outcome::Refused(reply))),
        reply(200..600).prop_map(|reply| State::Settled(Outcome::InDoubt(reply))),
    ]
}

fn kind() -> impl Strategy<Value = AttemptKind> {
    use AttemptKind::{
        Accepted, Deferred, Imported, NoAnswer, Panic, Refused, ResolvedNotSent, ResolvedSent, Restart,
        TakenOver,
    };
    prop::sample::select(vec![
        Accepted,
        Deferred,
        Refused,
        NoAnswer,
        Restart,
        TakenOver,
        Panic,
        Imported,
        ResolvedSent,
        ResolvedNotSent,
    ])
}

/// What may stand behind a field's name and colon.
fn folded() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![" <a@b>", "", "<c>", " \r\n\t", "\r\n  ", " (\u{fc})", " x\t"]);
    prop::collection::vec(pieces, 0..5).prop_map(|pieces| pieces.concat())
}

fn written(field: &str) -> WrittenField {
    WrittenField::new(field.as_bytes()).unwrap()
}

prop_compose! {
    fn record()(
        (id, fingerprint) in any::<([u8; 32], [u8; 32])>(),
        texts in any::<[String; 7]>(),
        (message_id, date) in (prop::option::of(folded()), prop::option::of(folded())),
        [size, attempt_count, duplicates] in any::<[u64; 3]>(),
        attempts in prop::collection::vec((time(), kind(), any::<String>()), 0..9),
        suppressed in prop::collection::vec((time(), any::<String>()), 0..9),
        [first_seen, last_seen, expires] in [time(), time(), time()],
        settled_at in prop::option::of(time()),
        [window, unheard_window] in [0_u64..u64::MAX, 0_u64..u64::MAX],
        heard in any::<bool>(),
        [delivered, owed, doubtful] in any::<[Vec<u64>; 3]>(),
        state in state(),
    ) -> Record {
        let [tenant, strategy, key, recipient, sender, rule, upstream] = texts;
        // Only a doubt is ever sent again under its series.
        let token = match state {
            State::Settled(Outcome::InDoubt(_)) => Token { owner: size, attempt: attempt_count },
            _ => Token { owner: 0, attempt: 0 },
        };
        Record {
            id: ClaimId(id),
            tenant,
            strategy,
            key,
            recipient,
            sender,
            rule,
            fingerprint: Fingerprint(fingerprint),
            state,
            upstream,
            names: Names {
                message_id: message_id.map(|rest| written(&format!("Message-Id:{rest}"))),
                date: date.map(|rest| written(&format!("Date:{rest}"))),
            },
            series: token,
            size,
            attempts: attempts.into_iter().map(|(at, kind, reply)| Attempt { at, kind, reply }).collect(),
            attempt_count,
            first_seen,
            last_seen,
            settled_at,
            duplicates,
            window: Duration::from_millis(window),
            unheard_window: Duration::from_millis(unheard_window),
            heard,
            expires,
            marks: Marks { delivered, owed, doubtful },
            suppressed: suppressed.into_iter().map(|(at, client)| Suppression { at, client }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn a_record_comes_back_exactly_and_is_one_harmless_line(record in record()) {
        let json = RecordView::from(&record).to_json();
        prop_assert!(!json.contains(escape::is_unsafe));
        let view: RecordView = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(Record::try_from(&view), Ok(record));
    }

    #[test]
    fn no_view_makes_it_panic(texts: [String; 6], wire: Option<String>, holder: Option<String>) {
        let mut view = RecordView::from(&some());
        let [id, fingerprint, reply, first_seen, settled_at, mark] = texts;
        view = RecordView { reply: Some(reply), settled_at: Some(settled_at), ..view };
        for state in StateName::ALL {
            let hostile = RecordView { state, reply_wire: wire.clone(), holder: holder.clone(), ..view.clone() };
            let _ = Record::try_from(&hostile);
            let _ = super::state(&hostile);
        }
        let _ = Record::try_from(&RecordView { id, ..view.clone() });
        let _ = Record::try_from(&RecordView { fingerprint, ..view.clone() });
        let _ = Record::try_from(&RecordView { first_seen, ..view.clone() });
        let _ = Record::try_from(&RecordView { delivered: vec![mark], ..view });
    }
}

fn some() -> Record {
    let at = Timestamp::from_millis(1_795_248_900_123);
    Record {
        id: ClaimId([1; 32]),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: "order-1".into(),
        recipient: "ann@example.com".into(),
        sender: "shop@example.com".into(),
        rule: String::new(),
        fingerprint: Fingerprint([0xfe; 32]),
        state: State::Settled(Outcome::Accepted(Reply::new(250, "2.0.0 ok"))),
        upstream: String::new(),
        names: Names::default(),
        series: Token { owner: 0, attempt: 0 },
        size: 7,
        attempts: vec![Attempt { at, kind: AttemptKind::Accepted, reply: "250 2.0.0 ok".into() }],
        attempt_count: 1,
        first_seen: at,
        last_seen: at,
        settled_at: None,
        duplicates: 0,
        window: Duration::ZERO,
        unheard_window: Duration::ZERO,
        heard: true,
        expires: at,
        marks: Marks::default(),
        suppressed: Vec::new(),
    }
}

#[test]
fn what_says_nothing_is_left_out() {
    let json = RecordView::from(&some()).to_json();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let members: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "id",
        "tenant",
        "strategy",
        "key",
        "recipient",
        "sender",
        "rule",
        "fingerprint",
        "state",
        "reply",
        "upstream",
        "message_id",
        "size",
        "attempts",
        "first_seen",
        "last_seen",
        "duplicates",
        "expires",
    ];
    expected.sort_unstable();
    let mut members = members;
    members.sort_unstable();
    assert_eq!(members, expected);
}

/// In exports of earlier versions a later deferral or refusal stands in the place of a doubt,
/// which only the words of the attempts tell.
#[test]
fn an_export_of_before_keeps_its_doubt() {
    let later = Reply::new(451, "4.7.1 try later");
    let mut record = some();
    record.state = State::Settled(Outcome::Deferred(later.clone()));
    let at = record.first_seen;
    let attempt = |reply: &str| Attempt { at, kind: AttemptKind::of_words(reply), reply: reply.into() };
    record.attempts = vec![attempt("451 4.4.2 [IN-DOUBT] handed over"), attempt("451 4.7.1 try later")];
    let read = |record: &Record, of_before: bool| {
        let mut view = RecordView::from(record);
        view.attempts.iter_mut().filter(|_| of_before).for_each(|attempt| attempt.kind = None);
        Record::try_from(&view).unwrap().state
    };
    assert_eq!(read(&record, true), State::Settled(Outcome::InDoubt(later)));
    assert_eq!(read(&record, false), record.state, "there the state says it");
    record.attempts.push(attempt("resolved as not sent by an operator"));
    assert_eq!(read(&record, true), record.state);
}

#[test]
fn a_reply_of_several_lines_comes_along_in_base64() {
    let mut record = some();
    for text in [&b"2.0.0 one\n2.0.0 two"[..], b"2.0.0 \xe9"] {
        record.state = State::Settled(Outcome::Accepted(Reply::from_wire(250, text.to_vec())));
        let view = RecordView::from(&record);
        assert_eq!(view.reply_wire, Some(BASE64.encode(text)));
        assert_eq!(Record::try_from(&view), Ok(record.clone()));
    }
    assert_eq!(RecordView::from(&some()).reply_wire, None);
}

#[test]
fn a_wrong_member_is_named() {
    let good = RecordView::from(&some());
    let fault = |view: RecordView| Record::try_from(&view).unwrap_err();
    let wrong = "x".to_owned();
    for (member, view) in [
        ("id", RecordView { id: "é".repeat(32), ..good.clone() }),
        ("fingerprint", RecordView { fingerprint: wrong.clone(), ..good.clone() }),
        ("state", RecordView { state: StateName::Pending, ..good.clone() }),
        ("reply", RecordView { reply: None, ..good.clone() }),
        ("reply", RecordView { reply: Some("999 no".into()), ..good.clone() }),
        ("reply", RecordView { reply: Some("550 5.1.1 no".into()), ..good.clone() }),
        ("reply_wire", RecordView { reply_wire: Some("!".into()), ..good.clone() }),
        ("first_seen", RecordView { first_seen: "1969-12-31T23:59:59Z".into(), ..good.clone() }),
        ("last_seen", RecordView { last_seen: wrong.clone(), ..good.clone() }),
        ("expires", RecordView { expires: wrong.clone(), ..good.clone() }),
        ("settled_at", RecordView { settled_at: Some(wrong.clone()), ..good.clone() }),
        ("delivered", RecordView { delivered: vec!["+000000000000001".into()], ..good.clone() }),
        ("owed", RecordView { owed: vec!["1".into()], ..good.clone() }),
        ("doubtful", RecordView { doubtful: vec![String::new()], ..good.clone() }),
        (
            "attempts",
            RecordView {
                attempts: vec![AttemptView { at: wrong.clone(), kind: None, reply: wrong.clone() }],
                ..good.clone()
            },
        ),
        (
            "suppressed",
            RecordView {
                suppressed: vec![SuppressionView { at: wrong.clone(), client: wrong.clone() }],
                ..good.clone()
            },
        ),
        ("holder", RecordView { state: StateName::Committing, holder: Some(wrong.clone()), ..good.clone() }),
    ] {
        let fault = fault(view);
        assert!(fault.starts_with(&format!("the member {member} is ")), "{fault}");
    }
}

/// It may be in doubt where it is imported. A resend of it is then the same e-mail
/// to a provider that honours keys.
#[test]
fn an_attempt_under_way_keeps_its_series() {
    for state in [
        State::Committing { holder: Token { owner: 7, attempt: 9 } },
        State::Settled(Outcome::InDoubt(Reply::new(451, "4.4.2 [IN-DOUBT] no answer"))),
    ] {
        let record = Record { state, series: Token { owner: 7, attempt: 8 }, ..some() };
        assert_eq!(Record::try_from(&RecordView::from(&record)), Ok(record));
    }
}
