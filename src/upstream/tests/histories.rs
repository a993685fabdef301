//! Histories of messages over pooled connections to an upstream that misbehaves
//! at random: odd forms of replies, lines that nothing asked for, refusals in the
//! middle of the content, ends of the connection. What it took is what counts.

use std::io;
use std::sync::Mutex;
use std::task::{Context, Poll};

use async_trait::async_trait;

use super::super::{Access, Completion, Dial, Prepared, Upstream, UpstreamFault};
use super::*;
use crate::duplex::Duplex;

/// Messages in a history, one after the other over kept connections.
const MESSAGES: usize = 8;

/// Draws the same from the same seed.
#[derive(Clone, Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        let n = self.next() as usize % all.len();
        all[n].clone()
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// A message that the upstream took: for whom, and every octet of it.
#[derive(Clone, Debug)]
struct Taken {
    content: String,
    to: Vec<String>,
}

/// What the upstream of a history does and has seen.
#[derive(Debug)]
struct World {
    rng: Mutex<Rng>,
    taken: Arc<Mutex<Vec<Taken>>>,
    trace: Arc<Mutex<Vec<String>>>,
    pipelining: bool,
    room: usize,
    strays: u64,
    last: Mutex<u16>,
}

/// The upstream's side asks neither of these.
impl Duplex for DuplexStream {
    fn has_stopped_sending(&self) -> bool {
        false
    }

    fn poll_reset(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

#[derive(Debug)]
struct Dialer(Arc<World>);

#[async_trait]
impl Dial for Dialer {
    async fn dial(&self, _: &str) -> io::Result<Box<dyn Duplex>> {
        let (near, far) = duplex(self.0.room);
        let seed = self.0.rng.lock().unwrap().next();
        let world = self.0.clone();
        tokio::spawn(async move {
            let mut far = Conn { stream: far, rng: Rng(seed | 1), world, got: Vec::new() };
            let _ = far.run().await;
        });
        Ok(Box::new(near))
    }
}

struct Conn {
    stream: DuplexStream,
    rng: Rng,
    world: Arc<World>,
    got: Vec<u8>,
}

impl Conn {
    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.world.note(format!("S {text:?}"));
        self.stream.write_all(text.as_bytes()).await
    }
    async fn until(&mut self, end: &str) -> io::Result<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.got, end.as_bytes()) {
                let line: Vec<u8> = self.got.drain(..at + end.len()).collect();
                let line = String::from_utf8(line).unwrap();
                self.world.note(format!("C {line:?}"));
                return Ok(line);
            }
            let mut b = [0; 512];
            let n = self.stream.read(&mut b).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.got.extend_from_slice(&b[..n]);
        }
    }
    fn form(&mut self, code: u16) -> String {
        let n = self.rng.next() % 9;
        match n {
            0 => format!("{code}\r\n"),
            1 => format!("{code}-a\r\n{code} b\r\n"),
            2 => format!("{code}\tb\r\n"),
            3 => format!("{code}-a\r\nno code\r\n{code} b\n"),
            _ => format!("{code} text\r\n"),
        }
    }
    async fn stray(&mut self) -> io::Result<()> {
        if self.world.strays > 0 && self.rng.one_in(self.world.strays) {
            let code = self.rng.of(&[250, 250, 550, 450, 354, 421, 503]);
            let text = self.form(code);
            self.say(&text).await?;
        }
        Ok(())
    }
    async fn run(&mut self) -> io::Result<()> {
        self.say("220 hi\r\n").await?;
        self.until("\r\n").await?;
        self.say(if self.world.pipelining { PIPELINING } else { PLAIN }).await?;
        let (mut mail, mut to) = (false, Vec::new());
        loop {
            let line = self.until("\r\n").await?;
            self.stray().await?;
            if self.rng.one_in(60) {
                return Ok(());
            }
            if self.rng.one_in(60) {
                self.say("421 busy\r\n").await?;
                return Ok(());
            }
            let code = if line.starts_with("MAIL") {
                to.clear();
                let code = self.rng.of(&[250, 250, 250, 250, 250, 250, 450, 550]);
                mail = code == 250;
                code
            } else if line.starts_with("RCPT") {
                let code = self.rng.of(&[250, 250, 250, 251, 250, 450, 550, 553]);
                let code = if mail { code } else { 503 };
                if code < 300 {
                    to.push(line.trim().to_owned());
                }
                code
            } else if line.starts_with("RSET") {
                mail = false;
                to.clear();
                250
            } else if line.starts_with("QUIT") {
                let _ = self.say("221 bye\r\n").await;
                return Ok(());
            } else if line.starts_with("DATA") {
                let lenient = self.rng.one_in(4);
                if self.rng.one_in(8) {
                    451
                } else if (to.is_empty() || !mail) && !lenient {
                    554
                } else {
                    354
                }
            } else {
                500
            };
            let text = self.form(code);
            self.say(&text).await?;
            if code != 354 {
                continue;
            }
            if self.rng.one_in(12) {
                let code = self.rng.of(&[552, 451]);
                let text = self.form(code);
                self.say(&text).await?;
                if self.rng.one_in(2) {
                    return Ok(());
                }
            }
            let mut content = String::new();
            loop {
                let line = self.until("\r\n").await?;
                if line == ".\r\n" {
                    break;
                }
                content += line.strip_prefix('.').unwrap_or(&line);
            }
            let code = self.rng.of(&[250, 250, 250, 250, 250, 200, 450, 550, 421, 0, 1, 2, 3]);
            *self.world.last.lock().unwrap() = code;
            if matches!(code, 200..300 | 0 | 2) && !to.is_empty() && mail {
                self.world.taken.lock().unwrap().push(Taken { content, to: std::mem::take(&mut to) });
            }
            to.clear();
            mail = false;
            match code {
                0 | 1 => return Ok(()),
                2 => {
                    self.say("250").await?;
                    return Ok(());
                }
                3 => {
                    self.say("garbage\r\n").await?;
                }
                code => {
                    let text = self.form(code);
                    self.say(&text).await?;
                }
            }
            self.stray().await?;
        }
    }
}

async fn history(seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..5 {
        rng.next();
    }
    let world = Arc::new(World {
        rng: Mutex::new(Rng(rng.next() | 1)),
        taken: Arc::default(),
        trace: Arc::default(),
        pipelining: rng.one_in(2),
        room: rng.of(&[1, 3, 7, 16, 64, 200, 5000]),
        strays: rng.of(&[0, 5, 20]),
        last: Mutex::new(0),
    });
    let upstream = Upstream::new(
        settings(&["mx.example:25"]),
        Access::over(Arc::new(Dialer(world.clone()))),
        "relay.example".to_owned(),
    );
    let mut never = Vec::new();
    for number in 0..MESSAGES {
        let message = Message::draw(number, &mut rng);
        world.note(format!("== {number}"));
        let prepared = upstream.prepare(None, &message.envelope, &content(&message.text)).await;
        let ended = message.ended(prepared).await;
        let taken = world.taken_of(number);
        let told = match &ended {
            Ended::Accepted(to) => match &taken[..] {
                [one] => one.to == *to && one.content == message.text,
                _ => false,
            },
            Ended::InDoubt => taken.len() <= 1 && (world.strays > 0 || world.is_doubtful()),
            Ended::NotSent => true,
        };
        assert!(told, "seed {seed}: message {number} ended as {ended:?}, taken: {taken:?}\n{}", world.told());
        never.extend(matches!(ended, Ended::NotSent).then_some(number));
    }
    upstream.close().await;
    let taken = never.iter().find(|number| !world.taken_of(**number).is_empty());
    assert_eq!(taken, None, "seed {seed}: taken, and told as not sent\n{}", world.told());
}

/// A message of a history.
struct Message {
    envelope: Envelope,
    text: String,
}

/// How a message ended for the proxy.
#[derive(Debug)]
enum Ended {
    /// For these recipients.
    Accepted(Vec<String>),
    InDoubt,
    /// Refused, deferred, or never complete.
    NotSent,
}

impl Message {
    fn draw(number: usize, rng: &mut Rng) -> Self {
        let body = rng.of(&["x\r\n", ".\r\n", "..a\r\n.\r\n", "\r\n"]);
        let rest = "line of text\r\n".repeat(rng.of(&[0, 3, 400]));
        let text = format!("Subject: {number}\r\n\r\n{body}{rest}");
        let recipient = |i| Recipient::new(Path::parse(&format!("r{i}@x.example")).unwrap());
        let recipients = (0..rng.of(&[1, 2, 3, 5])).map(recipient).collect();
        Self { envelope: Envelope { recipients, ..envelope() }, text }
    }

    async fn ended(&self, prepared: Result<Prepared, UpstreamFault>) -> Ended {
        let (rejected, transaction) = match prepared {
            Err(_) => return Ended::NotSent,
            Ok(Prepared::Settled { replies, .. }) => {
                assert_eq!(replies.len(), self.envelope.recipients.len());
                assert!(replies.iter().all(|reply| !reply.is_success()), "{replies:?}");
                return Ended::NotSent;
            }
            Ok(Prepared::Ready { rejected, transaction }) => (rejected, transaction),
        };
        let to = self.envelope.recipients.iter().zip(&rejected).filter(|(_, refusal)| refusal.is_none());
        let to = to.map(|(recipient, _)| format!("RCPT TO:<{}>", recipient.path.as_str())).collect();
        match transaction.complete().await {
            Completion::Replied(reply) if reply.is_success() => Ended::Accepted(to),
            Completion::InDoubt(_) => Ended::InDoubt,
            _ => Ended::NotSent,
        }
    }
}

impl World {
    fn note(&self, what: String) {
        self.trace.lock().unwrap().push(what);
    }

    fn told(&self) -> String {
        self.trace.lock().unwrap().join("\n")
    }

    /// What the upstream took of this message.
    fn taken_of(&self, number: usize) -> Vec<Taken> {
        let start = format!("Subject: {number}\r\n");
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|taken| taken.content.starts_with(&start)).cloned().collect()
    }

    /// Whether the last end of data had no code for an answer.
    fn is_doubtful(&self) -> bool {
        *self.last.lock().unwrap() < 200
    }
}

/// A thousand histories of eight messages each.
#[tokio::test(start_paused = true)]
async fn what_an_upstream_took_is_what_its_replies_said() {
    for seed in 0..1000 {
        history(seed).await;
    }
}
