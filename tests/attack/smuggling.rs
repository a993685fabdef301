//! One message in is one message out, wherever a reader may see the end of
//! data: at ours, and at every upstream's.

use mailonce::smtp::client::END_OF_DATA;
use mailonce::smtp::data::{Decoder, Framing};
use mailonce::smtp::stuff::Stuffer;

use crate::common::{Client, Setup};
use crate::raw::Raw;

/// How an upstream cuts its input into lines.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// CRLF, as it should.
    Strict,
    /// CRLF, LF or CR.
    AnyNewline,
    /// LF, with every CR thrown away.
    WithoutCr,
    /// LF, with blanks at a line's end thrown away.
    Trimmed,
}

const READINGS: [Reading; 4] = [Reading::Strict, Reading::AnyNewline, Reading::WithoutCr, Reading::Trimmed];

impl Reading {
    fn lines(self, octets: &[u8]) -> Vec<Vec<u8>> {
        let text = octets.escape_ascii().to_string();
        let text = match self {
            Reading::Strict => text.replace(r"\r\n", "\n"),
            Reading::AnyNewline => text.replace(r"\r\n", "\n").replace(r"\n", "\n").replace(r"\r", "\n"),
            Reading::WithoutCr => text.replace(r"\r", "").replace(r"\n", "\n"),
            Reading::Trimmed => text.replace(r"\n", "\n"),
        };
        let trim = |line: &str| match self {
            Reading::Trimmed => line.trim_end_matches(r"\r").trim_end().as_bytes().to_vec(),
            _ => line.as_bytes().to_vec(),
        };
        text.split('\n').map(trim).collect()
    }

    /// The command lines of a client's side of a session; content is left out.
    fn commands(self, stream: &[u8]) -> Vec<String> {
        let (mut commands, mut data) = (Vec::new(), false);
        for line in self.lines(stream) {
            match data {
                true => data = line != b".",
                false => {
                    data = line.eq_ignore_ascii_case(b"DATA");
                    commands.push(String::from_utf8(line).unwrap());
                }
            }
        }
        commands
    }
}

/// Where the data ends by the letter of RFC 5321 §4.1.1.4, and what it holds by
/// that of semantics: dots count only at the start of what CRLF divides.
fn by_the_letter(data: &[u8]) -> (usize, Vec<u8>) {
    let framed = [b"\r\n", data].concat();
    let end = framed.windows(5).position(|octets| octets == b"\r\n.\r\n").unwrap();
    let content = framed[..end + 2].strip_prefix(b"\r\n").unwrap();
    let mut decoded = Vec::new();
    let mut rest = content;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = rest[..at].strip_prefix(b".").unwrap_or(&rest[..at]);
        for &octet in line {
            match octet {
                b'\n' => decoded.extend_from_slice(b"\r\n"),
                b'\r' => decoded.push(b' '),
                octet => decoded.push(octet),
            }
        }
        decoded.extend_from_slice(b"\r\n");
        rest = &rest[at + 2..];
    }
    assert!(rest.is_empty());
    (end + 3, decoded)
}

/// All texts of up to six octets of these.
fn texts() -> impl Iterator<Item = Vec<u8>> {
    const OCTETS: &[u8] = b"\r\n.\0a";
    (0..=6u32).flat_map(|length| {
        (0..OCTETS.len().pow(length)).map(move |mut number| {
            let mut digit = || {
                let octet = OCTETS[number % OCTETS.len()];
                number /= OCTETS.len();
                octet
            };
            (0..length).map(|_| digit()).collect()
        })
    })
}

#[test]
fn every_short_text_ends_where_the_standard_says_and_nowhere_else_for_anybody() {
    let mut seen = 0;
    for text in texts() {
        let data = [&text[..], b"\r\n.\r\nMAIL FROM:<evil@a.test>\r\n.\r\n"].concat();
        let (end, content) = by_the_letter(&data);
        // At once, and octet by octet.
        for step in [data.len(), 1] {
            let (mut decoder, mut out, mut at) = (Decoder::new(Framing::Dots), Vec::new(), 0);
            let mut done = false;
            while !done {
                let (used, ended) = decoder.push(&data[at..(at + step).min(data.len())], &mut out);
                (at, done) = (at + used, ended);
            }
            assert_eq!(at, end, "{}", data.escape_ascii());
            assert_eq!(out.escape_ascii().to_string(), content.escape_ascii().to_string());
        }
        let mut sent = Vec::new();
        Stuffer::new().push(&content, &mut sent);
        sent.extend_from_slice(END_OF_DATA);
        for reading in READINGS {
            let lines = reading.lines(&sent);
            let first = lines.iter().position(|line| line == b".");
            // Behind the dot there is nothing but the end of its line.
            assert_eq!(first, Some(lines.len() - 2), "{reading:?}: {}", sent.escape_ascii());
        }
        seen += 1;
    }
    assert!(seen > 15_000);
}

/// Everything that somebody's server once took, or might take, for the end of
/// data; but not CRLF.CRLF.
const ENDS: [&str; 30] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\n",
    "\n.\r",
    "\r\n.\r",
    "\r.\r\n",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
    "\n\r.\n\r",
    "\r\n..\r\n",
    "\r\n...\r\n",
    "\r\n..\n",
    "\r\n .\r\n",
    "\r\n. \r\n",
    "\r\n.\t\r\n",
    "\r\n.\u{b}\r\n",
    "\r\n.\u{c}\r\n",
    "\u{85}.\u{85}",
    "\u{2028}.\u{2028}",
    "\n\n.\n\n",
    "\r\r.\r\r",
    "\r\n.\r.\r\n",
    "\r\r\n.\n",
    "\r\n\u{8}.\r\n",
    // These hold a NUL, so the message is refused.
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\0\r\n\0.\0\r\n",
    "\r\0\n.\r\0\n",
];

const SECOND: &str = "MAIL FROM:<evil@a.test>\r\nRCPT TO:<victim@b.test>\r\nDATA\r\nSubject: second\r\n\r\n";

/// How the octets are put on the wire.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    /// Each octet is a packet of its own.
    Octets,
    /// The border between two packets is in the middle of what looks like the
    /// end.
    AtTheDot,
}

fn send(client: &mut Client, data: &str, cut: Cut) {
    match cut {
        Cut::Whole => client.send(data),
        Cut::Octets => data.as_bytes().iter().for_each(|&octet| client.send([octet])),
        Cut::AtTheDot => {
            let at = data.find('.').unwrap();
            client.send(&data[..at]);
            client.send(&data[at..=at]);
            client.send(&data[at + 1..]);
        }
    }
}

#[test]
fn no_other_end_of_data_makes_two_messages_of_one() {
    let upstream = Raw::willing();
    let proxy = Setup::new(upstream.address).limits("max_connections_per_ip = 1000").start();
    let mut sent = 0;
    for (number, end) in ENDS.iter().enumerate() {
        for (cut, start) in [
            (Cut::Whole, "body"),
            (Cut::Octets, "body"),
            (Cut::AtTheDot, "body"),
            // At the very start of the data, where the line end before the dot
            // is that of DATA itself.
            (Cut::Whole, ""),
        ] {
            let mut client = proxy.client();
            client.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n");
            client.expect_all(&["250 ", "250 ", "354 "]);
            let head =
                if start.is_empty() { String::new() } else { format!("Subject: {number}-{cut:?}\r\n\r\n") };
            send(&mut client, &format!("{head}{start}{end}{number}{SECOND}.\r\nQUIT\r\n"), cut);
            let reply = client.reply();
            client.expect("221 ");
            let due = if end.contains('\0') { "554 5.6.0" } else { "250 2.0.0 kept" };
            assert!(reply.starts_with(due), "{end:?} {cut:?}: {reply}");
            sent += usize::from(!end.contains('\0'));
        }
    }
    one_each(&upstream, sent);
}

#[test]
fn no_end_of_data_at_all_is_one_inside_a_chunk() {
    let upstream = Raw::willing();
    let proxy = Setup::new(upstream.address).limits("max_connections_per_ip = 1000").start();
    let mut sent = 0;
    for (number, end) in ENDS.iter().chain(&["\r\n.\r\n"]).enumerate() {
        let content = format!("Subject: chunk {number}\r\n\r\nbody{end}{SECOND}.\r\n");
        // The border of two chunks is in front of the dot, behind it, and nowhere.
        let dot = content.find("body").unwrap() + 4 + end.find('.').unwrap();
        for cut in [dot, dot + 1, content.len()] {
            let (first, last) = content.split_at(cut);
            let mut client = proxy.client();
            client.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n");
            client.send(format!("BDAT {}\r\n{first}BDAT {} LAST\r\n{last}QUIT\r\n", first.len(), last.len()));
            client.expect_all(&["250 ", "250 ", "250 2.0.0 chunk"]);
            let reply = client.reply();
            client.expect("221 ");
            let due = if end.contains('\0') { "554 5.6.0" } else { "250 2.0.0 kept" };
            assert!(reply.starts_with(due), "{end:?} cut at {cut}: {reply}");
            // The same content in other chunks is the same e-mail.
            sent += usize::from(!end.contains('\0') && cut == dot);
        }
    }
    one_each(&upstream, sent);
}

/// However the upstream reads what it got: so many messages, and none of them
/// the smuggler's second.
fn one_each(upstream: &Raw, messages: usize) {
    let heard: Vec<u8> = (0..upstream.connections()).flat_map(|number| upstream.heard(number)).collect();
    for reading in READINGS {
        let commands = reading.commands(&heard);
        let count = |start: &str| commands.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(count("MAIL FROM:<a@a.test>"), messages, "{reading:?}");
        assert_eq!(count("RCPT TO:<b@b.test>"), messages, "{reading:?}");
        let known = ["EHLO ", "MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA", "QUIT", "RSET"];
        let strange = commands
            .iter()
            .find(|line| !line.is_empty() && !known.iter().any(|known| line.starts_with(known)));
        assert_eq!(strange, None, "{reading:?}");
    }
    assert!(String::from_utf8_lossy(&heard).contains("MAIL FROM:<evil@a.test>"), "it is content");
}
