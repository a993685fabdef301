//! An upstream that wants an account, and misbehaves at random: odd forms of
//! replies, lines that nothing asked for, refusals, ends of the connection.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Draws the same from the same seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..5 {
            rng.next();
        }
        rng
    }

    /// Xorshift.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        let at = self.next() as usize % all.len();
        all[at].clone()
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.next().is_multiple_of(count)
    }
}

/// A message that it took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Whose connection it came over.
    pub account: Option<String>,
    pub to: Vec<String>,
    pub content: String,
}

#[derive(Debug, Default)]
struct State {
    /// By the messages' names.
    taken: HashMap<String, Vec<Taken>>,
    trace: Vec<String>,
    odd_endings: u64,
}

/// The upstream. Its threads end with the test's process.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Upstream {
    /// Each user's password is `pw-` and the name.
    pub fn start(users: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                let state = shared.clone();
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let rng = Rng::new(number);
                    let stream = BufReader::new(stream);
                    let mut talk = Talk { stream, rng, number, users, state, account: None, to: Vec::new() };
                    // A connection that ends early is the other side's right.
                    let _ = talk.serve();
                });
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it took of the message with this name.
    pub fn taken_of(&self, name: &str) -> Vec<Taken> {
        self.state.lock().unwrap().taken.get(name).cloned().unwrap_or_default()
    }

    /// How many messages ended without a plain 250.
    pub fn odd_endings(&self) -> u64 {
        self.state.lock().unwrap().odd_endings
    }

    /// What was said last.
    pub fn trace(&self) -> String {
        let state = self.state.lock().unwrap();
        let from = state.trace.len().saturating_sub(200);
        state.trace[from..].join("\n")
    }
}

/// One connection.
struct Talk {
    stream: BufReader<TcpStream>,
    rng: Rng,
    number: u64,
    users: &'static [&'static str],
    state: Arc<Mutex<State>>,
    account: Option<String>,
    /// Whom the message is for, once there is a MAIL.
    to: Vec<String>,
}

impl Talk {
    fn note(&self, what: &str) {
        let text = what.escape_debug().to_string();
        self.state.lock().unwrap().trace.push(format!("{}: {}", self.number, &text[..text.len().min(200)]));
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.note(&format!("S {text}"));
        self.stream.get_mut().write_all(text.as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// A reply with this code, in one form or another.
    fn reply(&mut self, code: u16) -> io::Result<()> {
        let text = match self.rng.next() % 12 {
            0 => format!("{code}\r\n"),
            1 => format!("{code}-a\r\n{code} b\r\n"),
            2 => format!("{code}\tb\r\n"),
            3 => format!("{code}-a\r\nno code\r\n{code} b\n"),
            _ => format!("{code} text\r\n"),
        };
        self.say(&text)
    }

    /// Sometimes a line that nothing asked for.
    fn stray(&mut self) -> io::Result<()> {
        match self.rng.one_in(25) {
            true => {
                let code = self.rng.of(&[250, 250, 550, 450, 354, 421, 503]);
                self.reply(code)
            }
            false => Ok(()),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        self.say("220 hi\r\n")?;
        self.line()?;
        self.say("250-hi\r\n250-8BITMIME\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n")?;
        let mut mail = false;
        loop {
            let line = self.line()?;
            self.note(&format!("C {line}"));
            // A stray 5yz there is a wrong password, and the proxy locks guessers out.
            if !line.starts_with("AUTH") {
                self.stray()?;
            }
            if self.rng.one_in(60) {
                return Ok(());
            }
            let code = match line.get(..4).unwrap_or_default() {
                _ if self.rng.one_in(100) => 421,
                "AUTH" => self.auth(&line),
                _ if self.account.is_none() => 530,
                "MAIL" => {
                    let code = self.rng.of(&[250, 250, 250, 250, 250, 250, 450]);
                    (mail, self.to) = (code == 250, Vec::new());
                    code
                }
                "RCPT" if mail => self.recipient(&line),
                "DATA" if !mail || self.to.is_empty() => 554,
                "DATA" => self.rng.of(&[354, 354, 354, 354, 354, 354, 354, 451]),
                "RSET" => {
                    (mail, self.to) = (false, Vec::new());
                    250
                }
                "QUIT" => 221,
                _ => 503,
            };
            self.reply(code)?;
            match code {
                221 | 421 => return Ok(()),
                354 => {
                    mail = false;
                    self.message()?;
                }
                _ => {}
            }
        }
    }

    fn auth(&mut self, line: &str) -> u16 {
        let message = line.trim_end().strip_prefix("AUTH PLAIN ").and_then(|text| STANDARD.decode(text).ok());
        let message = String::from_utf8(message.unwrap_or_default()).unwrap_or_default();
        let is_it = |user: &&&str| message == format!("\0{user}\0pw-{user}");
        let Some(user) = self.users.iter().find(is_it) else { return 535 };
        if self.rng.one_in(60) {
            return 454;
        }
        self.account = Some((*user).to_owned());
        235
    }

    fn recipient(&mut self, line: &str) -> u16 {
        let code = self.rng.of(&[250, 250, 250, 250, 250, 250, 250, 250, 250, 251, 450, 550]);
        if code < 300 {
            self.to.push(line.split(['<', '>']).nth(1).unwrap_or_default().to_owned());
        }
        code
    }

    /// Takes the content, or refuses it, in whatever way.
    fn message(&mut self) -> io::Result<()> {
        let to = std::mem::take(&mut self.to);
        if self.rng.one_in(20) {
            // In the middle of the content, which still has to be read.
            self.state.lock().unwrap().odd_endings += 1;
            self.reply(452)?;
            return if self.rng.one_in(2) { Ok(()) } else { self.content().map(drop) };
        }
        let content = self.content()?;
        let end = self.rng.of(&[250, 250, 250, 250, 250, 250, 250, 200, 450, 550, 421, 0, 1, 2, 3]);
        let mut state = self.state.lock().unwrap();
        state.odd_endings += u64::from(end != 250);
        if matches!(end, 200..300 | 0 | 2) {
            let name = content.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
            let taken = state.taken.entry(name.to_owned()).or_default();
            taken.push(Taken { account: self.account.clone(), to, content });
        }
        drop(state);
        let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
        match end {
            0 | 1 => Err(gone()),
            2 => self.say("250").and(Err(gone())),
            3 => self.say("garbage\r\n"),
            code => self.reply(code).and_then(|()| self.stray()),
        }
    }

    fn content(&mut self) -> io::Result<String> {
        let mut content = String::new();
        loop {
            let line = self.line()?;
            if line == ".\r\n" {
                return Ok(content);
            }
            content += line.strip_prefix('.').unwrap_or(&line);
        }
    }
}
