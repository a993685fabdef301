//! Two things are the same only when all of their parts are.

use proptest::prelude::{BoxedStrategy, Just, Strategy as _, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::smtp::address::Path;

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

/// What is behind the name of an encoding: so many texts, then the recipient.
fn decode<const TEXTS: usize>(name: &str, mut rest: &[u8]) -> ([String; TEXTS], Option<String>) {
    assert_eq!(parse_text(&mut rest), name);
    let texts = [(); TEXTS].map(|()| parse_text(&mut rest));
    let (present, behind) = rest.split_first().unwrap();
    rest = behind;
    let recipient = (*present == 1).then(|| parse_text(&mut rest));
    assert!(rest.is_empty());
    (texts, recipient)
}

proptest! {
    #[test]
    fn no_two_claims_share_an_encoding(
        [proof, tenant, hash] in [text(), text(), text()], [strategy, key] in [text(), text()],
        recipient in proptest::option::of(text()),
    ) {
        let parts = [&proof, &tenant, &hash].map(|part| part.as_bytes());
        let decoded = decode("mailonce claim 2", &encoding(parts, &strategy, &key, recipient.as_deref()));
        prop_assert_eq!(decoded, ([proof, tenant, hash, strategy, key], recipient));
    }

    #[test]
    fn no_two_claims_shared_an_encoding_before(
        tenant in text(), strategy in text(), key in text(), recipient in proptest::option::of(text()),
    ) {
        let encoded = former::first_encoding(&tenant, &strategy, &key, recipient.as_deref());
        prop_assert_eq!(decode("mailonce claim 1", &encoded), ([tenant, strategy, key], recipient));
    }
}

const SHOP: &str = "shop";

/// Every way in which somebody may come to be called `shop`.
fn shops() -> Vec<Tenant> {
    let password = |first| Proof::Password(PasswordHash([first; 32]));
    [
        Proof::User,
        Proof::Account,
        password(1),
        password(2),
        Proof::Certificate,
        Proof::Header,
        Proof::Listener,
    ]
    .map(|proof| Tenant::new(SHOP, proof))
    .into()
}

fn order_7() -> Key {
    Key { strategy: Strategy::Header, value: "order-7".into(), window: Duration::from_secs(1) }
}

fn path(recipient: Option<&str>) -> Option<Path> {
    recipient.map(|text| Path::parse(text).unwrap())
}

#[test]
fn how_a_tenant_was_proven_is_part_of_it() {
    for recipient in [None, Some("ann@b.test")] {
        let ids: HashSet<ClaimId> =
            shops().iter().map(|tenant| claim_id(tenant, &order_7(), recipient)).collect();
        assert_eq!(ids.len(), shops().len());
        let former: HashSet<Vec<ClaimId>> =
            shops().iter().map(|tenant| former_ids(tenant, &order_7(), path(recipient).as_ref())).collect();
        assert_eq!(former.len(), 1, "earlier versions knew the name alone");
    }
}

/// A claim that was recorded by a version with another id would be sent again.
#[test]
fn a_claims_id_stays_the_same_in_every_version() {
    let id = |proof, recipient| claim_id(&Tenant::new("in", proof), &order_7(), recipient).to_string();
    let hashed = Proof::Password(PasswordHash([7; 32]));
    let ids = [
        id(Proof::Listener, Some("ann@b.test")),
        id(Proof::Listener, None),
        id(Proof::User, None),
        id(Proof::Account, None),
        id(hashed, None),
        id(Proof::Certificate, None),
        id(Proof::Header, None),
    ];
    assert_eq!(
        ids,
        [
            "9c6471df5cec5a4bca41d87fcaf900d4e42d568be16c0c5a7732d747f2c5d03d",
            "3d6eed54cb038e43a0f9dd621ccf523e546acd0a96485a8124554bf8fe08bc7a",
            "68929357b87de9a811d6f05ccbdfdbb8b27abfe49755a68762dd9750b5ab2e90",
            "386f0fc91dea741b755ef8320bde8fcc1cb60534fb4cd8e09522c0040dfa09eb",
            "d70507586aa399e8893dbfdba8d0d0244420c8db28a5d094e66a6c1074d80978",
            "d80542bc62b5b7ee0eb2ae8f0928dd5d7b2ff38480f34be8ca9eb49ab3821fc5",
            "e5af13fc8fc9b0dd63d1297b846e6b625bb2b9f8ef2b0eff35c4a0d36e57e1f8"
        ]
    );
}

#[test]
fn the_ids_of_earlier_versions_are_known() {
    let tenant = Tenant::new("in", Proof::User);
    let former = |recipient| {
        former_ids(&tenant, &order_7(), path(recipient).as_ref())
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        former(Some("ann@b.test")),
        ["7035925941910bb87ceb6f85e46d2b8a9592d52c0f63c1e67c54301ce42a1a33"]
    );
    // The dot at the end counted.
    assert_eq!(former(Some("ann@b.test."))[0], former(Some("ann@b.test"))[0]);
    assert_eq!(former(Some("ann@b.test.")).len(), 2);
    assert_eq!(former(None), ["1288e4e25bd43a393e5c7387760c7d5076a2e2ba3f2d521a7a91277c59ccac2f"]);
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
    assert_eq!(tenant(&word("shop a")).unwrap().name(), "shop a");
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
