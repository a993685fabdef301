//! One mail transaction on one connection, up to the last octets
//! (RFC 5321 §3.3, RFC 2920).
//!
//! Content goes by DATA alone, and no octet of it before 354: an upstream that
//! refuses a chunk without reading it would take the text for commands. The
//! grant also shows that no line too many came before: behind such a line DATA
//! would get the reply to the last RCPT, which is never 354.

use std::io;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, Stream, Written};
use super::fault::{Phase, UpstreamFault};
use super::pool::COURTESY;
use crate::message::rendition::Rendition;
use crate::planted::{self, Bug};
use crate::smtp::client::{Due, MailContent};
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::{Class, Reply};
use crate::smtp::stuff::Stuffer;

/// How much of a message is gathered for one write. A message that fits goes
/// out in one.
const BLOCK: usize = 64 * 1024;

/// How a transaction stands when all but the last octets are done.
#[derive(Debug)]
pub(super) enum Standing {
    /// Nothing is left to send: one reply per recipient.
    Settled {
        replies: Vec<Reply>,
        /// Whether the connection is still of use, after RSET.
        keep: bool,
    },
    /// Only the final dot is missing.
    Ready {
        /// Per recipient: the refusal of its RCPT.
        rejected: Vec<Option<Reply>>,
        /// How long the content took.
        body: Duration,
    },
}

/// Why there is no standing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: UpstreamFault,
    /// Whether the upstream had answered anything in this transaction.
    pub(super) answered: bool,
}

impl Failure {
    /// Whether this may well be because the connection was kept too long, so
    /// that a fresh one is worth the try. Nothing is complete at the upstream.
    pub(super) fn is_of_old_age(&self) -> bool {
        match &self.fault {
            UpstreamFault::Closed { .. } => true,
            UpstreamFault::ServiceClosing { .. } | UpstreamFault::Protocol { .. } => !self.answered,
            UpstreamFault::Unwilling { at, .. } => at.phase == Phase::Reset,
            // The other end takes nothing any more. Where it takes commands and
            // is slow to answer, another connection would only add to its load.
            UpstreamFault::TimedOut { at } => matches!(at.phase, Phase::Envelope | Phase::Body),
            _ => false,
        }
    }
}

/// Does everything but the last octets. After a failure other than
/// [`UpstreamFault::NoSmtpUtf8`] the connection must be dropped.
pub(super) async fn prepare<S: Stream>(
    connection: &mut Connection<S>,
    envelope: &Envelope,
    content: &Rendition,
) -> Result<Standing, Failure> {
    let mut attempt = Attempt { connection, envelope, content, answers: Answers::default(), ended: false };
    match attempt.run().await {
        Ok(standing) => Ok(standing),
        Err(fault) => Err(Failure { fault, answered: attempt.answers.any }),
    }
}

/// Whether the message can only travel under SMTPUTF8 (RFC 6531 §3.5): the
/// client asked for it, and not without reason.
fn needs_smtputf8(envelope: &Envelope, content: &Rendition) -> bool {
    envelope.parameters.smtputf8
        && (content.is_eight_bit()
            || envelope.reverse_path.needs_smtputf8()
            || envelope.recipients.iter().any(|recipient| recipient.path.needs_smtputf8()))
}

struct Attempt<'a, S> {
    connection: &'a mut Connection<S>,
    envelope: &'a Envelope,
    content: &'a Rendition,
    answers: Answers,
    /// The connection has ended.
    ended: bool,
}

impl<S: Stream> Attempt<'_, S> {
    async fn run(&mut self) -> Result<Standing, UpstreamFault> {
        let offered = self.connection.client.capabilities();
        let pipelining = offered.pipelining;
        let smtputf8 = needs_smtputf8(self.envelope, self.content);
        if smtputf8 && !offered.smtputf8 {
            return Err(UpstreamFault::NoSmtpUtf8 { at: self.connection.at(Phase::Mail), elsewhere: false });
        }
        self.connection.check_quiet(Phase::Mail)?;
        if !pipelining {
            return self.one_by_one(smtputf8).await;
        }
        self.start(smtputf8);
        self.recipients(0..self.envelope.recipients.len());
        self.by_data().await
    }

    /// Without PIPELINING: each command waits for its reply, and nothing is
    /// asked for that can't matter any more.
    async fn one_by_one(&mut self, smtputf8: bool) -> Result<Standing, UpstreamFault> {
        if self.connection.dirty {
            self.connection.reset(self.connection.timeouts.greeting).await?;
        }
        self.start(smtputf8);
        self.exchange().await?;
        for index in 0..self.envelope.recipients.len() {
            if let Some(replies) = self.settled() {
                return self.nothing_left(replies).await;
            }
            self.recipients(index..index + 1);
            self.exchange().await?;
        }
        match self.settled() {
            Some(replies) => self.nothing_left(replies).await,
            None => self.by_data().await,
        }
    }

    /// MAIL, behind RSET where the last transaction was left half-way.
    fn start(&mut self, smtputf8: bool) {
        let Connection { client, output, dirty, .. } = &mut *self.connection;
        if std::mem::take(dirty) {
            client.reset(output);
        }
        let (size, eight_bit) = (self.content.len(), self.content.is_eight_bit());
        client.mail(self.envelope, MailContent { size, eight_bit, smtputf8 }, output);
    }

    fn recipients(&mut self, range: Range<usize>) {
        let Connection { client, output, .. } = &mut *self.connection;
        for index in range {
            client.recipient(index, &self.envelope.recipients[index], output);
        }
    }

    /// Sends what is waiting and DATA, and when that is granted, the content.
    async fn by_data(&mut self) -> Result<Standing, UpstreamFault> {
        let Connection { client, output, .. } = &mut *self.connection;
        client.data(output);
        if planted::is(Bug::ContentBeforeGrant) {
            self.send_content().await?;
        }
        self.exchange().await?;
        if let Some(replies) = self.settled() {
            return self.nothing_left(replies).await;
        }
        let started = Instant::now();
        let refusal = match self.send_content().await? {
            None => self.connection.interruption(Phase::Ready).await?,
            refusal => refusal,
        };
        let rejected = std::mem::take(&mut self.answers.recipients);
        if let Some(refusal) = refusal {
            let own = |rejected: Option<Reply>| rejected.unwrap_or_else(|| refusal.clone());
            return Ok(Standing::Settled { replies: rejected.into_iter().map(own).collect(), keep: false });
        }
        self.connection.dirty = rejected.iter().any(Option::is_some);
        Ok(Standing::Ready { rejected, body: started.elapsed() })
    }

    /// Sends the content. Ends early with the reply of an upstream that refuses
    /// it in the middle.
    async fn send_content(&mut self) -> Result<Option<Reply>, UpstreamFault> {
        let mut stuffer = Stuffer::new();
        let taken = self.answers.taken();
        let mut reader = self.content.reader(&taken);
        while let Some(block) = reader.next().await.map_err(|error| self.unreadable(&error))? {
            for piece in block.chunks(BLOCK) {
                if self.connection.output.len() >= BLOCK
                    && let Some(refusal) = self.flush_content().await?
                {
                    return Ok(Some(refusal));
                }
                stuffer.push(piece, &mut self.connection.output);
            }
        }
        self.flush_content().await
    }

    /// Writes what was gathered, unless the upstream has refused the message
    /// meanwhile.
    async fn flush_content(&mut self) -> Result<Option<Reply>, UpstreamFault> {
        if let Some(refusal) = self.connection.interruption(Phase::Body).await? {
            return Ok(Some(refusal));
        }
        match self.connection.flush(Phase::Body, self.connection.timeouts.block).await {
            Ok(Written::All) => Ok(None),
            Ok(Written::Refused(refusal)) => Ok(Some(refusal)),
            Err(failure) => self.connection.last_words(failure).await.map(Some),
        }
    }

    fn unreadable(&self, error: &io::Error) -> UpstreamFault {
        UpstreamFault::Unreadable { at: self.connection.at(Phase::Body), error: error.to_string() }
    }

    /// Sends the commands that are waiting, and reads every reply that is due.
    /// Where the connection ends meanwhile, what it had refused stays refused.
    async fn exchange(&mut self) -> Result<(), UpstreamFault> {
        let limit = self.connection.timeouts.envelope;
        let read = match self.connection.flush(Phase::Envelope, limit).await {
            Ok(_) => self.read_answers(None).await,
            Err(failure) => match self.read_answers(Some(COURTESY)).await {
                Err(fault) if !has_ended(&fault) => Err(fault),
                _ => Err(failure),
            },
        };
        self.ended = read.as_ref().is_err_and(has_ended);
        if self.ended && self.settled().is_some() { Ok(()) } else { read }
    }

    /// Reads every reply that is due, each within `limit` or within its own.
    async fn read_answers(&mut self, limit: Option<Duration>) -> Result<(), UpstreamFault> {
        let timeouts = self.connection.timeouts;
        while let Some(due) = self.connection.next_due() {
            let own = match due {
                Due::Mail | Due::Recipient(_) => timeouts.envelope,
                Due::Data => timeouts.data,
                _ => timeouts.greeting,
            };
            let (due, reply) = self.connection.reply(limit.unwrap_or(own)).await?;
            self.record(due, reply)?;
        }
        Ok(())
    }

    fn record(&mut self, due: Due, reply: Reply) -> Result<(), UpstreamFault> {
        let refusal = (!reply.is_success()).then(|| reply.clone());
        match due {
            Due::Mail => self.answers.mail = refusal,
            Due::Recipient(_) => self.answers.recipients.push(refusal),
            Due::Data if reply.class() == Class::Intermediate => self.answers.granted = true,
            Due::Data => self.answers.withheld = refusal,
            _ => {
                if let Some(reply) = refusal {
                    let at = self.connection.at(Phase::of(due));
                    return Err(UpstreamFault::Unwilling { at, reply });
                }
            }
        }
        self.answers.any = true;
        Ok(())
    }

    fn settled(&self) -> Option<Vec<Reply>> {
        self.answers.settled(self.envelope.recipients.len())
    }

    /// A connection that now waits for content is of no use: a final dot would
    /// complete a message that nobody is to get. Any other shows that its
    /// replies were those to its commands, or says nothing more.
    async fn nothing_left(&mut self, replies: Vec<Reply>) -> Result<Standing, UpstreamFault> {
        let mut keep = !self.answers.granted && !self.ended;
        if keep {
            keep = match self.connection.check_in_step(COURTESY).await {
                Err(fault) if !is_farewell(&fault) => return Err(fault),
                checked => checked.is_ok(),
            };
        }
        Ok(Standing::Settled { replies, keep })
    }
}

/// Whether the connection, or the time for it, is over.
fn has_ended(fault: &UpstreamFault) -> bool {
    matches!(fault, UpstreamFault::Closed { .. } | UpstreamFault::TimedOut { .. })
}

/// Whether an upstream that has refused everything may end so.
fn is_farewell(fault: &UpstreamFault) -> bool {
    has_ended(fault) || matches!(fault, UpstreamFault::ServiceClosing { .. })
}

/// The refusals so far.
#[derive(Debug, Default)]
struct Answers {
    /// The refusal of MAIL.
    mail: Option<Reply>,
    /// For each RCPT that was answered: its refusal.
    recipients: Vec<Option<Reply>>,
    /// The refusal of DATA.
    withheld: Option<Reply>,
    /// Whether DATA was granted.
    granted: bool,
    /// Whether there was any answer.
    any: bool,
}

impl Answers {
    /// The places of the recipients that the upstream has taken.
    fn taken(&self) -> Vec<usize> {
        let recipients = self.recipients.iter().enumerate();
        recipients.filter(|(_, refusal)| refusal.is_none()).map(|(index, _)| index).collect()
    }

    /// One refusal for each of `count` recipients, if there are as many. A
    /// refused MAIL goes before the refusals of RCPT, which only follow from
    /// it: a 503 there must not make a 450 permanent.
    fn settled(&self, count: usize) -> Option<Vec<Reply>> {
        if let Some(mail) = &self.mail {
            return Some(vec![mail.clone(); count]);
        }
        if self.recipients.len() < count {
            return None;
        }
        let refusal = |own: &Option<Reply>| own.as_ref().or(self.withheld.as_ref()).cloned();
        self.recipients.iter().map(refusal).collect()
    }
}
