//! One connection: the client machine joined to a byte stream, with deadlines.
//!
//! While it writes, it also reads. An upstream that refuses a long message
//! half-way, or goes away, is noticed though the write is blocked; and neither
//! side can wait for the other to read first.

mod dialogue;

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
use crate::smtp::client::{Client, Due, END_OF_DATA, ProtocolFault};
use crate::smtp::reply::Reply;

/// How much is read at once: replies are short.
const READ: usize = 4 * 1024;

/// How long the rest of what has begun to arrive unasked is waited for.
const REST: Duration = Duration::from_secs(5);

/// What carries a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether it has read octets that it can't hand out yet: the first part
    /// of a TLS record.
    fn holds_part(&self) -> bool {
        false
    }
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it was handed over.
    All,
    /// The upstream refused the content before it had all of it.
    Refused(Reply),
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
    /// Set when nothing more can be read, with the reason.
    over: Option<UpstreamFault>,
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
            over: None,
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

    /// The reply that is due, within `limit`. Where the connection or the time
    /// ends inside it and its code is known, it counts as far as it came.
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
        // A process that was stopped meanwhile learns that the time is over
        // before the reactor has told it what came.
        tokio::task::yield_now().await;
        match self.poll_reply(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(heard) => heard,
            Poll::Pending => self.give_up(self.timed_out(self.phase)),
        }
    }

    /// Reads no more. The code that is known of a reply under way decides;
    /// without one there is `fault`.
    fn give_up(&mut self, fault: UpstreamFault) -> Result<(Due, Reply), UpstreamFault> {
        self.over = Some(fault.clone());
        self.client.cut();
        self.take_reply()?.ok_or(fault)
    }

    /// A reply that is here already.
    pub(super) fn take_reply(&mut self) -> Result<Option<(Due, Reply)>, UpstreamFault> {
        match self.waiting.pop_front() {
            Some(answer) => Ok(Some(answer)),
            None => self.client.next_reply().map_err(|fault| self.protocol(fault)),
        }
    }

    /// Whether nothing is due and nothing came unasked.
    pub(super) fn is_quiet(&self) -> bool {
        self.client.is_quiet() && self.waiting.is_empty()
    }

    /// Whether another message may go over it.
    pub(super) fn is_reusable(&self) -> bool {
        self.over.is_none() && self.waiting.is_empty() && self.client.is_reusable()
    }

    /// Whether a part of a TLS record has come.
    pub(super) fn holds_part(&self) -> bool {
        self.stream.holds_part()
    }

    /// What the next reply will answer.
    pub(super) fn next_due(&self) -> Option<Due> {
        self.waiting.front().map(|&(due, _)| due).or_else(|| self.client.next_due())
    }

    /// Looks once at the read side without waiting: whatever is there when
    /// nothing is due, the end of the stream included, is a fault. The tickets
    /// and alike that TLS sends for itself are taken in and are nothing.
    pub(super) fn check_quiet(&mut self, phase: Phase) -> Result<(), UpstreamFault> {
        self.phase = phase;
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = self.poll_feed(&mut cx) {
            result?;
        }
        match self.client.next_reply() {
            Err(fault) => Err(self.protocol(fault)),
            Ok(None) if self.is_quiet() => Ok(()),
            Ok(_) => Err(self.protocol(ProtocolFault::Early(None))),
        }
    }

    /// What the upstream has said before the final dot has left: a refusal,
    /// which is the outcome of the message, or nothing. Anything else is a
    /// fault. It waits only for the rest of what has begun to arrive.
    pub(super) async fn interruption(&mut self, phase: Phase) -> Result<Option<Reply>, UpstreamFault> {
        self.phase = phase;
        match timeout(REST, poll_fn(|cx| self.poll_interruption(cx))).await {
            Ok(interruption) => interruption,
            Err(_) => {
                let fault = self.protocol(ProtocolFault::Early(None));
                self.give_up(fault).map(|(_, reply)| Some(reply))
            }
        }
    }

    /// What the upstream said before it took no more of a message: a refusal
    /// explains the failure of the write, and goes before it.
    pub(super) async fn last_words(&mut self, failure: UpstreamFault) -> Result<Reply, UpstreamFault> {
        let said = match failure {
            // All that came during the write was read.
            UpstreamFault::TimedOut { .. } => self.give_up(failure.clone()),
            _ => self.reply(REST).await,
        };
        match said {
            Ok((_, reply)) => Ok(reply),
            Err(closing @ UpstreamFault::ServiceClosing { .. }) => Err(closing),
            Err(_) => Err(failure),
        }
    }

    /// Sends the final dot, and waits for the reply to it. What refuses the
    /// message before the dot has left is its outcome, too.
    pub(super) async fn complete(&mut self) -> Result<Reply, Incomplete> {
        // The stream knows only what the reactor has told it. Letting the
        // reactor have a turn shows us what came while the claims were written.
        tokio::task::yield_now().await;
        if let Some(refusal) = self.interruption(Phase::Completion).await.map_err(Incomplete::Unsent)? {
            return Ok(refusal);
        }
        let deadline = Instant::now() + self.timeouts.completion;
        let mut count = 0;
        let write = poll_fn(|cx| self.poll_write(cx, END_OF_DATA, &mut count));
        let written = tokio::time::timeout_at(deadline, write).await;
        match written.unwrap_or_else(|_| Err(self.timed_out(Phase::Completion))) {
            Ok(Written::All) => self.client.completed(),
            Ok(Written::Refused(reply)) => return Ok(reply),
            Err(failure) => {
                let incomplete = if count == 0 { Incomplete::Unsent } else { Incomplete::InDoubt };
                return self.last_words(failure).await.map_err(incomplete);
            }
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
                    if let refused @ Written::Refused(_) = ready!(self.poll_listen(cx))? {
                        return Poll::Ready(Ok(refused));
                    }
                }
            }
        }
    }

    /// Reads what comes during a blocked write, and keeps the replies.
    fn poll_listen(&mut self, cx: &mut Context<'_>) -> Poll<Result<Written, UpstreamFault>> {
        ready!(self.poll_feed(cx))?;
        while let Some((due, reply)) = self.client.next_reply().map_err(|fault| self.protocol(fault))? {
            if due == Due::Content {
                return Poll::Ready(Ok(Written::Refused(reply)));
            }
            self.waiting.push_back((due, reply));
        }
        Poll::Ready(Ok(Written::All))
    }

    fn poll_interruption(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reply>, UpstreamFault>> {
        loop {
            let fed = self.poll_feed(cx)?;
            if let Some((_, reply)) = self.client.next_reply().map_err(|fault| self.protocol(fault))? {
                return Poll::Ready(Ok(Some(reply)));
            }
            match fed {
                Poll::Ready(()) => {}
                Poll::Pending if self.is_quiet() && !self.holds_part() => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
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

    /// Reads once, straight into the machine. At the end of the stream a reply
    /// whose code has come is as good as whole.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFault>> {
        if let Some(fault) = &self.over {
            return Poll::Ready(Err(fault.clone()));
        }
        let mut buffer = ReadBuf::new(&mut self.input);
        let fault = match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => self.closed(None),
            Ok(()) => {
                self.client.feed(buffer.filled());
                return Poll::Ready(Ok(()));
            }
            Err(error) => self.closed(Some(&error)),
        };
        self.over = Some(fault.clone());
        Poll::Ready(if self.client.cut() { Ok(()) } else { Err(fault) })
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
