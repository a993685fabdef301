//! What is sent: everything about a letter follows from its two numbers, so
//! that both ends know it without keeping it.

use std::sync::LazyLock;

/// The longest body.
const LONGEST: usize = 2 << 20;

/// Most recipients of a letter.
pub(crate) const RECIPIENTS: usize = 4;

/// Lines of text, twice as many as the longest body takes, so that bodies can
/// begin at different places.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut text = Vec::with_capacity(2 * LONGEST + 80);
    let mut line = 0_u64;
    while text.len() < 2 * LONGEST {
        line += 1;
        text.extend_from_slice(format!("{:064x}\r\n", u128::from(scramble(line))).as_bytes());
    }
    text
});

/// One e-mail. Letters with one key are the same e-mail to the proxy, as long
/// as it remembers the key; the books tell apart those of before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    /// Where the books have it.
    pub(crate) entry: u32,
    /// What it says, and by what the proxy knows it.
    pub(crate) key: u32,
}

impl Letter {
    /// How many it goes to.
    pub(crate) fn recipients(self) -> usize {
        match scramble(u64::from(self.key)) % 16 {
            0 => 3,
            1 | 2 => 2,
            _ => 1,
        }
    }

    /// MAIL, every RCPT and DATA.
    pub(crate) fn envelope(self) -> String {
        let mut lines = "MAIL FROM:<shop@soak.example>\r\n".to_owned();
        for number in 0..self.recipients() {
            lines += &format!("RCPT TO:<{number}.{}@user.example>\r\n", self.key);
        }
        lines + "DATA\r\n"
    }

    /// Header and body, in the octets that belong on the wire.
    pub(crate) fn message(self, attempt: u64) -> Vec<u8> {
        let Self { entry, key } = self;
        let named = match scramble(u64::from(key)) >> 8 & 3 {
            0 => String::new(), // by its content
            1 => format!("X-Event-Id: event-{key}\r\n"),
            _ => format!("X-Idempotency-Key: soak:{key}\r\n"),
        };
        let mut message = format!(
            "From: Shop <shop@soak.example>\r\nTo: <0.{key}@user.example>\r\nSubject: Order {key}\r\n\
             Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{attempt}.{entry}@soak.example>\r\n\
             {named}X-Soak: {entry} {key}\r\n\r\n"
        )
        .into_bytes();
        message.extend_from_slice(&self.first_line());
        message.extend_from_slice(self.text());
        message
    }

    /// The letter that a received message is, and whether it is whole and as it
    /// was sent; `None` for what is no letter.
    pub(crate) fn read(message: &[u8]) -> Option<(Self, bool)> {
        let end = memchr::memmem::find(message, b"\r\n\r\n")?;
        let (head, body) = (&message[..end + 2], &message[end + 4..]);
        let at = memchr::memmem::find(head, b"\r\nX-Soak: ")? + "\r\nX-Soak: ".len();
        let line = std::str::from_utf8(&head[at..]).ok()?.lines().next()?;
        let (entry, key) = line.split_once(' ')?;
        let letter = Self { entry: entry.parse().ok()?, key: key.parse().ok()? };
        let first = letter.first_line();
        let whole = body.strip_prefix(&first[..]).is_some_and(|text| text == letter.text());
        Some((letter, whole))
    }

    fn first_line(self) -> Vec<u8> {
        format!("Your order {} is on its way.\r\n", self.key).into_bytes()
    }

    /// Most are a few KiB; one of 200 has an attachment's length, and one of
    /// 5,000 is too long to stay in the proxy's memory.
    fn text(self) -> &'static [u8] {
        let draw = scramble(u64::from(self.key) ^ 0x5eed);
        let length = match draw % 5_000 {
            0 => LONGEST,
            1..=25 => 100 << 10,
            other => 1_024 + (other as usize) * 7_168 / 5_000,
        };
        // Whole lines: 66 octets each.
        let line = (draw >> 32) as usize % (LONGEST / 66);
        &TEXT[line * 66..][..length / 66 * 66]
    }
}

/// Spreads numbers over all 64 bits (splitmix64).
pub(crate) fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
