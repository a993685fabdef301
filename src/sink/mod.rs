//! A receiving SMTP server for trying things out: hands every message to its
//! owner before it says `250`, and misbehaves as told.

pub mod fault;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::escape::for_terminal;
use crate::smtp::data::BareNewlines;
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::Reply;
use crate::smtp::session::{Action, Delivery, Offers, Policy, Session, Settings, Step};

use fault::{Effect, Fault, Phase};

/// The largest message that a sink takes, in octets.
const MAX_MESSAGE: u64 = 256 * 1024 * 1024;

/// A message that the sink took.
#[derive(Debug)]
pub struct Received {
    /// Counts from 1.
    pub number: u64,
    /// From whom and to whom.
    pub envelope: Envelope,
    /// Its bytes, dots unstuffed.
    pub content: Vec<u8>,
}

impl Received {
    /// From whom, to whom and how much, fit for one line of a terminal.
    pub fn route(&self) -> String {
        let to: Vec<_> = self.envelope.recipients.iter().map(|to| to.path.to_string()).collect();
        let (from, octets) = (&self.envelope.reverse_path, self.content.len());
        for_terminal(&format!("from {from} to {}, {octets} octets", to.join(" "))).into_owned()
    }
}

/// Where a sink's messages go.
pub trait Keep: Send + Sync + 'static {
    /// Takes a message before its sender hears `250`.
    ///
    /// # Errors
    /// When it can't be kept; the sender hears `451 4.3.0`.
    fn keep(&self, message: Received) -> std::io::Result<()>;

    /// Somebody connected.
    fn connected(&self) {}
}

/// What all connections of a sink share.
struct Sink {
    faults: Vec<Fault>,
    keep: Arc<dyn Keep>,
    count: AtomicU64,
}

/// Receives until dropped.
///
/// # Errors
/// When no connection can be accepted any more.
pub async fn serve(listener: TcpListener, faults: Vec<Fault>, keep: Arc<dyn Keep>) -> std::io::Result<()> {
    let sink = Arc::new(Sink { faults, keep, count: AtomicU64::new(0) });
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                sink.keep.connected();
                tasks.spawn(talk(sink.clone(), stream));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Looks for a fault at each step; what takes time or breaks the connection is
/// left for the connection to do.
struct FaultPolicy {
    sink: Arc<Sink>,
    effect: Option<Effect>,
}

impl FaultPolicy {
    fn strike(&mut self, phase: Phase, recipient: &str) -> Option<Reply> {
        let effect = self.sink.faults.iter().find_map(|fault| fault.strike(phase, recipient))?;
        if let Effect::Reply(reply) = effect {
            return Some(reply);
        }
        self.effect = Some(effect);
        None
    }
}

impl Policy for FaultPolicy {
    fn check(&mut self, step: Step<'_>) -> Option<Reply> {
        match step {
            Step::Hello => self.strike(Phase::Ehlo, ""),
            Step::Mail(_) => self.strike(Phase::Mail, ""),
            Step::Rcpt(_, recipient) => self.strike(Phase::Rcpt, recipient.path.as_str()),
            Step::Data(_) => self.strike(Phase::Data, ""),
            Step::EndOfData(_) => self.strike(Phase::Dot, ""),
        }
    }
}

fn settings() -> Settings {
    Settings {
        hostname: "sink.mailonce".to_owned(),
        max_message_size: MAX_MESSAGE,
        max_recipients: 10_000,
        max_errors: 100,
        bare_newlines: BareNewlines::Normalize,
        offers: Offers { eight_bit_mime: true, smtputf8: true, dsn: true, ..Offers::default() },
    }
}

/// One connection. An error means that the client is gone, which is its right.
async fn talk(sink: Arc<Sink>, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let policy = FaultPolicy { sink: sink.clone(), effect: None };
    let mut conversation =
        Conversation { sink, stream, session: Session::new(settings(), policy), input: BytesMut::new() };
    match conversation.greet().await? {
        ControlFlow::Break(()) => Ok(()),
        ControlFlow::Continue(()) => conversation.run().await,
    }
}

struct Conversation {
    sink: Arc<Sink>,
    stream: TcpStream,
    session: Session<FaultPolicy>,
    input: BytesMut,
}

impl Conversation {
    async fn greet(&mut self) -> std::io::Result<ControlFlow<()>> {
        if let Some(reply) = self.session.policy().strike(Phase::Connect, "") {
            self.session.output().clear();
            self.session.end(reply);
            self.flush().await?;
            return Ok(ControlFlow::Break(()));
        }
        Ok(match self.suffer().await {
            ControlFlow::Break(_) => ControlFlow::Break(()),
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
        })
    }

    async fn run(&mut self) -> std::io::Result<()> {
        let mut body = Vec::new();
        loop {
            if self.input.is_empty() {
                self.read().await?;
            }
            let (used, action) = self.session.step(&self.input, &mut body);
            let _ = self.input.split_to(used);
            let suffered = self.suffer().await;
            if suffered == ControlFlow::Break(Effect::Drop) {
                return Ok(());
            }
            match action {
                // What is left of a message that was refused is not the next one's.
                Action::Continue if self.session.receiving().is_none() => body.clear(),
                Action::Continue => {}
                Action::Read => self.read().await?,
                Action::Deliver(delivery) => {
                    let reply = self.keep(*delivery, std::mem::take(&mut body));
                    if suffered.is_break() {
                        return Ok(());
                    }
                    self.session.delivered(reply);
                }
                Action::StartTls | Action::Authenticate { .. } | Action::Close => {
                    self.flush().await?;
                    return self.stream.shutdown().await;
                }
            }
        }
    }

    /// Does what the policy could not: breaks with the effect that ends the
    /// connection, or goes on after a delay.
    async fn suffer(&mut self) -> ControlFlow<Effect> {
        match self.session.policy().effect.take() {
            Some(Effect::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(effect) => return ControlFlow::Break(effect),
            None => {}
        }
        ControlFlow::Continue(())
    }

    fn keep(&self, delivery: Delivery, content: Vec<u8>) -> Reply {
        let number = self.sink.count.fetch_add(1, Ordering::SeqCst) + 1;
        match self.sink.keep.keep(Received { number, envelope: delivery.envelope, content }) {
            Ok(()) => Reply::new(250, format!("2.0.0 kept as message {number}")),
            Err(error) => Reply::new(451, format!("4.3.0 could not be kept: {error}")),
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        self.stream.write_all(self.session.output()).await?;
        self.session.output().clear();
        Ok(())
    }

    async fn read(&mut self) -> std::io::Result<()> {
        self.flush().await?;
        self.input.reserve(64 * 1024);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::Path;
    use crate::smtp::envelope::{MailParameters, Recipient};

    #[test]
    fn a_route_is_one_harmless_line() {
        let path = |text| Path::parse(text).unwrap();
        let envelope = Envelope {
            reverse_path: path("a@x.example"),
            parameters: MailParameters::default(),
            recipients: vec![Recipient::new(path("\u{202e}b\u{2028}@x.example"))],
        };
        let received = Received { number: 1, envelope, content: b"x\r\n".to_vec() };
        let shown = "from <a@x.example> to <\\u{202e}b\\u{2028}@x.example>, 3 octets";
        assert_eq!(received.route(), shown);
    }
}
