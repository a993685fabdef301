//! One mail transaction on one connection, up to the last octets
//! (RFC 5321 §3.3, RFC 2920, RFC 3030).

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, Stream, Written};
use super::fault::{Phase, UpstreamFault};
use crate::config::UpstreamTimeouts;
use crate::message::rendition::Rendition;
use crate::smtp::client::{Due, END_OF_DATA, LAST_CHUNK, MailContent, ProtocolFault};
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
    /// Only `ending` is missing.
    Ready {
        /// Per recipient: the refusal of its RCPT.
        rejected: Vec<Option<Reply>>,
        ending: &'static [u8],
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
    let mut attempt =
        Attempt { connection, envelope, content, answers: Answers::default(), body: Duration::ZERO };
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
    /// How long the content took.
    body: Duration,
}

impl<S: Stream> Attempt<'_, S> {
    async fn run(&mut self) -> Result<Standing, UpstreamFault> {
        let offered = self.connection.client.capabilities();
        let (pipelining, chunking) = (offered.pipelining, offered.chunking);
        let smtputf8 = needs_smtputf8(self.envelope, self.content);
        if smtputf8 && !offered.smtputf8 {
            return Err(UpstreamFault::NoSmtpUtf8 { at: self.connection.at(Phase::Mail) });
        }
        if !pipelining {
            return self.one_by_one(smtputf8).await;
        }
        self.start(smtputf8);
        self.recipients(0..self.envelope.recipients.len());
        if chunking { self.by_chunk().await } else { self.by_data().await }
    }

    /// Without PIPELINING: each command waits for its reply, and nothing is
    /// asked for that can't matter any more.
    async fn one_by_one(&mut self, smtputf8: bool) -> Result<Standing, UpstreamFault> {
        let UpstreamTimeouts { greeting, envelope: limit, .. } = self.connection.timeouts;
        if self.connection.dirty {
            self.connection.reset(greeting).await?;
        }
        self.start(smtputf8);
        self.connection.flush(Phase::Envelope, limit).await?;
        self.read_answers().await?;
        for index in 0..self.envelope.recipients.len() {
            if let Some(replies) = self.settled() {
                return Ok(self.nothing_left(replies));
            }
            self.recipients(index..index + 1);
            self.connection.flush(Phase::Envelope, limit).await?;
            self.read_answers().await?;
        }
        match self.settled() {
            Some(replies) => Ok(self.nothing_left(replies)),
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
        let limit = self.connection.timeouts.envelope;
        let Connection { client, output, .. } = &mut *self.connection;
        client.data(output);
        self.connection.flush(Phase::Envelope, limit).await?;
        self.read_answers().await?;
        if let Some(replies) = self.settled() {
            return Ok(self.nothing_left(replies));
        }
        self.send_content(Some(Stuffer::new())).await?;
        self.ready(END_OF_DATA)
    }

    /// Sends what is waiting, BDAT and the content in one go, and reads all
    /// replies afterwards.
    async fn by_chunk(&mut self) -> Result<Standing, UpstreamFault> {
        if !self.content.is_empty() {
            let Connection { client, output, .. } = &mut *self.connection;
            client.chunk(self.content.len(), output);
        }
        if let Some(replies) = self.send_content(None).await? {
            // The chunk is incomplete: nothing else can go over this connection.
            return Ok(Standing::Settled { replies, keep: false });
        }
        self.read_answers().await?;
        match self.settled() {
            Some(replies) => Ok(self.nothing_left(replies)),
            None => self.ready(LAST_CHUNK),
        }
    }

    /// Sends the content, together with the commands that are waiting. Ends
    /// early, with one reply per recipient, when the upstream has refused it
    /// before it had all of it.
    async fn send_content(&mut self, stuffer: Option<Stuffer>) -> Result<Option<Vec<Reply>>, UpstreamFault> {
        let started = Instant::now();
        let sent = self.send_blocks(stuffer).await;
        self.body = started.elapsed();
        sent
    }

    async fn send_blocks(
        &mut self,
        mut stuffer: Option<Stuffer>,
    ) -> Result<Option<Vec<Reply>>, UpstreamFault> {
        let limit = self.connection.timeouts.block;
        let mut reader = self.content.reader();
        let mut under_way = false;
        loop {
            let block = match reader.next().await {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(error) => {
                    let at = self.connection.at(Phase::Body);
                    return Err(UpstreamFault::Unreadable { at, error: error.to_string() });
                }
            };
            for piece in block.chunks(BLOCK) {
                if self.connection.output.len() >= BLOCK {
                    if under_way && let Some(replies) = self.refused_meanwhile()? {
                        return Ok(Some(replies));
                    }
                    under_way = true;
                    if let Some(replies) = self.flush_content(limit).await? {
                        return Ok(Some(replies));
                    }
                }
                match &mut stuffer {
                    Some(stuffer) => stuffer.push(piece, &mut self.connection.output),
                    None => self.connection.output.extend_from_slice(piece),
                }
            }
        }
        self.flush_content(limit).await
    }

    /// Writes what was gathered. A refusal that explains why it could not be
    /// written goes before the failure of the write.
    async fn flush_content(&mut self, limit: Duration) -> Result<Option<Vec<Reply>>, UpstreamFault> {
        let failure = match self.connection.flush(Phase::Body, limit).await {
            Ok(Written::All) => return Ok(None),
            Ok(Written::Refused) => {
                let at = self.connection.at(Phase::Body);
                UpstreamFault::protocol(at, ProtocolFault::Early(None))
            }
            Err(fault) => fault,
        };
        match self.refused_meanwhile() {
            Ok(Some(replies)) => Ok(Some(replies)),
            _ => Err(failure),
        }
    }

    /// Looks for replies while a part of the content is still unsent. An
    /// upstream that has refused everything may well close behind that.
    fn refused_meanwhile(&mut self) -> Result<Option<Vec<Reply>>, UpstreamFault> {
        let heard = self.connection.listen();
        while let Some((due, reply)) = self.connection.take_waiting() {
            self.record(due, reply)?;
        }
        match self.settled() {
            None => heard.map(|()| None),
            replies => Ok(replies),
        }
    }

    /// Reads every reply that is due.
    async fn read_answers(&mut self) -> Result<(), UpstreamFault> {
        let timeouts = self.connection.timeouts;
        while let Some(due) = self.connection.next_due() {
            let limit = match due {
                Due::Mail | Due::Recipient(_) => timeouts.envelope,
                Due::Data => timeouts.data,
                // It may come only when the whole chunk was read.
                Due::Chunk => timeouts.block,
                _ => timeouts.greeting,
            };
            let (due, reply) = self.connection.reply(limit).await?;
            self.record(due, reply)?;
        }
        Ok(())
    }

    fn record(&mut self, due: Due, reply: Reply) -> Result<(), UpstreamFault> {
        let refusal = (!reply.is_success()).then(|| reply.clone());
        match due {
            Due::Mail => self.answers.mail = refusal,
            Due::Recipient(_) => self.answers.recipients.push(refusal),
            Due::Data | Due::Chunk if matches!(reply.class(), Class::Success | Class::Intermediate) => {
                self.answers.granted = true
            }
            Due::Data | Due::Chunk => self.answers.withheld = refusal,
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
    /// complete a message that nobody is to get.
    fn nothing_left(&mut self, replies: Vec<Reply>) -> Standing {
        self.connection.dirty = true;
        Standing::Settled { replies, keep: !self.answers.granted }
    }

    fn ready(&mut self, ending: &'static [u8]) -> Result<Standing, UpstreamFault> {
        self.connection.check_quiet(Phase::Ready)?;
        let rejected = std::mem::take(&mut self.answers.recipients);
        self.connection.dirty = rejected.iter().any(Option::is_some);
        Ok(Standing::Ready { rejected, ending, body: self.body })
    }
}

/// The refusals so far.
#[derive(Debug, Default)]
struct Answers {
    /// The refusal of MAIL.
    mail: Option<Reply>,
    /// For each RCPT that was answered: its refusal.
    recipients: Vec<Option<Reply>>,
    /// The refusal of DATA or BDAT.
    withheld: Option<Reply>,
    /// Whether DATA or BDAT was answered with yes.
    granted: bool,
    /// Whether there was any answer.
    any: bool,
}

impl Answers {
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
