//! Two things are the same only when all of their parts are.

use proptest::prelude::{BoxedStrategy, Just, Strategy as _, prop_assert_eq, prop_oneof, proptest};

use super::*;

/// Texts that would run into each other without their lengths.
pub(super) fn text() -> BoxedStrategy<String> {
    prop_oneof!["[ab\0]{0,3}", "\\PC{0,12}", Just("\0\0\0\0\0\0\0\u{1}a".to_owned())].boxed()
}

pub(super) fn parse_count(rest: &mut &[u8]) -> u64 {
    let (count, behind) = rest.split_first_chunk::<8>().unwrap();
    *rest = behind;
    u64::from_be_bytes(*count)
}

pub(super) fn parse_text(rest: &mut &[u8]) -> String {
    let length = parse_count(rest) as usize;
    let (text, behind) = rest.split_at(length);
    *rest = behind;
    String::from_utf8(text.to_vec()).unwrap()
}

/// What [`encoding`] was made of.
fn decode(mut rest: &[u8]) -> ([String; 3], Option<String>) {
    assert_eq!(parse_text(&mut rest), "mailonce claim 1");
    let texts = [(); 3].map(|()| parse_text(&mut rest));
    let (present, behind) = rest.split_first().unwrap();
    rest = behind;
    let recipient = (*present == 1).then(|| parse_text(&mut rest));
    assert!(rest.is_empty());
    (texts, recipient)
}

proptest! {
    #[test]
    fn no_two_claims_share_an_encoding(
        tenant in text(), strategy in text(), key in text(), recipient in proptest::option::of(text()),
    ) {
        let (texts, decoded) = decode(&encoding(&tenant, &strategy, &key, recipient.as_deref()));
        prop_assert_eq!((texts, decoded), ([tenant, strategy, key], recipient));
    }
}

#[test]
fn a_claims_id_stays_the_same_in_every_version() {
    let key = Key { strategy: Strategy::Header, value: "order-7".into(), window: Duration::from_secs(1) };
    let id = |recipient| claim_id("in", &key, recipient).to_string();
    assert_eq!(id(Some("ann@b.test")), "7035925941910bb87ceb6f85e46d2b8a9592d52c0f63c1e67c54301ce42a1a33");
    assert_eq!(id(None), "1288e4e25bd43a393e5c7387760c7d5076a2e2ba3f2d521a7a91277c59ccac2f");
}

fn headers(head: &str) -> Headers {
    Headers::parse(&bytes::Bytes::copy_from_slice(head.as_bytes())).unwrap()
}

/// The key of a message with this header section, or why it has none.
fn key_with(head: &str) -> Result<Option<String>, FieldFault> {
    let dedup = Dedup { chain: vec![Strategy::Header, Strategy::Event], ..Dedup::default() };
    match key_of(&dedup, &headers(head), &Fingerprint([0; 32])) {
        Ok(key) => Ok(key.map(|key| key.value)),
        Err(IdentityFault::BadKey { why, .. } | IdentityFault::BadTenant { why, .. }) => Err(why),
    }
}

#[test]
fn a_key_is_judged_as_it_is_written() {
    let key = |value: &str| key_with(&format!("X-Idempotency-Key:{value}\r\n")).map(Option::unwrap);
    for (value, usable) in [
        (" \t order 7\t ", "order 7"),
        ("\"order\"", "\"order\""),
        ("=?utf-8?q?order-7?=", "order-7"),
        (" =?utf-8?B?b3JkZXIt?=\r\n =?utf-8?q?7?=", "order-7"),
        ("=?utf-8?q?_order-7_?=", "order-7"),
        ("=?x-none?q?order-7?=", "=?x-none?q?order-7?="),
        ("=?utf-8?q?order=E9?=", "=?utf-8?q?order=E9?="),
        ("=?utf-8?b?%%?=", "=?utf-8?b?%%?="),
    ] {
        assert_eq!(key(value).as_deref(), Ok(usable), "{value:?}");
    }
    let around = ["\u{feff}", "\u{c}", "\u{b}", "\u{a0}", "\u{2028}", "\u{85}", "\u{1}", "\u{7f}", "\u{e9}"];
    for octet in around {
        for value in [format!("{octet}k"), format!("k{octet}"), format!(" {octet} k"), format!("k {octet} ")]
        {
            assert_eq!(key(&value), Err(FieldFault::BadCharacter), "{value:?}");
            let encoded: String = value.bytes().map(|byte| format!("={byte:02X}")).collect();
            assert_eq!(key(&format!("=?utf-8?q?{encoded}?=")), Err(FieldFault::BadCharacter), "{value:?}");
        }
    }
    for line_end in ["=0D=0A", "=0A", "=0D"] {
        assert_eq!(key(&format!("=?utf-8?q?k{line_end}?=")), Err(FieldFault::BadCharacter));
    }
    for blanks in ["", " \t ", "=?utf-8?q?_?="] {
        assert_eq!(key(blanks), Err(FieldFault::Empty), "{blanks:?}");
    }
}

#[test]
fn two_ways_of_writing_one_key_are_one_key() {
    let head = "X-Idempotency-Key: order-7\r\nX-Idempotency-Key: =?utf-8?q?order-7?=\r\n";
    assert_eq!(key_with(head), Ok(Some("order-7".to_owned())));
}

#[test]
fn encoded_words_are_decoded_in_every_field() {
    let escaped = |text: &str| text.bytes().map(|byte| format!("={byte:02X}")).collect::<String>();
    let word = |text: &str| format!("=?utf-8?q?{}?=", escaped(text));
    for (name, value) in [
        ("X-Event-Id", "order-7"),
        ("X-Template-Id", "reset"),
        ("X-SMTPAPI", "{\"unique_args\":{\"event_id\":\"7\"}}"),
    ] {
        let event = if name == "X-Template-Id" { "X-Event-Id: 1\r\n" } else { "" };
        let plain = key_with(&format!("{event}{name}: {value}\r\n")).unwrap();
        assert!(plain.is_some(), "{name}");
        assert_eq!(key_with(&format!("{event}{name}: {}\r\n", word(value))), Ok(plain), "{name}");
    }
    let tenant = |value: &str| tenant_of(Some("X-T"), "in", &headers(&format!("X-T: {value}\r\n")));
    assert_eq!(tenant(&word("shop a")).as_deref(), Ok("shop a"));
    assert!(tenant("\u{feff}shop").is_err());
    let window = |value: &str| own_window(&headers(&format!("X-Idempotency-TTL: {value}\r\n")));
    assert_eq!(window(&word("90s")), Ok(Some(Duration::from_secs(90))));
    assert!(window("\u{c}90s").is_err());
}

#[test]
fn a_key_behind_a_line_of_a_mailbox_file_counts() {
    let head = "From app@a.test Thu Jan  1 00:00:00 2026\r\nX-Idempotency-Key: k\r\n";
    assert_eq!(key_with(head), Ok(Some("k".to_owned())));
    assert_eq!(key_with(" folded\r\nX-Idempotency-Key: k\r\n"), Ok(None), "the body has begun");
}
