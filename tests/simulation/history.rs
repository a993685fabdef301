//! What the world has seen: what clients handed over and heard, and what the
//! upstream was given and decided. Nothing of it is asked of mailonce.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::Names;
use super::forms::code_of;
use super::network::{ACCEPTER, Link, OPENER};
use super::plan::{ClientPlan, Operation};
use super::policy::Policy;
use super::time::Ms;
use super::without;

/// One try of a client at its message.
#[derive(Debug)]
pub struct Submission {
    pub client: usize,
    pub mail: ClientPlan,
    pub names: Names,
    pub process: usize,
    /// When the end of data was handed over.
    pub complete: Option<Ms>,
    /// When it heard the answer to that, or gave up.
    pub ended: Option<Ms>,
    pub answer: Option<Answer>,
    /// Whether it was certainly gone before its answer was written.
    pub left: bool,
    /// Whether something that the proxy wrote never reached it.
    pub unread: bool,
}

/// A reply that a client heard.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    /// Its lines, code and separator taken off.
    pub lines: Vec<String>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether the client is to try again.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    pub fn contains(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.contains(words))
    }
}

/// One mail transaction at the upstream.
#[derive(Debug)]
pub struct Transaction {
    /// The submission that it is of: its reverse-path says so.
    pub submission: usize,
    pub process: usize,
    pub link: Arc<Link>,
    pub begun: Ms,
    /// The recipients, and the code of the reply to each.
    pub recipients: Vec<(usize, u16)>,
    /// Set where nothing but the last octets is missing: so many lines had
    /// begun with a dot.
    pub granted: Option<usize>,
    /// When it decided on the message, and the code.
    pub decided: Option<(Ms, u16)>,
    /// The names that it came with.
    pub carried: Option<Names>,
    /// The transaction whose key this one has: it was delivered to nobody.
    pub repeats: Option<usize>,
    /// The latest reply that speaks of the whole message.
    pub reply: Option<Said>,
    /// How much the upstream had sent with the line that nobody had asked for.
    pub stray: Option<u64>,
    /// When the upstream was done with it.
    pub ended: Option<Ms>,
    /// When a client first heard the reply.
    pub told: Option<Ms>,
}

/// A reply on its way.
#[derive(Clone, Debug)]
pub struct Said {
    /// How much had been sent before it.
    pub from: u64,
    pub octets: Vec<u8>,
    /// Whether a connection that ends, or a line that does not, may be told in its place.
    pub may_pass_for_a_fault: bool,
}

/// What a proxy can know of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// There is no code, or more may come.
    Open,
    Code(u16),
    /// There will be no code.
    Nothing,
}

impl Transaction {
    /// When the message was delivered to this recipient.
    pub fn accepted(&self, recipient: usize) -> Option<Ms> {
        let (at, code) = self.decided?;
        (code / 100 == 2 && self.repeats.is_none() && self.takes(recipient)).then_some(at)
    }

    pub fn takes(&self, recipient: usize) -> bool {
        self.recipients.iter().any(|(to, code)| *to == recipient && code / 100 == 2)
    }

    pub fn names(&self, recipient: usize) -> bool {
        self.recipients.iter().any(|(to, _)| *to == recipient)
    }

    /// Whether both name the same, and take the same.
    pub fn is_to_the_same(&self, other: &Self) -> bool {
        let within = |one: &Self, other: &Self| {
            one.recipients.iter().all(|(to, _)| other.names(*to) && one.takes(*to) == other.takes(*to))
        };
        within(self, other) && within(other, self)
    }

    /// What the proxy can know of the upstream's reply by now.
    pub fn reading(&self) -> Reading {
        let Some(Said { from, octets, .. }) = &self.reply else { return Reading::Open };
        let taken = self.link.taken_of(ACCEPTER).saturating_sub(*from) as usize;
        let heard = &octets[..taken.min(octets.len())];
        match code_of(heard) {
            _ if heard.len() < octets.len() && (!self.link.is_over(ACCEPTER) || without("code")) => {
                Reading::Open
            }
            Some(code) => Reading::Code(code),
            None => Reading::Nothing,
        }
    }

    /// Whether the proxy knows what became of it.
    pub fn is_heard(&self) -> bool {
        matches!(self.reading(), Reading::Code(_))
    }

    /// Whether no code of the reply has reached the proxy, so far.
    pub fn is_unheard(&self) -> bool {
        let Some(Said { from, .. }) = &self.reply else { return true };
        self.link.taken_of(ACCEPTER) < from + 3 || self.reading() == Reading::Nothing
    }

    /// Whether the proxy has begun to send the last octets.
    pub fn is_completed(&self) -> bool {
        self.granted.is_some_and(|dots| self.link.dots_of(OPENER) > dots)
    }

    /// Whether a stray line came between the last octets and the reply: nothing
    /// tells it from the reply.
    pub fn is_poisoned(&self) -> bool {
        let taken = self.granted.and_then(|dots| self.link.taken_at_dot(OPENER, dots));
        taken.zip(self.stray).is_some_and(|(taken, stray)| stray > taken)
    }
}

/// What names a claim in the world: whose, and which e-mail.
pub type Event = (usize, usize);

impl ClientPlan {
    pub fn event(&self) -> Event {
        (self.tenant, self.key)
    }
}

/// What an operator has done to a claim.
#[derive(Clone, Debug)]
pub struct Operated {
    pub what: Operation,
    pub asked: Ms,
    /// When it was done; `None` as long as nobody has said so.
    pub done: Option<Ms>,
    /// Whether the store has refused it.
    pub undone: bool,
    /// The submission whose attempt the claim spoke of.
    pub submission: usize,
    /// `None` where the claim is for a whole message.
    pub to: Option<usize>,
}

#[derive(Debug, Default)]
pub struct History {
    pub submissions: Vec<Submission>,
    pub transactions: Vec<Transaction>,
    /// Which policy held from when on.
    pub policies: Vec<(Ms, Policy)>,
    pub operations: Vec<Operated>,
    /// When processes died, by their numbers.
    pub deaths: BTreeMap<usize, Ms>,
    /// When the store was opened.
    pub starts: Vec<Ms>,
    /// Whether the disk has failed, or made the store miss its deadline.
    pub disk_was_bad: bool,
    /// When the trouble ended.
    pub calm: Option<Ms>,
    /// The first thing that must not be.
    pub fault: Option<String>,
    /// What happened, for whoever replays it.
    pub trace: Vec<String>,
    pub hash: u64,
}

impl History {
    pub fn mail(&self, transaction: &Transaction) -> &ClientPlan {
        &self.submissions[transaction.submission].mail
    }

    /// The transactions about one e-mail.
    pub fn about(&self, event: Event) -> impl Iterator<Item = &Transaction> {
        self.transactions.iter().filter(move |transaction| self.mail(transaction).event() == event)
    }

    /// What was done to the claim of a recipient, or of the whole message.
    pub fn operated(&self, event: Event, to: usize) -> impl Iterator<Item = &Operated> {
        let concerns = move |operated: &&Operated| {
            !operated.undone
                && self.submissions[operated.submission].mail.event() == event
                && operated.to.is_none_or(|other| other == to)
        };
        self.operations.iter().filter(concerns)
    }

    /// Whether another text of this e-mail was ever submitted.
    pub fn has_texts(&self, mail: &ClientPlan) -> bool {
        self.submissions.iter().any(|one| one.mail.event() == mail.event() && one.mail.text != mail.text)
    }

    pub fn note(&mut self, now: Ms, keep: bool, what: &str) {
        // FNV-1a
        for byte in now.to_be_bytes().iter().chain(what.as_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if keep {
            self.trace.push(format!("{:>9.3} {what}", now as f64 / 1000.0));
        }
    }

    pub fn must_not_be(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}
