//! From a header section to a key: no two readings of one message.

use std::sync::LazyLock;

use mailonce::config::{Config, Dedup};
use mailonce::identity::chain::{Finding, explain, key_alone};
use mailonce::identity::{self, IdentityFault, Key, Proof, TTL_HEADER};
use mailonce::message::Headers;
use mailonce::store::Fingerprint;

use super::choice;
use super::headers::{mailbox_lines, received};
use super::wire::own_reply_lines;

/// The default lists, and a chain of all there is.
static DEDUP: LazyLock<Dedup> = LazyLock::new(|| {
    let text = "[upstream]\naddress = \"127.0.0.1:25\"\n[dedup]\n\
                chain = [\"header\", \"event\", \"message-id\", \"content\"]\n";
    Config::parse(text, "m.toml", std::iter::empty()).expect("a configuration").dedup
});

const PRINT: Fingerprint = Fingerprint([7; 32]);

pub(super) fn run(data: &[u8]) {
    let (choice, wire) = choice(data);
    let message = received(wire);
    let Ok(headers) = Headers::parse(&message.clone().into()) else { return };
    let key = identity::key_of(&DEDUP, &headers, &PRINT);
    match &key {
        Ok(key) => found(key.as_ref(), &headers),
        Err(fault) => heard(fault),
    }
    let tenant = identity::tenant_of(Some("X-Tenant"), "submission", &headers);
    match &tenant {
        Ok(tenant) => {
            let name = tenant.name().to_owned();
            assert_eq!(identity::usable(name.clone()), Ok(name));
            let named = headers.first("x-tenant").is_some();
            assert_eq!(tenant.proof(), if named { Proof::Header } else { Proof::Listener });
        }
        Err(fault) => heard(fault),
    }
    // Fields that mean nothing here, in front, change nothing.
    if !matches!(message.first(), Some(b' ' | b'\t')) && choice & 1 == 0 {
        let longer = [b"Received: from a\r\n\tby b\r\nX-Other: 1\r\n", &message[..]].concat();
        if let Ok(headers) = Headers::parse(&longer.into()) {
            assert_eq!(identity::key_of(&DEDUP, &headers, &PRINT), key);
            assert_eq!(identity::tenant_of(Some("x-tenant"), "submission", &headers).ok(), tenant.ok());
        }
    }
    renamed(&message, &key);
}

fn heard(fault: &IdentityFault) {
    let mut wire = Vec::new();
    fault.reply().write_to(&mut wire);
    let lines = own_reply_lines(&wire);
    assert!(lines[0].0 == 554 && lines[0].2.starts_with(b"5.5.0 [BAD-"));
}

/// The chain and its explanation agree; the key is fit for the store.
fn found(key: Option<&Key>, headers: &Headers) {
    let key = key.expect("content always yields a key");
    assert!((1..=998).contains(&key.value.len()));
    assert!(key.window <= DEDUP.max_window && !key.window.is_zero());
    assert_eq!(key_alone(&DEDUP, headers, &PRINT), Ok(Some(key.value.clone())));
    for strategy in &DEDUP.chain {
        match explain(*strategy, &DEDUP, headers, &PRINT) {
            Ok(Finding::Key { value, .. }) => {
                assert_eq!((*strategy, &value), (key.strategy, &key.value));
                return;
            }
            Ok(Finding::Nothing(why)) => assert!(!why.to_string().is_empty()),
            Err(fault) => panic!("{fault:?} is explained, and a key was found"),
        }
        assert_ne!(*strategy, key.strategy);
    }
}

/// Names of fields are the same in any case.
fn renamed(message: &[u8], key: &Result<Option<Key>, IdentityFault>) {
    let start = mailbox_lines(message);
    let (fields, end) = super::headers::fields(&message[start..]);
    let mut shouted = message[..start].to_vec();
    for (name, all) in fields {
        shouted.extend_from_slice(name.to_ascii_uppercase().as_bytes());
        shouted.extend_from_slice(&all[name.len()..]);
    }
    shouted.extend_from_slice(&message[start + end..]);
    if let Ok(headers) = Headers::parse(&shouted.into()) {
        assert_eq!(identity::key_of(&DEDUP, &headers, &PRINT), *key);
        assert_eq!(
            identity::own_window(&headers).is_err(),
            headers.first(TTL_HEADER).is_some() && {
                let values: Vec<String> = headers.values(TTL_HEADER).collect();
                values.iter().any(|value| *value != values[0])
                    || mailonce::config::parse_ttl(&values[0]).is_none()
            }
        );
    }
}
