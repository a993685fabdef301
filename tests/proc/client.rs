//! A client, written apart from the program's own SMTP code.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a proxy that lives takes to greet, and more.
const GREETING: Duration = Duration::from_secs(10);

/// What it sends: one try of one e-mail. Each try has a Message-ID and a Date
/// of its own, as libraries make them.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) key: String,
    pub(crate) text: String,
    pub(crate) attempt: usize,
}

impl Letter {
    pub(crate) fn new(key: &str) -> Self {
        Self { key: key.to_owned(), text: format!("about {key}"), attempt: 1 }
    }

    /// The same e-mail, tried again.
    pub(crate) fn again(&self) -> Self {
        Self { attempt: self.attempt + 1, ..self.clone() }
    }

    pub(crate) fn message_id(&self) -> String {
        format!("<{}.{}@app.test>", self.key, self.attempt)
    }

    pub(crate) fn date(&self) -> String {
        let (minutes, seconds) = (self.attempt / 60 % 60, self.attempt % 60);
        format!("Sat, 21 Nov 2026 08:{minutes:02}:{seconds:02} +0000")
    }

    fn to_wire(&self) -> String {
        format!(
            "From: app@app.test\r\nTo: ann@user.test\r\nSubject: {}\r\nMessage-ID: {}\r\nDate: {}\r\n\
             X-Idempotency-Key: {}\r\nX-Letter: {}\r\n\r\n{}\r\n.\r\n",
            self.text,
            self.message_id(),
            self.date(),
            self.key,
            self.key,
            self.text
        )
    }
}

/// A session that has said EHLO.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        // Where nobody listens any more, TCP may join a socket to itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        Self::over(stream).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn over(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::with_capacity(1024, stream) };
        // A proxy killed while it let us in may leave us a connection that
        // nobody else knows of.
        timeout(GREETING, client.expect("220")).await??;
        client.write(b"EHLO app.test\r\n").await?;
        client.expect("250").await?;
        Ok(client)
    }

    /// Connects and answers the greeting, whatever it is.
    pub(crate) async fn greeting(address: SocketAddr) -> std::io::Result<String> {
        let stream = TcpStream::connect(address).await?;
        Self { stream: BufReader::with_capacity(1024, stream) }.reply().await
    }

    /// Sends one letter to one recipient; the answer to its end.
    pub(crate) async fn send(&mut self, letter: &Letter) -> std::io::Result<String> {
        self.hand_over(letter, "ann@user.test").await?;
        self.reply().await
    }

    /// Sends one letter and does not wait for the answer.
    pub(crate) async fn hand_over(&mut self, letter: &Letter, recipient: &str) -> std::io::Result<()> {
        self.envelope(&[recipient]).await?;
        self.write(letter.to_wire().as_bytes()).await
    }

    /// Sends one letter to several; the answer to its end.
    pub(crate) async fn send_to(&mut self, letter: &Letter, recipients: &[&str]) -> std::io::Result<String> {
        self.envelope(recipients).await?;
        self.write(letter.to_wire().as_bytes()).await?;
        self.reply().await
    }

    /// Everything up to the go-ahead for the message.
    pub(crate) async fn envelope(&mut self, recipients: &[&str]) -> std::io::Result<()> {
        let mut commands = "MAIL FROM:<app@app.test>\r\n".to_owned();
        for recipient in recipients {
            commands.push_str(&format!("RCPT TO:<{recipient}>\r\n"));
        }
        commands.push_str("DATA\r\n");
        self.write(commands.as_bytes()).await?;
        for _ in 0..=recipients.len() {
            self.expect("250").await?;
        }
        self.expect("354").await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    async fn expect(&mut self, code: &str) -> std::io::Result<()> {
        let reply = self.reply().await?;
        // The proxy may be told to end at any time.
        if reply.starts_with("421") {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        assert!(reply.starts_with(code), "{code} was due, not {reply}");
        Ok(())
    }

    /// A whole reply; lines are joined by LF.
    pub(crate) async fn reply(&mut self) -> std::io::Result<String> {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if self.stream.read_line(&mut reply).await? == 0 || !reply.ends_with("\r\n") {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            reply.truncate(reply.len() - 2);
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return Ok(reply);
            }
            reply.push('\n');
        }
    }
}
