//! Golden messages: what real generators make of one e-mail at two times has
//! one fingerprint, and an e-mail with another token has another.
//!
//! `tests/golden/fingerprints.txt` pins them, so that no release forgets what
//! an earlier one has claimed without anybody noticing. Where a change is
//! meant, write the file again: `UPDATE_GOLDEN=1 cargo test --test golden`.
//! `tests/generators/capture.sh` makes the messages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use mailonce::message::fingerprint::{Exclude, Fingerprint, fingerprint};

const GENERATORS: [&str; 5] = ["actionmailer", "django", "javamail", "nodemailer", "phpmailer"];
const MESSAGES: [&str; 3] = ["first", "again", "other"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn message(generator: &str, name: &str) -> Vec<u8> {
    let path = directory().join(generator).join(name).with_extension("eml");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn of(generator: &str, name: &str) -> Fingerprint {
    fingerprint(&message(generator, name), &Exclude::default())
}

/// The lines of a header field, without its name.
fn field(generator: &str, message_name: &str, name: &str) -> String {
    let text = String::from_utf8(message(generator, message_name)).unwrap();
    let head = text.split("\r\n\r\n").next().unwrap();
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
    line.to_owned()
}

#[test]
fn the_golden_messages_were_built_twice() {
    for generator in GENERATORS {
        for name in ["Date", "Message-ID"] {
            assert_ne!(field(generator, "first", name), field(generator, "again", name), "{generator}");
        }
    }
}

#[test]
fn one_email_built_twice_has_one_fingerprint() {
    let differing: Vec<_> =
        GENERATORS.into_iter().filter(|name| of(name, "first") != of(name, "again")).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn another_token_is_another_fingerprint() {
    for generator in GENERATORS {
        assert_ne!(of(generator, "first"), of(generator, "other"), "{generator}");
    }
}

#[test]
fn fingerprints_are_those_of_earlier_releases() {
    let mut now = String::new();
    for generator in GENERATORS {
        for name in MESSAGES {
            writeln!(now, "{} {generator}/{name}.eml", of(generator, name)).unwrap();
        }
    }
    let path = directory().join("fingerprints.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), now, "UPDATE_GOLDEN=1 writes them again");
}
