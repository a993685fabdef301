//! The client: sessions that send one message after the other, and wait for
//! each reply, as most libraries do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::wire::{Stream, Wire};
use crate::{Failure, tls};

/// A message up to here is written at once, its dot included.
const SMALL: usize = 256 * 1024;
const LINE: &[u8] = b"The quick brown fox jumps over the lazy dog, and so it goes on to the end.\r\n";
const DOT: &[u8] = b"\r\n.\r\n";

/// What is to be sent, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// To whom
    to: SocketAddr,
    /// Connections at once
    #[arg(long, default_value_t = 1)]
    sessions: u64,
    /// Messages in all
    #[arg(long, default_value_t = 1000)]
    messages: u64,
    /// Octets of a body
    #[arg(long, default_value_t = 5120)]
    length: usize,
    /// Many messages a connection instead of one
    #[arg(long)]
    many: bool,
    /// Part of each Message-ID: another one for each run
    #[arg(long)]
    tag: String,
    /// TLS, with the server's certificate verified
    #[arg(long, value_enum, default_value_t = Tls::Off)]
    tls: Tls,
    /// PEM of the CA that has signed it
    #[arg(long, required_if_eq_any([("tls", "implicit"), ("tls", "starttls")]))]
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tls {
    Off,
    Implicit,
    Starttls,
}

/// What all sessions share.
struct Load {
    plan: Plan,
    connector: Option<TlsConnector>,
    body: Vec<u8>,
    taken: AtomicU64,
}

/// How long a message took: from its dot to the reply, and from its first step
/// (the connection, where it has one of its own).
#[derive(Clone, Copy)]
struct Took {
    dot: Duration,
    whole: Duration,
}

/// Sends all and says how it went, as JSON.
pub(crate) async fn send(plan: Plan) -> Result<serde_json::Value, Failure> {
    let connector = plan.ca.as_deref().map(tls::connector).transpose()?;
    let body = LINE.iter().copied().cycle().take(plan.length.saturating_sub(2)).collect();
    let load = Arc::new(Load { plan, connector, body, taken: AtomicU64::new(0) });
    let begun = Instant::now();
    let mut sessions = JoinSet::new();
    for _ in 0..load.plan.sessions {
        sessions.spawn(Arc::clone(&load).session());
    }
    let mut took = Vec::new();
    while let Some(ended) = sessions.join_next().await {
        took.extend(ended??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (dot50, dot99) = percentiles(took.iter().map(|took| took.dot));
    let (whole50, whole99) = percentiles(took.iter().map(|took| took.whole));
    Ok(serde_json::json!({
        "messages": took.len(), "seconds": seconds,
        "dot_p50_ms": dot50, "dot_p99_ms": dot99, "whole_p50_ms": whole50, "whole_p99_ms": whole99,
    }))
}

/// The median and the 99th percentile, in milliseconds.
fn percentiles(took: impl Iterator<Item = Duration>) -> (f64, f64) {
    let mut all: Vec<f64> = took.map(|took| took.as_secs_f64() * 1000.0).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

impl Load {
    /// The number of the next message, while there is one.
    fn next(&self) -> Option<u64> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        (number < self.plan.messages).then_some(number)
    }

    async fn session(self: Arc<Load>) -> Result<Vec<Took>, Failure> {
        let mut took = Vec::new();
        while let Some(number) = self.next() {
            self.connection(number, &mut took).await?;
        }
        Ok(took)
    }

    async fn connection(&self, first: u64, took: &mut Vec<Took>) -> Result<(), Failure> {
        let begun = Instant::now();
        let stream = TcpStream::connect(self.plan.to).await?;
        stream.set_nodelay(true)?;
        match (self.plan.tls, &self.connector) {
            (Tls::Implicit, Some(connector)) => {
                let secret = connector.connect(name()?, stream).await?;
                let mut wire = Wire::new(secret);
                expect(&mut wire, "220").await?;
                self.talk(wire, first, begun, took).await
            }
            (Tls::Starttls, Some(connector)) => {
                let mut wire = Wire::new(stream);
                expect(&mut wire, "220").await?;
                order(&mut wire, b"EHLO client.example\r\n", "250").await?;
                order(&mut wire, b"STARTTLS\r\n", "220").await?;
                let secret = connector.connect(name()?, wire.stream).await?;
                self.talk(Wire::new(secret), first, begun, took).await
            }
            _ => {
                let mut wire = Wire::new(stream);
                expect(&mut wire, "220").await?;
                self.talk(wire, first, begun, took).await
            }
        }
    }

    /// Everything from EHLO on, over whatever stream.
    async fn talk<S: Stream>(
        &self,
        mut wire: Wire<S>,
        first: u64,
        mut begun: Instant,
        took: &mut Vec<Took>,
    ) -> Result<(), Failure> {
        order(&mut wire, b"EHLO client.example\r\n", "250").await?;
        let mut number = Some(first);
        while let Some(this) = number {
            let dot = self.message(&mut wire, this).await?;
            took.push(Took { dot, whole: begun.elapsed() });
            number = if self.plan.many { self.next() } else { None };
            begun = Instant::now();
        }
        order(&mut wire, b"QUIT\r\n", "221").await
    }

    /// One message; how long the reply took after its dot.
    async fn message<S: Stream>(&self, wire: &mut Wire<S>, number: u64) -> Result<Duration, Failure> {
        order(wire, b"MAIL FROM:<sender@client.example>\r\n", "250").await?;
        order(wire, b"RCPT TO:<recipient@server.example>\r\n", "250").await?;
        order(wire, b"DATA\r\n", "354").await?;
        // The number is in the text as well: by content, too, each is another.
        let tag = &self.plan.tag;
        let mut head = format!(
            "From: <sender@client.example>\r\nTo: <recipient@server.example>\r\n\
             Date: Thu, 01 Jan 2026 12:00:00 +0000\r\nSubject: A benchmark\r\n\
             Message-ID: <{tag}.{number}@client.example>\r\n\r\n{tag} {number}\r\n"
        )
        .into_bytes();
        // Before the last write, not after it: when that returns the reply may
        // be there already.
        let sent = if self.body.len() <= SMALL {
            head.extend_from_slice(&self.body);
            head.extend_from_slice(DOT);
            let sent = Instant::now();
            wire.write(&head).await?;
            sent
        } else {
            wire.write(&head).await?;
            wire.write(&self.body).await?;
            let sent = Instant::now();
            wire.write(DOT).await?;
            sent
        };
        expect(wire, "250").await?;
        Ok(sent.elapsed())
    }
}

fn name() -> Result<ServerName<'static>, Failure> {
    Ok(ServerName::try_from("localhost")?)
}

/// Says a line and wants this code.
async fn order<S: Stream>(wire: &mut Wire<S>, line: &[u8], code: &str) -> Result<(), Failure> {
    wire.write(line).await?;
    expect(wire, code).await
}

/// Reads a reply to its last line.
async fn expect<S: Stream>(wire: &mut Wire<S>, code: &str) -> Result<(), Failure> {
    loop {
        let Some(line) = wire.line().await? else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        if !line.starts_with(code) {
            return Err(format!("{code} was expected: {}", line.trim_end()).into());
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}
