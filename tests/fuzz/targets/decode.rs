//! Encoded words, transfer encodings, charsets: nothing fails, nothing grows
//! without bounds, and what was encoded comes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mailonce::message::{decode, json};

use super::choice;

/// Charsets with little in common.
const CHARSETS: [&str; 8] =
    ["utf-8", "iso-8859-15", "utf-16", "utf-16be", "iso-2022-jp", "gb18030", "shift_jis", "no-such"];

pub(super) fn run(data: &[u8]) {
    let (choice, data) = choice(data);
    bounded(data, choice);
    base64_apart(data);
    comes_back(data, choice);
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        numbers(&value);
    }
}

fn bounded(data: &[u8], choice: u8) {
    let most = 3 * data.len();
    let unfolded = decode::unfold(data);
    assert!(!unfolded.iter().any(|b| matches!(b, b'\r' | b'\n')) && unfolded.len() <= data.len());
    assert_eq!(decode::unfold(&unfolded), unfolded);

    let subject = decode::unstructured(data);
    assert!(subject.len() <= most && !subject.contains("  ") && subject.trim_ascii() == subject);
    assert_eq!(decode::spaced(&subject), subject);
    assert!(decode::words(data).len() <= most);
    assert!(decode::quoted_printable(data).len() <= 2 * data.len());
    assert!(decode::escapes(data, b'%').len() <= data.len());
    let charset = CHARSETS[usize::from(choice) % CHARSETS.len()];
    for charset in [None, Some(charset)] {
        let owned = decode::text(data.to_vec().into(), charset);
        assert_eq!(decode::text(data.into(), charset), owned);
        // Two octets of one charset may be one of the longest characters.
        assert!(owned.len() <= most);
        // U+FFFD stands for octets that are lost, unless it was written.
        let written = charset.is_some() || std::str::from_utf8(data).is_ok();
        assert!(written || !owned.contains('\u{fffd}'));
    }
}

/// Base64 by a plain reader: blanks anywhere, padding at the end or not at all.
fn base64_apart(data: &[u8]) {
    let dense: Vec<u8> = data.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let mut digits = dense.as_slice();
    while let Some(fewer) = digits.strip_suffix(b"=").filter(|_| dense.len() - digits.len() < 2) {
        digits = fewer;
    }
    let padding = dense.len() - digits.len();
    let digit =
        |b: &u8| "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".find(char::from(*b));
    let values: Option<Vec<usize>> = digits.iter().map(digit).collect();
    let fits = digits.len() % 4 != 1 && (padding == 0 || (digits.len() + padding).is_multiple_of(4));
    let expected = values.filter(|_| fits).map(|values| {
        let mut octets = Vec::new();
        for group in values.chunks(4) {
            let bits = group.iter().enumerate().fold(0, |bits, (at, value)| bits | value << (18 - 6 * at));
            let three = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
            octets.extend_from_slice(&three[..group.len() - 1]);
        }
        octets
    });
    let decoded = decode::base64(data);
    // More lenient than the plain reader it may be, never different.
    match (&decoded, &expected) {
        (Some(decoded), Some(expected)) => assert_eq!(decoded, expected),
        (None, Some(_)) => panic!("base64 is refused"),
        _ => {}
    }
    let mut pieces = Vec::new();
    let whole = decode::base64_pieces(data, |piece| pieces.extend_from_slice(piece));
    assert_eq!(whole.map(|()| pieces), decoded);
}

fn comes_back(data: &[u8], choice: u8) {
    let encoded = STANDARD.encode(data);
    let width = 1 + usize::from(choice);
    let lines: Vec<&[u8]> = encoded.as_bytes().chunks(width).collect();
    for between in [&b"\r\n"[..], b"\n", b" \t"] {
        assert_eq!(decode::base64(&lines.join(between)).as_deref(), Some(data));
    }
    let escaped: String = data.iter().map(|byte| format!("={byte:02X}")).collect();
    assert_eq!(decode::quoted_printable(escaped.as_bytes()), data);

    let Ok(text) = std::str::from_utf8(data) else { return };
    // Cut anywhere, even inside a character.
    let cut = text.len() / 2;
    let halves = [&text.as_bytes()[..cut], &text.as_bytes()[cut..]];
    for words in [
        halves.map(|half| format!("=?utf-8?B?{}?=", STANDARD.encode(half))),
        halves.map(|half| {
            let escaped: String = half.iter().map(|byte| format!("={byte:02X}")).collect();
            format!("=?UTF-8*en?q?{escaped}?=")
        }),
    ] {
        assert_eq!(decode::words(&decode::unfold(words.join("\r\n ").as_bytes())), text);
    }
    if !data.windows(2).any(|pair| pair == b"=?") {
        assert_eq!(decode::words(text.as_bytes()), text);
    }
}

/// What is called exact is the same after reading it again.
fn numbers(value: &serde_json::Value) {
    if json::is_exact(value) {
        let again: serde_json::Value = serde_json::from_str(&value.to_string()).expect("JSON");
        assert_eq!(again, *value);
        assert!(json::is_exact(&again));
    }
}
