//! A whole session: whatever comes, however it is split.

use mailonce::smtp::data::BareNewlines;
use mailonce::smtp::envelope::Envelope;
use mailonce::smtp::reply::Reply;
use mailonce::smtp::sasl::{Credentials, Malformed, Mechanism};
use mailonce::smtp::session::{Action, AuthOffer, Offers, Policy, Session, Settings, Step, Verdict};

use super::choice;
use super::wire::{no_bare_newlines, own_reply_lines, splits};

/// The largest message that is taken.
const MOST: u64 = 400;
/// The longest line that the owner ever has to keep, its LF not counted.
const LONGEST_LINE: usize = mailonce::smtp::command::MAX_AUTH_LINE;

pub(super) fn run(data: &[u8]) {
    let (settings, wire) = choice(data);
    let [whole, by_octet, by_piece] = splits(wire, settings).map(|pieces| {
        let mut owner = Owner::new(settings);
        pieces.into_iter().for_each(|piece| owner.feed(piece));
        owner.ended()
    });
    assert_eq!(whole, by_octet);
    assert_eq!(whole, by_piece);
}

/// Refuses what the recipient's or the sender's name asks to be refused.
struct Names;

impl Policy for Names {
    fn check(&mut self, step: Step<'_>) -> Option<Reply> {
        let refused = match step {
            Step::Mail(envelope) => envelope.reverse_path.as_str().starts_with("nomail"),
            Step::Rcpt(_, recipient) => recipient.path.as_str().starts_with("norcpt"),
            Step::Data(envelope) => envelope.reverse_path.as_str().starts_with("nodata"),
            Step::EndOfData(envelope) => envelope.reverse_path.as_str().starts_with("noend"),
            Step::Hello => false,
        };
        refused.then(|| Reply::new(554, "5.7.1 not for that name"))
    }
}

/// What a session came to, whatever the splits.
#[derive(Debug, PartialEq)]
struct Transcript {
    output: String,
    delivered: Vec<(Envelope, Vec<u8>)>,
    rejected: usize,
}

/// What has to be there before a message is.
#[derive(Default)]
struct Heard {
    recipients: usize,
    sender: bool,
}

/// Does what a connection does.
struct Owner {
    session: Session<Names>,
    input: Vec<u8>,
    body: Vec<u8>,
    transcript: Transcript,
    heard: Heard,
    over: bool,
    octets: usize,
    eight_bit: bool,
    reject: bool,
    password_is_right: bool,
}

impl Owner {
    fn new(choice: u8) -> Self {
        let reject = choice & 1 != 0;
        let auth = if choice & 4 != 0 { AuthOffer::Now(Mechanism::ALL.to_vec()) } else { AuthOffer::Off };
        let settings = Settings {
            hostname: "relay.test".to_owned(),
            max_message_size: MOST,
            max_recipients: 3,
            max_errors: 5,
            bare_newlines: if reject { BareNewlines::Reject } else { BareNewlines::Normalize },
            offers: Offers { starttls: choice & 2 != 0, auth, smtputf8: true, ..Offers::default() },
        };
        Self {
            session: Session::new(settings, Names),
            input: Vec::new(),
            body: Vec::new(),
            transcript: Transcript { output: String::new(), delivered: Vec::new(), rejected: 0 },
            heard: Heard::default(),
            over: false,
            octets: 0,
            eight_bit: false,
            reject,
            password_is_right: choice & 8 != 0,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.octets += bytes.len();
        self.input.extend_from_slice(bytes);
        while !self.over && !self.input.is_empty() {
            let (used, action) = self.session.step(&self.input, &mut self.body);
            assert!(used <= self.input.len(), "more was used than there is");
            self.eight_bit |= !self.input[..used].is_ascii();
            self.input.drain(..used);
            self.transcript.rejected += self.session.take_rejections().len();
            self.hear();
            assert!(self.body.len() as u64 <= MOST, "more is kept than a message may have");
            match action {
                Action::Continue => {
                    assert!(used > 0, "no progress");
                    if self.session.receiving().is_none() {
                        self.body.clear();
                    }
                }
                Action::Read => {
                    assert!(self.input.len() < LONGEST_LINE, "a line grows without end");
                    return;
                }
                Action::Deliver(delivery) => self.deliver(delivery.envelope, delivery.eight_bit),
                Action::StartTls => self.start_tls(),
                Action::Authenticate(attempt) => self.authenticate(attempt),
                Action::Close => self.closed(),
            }
        }
    }

    fn authenticate(&mut self, attempt: Result<Credentials, Malformed>) {
        assert!(self.session.client().is_some_and(|client| client.extended), "AUTH before EHLO");
        let verdict = match attempt {
            Err(malformed) => Verdict::Refused { reply: malformed.reply(), challenge: None },
            Ok(_) if self.password_is_right => Verdict::Accepted(Reply::new(235, "2.7.0 welcome")),
            Ok(credentials) => {
                let is_token = matches!(credentials.mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer);
                let challenge = is_token.then(|| "e30=".to_owned());
                Verdict::Refused { reply: Reply::new(535, "5.7.8 wrong"), challenge }
            }
        };
        let next = self.session.authenticated(verdict);
        self.hear();
        if let Action::Close = next {
            self.closed();
        }
    }

    /// Takes the replies, and what they promise.
    fn hear(&mut self) {
        let output = std::mem::take(self.session.output());
        for (code, _, text) in own_reply_lines(&output) {
            match (code, text) {
                (250, b"2.1.0 ok") => {
                    assert!(self.session.client().is_some(), "MAIL before EHLO");
                    self.heard = Heard { recipients: 0, sender: true };
                }
                (250, b"2.1.5 ok") => self.heard.recipients += 1,
                (354, _) => assert!(self.heard.recipients > 0, "DATA without RCPT"),
                _ => {}
            }
        }
        self.transcript.output.push_str(std::str::from_utf8(&output).expect("printable"));
        // EHLO has the longest reply, and a command is at least five octets.
        assert!(self.transcript.output.len() <= 200 + 40 * self.octets, "much is said for little");
    }

    fn deliver(&mut self, envelope: Envelope, eight_bit: bool) {
        assert!(self.heard.sender, "a message without MAIL");
        assert_eq!(envelope.recipients.len(), self.heard.recipients);
        assert!((1..=3).contains(&self.heard.recipients));
        let body = std::mem::take(&mut self.body);
        no_bare_newlines(&body);
        assert!(body.is_empty() || body.ends_with(b"\r\n"));
        assert!(!body.contains(&0), "a NUL is let through");
        assert_eq!(eight_bit, !body.is_ascii());
        self.heard = Heard::default();
        self.transcript.delivered.push((envelope, body));
        self.session.delivered(Reply::new(250, "2.0.0 sent"));
        self.hear();
    }

    /// Nothing is known any more, and nothing of what came in clear is left.
    fn start_tls(&mut self) {
        assert!(self.input.is_empty(), "something in clear is left behind STARTTLS");
        self.session.tls_established(Offers::default());
        assert!(self.session.client().is_none() && self.session.is_idle());
        self.over = true;
        self.cut_at_starttls("220 2.0.0 go ahead\r\n");
        let (_, action) = self.session.step(b"MAIL FROM:<a@b.test>\r\n", &mut self.body);
        assert!(matches!(action, Action::Continue | Action::Close));
        let output = std::mem::take(self.session.output());
        assert!(output.starts_with(b"503 ") || output.starts_with(b"421 "), "{}", output.escape_ascii());
    }

    /// Whether something is behind STARTTLS depends on the split: the session
    /// goes on encrypted or ends, but never goes on in clear.
    fn cut_at_starttls(&mut self, reply: &str) {
        let kept = self.transcript.output.strip_suffix(reply).expect("another reply to STARTTLS");
        self.transcript.output = format!("{kept}STARTTLS");
    }

    fn closed(&mut self) {
        self.over = true;
        let refusal = "554 5.5.0 nothing may follow STARTTLS before the handshake\r\n";
        if self.transcript.output.ends_with(refusal) {
            self.cut_at_starttls(refusal);
        }
        let (used, action) = self.session.step(b"NOOP\r\n", &mut self.body);
        assert!(used == 6 && matches!(action, Action::Close), "it goes on after the end");
        assert!(self.session.output().is_empty() && self.session.receiving().is_none());
    }

    fn ended(self) -> Transcript {
        if self.reject && !self.transcript.delivered.is_empty() {
            // Whether the wire held a bare one is the target `data`'s; here it
            // is enough that a delivered message needs its commands in CRLF.
            assert!(self.transcript.output.contains("250 2.1.0 ok\r\n"));
        }
        self.transcript
    }
}
