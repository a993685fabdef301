//! The end of a connection: why it comes, and what the client receives last.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{COMMAND_BLOCK, Connection};
use crate::net::wire::Wire;
use crate::smtp::reply::Reply;

/// How long, and for how many octets, a client whose session was ended for it
/// may go on sending. Octets that are never read would reset the connection,
/// and the client would lose the reply.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_OCTETS: usize = 1024 * 1024;

/// Why a connection ends before QUIT.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The client sends no more; whether it still reads, the connection can't tell.
    Finished,
    /// It broke.
    Gone,
    /// The client was too slow: `421 4.4.2`.
    TimedOut,
    /// The client has ended a message by LF.LF and waits: `550 5.6.11`.
    NoEndOfData,
    /// We are closing: `421 4.3.2`.
    Closing,
    /// A reload has put another upstream in the place of the one that let the
    /// client in, and it must show the new one that it may: `421 4.7.0`.
    Replaced,
}

impl Connection {
    /// Says good-bye where there is somebody to receive it.
    pub(super) async fn end(&mut self, end: Result<(), End>) {
        let may_be_sending = match end {
            Ok(()) => !self.session.has_quit(),
            Err(_) => self.session.octets().is_some(),
        };
        match end {
            Err(End::NoEndOfData) => {
                let text = "5.6.11 this message ends in LF.LF; CRLF.CRLF, the end of data, never came";
                self.session.stop_receiving(Some(Reply::new(550, text)));
            }
            Err(End::TimedOut) => self.session.stop_receiving(None),
            _ => {}
        }
        self.note_rejections();
        if let Some(envelope) = self.session.receiving() {
            self.shared.heart.aborted(&self.source, envelope, self.spool.len());
        }
        match end {
            Err(End::Finished | End::Gone) => {
                if self.receipts.are_unconfirmed() {
                    self.shut_down().await;
                }
                return;
            }
            Err(End::NoEndOfData) => {}
            Err(End::TimedOut) => self.session.end(Reply::new(421, "4.4.2 timed out waiting for you")),
            Err(End::Replaced) => {
                self.session
                    .end(Reply::new(421, "4.7.0 the upstream that let you in was replaced, connect again"));
            }
            Err(End::Closing) => self.session.end(Reply::new(421, "4.3.2 shutting down, try again")),
            Ok(()) => {}
        }
        if self.early && !self.session.has_quit() {
            self.note_early_talk();
        }
        let _ = self.flush().await;
        if may_be_sending {
            self.part().await;
        } else if self.receipts.are_unconfirmed() || matches!(self.wire, Wire::Encrypted(_)) {
            self.shut_down().await;
        }
    }

    /// Ends our side. The client learns that nobody cut the end off, and need not
    /// wait until it is known whether it received its reply.
    async fn shut_down(&mut self) {
        let deadline = Instant::now() + self.limits.command_timeout;
        if let Ok(Err(_)) = timeout_at(deadline, self.wire.shutdown()).await {
            // The reset was there first, and this has taken it away.
            self.receipts.written(false);
        }
        self.receipts.confirm(&mut self.wire).await;
    }

    fn note_early_talk(&self) {
        if let Some(times) = self.shared.gate.talked_early.count() {
            let (client, listener) = (self.source.client, &*self.source.listener);
            tracing::warn!(%client, listener, times, "the client talked before the greeting");
        }
    }

    /// Ends our side, and reads what the client still sends, so that the last
    /// reply reaches it.
    async fn part(&mut self) {
        let wire = &mut self.wire;
        let mut scrap = vec![0; COMMAND_BLOCK];
        let parting = async {
            wire.shutdown().await?;
            let mut octets = 0;
            while octets < FAREWELL_OCTETS {
                match wire.read(&mut scrap).await? {
                    0 => break,
                    read => octets += read,
                }
            }
            std::io::Result::Ok(())
        };
        // Whether it arrives is the client's affair.
        if let Ok(Err(_)) = timeout_at(Instant::now() + FAREWELL, parting).await {
            self.receipts.written(false);
        }
        self.receipts.confirm(&mut self.wire).await;
    }
}
