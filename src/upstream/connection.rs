//! One connection: the client machine joined to a byte stream, with deadlines.
//!
//! While it writes, it also reads. An upstream that refuses a long message
//! half-way, or goes away, is noticed though the write is blocked; and neither
//! side can wait for the other to read first.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::auth::Account;
use super::fault::{At, Phase, UpstreamFault};
use crate::config::UpstreamTimeouts;
use crate::crash;
use crate::smtp::client::{Client, Due, ProtocolFault};
use crate::smtp::reply::Reply;

/// How much is read at once: replies are short.
const READ: usize = 4 * 1024;

/// What carries a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether it has read octets that it can't hand out yet: the first part
    /// of a TLS record.
    fn holds_part(&self) -> bool {
        false
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it was handed over.
    All,
    /// The upstream refused MAIL or BDAT before it had all of the content.
    Refused,
}

/// How an attempt to complete a message failed.
#[derive(Debug)]
pub(super) enum Incomplete {
    /// The last octets certainly did not leave.
    Unsent(UpstreamFault),
    /// They may have left.
    InDoubt(UpstreamFault),
}

/// A connection to an upstream.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    pub(super) client: Client,
    address: Arc<str>,
    pub(super) timeouts: UpstreamTimeouts,
    /// What goes out next; kept for its room.
    pub(super) output: Vec<u8>,
    input: Box<[u8]>,
    /// Replies that came while something was written.
    waiting: VecDeque<(Due, Reply)>,
    phase: Phase,
    /// A transaction was left half-way; RSET goes in front of the next.
    pub(super) dirty: bool,
    /// When it was last given back.
    pub(super) idle_since: Instant,
    /// The account of a client that it logged in with: it is for nobody else.
    pub(super) account: Option<Account>,
    /// Lets the pool count the connections that there are.
    pub(super) counted: Option<Arc<()>>,
}

impl<S: Stream> Connection<S> {
    /// A connection just made to `address`.
    pub(super) fn new(stream: S, address: Arc<str>, timeouts: UpstreamTimeouts) -> Self {
        Self::with(Client::new(), stream, address, timeouts)
    }

    /// A connection on which STARTTLS was followed by a handshake: EHLO is
    /// said anew.
    pub(super) fn secured(stream: S, address: Arc<str>, timeouts: UpstreamTimeouts) -> Self {
        Self::with(Client::secured(), stream, address, timeouts)
    }

    fn with(client: Client, stream: S, address: Arc<str>, timeouts: UpstreamTimeouts) -> Self {
        Self {
            stream,
            client,
            address,
            timeouts,
            output: Vec::new(),
            input: vec![0; READ].into_boxed_slice(),
            waiting: VecDeque::new(),
            phase: Phase::Greeting,
            dirty: false,
            idle_since: Instant::now(),
            account: None,
            counted: None,
        }
    }

    /// `host:port` as configured.
    pub(super) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// What is going on, for a fault.
    pub(super) fn at(&self, phase: Phase) -> At {
        At { address: self.address.clone(), phase }
    }

    /// What carries it.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Waits for the greeting and introduces us.
    pub(super) async fn hello(&mut self, hostname: &str) -> Result<(), UpstreamFault> {
        let (_, greeting) = self.reply(self.timeouts.greeting).await?;
        self.willing(Phase::Greeting, greeting)?;
        self.introduce(hostname).await
    }

    /// EHLO, and HELO where that is refused for good (RFC 5321 §3.2).
    pub(super) async fn introduce(&mut self, hostname: &str) -> Result<(), UpstreamFault> {
        let limit = self.timeouts.greeting;
        self.client.ehlo(hostname, &mut self.output);
        self.flush(Phase::Hello, limit).await?;
        let (_, reply) = self.reply(limit).await?;
        if reply.code() / 100 != 5 {
            return self.willing(Phase::Hello, reply);
        }
        self.client.helo(hostname, &mut self.output);
        self.flush(Phase::Hello, limit).await?;
        let (_, reply) = self.reply(limit).await?;
        self.willing(Phase::Hello, reply)
    }

    /// STARTTLS, and the bare stream when it is granted: the handshake is next.
    /// Octets behind the grant came in clear, from whomever; they are a fault,
    /// and what was read so far ends here (RFC 3207 §4.2, §6).
    pub(super) async fn start_tls(mut self) -> Result<S, UpstreamFault> {
        let limit = self.timeouts.greeting;
        self.client.starttls(&mut self.output);
        self.flush(Phase::Tls, limit).await?;
        let (_, reply) = self.reply(limit).await?;
        self.willing(Phase::Tls, reply)?;
        self.check_quiet(Phase::Tls)?;
        Ok(self.stream)
    }

    /// One RSET and its reply within `limit`.
    pub(super) async fn reset(&mut self, limit: Duration) -> Result<(), UpstreamFault> {
        self.client.reset(&mut self.output);
        self.flush(Phase::Reset, limit).await?;
        let (_, reply) = self.reply(limit).await?;
        self.willing(Phase::Reset, reply)?;
        self.dirty = false;
        Ok(())
    }

    /// Says QUIT, waits for its reply, and takes leave of TLS, at most `limit`
    /// for all of it.
    pub(super) async fn quit(mut self, limit: Duration) {
        self.client.quit(&mut self.output);
        let _ = timeout(limit, async {
            self.flush(Phase::Quit, limit).await?;
            self.reply(limit).await?;
            // What follows no reply may as well be missing.
            let _ = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
            Ok::<(), UpstreamFault>(())
        })
        .await;
    }

    /// Says QUIT if that can be done at once, and closes.
    pub(super) fn dismiss(mut self) {
        self.client.quit(&mut self.output);
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.stream).poll_write(&mut cx, &self.output);
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
    }

    /// Writes `output` within `limit` and empties it.
    pub(super) async fn flush(&mut self, phase: Phase, limit: Duration) -> Result<Written, UpstreamFault> {
        let mut output = std::mem::take(&mut self.output);
        let result = self.write(&output, phase, limit).await;
        output.clear();
        self.output = output;
        result
    }

    /// Writes `bytes` within `limit`.
    pub(super) async fn write(
        &mut self,
        bytes: &[u8],
        phase: Phase,
        limit: Duration,
    ) -> Result<Written, UpstreamFault> {
        self.phase = phase;
        let mut count = 0;
        let write = poll_fn(|cx| self.poll_write(cx, bytes, &mut count));
        match timeout(limit, write).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(phase)),
        }
    }

    /// The reply that is due, within `limit`.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<(Due, Reply), UpstreamFault> {
        if let Some(phase) = self.next_due().map(Phase::of) {
            self.phase = phase;
        }
        if let Some(answer) = self.take_reply()? {
            return Ok(answer);
        }
        if let Ok(heard) = timeout(limit, poll_fn(|cx| self.poll_reply(cx))).await {
            return heard;
        }
        // A process that was stopped meanwhile hears that the time is over
        // before the reactor has told it what came.
        tokio::task::yield_now().await;
        match self.poll_reply(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(heard) => heard,
            Poll::Pending => Err(self.timed_out(self.phase)),
        }
    }

    /// A reply that is here already.
    pub(super) fn take_reply(&mut self) -> Result<Option<(Due, Reply)>, UpstreamFault> {
        match self.waiting.pop_front() {
            Some(answer) => Ok(Some(answer)),
            None => self.client.next_reply().map_err(|fault| self.protocol(fault)),
        }
    }

    /// Whether the next transaction may start.
    pub(super) fn is_quiet(&self) -> bool {
        self.client.is_quiet() && self.waiting.is_empty()
    }

    /// A reply that came while something was written.
    pub(super) fn take_waiting(&mut self) -> Option<(Due, Reply)> {
        self.waiting.pop_front()
    }

    /// What the next reply will answer.
    pub(super) fn next_due(&self) -> Option<Due> {
        self.waiting.front().map(|&(due, _)| due).or_else(|| self.client.next_due())
    }

    /// Looks once for replies, without waiting, while a part of what they
    /// answer is still unsent.
    pub(super) fn listen(&mut self) -> Result<(), UpstreamFault> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.poll_listen(&mut cx) {
            Poll::Ready(result) => result.map(|_| ()),
            Poll::Pending => Ok(()),
        }
    }

    /// Looks once at the read side without waiting: whatever is there when
    /// nothing is due, the end of the stream included, is a fault. Over TLS,
    /// that is what was said, in whole or in part; the tickets and alike that
    /// TLS sends for itself are taken in and are nothing.
    pub(super) fn check_quiet(&mut self, phase: Phase) -> Result<(), UpstreamFault> {
        self.phase = phase;
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = self.poll_feed(&mut cx) {
            result?;
        }
        match self.client.next_reply() {
            Err(fault) => Err(self.protocol(fault)),
            Ok(None) if self.is_quiet() && !self.stream.holds_part() => Ok(()),
            Ok(_) => Err(self.protocol(ProtocolFault::Early(None))),
        }
    }

    /// Sends what completes a message, and waits for the reply to it.
    pub(super) async fn complete(&mut self, last: &[u8]) -> Result<Reply, Incomplete> {
        // The stream knows only what the reactor has told it. Letting the
        // reactor have a turn shows us what came while the claims were written.
        tokio::task::yield_now().await;
        self.check_quiet(Phase::Completion).map_err(Incomplete::Unsent)?;
        let deadline = Instant::now() + self.timeouts.completion;
        let mut count = 0;
        let write = poll_fn(|cx| self.poll_write(cx, last, &mut count));
        let written = tokio::time::timeout_at(deadline, write).await;
        match written.unwrap_or_else(|_| Err(self.timed_out(Phase::Completion))) {
            Ok(_) => self.client.completed(),
            Err(fault) if count == 0 => return Err(Incomplete::Unsent(fault)),
            Err(fault) => return Err(Incomplete::InDoubt(fault)),
        }
        crash::point("after-dot");
        let left = deadline.saturating_duration_since(Instant::now());
        self.reply(left).await.map(|(_, reply)| reply).map_err(Incomplete::InDoubt)
    }

    /// Hands `bytes` to the stream from `count` on, and listens while it
    /// blocks. `count` is right even when the future is dropped.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        count: &mut usize,
    ) -> Poll<Result<Written, UpstreamFault>> {
        loop {
            let stream = Pin::new(&mut self.stream);
            let handed = if *count < bytes.len() {
                stream.poll_write(cx, &bytes[*count..]).map_ok(Some)
            } else {
                stream.poll_flush(cx).map_ok(|()| None)
            };
            match handed {
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(Written::All)),
                Poll::Ready(Ok(Some(0))) => return Poll::Ready(Err(self.closed(None))),
                Poll::Ready(Ok(Some(n))) => *count += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.closed(Some(&error)))),
                Poll::Pending => {
                    if ready!(self.poll_listen(cx))? == Written::Refused {
                        return Poll::Ready(Ok(Written::Refused));
                    }
                }
            }
        }
    }

    /// Reads what comes during a blocked write, and keeps the replies.
    fn poll_listen(&mut self, cx: &mut Context<'_>) -> Poll<Result<Written, UpstreamFault>> {
        ready!(self.poll_feed(cx))?;
        let mut written = Written::All;
        loop {
            match self.client.next_reply().map_err(|fault| self.protocol(fault))? {
                // A chunk that is not complete can't have been taken.
                Some((Due::Chunk, reply)) if reply.is_success() => {
                    let fault = ProtocolFault::Early(Some(reply));
                    return Poll::Ready(Err(self.protocol(fault)));
                }
                Some((due, reply)) => {
                    if matches!(due, Due::Mail | Due::Chunk) && !reply.is_success() {
                        written = Written::Refused;
                    }
                    self.waiting.push_back((due, reply));
                }
                None => return Poll::Ready(Ok(written)),
            }
        }
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Due, Reply), UpstreamFault>> {
        loop {
            if let Some(answer) = self.take_reply()? {
                return Poll::Ready(Ok(answer));
            }
            ready!(self.poll_feed(cx))?;
        }
    }

    /// Reads once, straight into the machine.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFault>> {
        let mut buffer = ReadBuf::new(&mut self.input);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Err(self.closed(None))),
            Ok(()) => {
                self.client.feed(buffer.filled());
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.closed(Some(&error)))),
        }
    }

    /// A reply that refuses is a fault.
    pub(super) fn willing(&self, phase: Phase, reply: Reply) -> Result<(), UpstreamFault> {
        if reply.is_success() {
            return Ok(());
        }
        Err(UpstreamFault::Unwilling { at: self.at(phase), reply })
    }

    fn closed(&self, error: Option<&io::Error>) -> UpstreamFault {
        // TLS has many words for an end without its farewell.
        let error = error.filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        let error = error.map_or_else(|| "connection closed".to_owned(), io::Error::to_string);
        UpstreamFault::Closed { at: self.at(self.phase), error }
    }

    fn timed_out(&self, phase: Phase) -> UpstreamFault {
        UpstreamFault::TimedOut { at: self.at(phase) }
    }

    fn protocol(&self, fault: ProtocolFault) -> UpstreamFault {
        UpstreamFault::protocol(self.at(self.phase), fault)
    }
}
