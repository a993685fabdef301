//! From what stands in a message to what a reader sees: folded fields,
//! encoded words, transfer encodings and charsets. Nothing here fails or loses
//! anything: what can't be decoded comes out in another form, so that two
//! different texts never come out as one.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Generators that forget the padding, or leave bits set behind the last
/// octet, are read as what they meant.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether an octet is a blank or a tab (WSP, RFC 5234 §B.1). A form feed or a
/// byte order mark is content, and no blank.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Text without the blanks and tabs at its ends.
pub fn trim_blanks(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Octets without the blanks and tabs at their end.
pub fn trim_blanks_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The value of a field without its line ends (RFC 5322 §2.2.3), and without
/// the blanks and tabs at its ends.
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let outside = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let start = value.iter().position(outside).unwrap_or(value.len());
    let end = value.iter().rposition(outside).map_or(start, |last| last + 1);
    let value = &value[start..end];
    match memchr::memchr2(b'\r', b'\n', value) {
        None => Cow::Borrowed(value),
        Some(_) => value.iter().copied().filter(|&b| b != b'\r' && b != b'\n').collect::<Vec<_>>().into(),
    }
}

/// An unstructured field such as Subject, as a reader sees it: unfolded, with
/// its encoded words decoded (RFC 2047), and each run of blanks as one space,
/// because generators fold at blanks and do not agree on what is left of them.
pub fn unstructured(value: &[u8]) -> String {
    spaced(&words(&unfold(value)))
}

/// Text with each run of blanks as one space, and none at its ends.
pub fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// An encoded word, or several that are decoded together: the charset, what
/// their text decodes to, and where they stand.
struct Word<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
    at: Range<usize>,
}

/// Text with every encoded word decoded. Blanks between two of them are not
/// part of the text (RFC 2047 §6.2); neighbours of one charset are decoded
/// together, because some generators cut inside a character. A word stays as it
/// is written where its charset is unknown, or its text is none of that charset.
pub fn words(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    let mut pending: Option<Word<'_>> = None;
    let mut plain = 0; // where text starts that is not in `out` yet
    let mut at = 0;
    while let Some(start) = memchr::memmem::find(&value[at..], b"=?").map(|n| at + n) {
        let Some(word) = word(value, start) else {
            at = start + 2;
            continue;
        };
        let end = word.at.end;
        let between = &value[plain..start];
        pending = Some(match pending.take() {
            Some(mut last) if between.iter().copied().all(is_blank) => {
                if last.charset.eq_ignore_ascii_case(word.charset) {
                    last.bytes.extend_from_slice(&word.bytes);
                    last.at.end = end;
                    last
                } else {
                    flush(&mut out, value, last);
                    word
                }
            }
            last => {
                last.into_iter().for_each(|last| flush(&mut out, value, last));
                out.push_str(&as_written(between));
                word
            }
        });
        (at, plain) = (end, end);
    }
    pending.into_iter().for_each(|last| flush(&mut out, value, last));
    out.push_str(&as_written(&value[plain..]));
    out
}

fn flush(out: &mut String, value: &[u8], word: Word<'_>) {
    let Word { charset, bytes, at } = word;
    match std::str::from_utf8(charset).ok().and_then(|charset| exactly(bytes, charset)) {
        Some(text) => out.push_str(&text),
        None => out.push_str(&as_written(&value[at])),
    }
}

/// Octets as text of that charset; `None` where it is unknown, or where they
/// are none of it.
fn exactly(bytes: Vec<u8>, charset: &str) -> Option<String> {
    match named(charset) {
        Some(encoding) => by(encoding, &bytes),
        None if is_utf_8(charset) => String::from_utf8(bytes).ok(),
        None => None,
    }
}

/// Octets as text where no charset is named: as UTF-8, else octet by octet.
pub fn as_written(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(octet_by_octet(bytes)),
    }
}

/// The encoded word at `start`.
fn word(value: &[u8], start: usize) -> Option<Word<'_>> {
    let rest = &value[start + 2..];
    let mark = memchr::memchr(b'?', rest)?;
    // A language may stand behind the charset (RFC 2231 §5).
    let charset = rest[..mark].split(|&b| b == b'*').next()?;
    if charset.is_empty() || !rest[..mark].iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let (encoding, rest) = rest[mark + 1..].split_first()?;
    let rest = rest.strip_prefix(b"?")?;
    let mark_end = memchr::memchr(b'?', rest)?;
    (rest.get(mark_end + 1) == Some(&b'=')).then_some(())?;
    let bytes = match encoding {
        b'b' | b'B' => base64(&rest[..mark_end])?,
        b'q' | b'Q' => q_encoded(&rest[..mark_end])?,
        _ => return None,
    };
    let end = value.len() - rest.len() + mark_end + 2;
    Some(Word { charset, bytes, at: start..end })
}

/// RFC 2047 §4.2. `None` where a `=` is not followed by two hexadecimal digits.
fn q_encoded(text: &[u8]) -> Option<Vec<u8>> {
    let is_escape =
        |at: usize| text.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    memchr::memchr_iter(b'=', text).all(is_escape).then_some(())?;
    let underscore = |byte: &u8| if *byte == b'_' { b' ' } else { *byte };
    Some(escapes(&text.iter().map(underscore).collect::<Vec<_>>(), b'='))
}

/// Each `mark` and the two hexadecimal digits behind it as the octet that they
/// mean; other marks stay.
pub fn escapes(value: &[u8], mark: u8) -> Vec<u8> {
    let digit = |at: usize| value.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(found) = memchr::memchr(mark, &value[at..]).map(|n| at + n) {
        out.extend_from_slice(&value[at..found]);
        at = match (digit(found + 1), digit(found + 2)) {
            (Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                found + 3
            }
            _ => {
                out.push(mark);
                found + 1
            }
        };
    }
    out.extend_from_slice(&value[at..]);
    out
}

/// Octets of base64 that are gathered for one call of the decoder.
const BLOCK: usize = 16 * 1024;

/// Base64 with blanks and line ends anywhere; `None` if anything else is in it.
pub fn base64(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len() / 4 * 3 + 3);
    base64_pieces(value, |piece| out.extend_from_slice(piece))?;
    Some(out)
}

/// The same piece by piece, so that a large file is never in memory whole.
/// After `None` the pieces given mean nothing.
pub fn base64_pieces(value: &[u8], mut push: impl FnMut(&[u8])) -> Option<()> {
    let mut block = Vec::with_capacity(2 * BLOCK + 4);
    let mut out = Vec::with_capacity(2 * BLOCK);
    let mut decode = |block: &[u8]| {
        out.clear();
        BASE64.decode_vec(block, &mut out).ok()?;
        push(&out);
        Some(())
    };
    for piece in value.split(|&b| b == b'\n').flat_map(|line| line.trim_ascii().chunks(BLOCK)) {
        match piece.iter().any(u8::is_ascii_whitespace) {
            false => block.extend_from_slice(piece),
            true => block.extend(piece.iter().filter(|b| !b.is_ascii_whitespace())),
        }
        if block.len() > BLOCK {
            // The last group may be the padded one, which only the end may be.
            let whole = (block.len() - 1) / 4 * 4;
            if memchr::memchr(b'=', &block[..whole]).is_some() {
                return None;
            }
            decode(&block[..whole])?;
            block.drain(..whole);
        }
    }
    decode(&block)
}

/// Quoted-printable (RFC 2045 §6.7). Every hard line end is CRLF, whatever it
/// was in transport; an `=` that means nothing stays.
pub fn quoted_printable(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut lines = value.split(|&b| b == b'\n').peekable();
    while let Some(line) = lines.next() {
        let line = line.trim_ascii_end();
        let (line, soft) = match line.strip_suffix(b"=") {
            Some(line) => (line, true),
            None => (line, false),
        };
        match memchr::memchr(b'=', line) {
            Some(_) => out.extend_from_slice(&escapes(line, b'=')),
            None => out.extend_from_slice(line),
        }
        if !soft && lines.peek().is_some() {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

/// Octets as text: by the charset that is named, else as UTF-8, and else, so
/// that every octet counts, as Windows-1252, which gives each one a character
/// of its own. A byte order mark is no text.
pub fn text<'a>(bytes: Cow<'a, [u8]>, charset: Option<&str>) -> Cow<'a, str> {
    if let Some(text) = charset.and_then(named).and_then(|encoding| by(encoding, &bytes)) {
        return Cow::Owned(text);
    }
    match bytes {
        Cow::Borrowed(bytes) => match as_written(bytes) {
            Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
            owned => owned,
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Cow::Owned(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
            Err(fault) => Cow::Owned(octet_by_octet(fault.as_bytes())),
        },
    }
}

/// By that encoding, or for UTF-16 by the one that a byte order mark names.
fn by(encoding: &'static Encoding, bytes: &[u8]) -> Option<String> {
    let (encoding, from) = match Encoding::for_bom(bytes) {
        Some((found, length)) if is_utf_16(found) && is_utf_16(encoding) => (found, length),
        _ => (encoding, 0),
    };
    let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes[from..])?;
    Some(text.into_owned())
}

fn octet_by_octet(bytes: &[u8]) -> String {
    WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned()
}

fn is_utf_16(encoding: &'static Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

/// The encoding of that name, unless it is UTF-8 or the ASCII within it.
fn named(charset: &str) -> Option<&'static Encoding> {
    let encoding = Encoding::for_label_no_replacement(charset.as_bytes())?;
    (!is_utf_8(charset)).then_some(encoding)
}

/// Whether the charset of that name is UTF-8, or the ASCII within it.
fn is_utf_8(charset: &str) -> bool {
    let ascii = ["us-ascii", "ascii", "ansi_x3.4-1968"];
    Encoding::for_label_no_replacement(charset.as_bytes()) == Some(encoding_rs::UTF_8)
        || ascii.iter().any(|name| name.eq_ignore_ascii_case(charset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_read_the_same_however_they_are_written() {
        let same = [
            "Caf\u{e9}  is open".as_bytes(),
            b"=?utf-8?q?Caf=C3=A9?= is\r\n open\r\n",
            b"=?ISO-8859-1?B?Q2Fm6Q==?=\r\n\tis open",
            b"=?utf-8*en?B?Q2Fmw6kgaXM=?= \r\n =?utf-8?q?_open?=",
            // Cut inside the character.
            b"=?utf-8?q?Caf=C3?= =?UTF-8?q?=A9_is_open?=",
            b"Caf\xe9 is open",
        ];
        for value in same {
            assert_eq!(unstructured(value), "Caf\u{e9} is open", "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn what_is_no_encoded_word_stays() {
        for text in [
            "a =? b",
            "=?utf-8?x?abc?=",
            "=?utf-8?q?abc",
            "=??q?a?=",
            "=?utf-8?b?%%?=",
            "=?=?=?",
            "=?u t?q?a?=",
        ] {
            assert_eq!(unstructured(text.as_bytes()), text);
        }
        let broken = [
            "=?x-none?q?=E9?=",
            "=?x-none?b?6Q==?= =?x-none?b?6A==?=",
            "=?utf-8?q?=E9?=",
            "=?utf-8?q?=zz?=",
            "=?utf-8?q?a=4?=",
        ];
        for text in broken {
            assert_eq!(
                unstructured(text.as_bytes()),
                text,
                "an unknown charset, or octets that are none of it"
            );
        }
    }

    #[test]
    fn only_blanks_and_tabs_are_blanks() {
        assert_eq!(&*unfold(b" \t a \t\r\n"), b"a");
        for content in ["\u{c}", "\u{b}", "\u{feff}", "\u{a0}"] {
            let value = format!(" {content}a{content} ");
            assert_eq!(&*unfold(value.as_bytes()), &value.as_bytes()[1..value.len() - 1]);
            assert_eq!(words(value.as_bytes()), value);
            let between = format!("=?utf-8?q?a?={content}=?utf-8?q?b?=");
            assert_eq!(words(between.as_bytes()), format!("a{content}b"));
        }
        assert_eq!(words(b"=?utf-8?B?77u/YQ==?="), "\u{feff}a");
    }

    #[test]
    fn no_two_octets_become_one_character() {
        for charset in
            [None, Some("utf-8"), Some("us-ascii"), Some("x-unknown"), Some("utf-7"), Some("iso-2022-kr")]
        {
            let decoded = |octet: u8| text(Cow::Owned(vec![b'a', octet]), charset).into_owned();
            let all: std::collections::HashSet<String> = (0..=255).map(decoded).collect();
            assert_eq!(all.len(), 256, "{charset:?}");
        }
    }

    #[test]
    fn charsets_are_decoded_and_marks_taken_away() {
        let of = |bytes: &[u8], charset| text(Cow::Owned(bytes.to_vec()), Some(charset)).into_owned();
        assert_eq!(of(b"\xfe\xff\0a\0\xe9", "utf-16"), "a\u{e9}");
        assert_eq!(of(b"\xff\xfea\0\xe9\0", "UTF-16"), "a\u{e9}");
        assert_eq!(of(b"\xef\xbb\xbfa", "utf-8"), "a");
        assert_eq!(of("a\u{e9}".as_bytes(), "us-ascii"), "a\u{e9}");
        assert_eq!(of(b"\x80", "iso-8859-1"), "\u{20ac}");
        // Half a unit at the end is no UTF-16.
        assert_ne!(of(b"a\0b", "utf-16le"), of(b"a\0c", "utf-16le"));
    }

    #[test]
    fn transfer_encodings_are_read_generously() {
        for text in ["QUJDRA==", "QUJD\r\n RA", " QUJD RA= =\r\n", "QUJDRB=="] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(&b"ABCD"[..]), "{text}");
        }
        assert_eq!(base64(b"QU-D"), None);
        assert_eq!(quoted_printable(b"a=C3=A9=\r\nb  \r\nc=zz=\n"), b"a\xc3\xa9b\r\nc=zz");
        assert_eq!(quoted_printable(b"a=20\r\n"), b"a \r\n");
    }
}
