//! One client's connection to the proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::letter::Letter;

/// Longer than the proxy lets anybody wait for a flight.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came of sending once.
pub(crate) enum Heard {
    /// A reply to the message.
    Reply(String),
    /// The connection ended first, or there is none.
    Nothing,
    /// No reply within two minutes.
    Silence,
}

/// How far a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// To the reply.
    Waits,
    /// Hangs up behind the end of the message.
    HandsOver,
    /// Hangs up in the middle of the message.
    LeavesBefore,
}

/// A connection that is made when it is needed.
pub(crate) struct Sender {
    proxy: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    attempts: u64,
}

impl Sender {
    /// `first` begins the numbers of its attempts.
    pub(crate) fn new(proxy: SocketAddr, first: u64) -> Self {
        Self { proxy, stream: None, attempts: first }
    }

    /// Sends a letter.
    pub(crate) async fn send(&mut self, letter: Letter, patience: Patience) -> Heard {
        self.attempts += 1;
        let talk = self.talk(letter, patience);
        let heard = match timeout(PATIENCE, talk).await {
            Ok(Ok(reply)) => Heard::Reply(reply),
            Ok(Err(_)) => Heard::Nothing,
            Err(_) => Heard::Silence,
        };
        match &heard {
            Heard::Reply(reply) if !reply.starts_with("421") => {}
            _ => self.stream = None,
        }
        heard
    }

    /// Ends the connection politely.
    pub(crate) async fn leave(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.write_all(b"QUIT\r\n").await;
            let _ = timeout(PATIENCE, reply(&mut stream)).await;
        }
    }

    async fn talk(&mut self, letter: Letter, patience: Patience) -> io::Result<String> {
        let attempt = self.attempts;
        let stream = self.stream().await?;
        stream.write_all(letter.envelope().as_bytes()).await?;
        for _ in 0..letter.recipients() + 2 {
            let reply = reply(stream).await?;
            if !reply.starts_with('2') && !reply.starts_with("354") {
                return Ok(reply);
            }
        }
        let mut message = letter.message(attempt);
        if patience == Patience::LeavesBefore {
            stream.write_all(&message[..message.len() / 2]).await?;
            return Err(io::ErrorKind::Interrupted.into());
        }
        message.extend_from_slice(b".\r\n");
        stream.write_all(&message).await?;
        match patience {
            Patience::HandsOver => Err(io::ErrorKind::Interrupted.into()),
            _ => reply(stream).await,
        }
    }

    async fn stream(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.proxy).await?;
            stream.set_nodelay(true)?;
            let mut stream = BufReader::new(stream);
            let greeting = reply(&mut stream).await?;
            stream.write_all(b"EHLO client.example\r\n").await?;
            let hello = reply(&mut stream).await?;
            if !greeting.starts_with('2') || !hello.starts_with('2') {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// One reply, its last line.
async fn reply(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            line.truncate(line.trim_end().len());
            return Ok(line);
        }
    }
}
