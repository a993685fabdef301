//! The demonstration: a sink and a proxy in one process, and 32 clients that
//! send the same e-mail at once, as racing workers would.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::server::{self, Files, Opened, Server};
use crate::sink::{self, Keep, Received};
use crate::store::Store;

/// How many send at once.
pub const SENDERS: usize = 32;

/// The key that they all give.
const KEY: &str = "welcome:user-42";

/// What can go wrong before there is anything to show.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// The sink and the proxy, running.
#[derive(Debug)]
pub struct Demo {
    server: Server,
    received: mpsc::UnboundedReceiver<Received>,
    connections: Arc<AtomicU64>,
    proxy: SocketAddr,
    sink: SocketAddr,
    _sink_task: JoinSet<std::io::Result<()>>,
}

/// What the sink took, on its way to whoever looks.
struct Inbox {
    received: mpsc::UnboundedSender<Received>,
    connections: Arc<AtomicU64>,
}

impl Keep for Inbox {
    fn keep(&self, message: Received) -> std::io::Result<()> {
        self.received.send(message).map_err(std::io::Error::other)
    }

    fn connected(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }
}

/// What 32 simultaneous sends led to.
#[derive(Debug)]
pub struct Shown {
    /// How many arrived at the sink.
    pub delivered: usize,
    /// How many connections the sink saw.
    pub connections: u64,
    /// Each answer, and how many clients heard it.
    pub answers: BTreeMap<String, usize>,
}

impl Shown {
    /// Whether the promise was kept: one arrived, and all were told the same.
    pub fn is_once(&self) -> bool {
        let same = self.answers.len() == 1 && self.answers.keys().all(|answer| answer.starts_with("250 "));
        self.delivered == 1 && same && self.answers.values().sum::<usize>() == SENDERS
    }
}

impl Demo {
    /// Starts both on free ports of the loopback interface, with claims in
    /// `store`.
    ///
    /// # Errors
    /// When a port can't be had.
    pub async fn start(store: Arc<dyn Store>) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink = listener.local_addr()?;
        let (sender, received) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicU64::new(0));
        let keep = Arc::new(Inbox { received: sender, connections: connections.clone() });
        let mut sink_task = JoinSet::new();
        sink_task.spawn(sink::serve(listener, Vec::new(), keep));

        let config = format!(
            "hostname = \"demo.mailonce\"\n\
             [[listener]]\nname = \"demo\"\naddress = \"127.0.0.1:0\"\n\
             [upstream]\naddress = \"{sink}\"\n\
             [store]\nengine = \"memory\"\n"
        );
        let config = Config::parse(&config, "demo", std::iter::empty())?;
        let bound = server::bind(&config)?;
        let files = Files::read(&config, SystemClock.now())?;
        let proxy = bound.first().map(|(socket, _)| socket.local_addr()).transpose()?.ok_or("no listener")?;
        let server = Server::start(config, bound, files, Opened::fresh(store)?)?;
        Ok(Self { server, received, connections, proxy, sink, _sink_task: sink_task })
    }

    /// Lets 32 connections send the same e-mail at once.
    ///
    /// # Errors
    /// When the e-mail can't be built.
    pub async fn show(&mut self) -> Result<Shown, Error> {
        let message = message()?;
        let start = Arc::new(Barrier::new(SENDERS));
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            senders.spawn(send(self.proxy, message.clone(), start.clone()));
        }
        let mut answers = BTreeMap::new();
        while let Some(answer) = senders.join_next().await {
            *answers.entry(answer?).or_insert(0) += 1;
        }
        // The sink hands a message over before it answers, and every answer is
        // in: what has not arrived by now never will.
        let mut delivered = 0;
        while self.received.try_recv().is_ok() {
            delivered += 1;
        }
        Ok(Shown { delivered, connections: self.connections.load(Ordering::SeqCst), answers })
    }

    /// Tells what was shown.
    ///
    /// # Errors
    /// When `out` can't be written.
    pub fn tell(&self, shown: &Shown, out: &mut impl Write) -> std::io::Result<()> {
        let Self { proxy, sink, .. } = self;
        writeln!(out, "{SENDERS} clients -> mailonce on {proxy} -> a mail server on {sink}")?;
        writeln!(out, "all send the same e-mail at the same moment, with X-Idempotency-Key: {KEY}\n")?;
        writeln!(
            out,
            "  arrived at the mail server: {} (over {} connection(s))",
            shown.delivered, shown.connections
        )?;
        for (answer, count) in &shown.answers {
            writeln!(out, "  {count:>2} clients heard:           {answer}")?;
        }
        let others = shown.answers.values().sum::<usize>().saturating_sub(shown.delivered);
        if shown.is_once() {
            writeln!(out, "\nSent once: 1 delivered, {others} answered with the reply to that one.")
        } else {
            writeln!(
                out,
                "\nFAILED: exactly one should have arrived, and all should have heard the same 250."
            )
        }
    }

    /// Says what to try next, then prints each message that arrives until
    /// `stop` is cancelled.
    ///
    /// # Errors
    /// When `out` can't be written.
    pub async fn keep_running(
        &mut self,
        stop: &CancellationToken,
        out: &mut impl Write,
    ) -> std::io::Result<()> {
        let port = self.proxy.port();
        writeln!(out, "\nStill running; stop it with Ctrl-C. To try it yourself, run this twice:\n")?;
        writeln!(
            out,
            "  printf 'From: a@example.com\\nTo: b@example.com\\nSubject: hello\\nX-Idempotency-Key: mine-1\\n\\nhi\\n' |\n    \
             curl --url smtp://127.0.0.1:{port} --mail-from a@example.com --mail-rcpt b@example.com -T -\n"
        )?;
        writeln!(out, "Another key, or another recipient, is another e-mail. What arrives is shown here:")?;
        while let Some(Some(message)) = stop.run_until_cancelled(self.received.recv()).await {
            writeln!(out, "  message {} {}", message.number, message.route())?;
        }
        Ok(())
    }

    /// Ends proxy and sink.
    pub async fn stop(self) {
        self.server.stop(CancellationToken::new()).await;
    }
}

fn message() -> Result<Message, Error> {
    let key = HeaderValue::new(HeaderName::new_from_ascii_str("X-Idempotency-Key"), KEY.to_owned());
    let mut message = Message::builder()
        .from("app@example.com".parse()?)
        .to("user@example.com".parse()?)
        .subject("Welcome!")
        .body("You will read this once.\r\n".to_owned())?;
    message.headers_mut().insert_raw(key);
    Ok(message)
}

/// Sends over a connection of its own; gives what the proxy answered.
async fn send(proxy: SocketAddr, message: Message, start: Arc<Barrier>) -> String {
    let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(proxy.ip().to_string())
        .port(proxy.port())
        .build();
    start.wait().await;
    match mailer.send(message).await {
        Ok(response) => format!("{} {}", response.code(), response.message().collect::<Vec<_>>().join(" ")),
        Err(error) => error.to_string(),
    }
}
