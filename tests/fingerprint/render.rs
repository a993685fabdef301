//! The ways in which generators put an e-mail into octets.

use super::mail::{Leaf, Mail};

/// Random choices, the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `most`, which is 0 where there is none.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.next() % (most.max(1) as u64)) as usize
    }

    pub(crate) fn toss(&mut self) -> bool {
        self.below(2) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// One rendering of a mail.
pub(crate) fn render(mail: &Mail, dice: &mut Dice) -> Vec<u8> {
    let mut head = vec![from(&mail.from, dice), field("Subject", &encoded_words(&mail.subject, dice))];
    head.push(field("Date", &format!("Sat, 1 Jan 2000 00:00:{:02} +0000", dice.below(60))));
    head.push(field("Message-ID", &format!("<{}@host.example>", dice.next())));
    head.push(field("MIME-Version", "1.0"));
    head.push(field("To", "somebody@y.example"));
    for _ in 0..dice.below(3) {
        head.push(field("Received", &format!("from a\r\n\tby b; {}", dice.next())));
        head.push(field("X-Try", &dice.next().to_string()));
        head.push(field("DKIM-Signature", &format!("v=1; b={}", dice.next())));
    }
    let (more, body) = content(&mail.leaves, dice);
    head.extend(more);
    joined(head, body, dice)
}

/// Fields in any order, and what follows them.
fn joined(mut head: Vec<Vec<u8>>, body: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    for at in (1..head.len()).rev() {
        head.swap(at, dice.below(at + 1));
    }
    let mut out = Vec::new();
    for mut field in head {
        let name = field.iter().position(|&b| b == b':').unwrap();
        for byte in field[..name].iter_mut().filter(|_| dice.below(9) == 0) {
            *byte ^= if byte.is_ascii_alphabetic() { 0x20 } else { 0 };
        }
        out.append(&mut field);
    }
    out.extend_from_slice(b"\r\n");
    out.extend(body);
    out
}

fn field(name: &str, value: &str) -> Vec<u8> {
    format!("{name}: {value}\r\n").into_bytes()
}

/// The fields and the body of a mail with these leaves.
fn content(leaves: &[Leaf], dice: &mut Dice) -> (Vec<Vec<u8>>, Vec<u8>) {
    let ids: Vec<String> = leaves.iter().map(|_| format!("{}.{}@host", dice.next(), dice.next())).collect();
    let inline = leaves.iter().position(|leaf| matches!(leaf, Leaf::File { inline: true, .. }));
    let cid = inline.map(|at| ids[at].clone());
    if let [only] = leaves
        && dice.toss()
    {
        return leaf(only, &ids[0], cid.as_deref(), Outer::Message, dice);
    }
    let part = |leaf_: &Leaf, id: &str, dice: &mut Dice| {
        let (head, body) = leaf(leaf_, id, cid.as_deref(), Outer::Multipart, dice);
        joined(head, body, dice)
    };
    let mut parts: Vec<Vec<u8>> = leaves.iter().zip(&ids).map(|(leaf, id)| part(leaf, id, dice)).collect();
    // Some in a multipart of their own.
    if parts.len() > 1 && dice.toss() {
        let inner: Vec<Vec<u8>> = parts.drain(..2).collect();
        let (head, body) = multipart("alternative", &inner, dice);
        parts.insert(0, joined(head, body, dice));
    }
    let kind = dice.pick(&["mixed", "related", "Mixed"]);
    multipart(kind, &parts, dice)
}

fn multipart(kind: &str, parts: &[Vec<u8>], dice: &mut Dice) -> (Vec<Vec<u8>>, Vec<u8>) {
    let boundary = match dice.below(3) {
        0 => format!("=_{}_=", dice.next()),
        1 => format!("--{}", dice.next()),
        _ => format!("b {}", dice.next()),
    };
    let fold = dice.pick(&[" ", "\r\n ", "\r\n\t"]);
    let named = match dice.below(6) {
        0 => {
            let (one, other) = boundary.split_at(5);
            format!("boundary*0=\"{one}\";{fold}boundary*1=\"{other}\"")
        }
        _ => format!("boundary=\"{boundary}\""),
    };
    let head = vec![field("Content-Type", &format!("multipart/{kind};{fold}{named}"))];
    let mut body = dice.pick(&["", "This is a message in several parts.\r\n"]).as_bytes().to_vec();
    for part in parts {
        body.extend_from_slice(format!("--{boundary}{}\r\n", dice.pick(&["", "", " "])).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    if dice.below(8) > 0 {
        body.extend_from_slice(format!("--{boundary}--").as_bytes());
        body.extend_from_slice(dice.pick(&["", "\r\n", "\r\nepilogue\r\n"]).as_bytes());
    } else {
        // Some leave the last line out. The line end before it goes with it.
        body.truncate(body.len() - 2);
    }
    (head, body)
}

/// What a leaf stands in.
#[derive(Clone, Copy, PartialEq)]
enum Outer {
    Message,
    Multipart,
}

fn leaf(leaf: &Leaf, id: &str, cid: Option<&str>, outer: Outer, dice: &mut Dice) -> (Vec<Vec<u8>>, Vec<u8>) {
    match leaf {
        Leaf::Text { html, text } => {
            self::text(*html, &text.replace("cid:#", &format!("cid:{}", cid.unwrap_or("#"))), dice)
        }
        Leaf::File { name, media, inline, bytes } => {
            let fold = dice.pick(&[" ", "\r\n "]);
            let disposition =
                dice.pick(if *inline { &["inline", "INLINE"] } else { &["attachment", "Attachment"] });
            let mut kind = media.to_string();
            if dice.toss() {
                kind += &format!(";{fold}{}", parameter("name", name, dice));
            }
            let mut head = vec![
                field("Content-Type", &kind),
                field(
                    "Content-Disposition",
                    &format!("{disposition};{fold}{}", parameter("filename", name, dice)),
                ),
            ];
            if *inline || dice.toss() {
                head.push(field("Content-ID", &format!("<{id}>")));
            }
            let whole = !bytes.iter().any(|b| matches!(b, b'\r' | b'\n')) && outer == Outer::Multipart;
            let body = transfer(bytes, Content { lines: false, whole }, &mut head, dice);
            (head, body)
        }
        Leaf::Message(mail) => {
            let head = vec![field("Content-Type", dice.pick(&["message/rfc822", "Message/RFC822; x=y"]))];
            (head, render(mail, dice))
        }
    }
}

fn text(html: bool, text: &str, dice: &mut Dice) -> (Vec<Vec<u8>>, Vec<u8>) {
    // What a reader does not see.
    let mut spaced = String::new();
    for (number, line) in text.split('\n').enumerate() {
        spaced += if number > 0 { "\r\n" } else { "" };
        spaced += line;
        spaced += dice.pick(&["", "", "", " ", " \t"]);
    }
    spaced += dice.pick(&["", "\r\n", "\r\n\r\n \r\n"]);
    let (charset, bytes) = in_charset(&spaced, dice);
    let mut kind =
        if html { "text/html".to_owned() } else { dice.pick(&["text/plain", "Text/Plain"]).to_owned() };
    if charset != "us-ascii" || dice.toss() {
        kind += &match dice.below(3) {
            0 => format!("; charset={charset}"),
            1 => format!(";\r\n\tCharset=\"{}\"; format=flowed", charset.to_uppercase()),
            _ => format!("; x=y; charset={charset} (a comment)"),
        };
    } else if !html && dice.toss() {
        // What is said of nothing is plain text in ASCII.
        kind = String::new();
    }
    let mut head = if kind.is_empty() { vec![] } else { vec![field("Content-Type", &kind)] };
    let lines = !charset.starts_with("utf-16");
    let body = transfer(&bytes, Content { lines, whole: lines }, &mut head, dice);
    (head, body)
}

/// The text in any charset that has all of it.
fn in_charset(text: &str, dice: &mut Dice) -> (&'static str, Vec<u8>) {
    let mut ways = vec![("utf-8", text.as_bytes().to_vec()), ("utf-8", text.as_bytes().to_vec())];
    if text.is_ascii() {
        ways.push(("us-ascii", text.as_bytes().to_vec()));
    }
    if text.chars().all(|c| matches!(c as u32, 0..0x80 | 0xa0..0x100)) {
        ways.push(("iso-8859-1", text.chars().map(|c| c as u8).collect()));
    }
    let (bytes, _, lossy) = encoding_rs::WINDOWS_1252.encode(text);
    if !lossy {
        ways.push(("windows-1252", bytes.into_owned()));
    }
    let little = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let big = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    ways.extend([("utf-16", little), ("utf-16", big)]);
    dice.pick(&ways)
}

/// What an encoding has to know of its octets.
struct Content {
    /// They are lines that end in CRLF.
    lines: bool,
    /// They may stand as they are.
    whole: bool,
}

fn transfer(bytes: &[u8], content: Content, head: &mut Vec<Vec<u8>>, dice: &mut Dice) -> Vec<u8> {
    let way = if content.whole { dice.below(3) } else { 1 + dice.below(2) };
    let (name, body) = match way {
        0 if bytes.is_ascii() && dice.toss() => ("7bit", bytes.to_vec()),
        0 => (dice.pick(&["8bit", "binary"]), bytes.to_vec()),
        1 => (dice.pick(&["base64", "BASE64", "base64 (a comment)"]), base64(bytes, dice)),
        _ => (
            dice.pick(&["quoted-printable", "Quoted-Printable"]),
            quoted_printable(bytes, content.lines, dice),
        ),
    };
    if way > 0 || dice.toss() {
        head.push(field("Content-Transfer-Encoding", name));
    }
    body
}

fn base64_word(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, &b| word << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let shown = DIGITS[(word >> (18 - 6 * digit) & 63) as usize];
            out.push(if digit > chunk.len() { '=' } else { char::from(shown) });
        }
    }
    out
}

fn base64(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let width = 1 + dice.below(76);
    let lines: Vec<Vec<u8>> = base64_word(bytes).as_bytes().chunks(width).map(<[u8]>::to_vec).collect();
    let mut body = lines.join(&b"\r\n"[..]);
    body.extend_from_slice(dice.pick(&["", "\r\n"]).as_bytes());
    body
}

fn quoted_printable(bytes: &[u8], lines: bool, dice: &mut Dice) -> Vec<u8> {
    let width = 4 + dice.below(72);
    let mut out = Vec::new();
    let mut column = 0;
    let mut at = 0;
    while at < bytes.len() {
        if lines && bytes[at..].starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            (at, column) = (at + 2, 0);
            continue;
        }
        let byte = bytes[at];
        let plain = matches!(byte, b' '..=b'~') && byte != b'=';
        let piece = match plain && dice.below(10) > 0 {
            true => vec![byte],
            false if dice.below(10) > 0 => format!("={byte:02X}").into_bytes(),
            false => format!("={byte:02x}").into_bytes(),
        };
        if column + piece.len() >= width {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        column += piece.len();
        out.extend(piece);
        at += 1;
    }
    // Where lines count, nothing of the transport may become one.
    if !lines {
        out.extend_from_slice(b"=\r\n");
    }
    out
}

fn from(address: &str, dice: &mut Dice) -> Vec<u8> {
    let address = if dice.toss() { address.to_uppercase() } else { address.to_owned() };
    let value = match dice.below(5) {
        0 => address,
        1 => format!("<{address}>"),
        2 => format!("{address} (a, comment)"),
        3 => format!("\"Doe, \\\"J\\\" <x@y>\"\r\n <{address}>"),
        _ => format!("{} <{address}>", encoded("Jos\u{e9}", dice)),
    };
    field("From", &value)
}

/// A text in a header field: as it stands where that is allowed, else in
/// encoded words; folded anywhere.
fn encoded_words(text: &str, dice: &mut Dice) -> String {
    let fold = dice.pick(&[" ", "\r\n ", " \r\n\t"]);
    if !text.contains("=?") && dice.toss() {
        return text.split(' ').collect::<Vec<_>>().join(fold);
    }
    let chars: Vec<char> = text.chars().collect();
    let width = 1 + dice.below(12);
    let words: Vec<String> =
        chars.chunks(width).map(|chunk| encoded(&chunk.iter().collect::<String>(), dice)).collect();
    words.join(fold)
}

fn encoded(text: &str, dice: &mut Dice) -> String {
    let (charset, bytes) = match in_charset(text, dice) {
        ("utf-16", _) => ("UTF-8", text.as_bytes().to_vec()),
        way => way,
    };
    if dice.toss() {
        return format!("=?{charset}?{}?{}?=", dice.pick(&["b", "B"]), base64_word(&bytes));
    }
    let letter = |&byte: &u8| match byte {
        b' ' => "_".to_owned(),
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("={b:02X}"),
    };
    format!("=?{charset}?Q?{}?=", bytes.iter().map(letter).collect::<String>())
}

/// A parameter in any of the forms that are in use.
fn parameter(name: &str, value: &str, dice: &mut Dice) -> String {
    let quoted = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    match dice.below(4) {
        0 if !value.contains("=?") => format!("{name}={}", quoted(value)),
        1 => format!("{name}={}", quoted(&encoded_words(value, dice))),
        2 => {
            let (charset, bytes) = in_charset(value, dice);
            format!("{name}*={charset}'en'{}", percent(&bytes))
        }
        _ => {
            let (charset, bytes) = in_charset(value, dice);
            // Cut anywhere, also inside a character.
            let width = 1 + dice.below(10);
            let mut pieces: Vec<String> = bytes
                .chunks(width)
                .enumerate()
                .map(|(number, chunk)| match number {
                    0 => format!("{name}*0*={charset}''{}", percent(chunk)),
                    _ => format!("{name}*{number}*={}", percent(chunk)),
                })
                .collect();
            if dice.toss() {
                pieces.reverse();
            }
            pieces.join(dice.pick(&["; ", ";\r\n "]))
        }
    }
}

fn percent(bytes: &[u8]) -> String {
    let letter = |&byte: &u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    bytes.iter().map(letter).collect()
}
