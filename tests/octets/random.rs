//! Messages of which some are ordinary and many are not.

/// How the client frames a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framing {
    /// DATA.
    Dots,
    /// Two chunks, of which the first has so many octets.
    Chunks(usize),
}

/// A message as the client means it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) content: Vec<u8>,
    pub(crate) framing: Framing,
}

impl Message {
    /// The octets of the message: DATA has no way to end without CRLF.
    pub(crate) fn arriving(&self) -> Vec<u8> {
        let mut content = self.content.clone();
        if matches!(self.framing, Framing::Dots) && !content.is_empty() && !content.ends_with(b"\r\n") {
            content.extend_from_slice(b"\r\n");
        }
        content
    }

    /// As DATA carries it, with the end of data: dots are stuffed behind CRLF
    /// and nowhere else.
    pub(crate) fn stuffed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in self.arriving() {
            if byte == b'.' && (out.is_empty() || out.ends_with(b"\r\n")) {
                out.push(b'.');
            }
            out.push(byte);
        }
        out.extend_from_slice(b".\r\n");
        out
    }
}

/// Numbers from a seed (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(u64);

const OPENINGS: [&[u8]; 14] = [
    b"From app@a.test Thu Jan  1 00:00:00 2026\r\n",
    b">From x\r\n",
    b"From \r\n>From : x\n",
    b"From : app@a.test\r\n",
    b">>From x\r\n",
    b" folded\r\n",
    b"\tfolded\n",
    b" \r\n",
    b"no field\r\n",
    b": no name\r\n",
    b"X-Form\x0c: feed\r\n",
    b"\r\n",
    b".\r\n",
    b"\xef\xbb\xbfSubject: x\r\n",
];

const FIELDS: [&[u8]; 13] = [
    b"Subject: hello\r\n",
    b"SUBJECT : caf\xe9\r\n",
    b"To: a@b.test,\r\n\tc@b.test\r\n",
    b"X-Empty:\r\n",
    b"X-Folded:\r\n \r\n  x\r\n",
    b"X-Dots: .\r\n ..\r\n",
    b"From: \"a\" <app@a.test>\n",
    b"x-idempotency-TTL\t: 90s\r\n",
    b"DKIM-Signature: v=1; h=from:x-idempotency-key:idempotency-key:\r\n x-idempotency-ttl; b=x\r\n",
    b"Received: from a by b; now\r\n",
    b"X-Word: =?utf-8?q?=0D=0A.=0D=0A?=\r\n",
    b"X-\xc3\xbc: no name\r\n",
    b"X-Bare: a\rb\r\n",
];

const BODY: [&[u8]; 23] = [
    b"text",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b".",
    b"..",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b"\r\n..\r\n",
    b"\r\n. \r\n",
    b"\r\r\n",
    b" ",
    b"\t",
    b"\xff\xfe",
    b"caf\xc3\xa9",
    b"\x1a\x1b[2J\x7f",
    b"From x\r\n",
    b"\r\nQUIT\r\n",
    b"\r\nMAIL FROM:<evil@a.test>\r\nRCPT TO:<evil@b.test>\r\nDATA\r\n",
    b"--b\r\n",
];

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<'t>(&mut self, texts: &[&'t [u8]]) -> &'t [u8] {
        texts[self.below(texts.len())]
    }

    /// Message `number`, with a key of its own or none.
    pub(crate) fn message(&mut self, number: usize) -> Message {
        let content = match self.below(5) {
            0 => self.soup(),
            _ => self.mail(number),
        };
        let framing = match self.below(3) {
            0 => Framing::Chunks(self.below(content.len() + 1)),
            _ => Framing::Dots,
        };
        Message { content, framing }
    }

    /// Octets that mean something to a reader, in any order.
    fn soup(&mut self) -> Vec<u8> {
        const OCTETS: &[u8] = b"\r\n\r\n.. \t:Fa\x0b\x80\xff";
        (0..self.below(60)).map(|_| OCTETS[self.below(OCTETS.len())]).collect()
    }

    fn mail(&mut self, number: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for _ in 0..self.below(3) {
            content.extend_from_slice(if self.one_in(3) { self.of(&OPENINGS) } else { b"" });
        }
        let fields = self.below(5);
        let key_at = self.below(8);
        let mut ttl = false;
        for field in 0..fields {
            if field == key_at {
                content.extend(self.key(number));
            }
            let field = self.of(&FIELDS);
            // A second one, with another fold, would be another value.
            let is_ttl = field.starts_with(b"x-idempotency");
            if !(is_ttl && std::mem::replace(&mut ttl, true)) {
                content.extend_from_slice(field);
            }
        }
        // Without the empty line the body might fold the value of a field that
        // must be usable.
        let may_be_folded = !ttl && key_at >= fields;
        content.extend_from_slice(if may_be_folded && self.one_in(3) { b"" } else { b"\r\n" });
        for _ in 0..self.below(20) {
            content.extend_from_slice(self.of(&BODY));
        }
        if self.one_in(50) {
            content.extend(vec![b'x'; self.below(100_000)]);
        }
        content
    }

    fn key(&mut self, number: usize) -> Vec<u8> {
        let name = self.of(&[b"X-Idempotency-Key", b"x-idempotency-key \t", b"IDEMPOTENCY-KEY"]);
        let value = match self.one_in(2) {
            true => format!(": key-{number}\r\n"),
            false => format!(":\r\n =?utf-8?q?key-{number}?=\r\n \r\n"),
        };
        [name, value.as_bytes()].concat()
    }
}
