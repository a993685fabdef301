//! The part of the session in which message data comes in (RFC 5321 §4.1.1.4,
//! RFC 3030).

use super::terms::{Action, Delivery, Policy, Step};
use super::{Receiving, Session, State};
use crate::smtp::data::{BareNewlines, Framing};
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::Reply;

impl<P: Policy> Session<P> {
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
    /// is not has to be read all the same (RFC 3030 §2).
    pub(super) fn bdat(&mut self, octets: u64, last: bool, body: &mut Vec<u8>) -> Action {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::BetweenChunks(receiving) => self.receive_chunk(receiving, octets, last, &[], body).1,
            State::Mail(envelope) if !envelope.recipients.is_empty() => {
                match self.policy.check(Step::Data(&envelope)) {
                    Some(reply) => self.discard(octets, reply, &[]).1,
                    None => {
                        let receiving = Receiving::new(envelope, Framing::Chunks);
                        self.receive_chunk(receiving, octets, last, &[], body).1
                    }
                }
            }
            _ => self.discard(octets, Reply::new(503, "5.5.1 say MAIL and RCPT first"), &[]).1,
        }
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

    pub(super) fn discard(&mut self, left: u64, reply: Reply, input: &[u8]) -> (usize, Action) {
        let used = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let left = left - used as u64;
        if left > 0 {
            self.state = State::Discard { left, reply };
            return (used, Action::Continue);
        }
        self.state = State::Ready;
        self.fault(reply);
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
            Some(reply) => self.refuse(&receiving.envelope, reply),
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
