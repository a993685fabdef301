//! What several targets need: splits, and readers of SMTP written apart from
//! the code under test, as plainly as can be.

/// Some numbers from a seed; the same ones each time (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u8) -> Self {
        Self(u64::from(seed))
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % most.max(1) as u64) as usize
    }
}

/// The input as a whole, octet by octet, and in pieces of up to 40 octets.
pub(super) fn splits(data: &[u8], seed: u8) -> [Vec<&[u8]>; 3] {
    let mut dice = Dice::new(seed);
    let mut pieces = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + dice.below(40)).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    [vec![data], data.chunks(1).collect(), pieces]
}

/// Reads replies that are known to be whole: code and text of each line, and
/// whether it is a reply's last. Panics unless each is `ddd[- ]text CRLF`.
pub(super) fn reply_lines(mut wire: &[u8]) -> Vec<(u16, bool, &[u8])> {
    let mut lines = Vec::new();
    while !wire.is_empty() {
        let end = wire.windows(2).position(|pair| pair == b"\r\n").expect("a line that never ends");
        let line = &wire[..end];
        assert!(line.len() >= 4 && line[..3].iter().all(u8::is_ascii_digit), "no reply: {line:?}");
        assert!(matches!(line[0], b'2'..=b'5'), "no such code: {line:?}");
        assert!(matches!(line[3], b' ' | b'-'), "no separator: {line:?}");
        let broken = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        assert!(!line.iter().any(broken), "a reply line is broken: {line:?}");
        let code = line[..3].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        lines.push((code, line[3] == b' ', &line[4..]));
        wire = &wire[end + 2..];
    }
    assert!(lines.last().is_none_or(|(_, last, _)| *last), "a reply without its last line");
    lines
}

/// The same for replies of our own: they quote nothing that came from outside,
/// so all of it is printable.
pub(super) fn own_reply_lines(wire: &[u8]) -> Vec<(u16, bool, &[u8])> {
    let lines = reply_lines(wire);
    for (_, _, text) in &lines {
        assert!(text.iter().all(|b| matches!(b, b' '..=b'~')), "{}", text.escape_ascii());
    }
    lines
}

/// What a strict receiver makes of data.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Received {
    pub(super) content: Vec<u8>,
    /// Octets up to and with the end of data.
    pub(super) used: usize,
    pub(super) bare_newline: bool,
    pub(super) nul: bool,
    pub(super) eight_bit: bool,
}

/// RFC 5321 §4.5.2 with what semantics.md says of bare line ends: the data ends
/// at CRLF.CRLF only, a dot goes only at the start and behind a CRLF, a bare LF
/// becomes CRLF and a bare CR a space. `None` where the data never end.
pub(super) fn strict_data(wire: &[u8]) -> Option<Received> {
    let mut received = Received::default();
    let mut at = 0;
    loop {
        if wire[at..].starts_with(b".\r\n") {
            received.used = at + 3;
            return Some(received);
        }
        at += usize::from(wire[at..].starts_with(b"."));
        let end = wire[at..].windows(2).position(|pair| pair == b"\r\n")? + at;
        received.line(&wire[at..end]);
        received.content.extend_from_slice(b"\r\n");
        at = end + 2;
    }
}

/// The same of octets whose number was announced (RFC 3030).
pub(super) fn strict_chunks(wire: &[u8]) -> Received {
    let mut received = Received { used: wire.len(), ..Received::default() };
    let mut at = 0;
    while let Some(end) = wire[at..].windows(2).position(|pair| pair == b"\r\n") {
        received.line(&wire[at..at + end]);
        received.content.extend_from_slice(b"\r\n");
        at += end + 2;
    }
    received.line(&wire[at..]);
    if !received.content.is_empty() && !received.content.ends_with(b"\r\n") {
        received.content.extend_from_slice(b"\r\n");
    }
    received
}

impl Received {
    /// What stands between two CRLF.
    fn line(&mut self, line: &[u8]) {
        for &byte in line {
            self.nul |= byte == 0;
            self.eight_bit |= byte > 127;
            self.bare_newline |= matches!(byte, b'\r' | b'\n');
            match byte {
                b'\r' => self.content.push(b' '),
                b'\n' => self.content.extend_from_slice(b"\r\n"),
                byte => self.content.push(byte),
            }
        }
    }
}

/// Panics where a CR or LF is not part of a CRLF.
pub(super) fn no_bare_newlines(bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(bytes.get(at + 1), Some(&b'\n'), "a bare CR at {at}"),
            b'\n' => assert!(at > 0 && bytes[at - 1] == b'\r', "a bare LF at {at}"),
            _ => {}
        }
    }
}

/// What some receiver takes for a line end.
const NEWLINES: [&[u8]; 3] = [b"\r\n", b"\n", b"\r"];

/// Panics unless every receiver, whatever it takes for an end of data (the
/// matrix of the smuggling attacks: any line end, a dot, any line end), reads
/// exactly this content and nothing behind it.
pub(super) fn one_message(wire: &[u8], content: &[u8]) {
    let strict = strict_data(wire).expect("the data never end");
    assert_eq!(strict.used, wire.len(), "a strict receiver ends before the end");
    assert_eq!(strict.content, content, "a strict receiver reads something else");
    for before in NEWLINES {
        for behind in NEWLINES {
            let end = [before, b".", behind].concat();
            let found = wire.windows(end.len()).position(|window| window == end);
            let place = found.map(|at| at + end.len());
            assert!(place.is_none_or(|at| at + 1 >= wire.len()), "{end:?} ends the data at {place:?}");
        }
    }
    // A receiver that takes a dot away behind any line end.
    let mut lenient = Vec::new();
    let stuffed = wire.strip_suffix(b".\r\n").expect("no final dot");
    for line in stuffed.split_inclusive(|b| matches!(b, b'\r' | b'\n')) {
        lenient.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    assert_eq!(lenient, content, "a lenient receiver reads something else");
}
