//! One client's connection: feeds the session machine and does what it says.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::config::{Limits, Listener};
use crate::dedup::{Incoming, Source};
use crate::message::Spool;
use crate::smtp::reply::Reply;
use crate::smtp::session::{Action, ClientName, Delivery, Offers, Policy, Session, Settings, Step};

use super::{Live, Shared};

/// What is read at once between messages.
const COMMAND_BLOCK: usize = 4 * 1024;
/// What is read at once of a message that turns out to be large.
const DATA_BLOCK: usize = 64 * 1024;
/// A message must come in at this many octets a second on average, once
/// `data_timeout` is over.
const MIN_RATE: u64 = 1024;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: std::net::SocketAddr,
    /// Whether it may relay.
    pub allowed: bool,
    /// Where it came in.
    pub listener: Listener,
}

/// Why a connection ends before QUIT.
#[derive(Debug)]
enum End {
    /// The client closed it, or it broke.
    Gone,
    /// The client was too slow: `421 4.4.2`.
    TimedOut,
    /// We are closing: `421 4.3.2`.
    Closing,
}

/// Whether the client may relay.
#[derive(Debug)]
struct RelayPolicy {
    allowed: bool,
}

impl Policy for RelayPolicy {
    fn check(&mut self, step: Step<'_>) -> Option<Reply> {
        match step {
            Step::Rcpt(..) if !self.allowed => Some(Reply::new(554, "5.7.1 relay access denied")),
            _ => None,
        }
    }
}

struct Connection<S> {
    shared: Arc<Shared>,
    stream: S,
    session: Session<RelayPolicy>,
    source: Source,
    limits: Limits,
    input: BytesMut,
    spool: Spool,
    /// When the current command or message began.
    since: Instant,
}

/// Talks to one client until the end.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    live: &Live,
    stream: S,
    peer: Peer,
) {
    let mut connection = Connection::new(shared, live, stream, peer);
    let end = connection.run().await;
    connection.end(end).await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(shared: Arc<Shared>, live: &Live, stream: S, peer: Peer) -> Self {
        let limits = live.limits;
        let settings = Settings {
            hostname: live.services.hostname.clone(),
            max_message_size: limits.max_message_size,
            max_recipients: limits.max_recipients,
            max_errors: limits.max_errors,
            bare_newlines: limits.bare_newlines,
            offers: offers(live),
        };
        let source = Source {
            session: shared.heart.next_session(),
            listener: peer.listener.name,
            tenant_header: peer.listener.tenant_header,
            client: peer.address,
            name: ClientName { name: String::new(), extended: false },
        };
        let spool = Spool::new(shared.budget.clone(), limits.memory_per_message);
        Self {
            session: Session::new(settings, RelayPolicy { allowed: peer.allowed }),
            shared,
            stream,
            source,
            limits,
            input: BytesMut::new(),
            spool,
            since: Instant::now(),
        }
    }

    /// Runs the session until it says `Close` or cannot go on.
    async fn run(&mut self) -> Result<(), End> {
        loop {
            if self.input.is_empty() {
                self.flush().await?;
                self.read().await?;
            }
            let octets = self.session.receiving().map_or(0, |_| self.input.len());
            let (used, action) = self.session.step(&self.input, self.spool.buffer(octets));
            let _ = self.input.split_to(used);
            self.note_rejections();
            match action {
                Action::Continue => self.progress(used).await,
                Action::Read => {
                    self.flush().await?;
                    self.read().await?;
                }
                Action::Deliver(delivery) => self.deliver(*delivery).await?,
                // Neither is offered yet, so the session never asks for it.
                Action::StartTls | Action::Authenticate { .. } | Action::Close => return Ok(()),
            }
        }
    }

    /// Something was understood: account for message data, or start the clock
    /// of the next command.
    async fn progress(&mut self, used: usize) {
        if self.session.receiving().is_some() {
            if let Err(no_room) = self.spool.settle().await {
                tracing::warn!(session = self.source.session, %no_room, "a message is refused for want of room");
                self.session.refuse_message(Reply::new(452, "4.3.1 no room for this message now, try again"));
            }
        } else if used > 0 && self.session.awaits_command() {
            self.since = Instant::now();
            if !self.spool.is_empty() {
                self.take_spool();
            }
        }
    }

    /// Hands a whole message to the heart and tells the session the answer.
    async fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        self.flush().await?;
        if let Some(name) = self.session.client() {
            self.source.name = name.clone();
        }
        let reply = match self.take_spool().finish().await {
            Ok(content) => {
                let Delivery { envelope, eight_bit } = delivery;
                let incoming = Incoming { source: self.source.clone(), envelope, content, eight_bit };
                let services = self.shared.live.load().services.clone();
                self.shared.heart.deliver(services, incoming).await
            }
            Err(no_room) => {
                tracing::warn!(session = self.source.session, %no_room, "a message is refused for want of room");
                Reply::new(452, "4.3.1 no room for this message now, try again")
            }
        };
        self.session.delivered(reply);
        self.since = Instant::now();
        if self.input.is_empty() {
            // An idle connection keeps no large buffer.
            self.input = BytesMut::new();
        }
        Ok(())
    }

    fn take_spool(&mut self) -> Spool {
        let fresh = Spool::new(self.shared.budget.clone(), self.limits.memory_per_message);
        std::mem::replace(&mut self.spool, fresh)
    }

    fn note_rejections(&mut self) {
        for rejection in self.session.take_rejections() {
            self.shared.heart.rejected(&self.source, &rejection);
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        let deadline = self.deadline();
        let idle = self.session.is_idle() && self.input.is_empty();
        self.input.reserve(match (self.session.receiving(), self.spool.len()) {
            (None, _) => COMMAND_BLOCK,
            (Some(_), octets) => DATA_BLOCK.min(2 * octets as usize + 2 * COMMAND_BLOCK),
        });
        let read = timeout_at(deadline, self.stream.read_buf(&mut self.input));
        let read = tokio::select! {
            biased;
            read = read => read,
            () = self.shared.closing.cancelled(), if idle => return Err(End::Closing),
        };
        match read {
            Err(_) => Err(End::TimedOut),
            Ok(Ok(0) | Err(_)) => Err(End::Gone),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// A deadline is for a whole command or message, so a client that sends a
    /// byte now and then gains nothing by it.
    fn deadline(&self) -> Instant {
        if self.session.receiving().is_some() {
            self.since + self.limits.data_timeout + Duration::from_secs(self.spool.len() / MIN_RATE)
        } else {
            self.since + self.limits.command_timeout
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let output = self.session.output();
        if output.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.limits.command_timeout;
        let written = timeout_at(deadline, self.stream.write_all(output)).await;
        output.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::TimedOut),
        }
    }

    /// Says good-bye where there is somebody to hear it.
    async fn end(&mut self, end: Result<(), End>) {
        if let Some(envelope) = self.session.receiving() {
            self.shared.heart.aborted(&self.source, envelope, self.spool.len());
        }
        match end {
            Err(End::Gone) => return,
            Err(End::TimedOut) => self.session.end(Reply::new(421, "4.4.2 timed out waiting for you")),
            Err(End::Closing) => self.session.end(Reply::new(421, "4.3.2 shutting down, try again")),
            Ok(()) => {}
        }
        let _ = self.flush().await;
    }
}

/// What EHLO offers beyond what is our own: as the upstream was last seen to.
fn offers(live: &Live) -> Offers {
    match live.services.upstream.capabilities() {
        None => Offers { eight_bit_mime: true, ..Offers::default() },
        Some(upstream) => Offers {
            eight_bit_mime: upstream.eight_bit_mime,
            smtputf8: upstream.smtputf8,
            dsn: upstream.dsn,
            ..Offers::default()
        },
    }
}
