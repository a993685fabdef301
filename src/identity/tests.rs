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
