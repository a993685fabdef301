//! The upstream: notes what it takes before it says so, and is bad at its job.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::books::Books;
use crate::letter::{Letter, RECIPIENTS, scramble};

/// How long it is well, and how long a spell lasts.
const WELL: Duration = Duration::from_secs(17);
const ILL: Duration = Duration::from_secs(3);

/// What it suffers from at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spell {
    /// Nothing: one fault in a hundred messages or so.
    None,
    /// Gone: connections end wherever they are, new ones are refused.
    Stopped,
    /// 421 to whoever comes, and to MAIL.
    Closing,
    /// 451 to every third message.
    Deferring,
    /// Hangs up at the end of every tenth message.
    Dropping,
    /// Takes its time over every message.
    Slow,
}

const SPELLS: [Spell; 5] = [Spell::Stopped, Spell::Closing, Spell::Deferring, Spell::Dropping, Spell::Slow];

/// What it does at the end of a message.
enum End {
    Take,
    Answer(&'static str),
    /// 421 and the end of the connection.
    Close,
    Drop {
        taken: bool,
    },
}

/// What all connections share.
pub(crate) struct Upstream {
    books: Arc<Books>,
    /// Whether it never does anything wrong.
    calm: bool,
    spell: watch::Sender<Spell>,
    draws: AtomicU64,
}

impl Upstream {
    pub(crate) fn new(books: Arc<Books>, calm: bool) -> Arc<Self> {
        Arc::new(Self { books, calm, spell: watch::Sender::new(Spell::None), draws: AtomicU64::new(0) })
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self: Arc<Self>, address: SocketAddr) -> io::Result<()> {
        // Keeps the port while nobody listens at it.
        let reserved = socket(address)?;
        tokio::select! {
            ended = self.clone().accept(address) => ended?,
            () = self.suffer(), if !self.calm => {}
        }
        drop(reserved);
        Ok(())
    }

    async fn suffer(&self) {
        for spell in SPELLS.into_iter().cycle() {
            sleep(WELL).await;
            self.books.count(&format!("spells: {spell:?}"));
            self.spell.send_replace(spell);
            sleep(ILL).await;
            self.spell.send_replace(Spell::None);
        }
    }

    async fn accept(self: Arc<Self>, address: SocketAddr) -> io::Result<()> {
        let mut spell = self.spell.subscribe();
        loop {
            let listener = listen(address)?;
            let mut talks = JoinSet::new();
            loop {
                tokio::select! {
                    _ = spell.wait_for(|spell| *spell == Spell::Stopped) => break,
                    accepted = listener.accept() => drop(talks.spawn(self.clone().talk(accepted?.0))),
                    Some(_) = talks.join_next() => {}
                }
            }
            drop(listener);
            // Whatever is under way from before to behind this may be in doubt.
            self.books.stops.fetch_add(1, Ordering::SeqCst);
            talks.shutdown().await;
            self.books.stops.fetch_add(1, Ordering::SeqCst);
            let _ = spell.wait_for(|spell| *spell != Spell::Stopped).await;
        }
    }

    /// One connection. An error means that it has ended.
    async fn talk(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let draw = self.draw();
        if self.ill(Spell::Closing) || !self.calm && draw.is_multiple_of(100) {
            let mut stream = stream;
            return stream.write_all(b"421 4.3.2 soak: not now\r\n").await;
        }
        // Every second one offers CHUNKING, which must not be used.
        let talk = Talk {
            upstream: self,
            stream: BufReader::with_capacity(64 << 10, stream),
            chunking: draw >> 32 & 1 == 1,
        };
        talk.run().await
    }

    fn draw(&self) -> u64 {
        scramble(self.draws.fetch_add(1, Ordering::Relaxed))
    }

    fn ill(&self, with: Spell) -> bool {
        *self.spell.borrow() == with
    }

    /// What comes of MAIL, RCPT and DATA.
    fn command(&self, verb: &str) -> &'static str {
        let draw = self.draw() % 1_000;
        match verb {
            _ if self.calm => "250 2.0.0 ok\r\n",
            "MAIL" if draw == 0 || self.ill(Spell::Closing) => "421 4.3.2 soak: closing\r\n",
            "MAIL" if draw == 1 => "451 4.3.0 soak: not this sender now\r\n",
            "RCPT" if draw < 3 => "450 4.2.1 soak: not this recipient now\r\n",
            "RCPT" if draw == 3 => "550 5.1.1 soak: nobody\r\n",
            "DATA" if draw == 0 => "451 4.3.0 soak: no room\r\n",
            _ => "250 2.0.0 ok\r\n",
        }
    }

    fn end(&self) -> End {
        let draw = self.draw();
        let taken = draw >> 32 & 1 == 1;
        let spell = *self.spell.borrow();
        match draw % 3_000 {
            _ if self.calm => End::Take,
            0..1_000 if spell == Spell::Deferring => End::Answer("451 4.3.0 soak: busy\r\n"),
            0..300 if spell == Spell::Dropping => End::Drop { taken },
            0..12 => End::Answer("451 4.3.0 soak: not now\r\n"),
            12..18 => End::Answer("554 5.6.0 soak: not this\r\n"),
            18..21 => End::Close,
            21..24 => End::Drop { taken },
            _ => End::Take,
        }
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    socket(address)?.listen(1024)
}

/// One connection.
struct Talk {
    upstream: Arc<Upstream>,
    stream: BufReader<TcpStream>,
    chunking: bool,
}

impl Talk {
    async fn run(mut self) -> io::Result<()> {
        self.say("220 soak.example ESMTP\r\n").await?;
        let mut line = Vec::new();
        let (mut message, mut recipients) = (Vec::new(), Vec::new());
        let mut replies = String::new();
        loop {
            line.clear();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let command = String::from_utf8_lossy(&line);
            let mut words = command.split_ascii_whitespace();
            match words.next().unwrap_or_default() {
                "EHLO" if self.chunking => {
                    replies += "250-soak.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
                }
                "EHLO" => replies += "250-soak.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
                "MAIL" => {
                    (message, recipients) = (Vec::new(), Vec::new());
                    replies += self.upstream.command("MAIL");
                    if replies.ends_with("closing\r\n") {
                        return self.say(&replies).await;
                    }
                }
                "RCPT" => {
                    let reply = self.upstream.command("RCPT");
                    if reply.starts_with('2') {
                        recipients.push(number(&command));
                    }
                    replies += reply;
                }
                "DATA" if recipients.is_empty() => replies += "554 5.5.1 soak: no recipients\r\n",
                "DATA" => {
                    let reply = self.upstream.command("DATA");
                    if !reply.starts_with('2') {
                        replies += reply;
                    } else {
                        replies += "354 go on\r\n";
                        self.say(&std::mem::take(&mut replies)).await?;
                        self.read_lines(&mut message).await?;
                        self.conclude(&message, &recipients).await?;
                    }
                }
                "RSET" | "NOOP" => replies += "250 2.0.0 ok\r\n",
                "QUIT" => return self.say("221 2.0.0 bye\r\n").await,
                _ => {
                    self.upstream.books.fault(format!("the upstream got {command:?}"));
                    return Ok(());
                }
            }
            if self.stream.buffer().is_empty() {
                self.say(&std::mem::take(&mut replies)).await?;
            }
        }
    }

    async fn say(&mut self, replies: &str) -> io::Result<()> {
        self.stream.write_all(replies.as_bytes()).await
    }

    async fn read_lines(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let start = message.len();
            if self.stream.read_until(b'\n', message).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if message[start..] == *b".\r\n" {
                message.truncate(start);
                return Ok(());
            }
        }
    }

    async fn conclude(&mut self, message: &[u8], recipients: &[usize]) -> io::Result<()> {
        let upstream = self.upstream.clone();
        let books = &upstream.books;
        let Some((letter, whole)) = Letter::read(message) else {
            books.fault("the upstream got something that is no letter".to_owned());
            return self.say("554 5.6.0 soak: what is this?\r\n").await;
        };
        if !whole {
            books.fault(format!("{letter:?} arrived changed"));
        }
        let take = || recipients.iter().for_each(|recipient| books.arrived(letter, *recipient));
        if upstream.ill(Spell::Slow) {
            sleep(Duration::from_millis(100)).await;
        }
        match upstream.end() {
            End::Take => {
                take();
                self.say("250 2.0.0 soak: taken\r\n").await
            }
            End::Answer(reply) => self.say(reply).await,
            End::Close => {
                self.say("421 4.3.2 soak: closing\r\n").await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            End::Drop { taken } => {
                books.doubtful(letter);
                if taken {
                    take();
                }
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

/// The number of the recipient that a RCPT names.
fn number(command: &str) -> usize {
    let number = command.split_once('<').and_then(|(_, rest)| rest.split_once('.'));
    number.and_then(|(number, _)| number.parse().ok()).unwrap_or(RECIPIENTS)
}
