//! What the world has seen: what clients handed over and heard, and what the
//! upstream was given and decided. Nothing of it is asked of mailonce.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::network::{ACCEPTER, Link, OPENER};
use super::plan::ClientPlan;
use super::time::Ms;

/// One try of a client at its message.
#[derive(Debug)]
pub struct Submission {
    pub client: usize,
    pub mail: ClientPlan,
    pub process: usize,
    /// When the end of data was handed over.
    pub complete: Option<Ms>,
    /// When it heard the answer to that, or gave up.
    pub ended: Option<Ms>,
    pub answer: Option<Answer>,
}

/// A reply that a client heard.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    /// All its lines, code and separator taken off, joined by blanks.
    pub text: String,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether the client is to try again.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
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
    /// Set where nothing but the last octets is missing.
    pub granted: Option<Granted>,
    /// When it decided on the complete message, and the code.
    pub decided: Option<(Ms, u16)>,
    /// How much the upstream had sent with the last octet of the reply to that.
    pub replied: Option<u64>,
    /// When the upstream was done with it.
    pub ended: Option<Ms>,
    /// When a client first heard the reply.
    pub told: Option<Ms>,
}

/// How far the proxy's side was when nothing but the last octets was missing.
#[derive(Clone, Copy, Debug)]
pub enum Granted {
    /// After DATA: so many lines had begun with a dot.
    Data(u64),
    /// After BDAT: it had sent so much.
    Chunk(u64),
}

impl Transaction {
    /// Whether the message is complete and taken, also for this recipient.
    pub fn accepted(&self, recipient: usize) -> Option<Ms> {
        let (at, code) = self.decided?;
        (code / 100 == 2 && self.takes(recipient)).then_some(at)
    }

    pub fn takes(&self, recipient: usize) -> bool {
        self.recipients.iter().any(|(to, code)| *to == recipient && code / 100 == 2)
    }

    /// Whether the proxy has taken the whole of the reply.
    pub fn is_heard(&self) -> bool {
        self.replied.is_some_and(|replied| self.link.taken_of(ACCEPTER) >= replied)
    }

    /// Whether the proxy has begun to send the last octets.
    pub fn is_completed(&self) -> bool {
        match self.granted {
            None => false,
            Some(Granted::Data(dots)) => self.link.dots_of(OPENER) > dots,
            Some(Granted::Chunk(sent)) => self.link.sent_by(OPENER) > sent,
        }
    }
}

/// What names a claim in the world: whose, and which e-mail.
pub type Event = (usize, usize);

impl ClientPlan {
    pub fn event(&self) -> Event {
        (self.tenant, self.key)
    }
}

#[derive(Debug, Default)]
pub struct History {
    pub submissions: Vec<Submission>,
    pub transactions: Vec<Transaction>,
    /// When processes died, by their numbers.
    pub deaths: BTreeMap<usize, Ms>,
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
