//! The thread that owns the ledger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::syncer::Syncer;
use super::{Answer, Poison};
use crate::clock::Timestamp;
use crate::store::ledger::{Backend, Ledger};
use crate::store::{ClaimId, ClaimRequest, Claimed, Query, Record, Settlement, StoreFault, Token};

/// One call of the store, with where its answer goes.
pub(super) enum Request {
    Claim(ClaimRequest, Answer<Vec<Claimed>>),
    Commit {
        token: Token,
        ids: Vec<ClaimId>,
        at: Timestamp,
        answer: Answer<()>,
    },
    Settle {
        token: Token,
        at: Timestamp,
        settlements: Vec<Settlement>,
        /// Nobody waits for one that need only be durable soon.
        answer: Option<Answer<()>>,
    },
    Release {
        token: Token,
        ids: Vec<ClaimId>,
        answer: Answer<()>,
    },
    Get {
        id: ClaimId,
        now: Timestamp,
        answer: Answer<Option<Record>>,
    },
    List {
        query: Query,
        now: Timestamp,
        answer: Answer<(Vec<Record>, Option<ClaimId>)>,
    },
    Sweep {
        now: Timestamp,
        most: usize,
        answer: Answer<usize>,
    },
    Close(Answer<()>),
}

pub(super) struct Writer<B> {
    ledger: Ledger<B>,
    syncer: Syncer,
    poison: Arc<Poison>,
}

impl<B: Backend> Writer<B> {
    pub(super) fn new(ledger: Ledger<B>, syncer: Syncer, poison: Arc<Poison>) -> Self {
        Self { ledger, syncer, poison }
    }

    /// Until closed, or until nobody is left who could call.
    pub(super) fn run(mut self, inbox: &Receiver<Request>) {
        let closing = catch_unwind(AssertUnwindSafe(|| self.serve(inbox))).unwrap_or_else(|_| {
            self.poison
                .set("the claim store's writer thread panicked; restart mailonce and report this".into());
            None
        });
        if !self.syncer.stop() {
            self.poison
                .set("the claim store's syncer thread panicked; restart mailonce and report this".into());
        }
        // The files are let go of before the closing is acknowledged, so that
        // whoever waited for it may open them again.
        drop(self.ledger);
        if let Some(answer) = closing {
            let _ = answer.send(self.poison.check());
        }
    }

    fn serve(&mut self, inbox: &Receiver<Request>) -> Option<Answer<()>> {
        for request in inbox {
            match request {
                Request::Close(answer) => return Some(answer),
                request => self.handle(request),
            }
        }
        None
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Claim(request, answer) => self.claim(&request, answer),
            Request::Commit { token, ids, at, answer } => {
                let done = self.sound().and_then(|ledger| ledger.commit(token, &ids, at));
                self.finish(done, answer);
            }
            Request::Settle { token, at, settlements, answer } => {
                let done = self.sound().and_then(|ledger| ledger.settle(token, at, &settlements));
                match (answer, done) {
                    (Some(answer), done) => self.finish(done, answer),
                    (None, Ok(())) => self.syncer.written(),
                    (None, Err(fault)) => tracing::warn!(%fault, "an outcome was not written"),
                }
            }
            Request::Release { token, ids, answer } => {
                let done = self.sound().map(|ledger| ledger.release(token, &ids));
                let _ = answer.send(done);
            }
            Request::Get { id, now, answer } => {
                let _ = answer.send(self.sound().and_then(|ledger| ledger.get(&id, now)));
            }
            Request::List { query, now, answer } => {
                let _ = answer.send(self.sound().and_then(|ledger| ledger.list(&query, now)));
            }
            Request::Sweep { now, most, answer } => {
                let swept = self.sound().and_then(|ledger| ledger.sweep(now, most));
                if !matches!(swept, Ok(0)) {
                    self.syncer.written();
                }
                let _ = answer.send(swept);
            }
            Request::Close(_) => {}
        }
    }

    /// The ledger, unless the store has failed.
    fn sound(&mut self) -> Result<&mut Ledger<B>, StoreFault> {
        self.poison.check()?;
        Ok(&mut self.ledger)
    }

    fn claim(&mut self, request: &ClaimRequest, answer: Answer<Vec<Claimed>>) {
        let claimed = self.sound().and_then(|ledger| ledger.claim(request));
        let all_new = |claimed: &Vec<Claimed>| claimed.iter().all(|c| matches!(c, Claimed::New { .. }));
        if !claimed.as_ref().is_ok_and(all_new) {
            // Duplicates were counted in their records.
            self.syncer.written();
        }
        if answer.send(claimed).is_err() {
            // Nobody would ever settle these.
            let ids: Vec<ClaimId> = request.slots.iter().map(|slot| slot.id).collect();
            self.ledger.release(request.token, &ids);
        }
    }

    /// Acknowledges a write once it is durable.
    fn finish(&mut self, done: Result<(), StoreFault>, answer: Answer<()>) {
        if done.is_err() {
            let _ = answer.send(done);
        } else if !self.syncer.acknowledge(answer) {
            self.poison.set("the claim store's syncer thread ended; restart mailonce and report this".into());
        }
    }
}
