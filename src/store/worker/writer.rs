//! The thread that owns the ledger and waits for the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbox::Inbox;
use super::{Answer, Poison, Room};
use crate::clock::Timestamp;
use crate::store::ledger::{Backend, Ledger, Progress};
use crate::store::{
    Census, Change, ClaimId, ClaimRequest, Claimed, Commit, Count, Heard, Imported, Query, Record,
    Resolution, Settlement, StoreFault, Token,
};

/// One call of the store, with where its answer goes.
pub(super) enum Request {
    Claim(ClaimRequest, Answer<Vec<Claimed>>),
    Commit {
        token: Token,
        commits: Vec<Commit>,
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
    /// No caller waits for it.
    NoteHeard(Vec<Heard>, Timestamp),
    Release {
        token: Token,
        ids: Vec<ClaimId>,
        answer: Answer<()>,
    },
    Ready(Answer<()>),
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
    Forget {
        id: ClaimId,
        at: Timestamp,
        answer: Answer<Change>,
    },
    Resolve {
        id: ClaimId,
        as_: Resolution,
        at: Timestamp,
        answer: Answer<Change>,
    },
    Import {
        records: Vec<Record>,
        now: Timestamp,
        answer: Answer<Imported>,
    },
    Count {
        deltas: Vec<Count>,
        answer: Answer<()>,
    },
    /// The next piece of the counts.
    Counts {
        since: Timestamp,
        after: Option<Count>,
        answer: Answer<Vec<Count>>,
    },
    Census(Answer<Census>),
    Sweep {
        now: Timestamp,
        most: usize,
        answer: Answer<usize>,
    },
    Close(Answer<()>),
}

/// How long something written may stay off the disk while nobody waits for it.
const IDLE: Duration = Duration::from_millis(100);

/// Records that are counted at once after an opening: a claim that comes
/// meanwhile waits for one such slice, a millisecond at most.
const SLICE: usize = 128;

/// Entries that are copied at once, where that does not take too long before.
const COPIED: usize = 1024;

/// Between two slices, so that they take a part of a processor only.
const BREATHER: Duration = Duration::from_millis(2);

/// Counts that are read in one piece.
pub(super) const COUNTS: usize = 1000;

pub(super) struct Writer<B> {
    ledger: Ledger<B>,
    inbox: Arc<Inbox>,
    poison: Arc<Poison>,
    room: Room,
    /// Those whose writes are not durable yet, and what they hear when they are.
    waiting: Vec<(Answer<()>, Result<(), StoreFault>)>,
    /// Since when something is written that is not durable yet.
    dirty_since: Option<Instant>,
    tending: Tending,
}

/// The census of what an opening found, and behind it compactions.
#[derive(Clone, Copy)]
enum Tending {
    /// The next slice is due then.
    Due(Instant),
    /// There is nothing to do until more was written.
    Idle,
    /// Something can't be read.
    Failed,
}

impl<B: Backend> Writer<B> {
    pub(super) fn new(ledger: Ledger<B>, inbox: Arc<Inbox>, poison: Arc<Poison>, room: Room) -> Self {
        Self {
            ledger,
            inbox,
            poison,
            room,
            waiting: Vec::new(),
            dirty_since: None,
            tending: Tending::Due(Instant::now()),
        }
    }

    /// Until closed, or until nobody is left who could call.
    pub(super) fn run(mut self) {
        let closing = catch_unwind(AssertUnwindSafe(|| self.serve())).unwrap_or_else(|_| {
            self.poison
                .set("the claim store's writer thread panicked; restart mailonce and report this".into());
            None
        });
        self.inbox.close();
        // The files are let go of before the closing is acknowledged, so that
        // whoever waited for it may open them again.
        drop(self.ledger);
        if let Some(answer) = closing {
            let _ = answer.send(self.poison.check());
        }
    }

    /// Carries out all that is there, then waits for the disk once on behalf
    /// of all who have to.
    fn serve(&mut self) -> Option<Answer<()>> {
        let mut requests = Vec::new();
        let mut closing = None;
        while closing.is_none() && self.inbox.wait(self.next_duty(), &mut requests) {
            closing = self.carry_out(&mut requests);
            let due = self.dirty_since.is_some_and(|since| since.elapsed() >= IDLE);
            if due {
                // Whoever waited has heard of a fault.
                let _ = self.checkpoint();
            } else if !self.waiting.is_empty() {
                self.sync();
            }
            if matches!(self.tending, Tending::Due(at) if at <= Instant::now()) {
                self.tend();
            }
        }
        let _ = self.checkpoint();
        closing
    }

    /// When there is something to do though nobody asks.
    fn next_duty(&self) -> Option<Instant> {
        let flush = self.dirty_since.map(|since| since + IDLE);
        let slice = match self.tending {
            Tending::Due(at) => Some(at),
            Tending::Idle | Tending::Failed => None,
        };
        flush.into_iter().chain(slice).min()
    }

    fn tend(&mut self) {
        if !self.ledger.backend().is_indexed() {
            self.written();
        }
        let spare = self.room.spare();
        let done = self.sound().and_then(|ledger| match ledger.count_some(SLICE)? {
            Progress::Complete => ledger.compact(spare, COPIED),
            Progress::Unfinished => Ok(Progress::Unfinished),
        });
        self.tending = match done {
            Ok(Progress::Unfinished) => Tending::Due(Instant::now() + BREATHER),
            Ok(Progress::Complete) => Tending::Idle,
            Err(fault) => {
                tracing::warn!(%fault, "the claims can't be counted any further");
                Tending::Failed
            }
        };
    }

    /// Stops at the wish to close; what is behind it goes unanswered.
    fn carry_out(&mut self, requests: &mut Vec<Request>) -> Option<Answer<()>> {
        for request in requests.drain(..) {
            match request {
                Request::Close(answer) => return Some(answer),
                request => self.handle(request),
            }
        }
        None
    }

    fn sync(&mut self) {
        let result = self.sound().and_then(Ledger::sync);
        self.acknowledge(&result);
    }

    /// Also for what nobody waits for.
    fn checkpoint(&mut self) -> Result<(), StoreFault> {
        self.dirty_since = None;
        let result = self.sound().and_then(Ledger::checkpoint);
        self.acknowledge(&result);
        if matches!(self.tending, Tending::Idle) {
            self.tending = Tending::Due(Instant::now());
        }
        result
    }

    /// Answers when what was done is on stable storage, whatever that takes:
    /// operators do it now and then.
    fn make_lasting<T>(&mut self, done: Result<T, StoreFault>, answer: Answer<T>) {
        // Some may be written though not all could be.
        self.written();
        let lasting = done.and_then(|value| self.checkpoint().map(|()| value));
        let _ = answer.send(lasting);
    }

    /// A failed sync is final: the kernel may have thrown the unwritten pages
    /// away, and a second try that succeeds would prove nothing.
    fn acknowledge(&mut self, result: &Result<(), StoreFault>) {
        if let (Err(StoreFault::Failed(why)), Ok(())) = (result, self.poison.check()) {
            self.poison.set(why.clone());
        }
        for (answer, done) in self.waiting.drain(..) {
            let _ = answer.send(result.clone().and(done));
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Claim(request, answer) => self.claim(&request, answer),
            Request::Commit { token, commits, at, answer } => {
                match self.sound().and_then(|ledger| ledger.commit(token, &commits, at)) {
                    Ok(()) => self.waiting.push((answer, Ok(()))),
                    Err(fault) => drop(answer.send(Err(fault))),
                }
            }
            Request::Settle { token, at, settlements, answer } => {
                self.settle(token, at, &settlements, answer);
            }
            Request::NoteHeard(notes, now) => {
                if let Err(fault) = self.sound().and_then(|ledger| ledger.note_heard(&notes, now)) {
                    tracing::warn!(%fault, "what a client received was not noted");
                }
                self.written();
            }
            Request::Release { token, ids, answer } => {
                let done = self.sound().map(|ledger| ledger.release(token, &ids));
                let _ = answer.send(done);
            }
            Request::Ready(answer) => {
                let _ = answer.send(self.roomy().map(|_| ()));
            }
            Request::Get { id, now, answer } => {
                let _ = answer.send(self.sound().and_then(|ledger| ledger.get(&id, now)));
            }
            Request::List { query, now, answer } => {
                let _ = answer.send(self.sound().and_then(|ledger| ledger.list(&query, now)));
            }
            Request::Forget { id, at, answer } => {
                let done = self.sound().and_then(|ledger| ledger.forget(&id, at));
                self.make_lasting(done, answer);
            }
            Request::Resolve { id, as_, at, answer } => {
                let done = self.sound().and_then(|ledger| ledger.resolve(&id, as_, at));
                self.make_lasting(done, answer);
            }
            Request::Import { records, now, answer } => {
                let done = self.roomy().and_then(|ledger| ledger.import(records, now));
                self.make_lasting(done, answer);
            }
            Request::Count { deltas, answer } => {
                let counted = self.roomy().and_then(|ledger| ledger.count(&deltas));
                self.written();
                let _ = answer.send(counted);
            }
            Request::Counts { since, after, answer } => {
                let counts = self.sound().and_then(|ledger| ledger.counts(since, after.as_ref(), COUNTS));
                let _ = answer.send(counts);
            }
            Request::Census(answer) => {
                let _ = answer.send(self.sound().map(|ledger| ledger.census()));
            }
            Request::Sweep { now, most, answer } => {
                // So that the log says soon how it is, though nobody sends.
                let _ = self.room.check();
                let swept = self.sound().and_then(|ledger| ledger.sweep(now, most));
                self.written();
                let _ = answer.send(swept);
            }
            Request::Close(_) => {}
        }
    }

    fn settle(
        &mut self,
        token: Token,
        at: Timestamp,
        settlements: &[Settlement],
        answer: Option<Answer<()>>,
    ) {
        let done = self.sound().and_then(|ledger| ledger.settle(token, at, settlements));
        // Some may be written though one was fenced.
        self.written();
        match (answer, done) {
            (Some(answer), done) => self.waiting.push((answer, done)),
            (None, Ok(())) => {}
            (None, Err(fault)) => tracing::warn!(%fault, "an outcome was not written"),
        }
    }

    /// The ledger, unless the store has failed.
    fn sound(&mut self) -> Result<&mut Ledger<B>, StoreFault> {
        self.poison.check()?;
        Ok(&mut self.ledger)
    }

    /// The same, while the disk has room for more than what is under way.
    fn roomy(&mut self) -> Result<&mut Ledger<B>, StoreFault> {
        self.poison.check()?;
        self.room.check()?;
        Ok(&mut self.ledger)
    }

    /// Something was written that nobody waits for.
    fn written(&mut self) {
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    fn claim(&mut self, request: &ClaimRequest, answer: Answer<Vec<Claimed>>) {
        if answer.is_closed() {
            // It must not take over what another still holds.
            return;
        }
        let claimed = self.roomy().and_then(|ledger| ledger.claim(request));
        let new = |answer: &Claimed| matches!(answer, Claimed::New { previous: None });
        if !claimed.as_ref().is_ok_and(|claimed| claimed.iter().all(new)) {
            // Duplicates were counted in their records, and what was there
            // before may have moved.
            self.written();
        }
        if answer.send(claimed).is_err() {
            // Nobody would ever settle these.
            let ids: Vec<ClaimId> = request.slots.iter().map(|slot| slot.id).collect();
            self.ledger.release(request.token, &ids);
        }
    }
}
