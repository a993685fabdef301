//! The life of a claim, in one place for every engine.
//!
//! A [`Ledger`] does no I/O of its own and knows no clock; an engine calls it
//! from one thread, or under one lock, and gives it a [`Backend`].
//!
//! # What holds at every instant, a crash included
//!
//! 1. A `pending` claim is in memory only. It has sent nothing, so a crash
//!    must forget it; the record that the id had before stays in the backend
//!    underneath, and giving the claim up uncovers it.
//! 2. Whatever is `committing` is an open record in the backend, and in memory
//!    too. It is removed after the settled record that ends it was written; an
//!    open record whose attempt the settled one has counted means nothing.
//! 3. Whatever is settled has its entry in the expiry index: the entry is
//!    written before the record, and removed after it. An entry that does not
//!    match the record means nothing, and the sweep drops it.
//! 4. A `committing` record never expires. It ends by its holder's settlement,
//!    by another's takeover under [`OnConflict::Relay`], or at the next start.
//!
//! [`OnConflict::Relay`]: crate::config::OnConflict::Relay

mod backend;
mod held;
mod judge;
mod recent;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use backend::Backend;
use held::{Held, HeldClaims};
use judge::{Verdict, begin, judge};
use recent::Recent;

use super::record::MAX_ATTEMPTS;
use super::{
    Attempt, ClaimId, ClaimRequest, Claimed, Outcome, Query, Record, Settlement, Slot, State, StoreFault,
    Token,
};
use crate::clock::Timestamp;
use crate::smtp::reply::Reply;

/// The most records that one [`Ledger::list`] looks at, so that a reader can
/// not hold up the claims. Also what a [`Query`] with `scan = 0` gets.
pub const MAX_SCAN: usize = 1000;

/// How long after its lease a pending claim is still kept for a holder who may
/// yet come back. Only then does a sweep forget it.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Characters of a reply that an attempt keeps.
const REPLY_CHARS: usize = 256;

const ENDED: &str = "4.4.2 [IN-DOUBT] the proxy ended before the upstream's answer; it may have been sent";
const TAKEN_OVER: &str =
    "4.4.2 [IN-DOUBT] another message took the key over before the upstream's answer; it may have been sent";

/// The claims of one store.
#[derive(Debug)]
pub struct Ledger<B> {
    backend: B,
    held: HeldClaims,
    settled: Recent,
}

/// The record that stands for an id, unless expired, and the expiry entry of
/// what the backend has for it, expired or not.
struct Standing {
    record: Option<Record>,
    stale: Option<Timestamp>,
}

impl<B: Backend> Ledger<B> {
    /// The ledger over what `backend` holds. Call [`Ledger::recover`] next, or
    /// [`Ledger::load`] where it is only for reading.
    pub fn new(backend: B) -> Self {
        Self { backend, held: HeldClaims::default(), settled: Recent::default() }
    }

    /// What the ledger writes to.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Makes everything so far durable.
    pub fn sync(&mut self) -> Result<(), StoreFault> {
        self.backend.sync()
    }

    /// See [`Backend::checkpoint`].
    pub fn checkpoint(&mut self) -> Result<(), StoreFault> {
        self.backend.checkpoint()
    }

    /// See [`super::Store::claim`]. A token that claims again what it holds as
    /// pending gets it again. On a fault nothing is claimed.
    pub fn claim(&mut self, request: &ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        let claimed: Result<Vec<Claimed>, StoreFault> =
            request.slots.iter().map(|slot| self.claim_slot(request, slot)).collect();
        if claimed.is_err() {
            let ids: Vec<ClaimId> = request.slots.iter().map(|slot| slot.id).collect();
            self.release(request.token, &ids);
        }
        claimed
    }

    fn claim_slot(&mut self, request: &ClaimRequest, slot: &Slot) -> Result<Claimed, StoreFault> {
        let (id, at) = (&slot.id, request.at);
        if self.held.lapsed(id, at) {
            self.held.remove(id);
        }
        let Standing { record, stale } = self.standing(id, at)?;
        let verdict = judge(record.as_ref(), slot, request.token);
        let Some(record) = record else { return Ok(self.begin(request, slot, None, stale)) };
        match verdict {
            Verdict::New => self.claim_over(request, slot, record, stale),
            Verdict::Settled { conflict } => {
                Ok(Claimed::Settled { record: self.touch(record, at, true)?, conflict })
            }
            Verdict::InFlight { conflict } => {
                Ok(Claimed::InFlight { record: self.touch(record, at, true)?, conflict })
            }
            Verdict::Conflict => Ok(Claimed::Conflict { record: self.touch(record, at, false)? }),
        }
    }

    fn standing(&self, id: &ClaimId, at: Timestamp) -> Result<Standing, StoreFault> {
        if let Some(record) = self.held.get(id) {
            return Ok(Standing { record: Some(record.clone()), stale: self.held.stale(id) });
        }
        let record = self.backend.get(id)?;
        let stale = record.as_ref().and_then(indexed_expiry);
        Ok(Standing { record: record.filter(|record| !expired(record, at)), stale })
    }

    fn begin(
        &mut self,
        request: &ClaimRequest,
        slot: &Slot,
        previous: Option<Record>,
        stale: Option<Timestamp>,
    ) -> Claimed {
        let record = begin(slot, request.token, request.at, request.lease_until, previous.as_ref());
        self.held.insert(record, stale);
        Claimed::New { previous: previous.map(Box::new) }
    }

    fn claim_over(
        &mut self,
        request: &ClaimRequest,
        slot: &Slot,
        record: Record,
        stale: Option<Timestamp>,
    ) -> Result<Claimed, StoreFault> {
        match record.state {
            State::Pending { holder, .. } if holder == request.token => {
                self.held.remove(&slot.id);
                let Standing { record, stale } = self.standing(&slot.id, request.at)?;
                Ok(self.begin(request, slot, record, stale))
            }
            State::Committing { .. } => {
                // Fenced from here on for good, even if the new claim is given
                // up: else nobody would be left to end this one.
                let mut ended = record;
                end(&mut ended, request.at, Outcome::InDoubt(Reply::new(451, TAKEN_OVER)));
                self.write_settled(&ended, stale, true)?;
                let stale = Some(ended.expires);
                Ok(self.begin(request, slot, Some(ended), stale))
            }
            State::Pending { .. } | State::Settled(_) => Ok(self.begin(request, slot, Some(record), stale)),
        }
    }

    /// Notes that the id was asked for once more.
    fn touch(
        &mut self,
        mut record: Record,
        at: Timestamp,
        duplicate: bool,
    ) -> Result<Box<Record>, StoreFault> {
        record.last_seen = at;
        record.duplicates += u64::from(duplicate);
        if !self.held.touch(&record.id, at, duplicate) {
            self.backend.put(&record)?;
        }
        Ok(Box::new(record))
    }

    /// See [`super::Store::commit`]; the engine makes it durable. May be
    /// repeated: what the token holds as committing stays so.
    pub fn commit(&mut self, token: Token, ids: &[ClaimId], at: Timestamp) -> Result<(), StoreFault> {
        let held = ids.iter().map(|id| self.held(id, token)).collect::<Result<Vec<_>, _>>()?;
        for Held { mut record, stale } in held {
            record.state = State::Committing { holder: token };
            record.last_seen = record.last_seen.max(at);
            self.backend.put_open(&record)?;
            self.held.insert(record, stale);
        }
        Ok(())
    }

    /// See [`super::Store::settle`]; the engine makes it durable. A settlement
    /// may be repeated after a fault: where the same token has already settled
    /// the id with the same outcome, nothing is written. (Remembered for the
    /// last 16,384 settlements; older ones are answered
    /// [`StoreFault::Fenced`], which ends the matter just as well.)
    pub fn settle(
        &mut self,
        token: Token,
        at: Timestamp,
        settlements: &[Settlement],
    ) -> Result<(), StoreFault> {
        let mut fenced = false;
        for settlement in settlements {
            if self.already_settled(token, settlement)? {
                continue;
            }
            let Ok(Held { mut record, stale }) = self.held(&settlement.id, token) else {
                fenced = true;
                continue;
            };
            let committed = matches!(record.state, State::Committing { .. });
            record.upstream.clone_from(&settlement.upstream);
            for mark in &settlement.delivered {
                if !record.delivered.contains(mark) {
                    record.delivered.push(*mark);
                }
            }
            end(&mut record, at, settlement.outcome.clone());
            self.write_settled(&record, stale, committed)?;
            self.held.remove(&record.id);
            self.settled.remember(record.id, token);
        }
        if fenced { Err(StoreFault::Fenced) } else { Ok(()) }
    }

    fn already_settled(&self, token: Token, settlement: &Settlement) -> Result<bool, StoreFault> {
        if !self.settled.by(&settlement.id, token) || self.held.get(&settlement.id).is_some() {
            return Ok(false);
        }
        let record = self.backend.get(&settlement.id)?;
        Ok(record.is_some_and(|record| record.state == State::Settled(settlement.outcome.clone())))
    }

    /// The claim on `id`, or `Fenced` unless `token` holds it.
    fn held(&self, id: &ClaimId, token: Token) -> Result<Held, StoreFault> {
        self.held.of(id, token).cloned().ok_or(StoreFault::Fenced)
    }

    /// Index before record, record before the open one goes: see the rules at
    /// the top.
    fn write_settled(
        &mut self,
        record: &Record,
        stale: Option<Timestamp>,
        committed: bool,
    ) -> Result<(), StoreFault> {
        self.backend.add_expiry(record.expires, &record.id)?;
        self.backend.put(record)?;
        if committed {
            self.backend.remove_open(&record.id)?;
        }
        self.remove_stale(&record.id, stale.filter(|at| *at != record.expires))
    }

    fn remove_stale(&mut self, id: &ClaimId, stale: Option<Timestamp>) -> Result<(), StoreFault> {
        stale.map_or(Ok(()), |at| self.backend.remove_expiry(at, id))
    }

    /// See [`super::Store::release`].
    pub fn release(&mut self, token: Token, ids: &[ClaimId]) {
        for id in ids {
            if self.held.is_pending(id, token) {
                self.held.remove(id);
            }
        }
    }

    /// See [`super::Store::get`].
    pub fn get(&self, id: &ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        if let Some(record) = self.held.get(id) {
            return Ok(Some(record.clone()));
        }
        Ok(self.backend.get(id)?.filter(|record| !expired(record, now)))
    }

    /// See [`super::Store::list`]. Looks at no more than [`MAX_SCAN`] records;
    /// `scan = 0` means that many.
    pub fn list(&self, query: &Query, now: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        let scan = if query.scan == 0 { MAX_SCAN } else { query.scan.min(MAX_SCAN) };
        // One more than asked for, to know whether another page follows.
        let stored = self.backend.range(query.after.as_ref(), scan + 1)?;
        let pending = self.held.range(query.after.as_ref(), scan + 1).cloned();
        let mut page: BTreeMap<ClaimId, Record> =
            stored.into_iter().chain(pending).map(|record| (record.id, record)).collect();
        let more = page.len() > scan;
        while page.len() > scan {
            page.pop_last();
        }
        let last = page.last_key_value().map(|(id, _)| *id);
        let records = page.into_values().filter(|record| !expired(record, now)).collect();
        Ok((records, last.filter(|_| more)))
    }

    /// See [`super::Store::sweep`]. Also forgets pending claims whose lease
    /// ran out an hour ago. Looks at a bounded number of index entries, so it
    /// may answer less than `most` though more are due.
    pub fn sweep(&mut self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(millis(ABANDONED)));
        let mut gone = self.held.forget_abandoned(before, most);
        for (at, id) in self.backend.due(now, most - gone)? {
            // An unreadable record keeps its place and loses its entry: better
            // a record too many than a sweep that never gets past it. A failed
            // engine fails the removal below too.
            let record = self.backend.get(&id).ok().flatten();
            if record.is_some_and(|record| expired(&record, now)) {
                self.backend.remove(&id)?;
                gone += 1;
            }
            self.backend.remove_expiry(at, &id)?;
        }
        Ok(gone)
    }

    /// At start: everything that was `committing` when the last process ended
    /// is in doubt from `at` on. Answers those records. Reads nothing but the
    /// open records and what lies under them.
    pub fn recover(&mut self, at: Timestamp) -> Result<Vec<Record>, StoreFault> {
        let mut doubtful = Vec::new();
        for Held { mut record, stale } in self.left_open()? {
            end(&mut record, at, Outcome::InDoubt(Reply::new(451, ENDED)));
            self.write_settled(&record, stale, true)?;
            doubtful.push(record);
        }
        // The rest had ended; only that was not noted any more.
        for record in self.backend.open()? {
            self.backend.remove_open(&record.id)?;
        }
        Ok(doubtful)
    }

    /// For reading only: what was `committing` when the last process ended is
    /// shown so, and left for the next start.
    pub fn load(&mut self) -> Result<(), StoreFault> {
        for Held { record, stale } in self.left_open()? {
            self.held.insert(record, stale);
        }
        Ok(())
    }

    /// The open records that no settled one has ended.
    fn left_open(&self) -> Result<Vec<Held>, StoreFault> {
        let mut left = Vec::new();
        for record in self.backend.open()? {
            let settled = self.backend.get(&record.id)?;
            // The same claim (an expired one underneath is another) with one
            // more attempt: the crash came before the open record was removed.
            let has_ended = |settled: &Record| {
                settled.first_seen == record.first_seen && settled.attempt_count > record.attempt_count
            };
            if !settled.as_ref().is_some_and(has_ended) {
                let stale = settled.as_ref().and_then(indexed_expiry);
                left.push(Held { record, stale });
            }
        }
        Ok(left)
    }
}

/// Ends the attempt that `record` stands for.
fn end(record: &mut Record, at: Timestamp, outcome: Outcome) {
    let reply = outcome.reply().to_string().chars().take(REPLY_CHARS).collect();
    record.attempts.push(Attempt { at, reply });
    let surplus = record.attempts.len().saturating_sub(MAX_ATTEMPTS);
    record.attempts.drain(..surplus);
    record.attempt_count += 1;
    record.settled_at = Some(at);
    record.expires = at.plus(record.window);
    record.state = State::Settled(outcome);
}

/// An expired record is absent for every purpose, swept or not.
fn expired(record: &Record, now: Timestamp) -> bool {
    indexed_expiry(record).is_some_and(|expires| expires <= now)
}

/// When a record expires; only settled ones do.
fn indexed_expiry(record: &Record) -> Option<Timestamp> {
    matches!(record.state, State::Settled(_)).then_some(record.expires)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
