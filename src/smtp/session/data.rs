//! The part of the session in which message data comes in (RFC 5321 §4.1.1.4,
//! RFC 3030).

use super::terms::{Action, Delivery, Policy, Step};
use super::{Cause, Session, State};
use crate::smtp::data::{BareNewlines, Decoder, Framing};
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::Reply;

/// A message that is coming in.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) envelope: Envelope,
    decoder: Decoder,
    octets: u64,
    /// Decided already: what comes is thrown away, and this is the answer.
    refusal: Option<Reply>,
}

/// The octets of a BDAT that was out of place.
#[derive(Debug)]
pub(super) struct Discarding {
    left: u64,
    octets: u64,
    reply: Reply,
    cause: Cause,
}

impl Receiving {
    pub(super) fn new(envelope: Envelope, framing: Framing) -> Self {
        Self { envelope, decoder: Decoder::new(framing), octets: 0, refusal: None }
    }
}

impl<P: Policy> Session<P> {
    /// Octets of the message that is coming in, kept or thrown away. `None`
    /// while a command is due, or what comes is no message.
    pub fn octets(&self) -> Option<u64> {
        match &self.state {
            State::Data(receiving) | State::Chunk { receiving, .. } | State::BetweenChunks(receiving) => {
                Some(receiving.octets)
            }
            State::Discard(Discarding { octets, cause: Cause::Limit, .. }) => Some(*octets),
            _ => None,
        }
    }

    /// Whether the client seems to have ended its message by LF.LF, which is
    /// no end of data.
    pub fn ends_in_bare_lf(&self) -> bool {
        matches!(&self.state, State::Data(receiving) if receiving.decoder.ends_in_bare_lf())
    }

    /// Refuses the message that is coming in, because it has no room: the
    /// rest of it is thrown away, and the client receives the reply at its end.
    pub fn refuse_message(&mut self, reply: Reply) {
        if let State::Data(receiving) | State::Chunk { receiving, .. } | State::BetweenChunks(receiving) =
            &mut self.state
        {
            receiving.refusal.get_or_insert(reply);
        }
    }

    /// The end of the message that is coming in is not waited for. Where more
    /// came than may come the client receives that reply now, else `reply`.
    pub fn stop_receiving(&mut self, reply: Option<Reply>) {
        let too_big = self.octets().is_some_and(|octets| octets > self.settings.max_message_size);
        let reply = if too_big { Some(self.too_big()) } else { reply };
        if let State::Data(receiving) | State::Chunk { receiving, .. } | State::BetweenChunks(receiving) =
            &mut self.state
            && let Some(reply) = reply
        {
            let envelope = receiving.envelope.clone();
            self.refuse(&envelope, reply);
        }
    }

    pub(super) fn receive_data(
        &mut self,
        mut receiving: Receiving,
        input: &[u8],
        body: &mut Vec<u8>,
    ) -> (usize, Action) {
        let before = body.len();
        let (used, done) = receiving.decoder.push(input, body);
        self.account(&mut receiving, before, body);
        if done {
            return (used, self.end_of_data(receiving));
        }
        self.state = State::Data(receiving);
        (used, Action::Continue)
    }

    /// The octets of a BDAT follow whether it is in place or not, so one that
    /// is not has to be read all the same (RFC 3030 §2). A chunk that is too
    /// large by what it announces is not kept, but read like any other.
    pub(super) fn bdat(&mut self, octets: u64, last: bool, body: &mut Vec<u8>) -> Action {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::BetweenChunks(receiving) => self.chunk(receiving, octets, last, body),
            State::Mail(envelope) if !envelope.recipients.is_empty() => {
                match self.policy.check(Step::Data(&envelope)) {
                    Some(reply) => self.skip(octets, Cause::Client, reply),
                    None => self.chunk(Receiving::new(envelope, Framing::Chunks), octets, last, body),
                }
            }
            _ => {
                // More of a message that is refused is what a pipeline holds.
                let cause = if self.chunks_refused { Cause::Limit } else { Cause::Client };
                self.skip(octets, cause, Reply::new(503, "5.5.1 say MAIL and RCPT first"))
            }
        }
    }

    fn chunk(&mut self, mut receiving: Receiving, octets: u64, last: bool, body: &mut Vec<u8>) -> Action {
        if octets > self.settings.max_message_size.saturating_sub(receiving.octets) {
            receiving.refusal.get_or_insert_with(|| self.too_big());
        }
        self.receive_chunk(receiving, octets, last, &[], body).1
    }

    fn skip(&mut self, left: u64, cause: Cause, reply: Reply) -> Action {
        self.discard(Discarding { left, octets: 0, reply, cause }, &[]).1
    }

    pub(super) fn receive_chunk(
        &mut self,
        mut receiving: Receiving,
        left: u64,
        last: bool,
        input: &[u8],
        body: &mut Vec<u8>,
    ) -> (usize, Action) {
        let used = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let before = body.len();
        receiving.decoder.push(&input[..used], body);
        let left = left - used as u64;
        if left == 0 && last {
            receiving.decoder.finish(body);
        }
        self.account(&mut receiving, before, body);
        let action = match (left, last) {
            (0, true) => self.end_of_data(receiving),
            (0, false) => self.end_of_chunk(receiving),
            _ => {
                self.state = State::Chunk { receiving, left, last };
                Action::Continue
            }
        };
        (used, action)
    }

    pub(super) fn discard(&mut self, discarding: Discarding, input: &[u8]) -> (usize, Action) {
        let Discarding { left, octets, reply, cause } = discarding;
        let used = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let (left, octets) = (left - used as u64, octets + used as u64);
        if left > 0 {
            self.state = State::Discard(Discarding { left, octets, reply, cause });
            return (used, Action::Continue);
        }
        self.state = State::Ready;
        self.refusal(cause, reply);
        (used, self.go_on())
    }

    /// Counts what came; a message that is refused already leaves nothing.
    pub(super) fn account(&self, receiving: &mut Receiving, before: usize, body: &mut Vec<u8>) {
        receiving.octets += (body.len() - before) as u64;
        if receiving.octets > self.settings.max_message_size {
            receiving.refusal.get_or_insert_with(|| self.too_big());
        }
        if receiving.refusal.is_some() {
            body.clear();
        }
    }

    pub(super) fn end_of_chunk(&mut self, receiving: Receiving) -> Action {
        match receiving.refusal {
            Some(reply) => {
                self.refuse(&receiving.envelope, reply);
                self.chunks_refused = true;
            }
            None => {
                self.reply(Reply::new(250, "2.0.0 chunk received"));
                self.state = State::BetweenChunks(receiving);
            }
        }
        Action::Continue
    }

    pub(super) fn end_of_data(&mut self, receiving: Receiving) -> Action {
        let findings = receiving.decoder.findings();
        let Receiving { envelope, refusal, .. } = receiving;
        let refusal = refusal
            .or_else(|| findings.nul.then(|| Reply::new(554, "5.6.0 the message holds a NUL octet")))
            .or_else(|| {
                (findings.bare_newline && self.settings.bare_newlines == BareNewlines::Reject)
                    .then(|| Reply::new(550, "5.6.11 the message holds a bare CR or LF"))
            })
            .or_else(|| self.policy.check(Step::EndOfData(&envelope)));
        match refusal {
            Some(reply) => {
                self.refuse(&envelope, reply);
                Action::Continue
            }
            None => {
                self.state = State::Delivering;
                Action::Deliver(Box::new(Delivery { envelope, eight_bit: findings.eight_bit }))
            }
        }
    }

    /// Refuses a message after its data; the session goes on.
    pub(super) fn refuse(&mut self, envelope: &Envelope, reply: Reply) {
        for recipient in &envelope.recipients {
            self.reject(envelope, Some(recipient.path.as_str()), reply.clone());
        }
        self.reply(reply);
        self.state = State::Ready;
    }
}
