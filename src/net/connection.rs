//! One client's connection: feeds the session machine and does what it says.

mod farewell;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::auth::{self, Authority};
use crate::config::Limits;
use crate::dedup::{Answer, Channel, Incoming, Source};
use crate::identity::{Proof, Tenant};
use crate::message::Spool;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{Credentials, Malformed};
use crate::smtp::session::{Action, ClientName, Delivery, Session, Settings, Verdict};

use super::peer::{Peer, RelayPolicy, Relaying};
use super::reception::Receipts;
use super::tls::name_of;
use super::wire::Wire;
use super::{Live, Shared};
use farewell::End;

/// What is read at once between messages.
const COMMAND_BLOCK: usize = 4 * 1024;
/// What is read at once of a message that turns out to be large.
const DATA_BLOCK: usize = 64 * 1024;
/// A message must come in at this many octets a second on average, once
/// `data_timeout` is over.
const MIN_RATE: u64 = 1024;
/// The longest that a command may take, and a message before it must come at
/// `MIN_RATE`, while there is a crowd.
const IN_A_CROWD: Duration = Duration::from_secs(10);
/// How often a session that waits looks whether a crowd has come.
const LOOK: Duration = Duration::from_secs(5);

/// How long a client may be silent behind a lone dot in a message that has LF
/// where CRLF is due: it waits for a reply by then. Less where a command may
/// take less.
const NO_END_OF_DATA: Duration = Duration::from_secs(5);

struct Connection {
    shared: Arc<Shared>,
    wire: Wire,
    peer: Peer,
    session: Session<RelayPolicy>,
    source: Source,
    /// The upstream that the client's account is at, where it has one.
    account_at: String,
    limits: Limits,
    input: BytesMut,
    spool: Spool,
    /// Of the message whose reply is among the output.
    receipts: Receipts,
    /// When the current command or message began.
    since: Instant,
    /// The client talked before the greeting.
    early: bool,
}

/// Talks to one client until the end.
pub async fn serve(shared: Arc<Shared>, live: &Live, wire: Wire, peer: Peer) {
    let mut connection = Connection::new(shared, live, wire, peer);
    let end = connection.run().await;
    connection.end(end).await;
}

impl Connection {
    fn new(shared: Arc<Shared>, live: &Live, mut wire: Wire, peer: Peer) -> Self {
        let early = wire.talks_early();
        let limits = live.limits;
        let settings = Settings {
            hostname: live.services.hostname.clone(),
            max_message_size: limits.max_message_size,
            max_recipients: limits.max_recipients,
            max_errors: limits.max_errors,
            bare_newlines: limits.bare_newlines,
            offers: peer.offers(live, Channel::Clear),
        };
        let source = Source {
            session: shared.heart.next_session(),
            listener: peer.port.listener.name.clone(),
            channel: Channel::Clear,
            user: None,
            account: None,
            tenant_header: peer.port.listener.tenant_header.clone(),
            client: peer.address,
            name: ClientName { name: String::new(), extended: false },
        };
        let spool = Spool::new(shared.budget.clone(), limits.memory_per_message);
        let mut connection = Self {
            session: Session::new(settings, peer.policy(Channel::Clear)),
            shared,
            wire,
            peer,
            source,
            account_at: String::new(),
            limits,
            input: BytesMut::new(),
            spool,
            receipts: Receipts::default(),
            since: Instant::now(),
            early,
        };
        if let Wire::Encrypted(_) = connection.wire {
            connection.encrypted(live);
        }
        if early {
            connection.session.talked_early();
        }
        connection
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
            self.input.advance(used);
            self.note_rejections();
            match action {
                Action::Continue => self.progress(used).await,
                Action::Read => {
                    self.flush().await?;
                    self.read().await?;
                }
                Action::Deliver(delivery) => self.deliver(*delivery).await?,
                Action::StartTls => self.start_tls().await?,
                Action::Authenticate(attempt) => {
                    if let Action::Close = self.authenticate(attempt).await? {
                        return Ok(());
                    }
                }
                Action::Close => return Ok(()),
            }
        }
    }

    /// The client was told to go ahead. Nothing of what came in clear is left:
    /// the session ends where something follows the command.
    async fn start_tls(&mut self) -> Result<(), End> {
        self.flush().await?;
        self.receipts.confirm(&mut self.wire).await;
        let Some(tls) = self.peer.port.tls.clone() else { return Err(End::Gone) };
        self.input = BytesMut::new();
        let wire = std::mem::replace(&mut self.wire, Wire::Closed);
        self.wire = wire.secure(&self.shared, &self.limits, &tls, self.source.client).await;
        let Wire::Encrypted(_) = self.wire else { return Err(End::Gone) };
        let live = self.shared.live.load_full();
        self.encrypted(&live);
        self.since = Instant::now();
        Ok(())
    }

    /// TLS is up: what was learnt in clear is forgotten, and who has shown a
    /// certificate is let in by its name.
    fn encrypted(&mut self, live: &Live) {
        self.source.channel = Channel::Encrypted;
        self.source.user = None;
        self.source.account = None;
        self.session.tls_established(self.peer.offers(live, Channel::Encrypted));
        let policy = self.session.policy();
        *policy = self.peer.policy(Channel::Encrypted);
        let Some(certificate) = self.wire.certificate() else { return };
        match name_of(certificate) {
            Ok(name) => {
                policy.relaying = Relaying::Allowed;
                self.source.user = Some(Tenant::new(name, Proof::Certificate));
            }
            Err(fault) => {
                // Its mail must not pass for that of others.
                policy.relaying = self.peer.unproven();
                let client = self.source.client;
                tracing::warn!(%client, %fault, "a client's certificate names no tenant; it may not relay");
            }
        }
    }

    /// Has credentials checked by whoever the listener asks now, and lets
    /// their owner in.
    async fn authenticate(&mut self, attempt: Result<Credentials, Malformed>) -> Result<Action, End> {
        self.flush().await?;
        let live = self.shared.live.load_full();
        let port = live.port(&self.source.listener);
        let Some(authority) = port.and_then(|port| port.authority.as_ref()) else {
            // A reload has switched it off.
            let reply = Reply::new(454, "4.7.0 AUTH is not offered any more");
            return Ok(self.session.authenticated(Verdict::Deferred(reply)));
        };
        let attempt = attempt.map(Arc::new);
        let client = auth::Client {
            address: self.source.client,
            listener: &self.source.listener,
            session: &self.source.session,
        };
        let upstream = &live.services.upstream;
        let verdict = self.shared.authenticator.check(authority, upstream, client, &attempt).await;
        if let (Verdict::Accepted(_), Ok(credentials)) = (&verdict, attempt) {
            self.session.policy().relaying = Relaying::Allowed;
            self.source.user = Some(self.shared.authenticator.tenant(authority, &credentials));
            self.source.account = matches!(authority, Authority::Passthrough(_)).then_some(credentials);
            self.account_at = upstream.name();
            self.since = Instant::now();
        }
        Ok(self.session.authenticated(verdict))
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
            // Who may not relay yet can only show that it may: that has one
            // deadline for all, and NOOP does not buy a place for ever.
            if self.session.policy().relaying == Relaying::Allowed {
                self.since = Instant::now();
            }
            if !self.spool.is_empty() {
                self.take_spool();
            }
        }
    }

    /// Hands a whole message to the heart and tells the session the answer. The
    /// attempt belongs to the proxy: a client that takes no reply any more ends
    /// the session behind it.
    async fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        let flushed = self.flush().await;
        self.receipts.confirm(&mut self.wire).await;
        if let Some(name) = self.session.client() {
            self.source.name = name.clone();
        }
        let services = self.shared.live.load().services.clone();
        if self.source.account.is_some() && self.account_at != services.upstream.name() {
            // Its password is nothing for others.
            tracing::warn!(
                session = self.source.session,
                "a message is not taken: its client logged in at an upstream that a reload has replaced"
            );
            return Err(End::Replaced);
        }
        let reply = match self.take_spool().finish().await {
            Ok(content) => {
                let Delivery { envelope, eight_bit } = delivery;
                let incoming = Incoming { source: self.source.clone(), envelope, content, eight_bit };
                let Answer { reply, receipt } = self.shared.heart.deliver(&services, incoming).await;
                self.receipts.expect(receipt);
                reply
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
        flushed
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
        let wait = NO_END_OF_DATA.min(self.limits.command_timeout);
        let answer_due = self.session.ends_in_bare_lf().then(|| Instant::now() + wait);
        loop {
            let look = self.deadline().min(Instant::now() + LOOK);
            let look = answer_due.map_or(look, |due| due.min(look));
            match (self.read_until(look).await, answer_due) {
                (Err(End::Finished), Some(_)) => return Err(End::NoEndOfData),
                (Err(End::TimedOut), Some(due)) if Instant::now() >= due => return Err(End::NoEndOfData),
                (Err(End::TimedOut), _) if Instant::now() < self.deadline() => {}
                (read, _) => return read,
            }
        }
    }

    async fn read_until(&mut self, deadline: Instant) -> Result<(), End> {
        let idle = self.session.is_idle() && self.input.is_empty();
        self.input.reserve(match (self.session.receiving(), self.spool.len()) {
            (None, _) => COMMAND_BLOCK,
            (Some(_), octets) => DATA_BLOCK.min(2 * octets as usize + 2 * COMMAND_BLOCK),
        });
        let read = timeout_at(deadline, self.wire.read_buf(&mut self.input));
        let read = tokio::select! {
            biased;
            read = read => read,
            () = self.shared.closing.cancelled(), if idle => return Err(End::Closing),
        };
        match read {
            Err(_) => Err(End::TimedOut),
            Ok(Err(_)) => Err(End::Gone),
            Ok(Ok(0)) => Err(End::Finished),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// A deadline is for a whole command or message, so a client that sends a
    /// byte now and then gains nothing by it.
    fn deadline(&self) -> Instant {
        let Limits { command_timeout, data_timeout, .. } = self.limits;
        let (timeout, earned) = match self.session.octets() {
            // Octets of a message that is refused count like any others, up to the
            // size that a message may have.
            Some(octets) => {
                (data_timeout, Duration::from_secs(octets.min(self.limits.max_message_size) / MIN_RATE))
            }
            None => (command_timeout, Duration::ZERO),
        };
        let crowded = self.shared.gate.is_crowded(&self.limits);
        self.since + if crowded { timeout.min(IN_A_CROWD) } else { timeout } + earned
    }

    async fn flush(&mut self) -> Result<(), End> {
        let output = self.session.output();
        if output.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.limits.command_timeout;
        let wire = &mut self.wire;
        self.receipts.before_writing(wire);
        let write = async {
            wire.write_all(output).await?;
            wire.flush().await
        };
        let written = timeout_at(deadline, write).await;
        output.clear();
        let written = match written {
            Ok(Ok(())) => Ok(()),
            // Where the client reads nothing, a reply may be cut or missing: it
            // would take the next one for it.
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        };
        self.receipts.written(written.is_ok());
        written
    }
}
