//! What is said outside of a mail transaction: greeting, EHLO, STARTTLS, RSET
//! and QUIT.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::timeout;

use super::{Connection, Stream};
use crate::smtp::reply::{Class, Reply};
use crate::upstream::fault::{Phase, UpstreamFault};

impl<S: Stream> Connection<S> {
    /// Waits for the greeting and introduces us.
    pub(in crate::upstream) async fn hello(&mut self, hostname: &str) -> Result<(), UpstreamFault> {
        let (_, greeting) = self.reply(self.timeouts.greeting).await?;
        self.willing(Phase::Greeting, greeting)?;
        self.introduce(hostname).await
    }

    /// EHLO, and HELO where that is refused for good (RFC 5321 §3.2).
    pub(in crate::upstream) async fn introduce(&mut self, hostname: &str) -> Result<(), UpstreamFault> {
        let limit = self.timeouts.greeting;
        self.client.ehlo(hostname, &mut self.output);
        let refusal = self.ask(Phase::Hello, limit).await?;
        if refusal.class() != Class::Permanent {
            return self.willing(Phase::Hello, refusal);
        }
        self.client.helo(hostname, &mut self.output);
        match self.ask(Phase::Hello, limit).await {
            // It refused EHLO and left: the refusal is the reason.
            Err(UpstreamFault::Closed { .. }) => self.willing(Phase::Hello, refusal),
            answer => self.willing(Phase::Hello, answer?),
        }
    }

    /// Writes the command in `output`, and waits for its reply.
    async fn ask(&mut self, phase: Phase, limit: Duration) -> Result<Reply, UpstreamFault> {
        self.flush(phase, limit).await?;
        self.reply(limit).await.map(|(_, reply)| reply)
    }

    /// STARTTLS, and the bare stream when it is granted: the handshake is next.
    /// Octets behind the grant came in clear, from whomever; they are a fault,
    /// and what was read so far ends here (RFC 3207 §4.2, §6).
    pub(in crate::upstream) async fn start_tls(mut self) -> Result<S, UpstreamFault> {
        let limit = self.timeouts.greeting;
        self.client.starttls(&mut self.output);
        let reply = self.ask(Phase::Tls, limit).await?;
        self.willing(Phase::Tls, reply)?;
        self.check_quiet(Phase::Tls)?;
        Ok(self.stream)
    }

    /// One RSET and its reply within `limit`.
    pub(in crate::upstream) async fn reset(&mut self, limit: Duration) -> Result<(), UpstreamFault> {
        self.client.reset(&mut self.output);
        let reply = self.ask(Phase::Reset, limit).await?;
        self.willing(Phase::Reset, reply)?;
        self.dirty = false;
        Ok(())
    }

    /// RSET, to see that each reply so far answered its own command. A line too
    /// many among them would have shifted the others by one, and one of them
    /// would be left for RSET, or behind its reply.
    pub(in crate::upstream) async fn check_in_step(&mut self, limit: Duration) -> Result<(), UpstreamFault> {
        self.check_quiet(Phase::Reset)?;
        self.reset(limit).await?;
        self.check_quiet(Phase::Reset)
    }

    /// Says QUIT, waits for its reply, and takes leave of TLS, at most `limit`
    /// for all of it.
    pub(in crate::upstream) async fn quit(mut self, limit: Duration) {
        self.client.quit(&mut self.output);
        let _ = timeout(limit, async {
            self.ask(Phase::Quit, limit).await?;
            // What follows no reply may as well be missing.
            let _ = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
            Ok::<(), UpstreamFault>(())
        })
        .await;
    }

    /// Says QUIT if that can be done at once, and closes.
    pub(in crate::upstream) fn dismiss(mut self) {
        self.client.quit(&mut self.output);
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.stream).poll_write(&mut cx, &self.output);
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
    }

    /// A reply that refuses is a fault.
    pub(in crate::upstream) fn willing(&self, phase: Phase, reply: Reply) -> Result<(), UpstreamFault> {
        if reply.is_success() {
            return Ok(());
        }
        Err(UpstreamFault::Unwilling { at: self.at(phase), reply })
    }
}
