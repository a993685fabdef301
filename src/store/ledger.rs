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
//! 3. Whatever is settled has its entries in the expiry index and in the index
//!    of keys: written before the record, and removed after it. One that does
//!    not match the record means nothing. The sweep drops such entries of the
//!    expiry index; the index of keys may keep one for each crash.
//! 4. A `committing` record never expires. It ends by its holder's settlement,
//!    by another's takeover under [`OnConflict::Relay`], or at the next start.
//!
//! [`OnConflict::Relay`]: crate::config::OnConflict::Relay

mod backend;
mod beneath;
mod census;
mod ending;
mod former;
mod heard;
mod held;
mod judge;
mod listing;
mod mend;
mod recent;
mod recovery;
mod takeover;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use backend::{Backend, IdRange};
use census::Figures;
pub use census::Progress;
use ending::{Before, End, cut, end, ended};
use held::{Held, HeldClaims, Under};
use judge::{begin, judge};
pub use listing::MAX_SCAN;
use recent::Recent;
use takeover::Overtaken;

use super::record::key_mark;
use super::{
    ClaimId, ClaimRequest, Claimed, Commit, Marks, Record, Settlement, Slot, State, StateName, StoreFault,
    Token, counts,
};
use crate::clock::Timestamp;
use crate::planted::{self, Bug};

/// How long after its lease a pending claim is still kept for a holder who may
/// yet come back. Only then does a sweep forget it.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The claims of one store.
#[derive(Debug)]
pub struct Ledger<B> {
    backend: B,
    held: HeldClaims,
    settled: Recent<()>,
    /// Who was committing what when it was taken over.
    overtaken: Recent<Overtaken>,
    /// Records that stand under another id now, and are still to be removed.
    moved: BTreeMap<ClaimId, Record>,
    figures: Figures,
    /// The latest time that it was told since it was opened for relaying.
    now: Option<Timestamp>,
}

impl<B: Backend> Ledger<B> {
    /// The ledger over what `backend` holds. Call [`Ledger::recover`] next, or
    /// [`Ledger::load`] where it is only for reading.
    pub fn new(backend: B) -> Self {
        Self {
            backend,
            held: HeldClaims::default(),
            settled: Recent::default(),
            overtaken: Recent::default(),
            moved: BTreeMap::new(),
            figures: Figures::default(),
            now: None,
        }
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
        self.pass_time(request.at);
        let claimed: Result<Vec<Claimed>, StoreFault> =
            request.slots.iter().map(|slot| self.claim_slot(request, slot)).collect();
        let removed = self.remove_moved();
        let claimed = claimed.and_then(|claimed| removed.map(|()| claimed));
        if claimed.is_err() {
            let ids: Vec<ClaimId> = request.slots.iter().map(|slot| slot.id).collect();
            self.release(request.token, &ids);
        }
        claimed
    }

    fn claim_slot(&mut self, request: &ClaimRequest, slot: &Slot) -> Result<Claimed, StoreFault> {
        if Marks::default().overflow(&slot.marks) {
            return Ok(Claimed::TooMany);
        }
        if self.held.lapsed(&slot.id, request.at) {
            self.uncover(&slot.id);
        }
        if let Some(answer) = self.answered_beneath(request, slot)? {
            return Ok(answer);
        }
        let Some(held) = self.held.get_mut(&slot.id) else { return self.claim_stored(request, slot) };
        let verdict = judge(&held.record, slot, request.token);
        let Some(touch) = verdict.touch() else { return self.claim_over(request, slot) };
        held.record.touch(request.at, &slot.client, touch);
        Ok(verdict.answer(held.record.clone()))
    }

    /// Nobody holds the id.
    fn claim_stored(&mut self, request: &ClaimRequest, slot: &Slot) -> Result<Claimed, StoreFault> {
        let stored = self.backend.get(&slot.id)?;
        if let Some(answer) = self.claim_former(request, slot, stored.as_ref())? {
            return Ok(answer);
        }
        let Some(record) = stored else {
            let live = self.figures.of_tenant(&slot.tenant);
            let full = request.tenant_cap.is_some_and(|cap| live >= cap);
            return Ok(if full { Claimed::OverCap } else { self.begin(request, slot, None, None) });
        };
        if expired(&record, request.at) {
            let under = Under::of(&record);
            return Ok(self.begin(request, slot, None, Some(under)));
        }
        Ok(match self.answered_by(request, slot, record)? {
            Ok(answer) => answer,
            Err(record) => {
                let under = Under::of(&record);
                self.begin(request, slot, Some(record), Some(under))
            }
        })
    }

    fn begin(
        &mut self,
        request: &ClaimRequest,
        slot: &Slot,
        previous: Option<Record>,
        under: Option<Under>,
    ) -> Claimed {
        let goes_on = previous.as_ref().filter(|record| slot.continues(record));
        if goes_on.is_some_and(|record| record.marks.overflow(&slot.marks)) {
            return Claimed::TooMany;
        }
        let under = under.map(|under| Under { continued: goes_on.is_some(), ..under });
        let record = begin(slot, request.token, request.at, request.lease_until, previous.as_ref());
        self.hold(record, under);
        Claimed::New { previous: previous.map(Box::new) }
    }

    /// Lays a claim over what its id has.
    fn hold(&mut self, record: Record, under: Option<Under>) {
        self.figures.covered(&record.id, under.as_ref());
        let mark = key_mark(&record.key);
        self.lay(Held { record, mark, under });
    }

    /// Takes a claim away, as if it had never been.
    fn uncover(&mut self, id: &ClaimId) -> Option<Held> {
        let held = self.lift(id)?;
        self.figures.uncovered(id, held.under.as_ref());
        Some(held)
    }

    fn lay(&mut self, held: Held) {
        self.figures.add(held.record.state.name(), &held.record.tenant);
        self.held.insert(held);
    }

    /// Takes a claim away; what lies underneath is not to be seen again.
    fn lift(&mut self, id: &ClaimId) -> Option<Held> {
        let held = self.held.remove(id)?;
        self.figures.remove(held.record.state.name(), &held.record.tenant);
        Some(held)
    }

    /// See [`super::Store::commit`]; the engine makes it durable. May be
    /// repeated: what the token holds as committing stays so.
    pub fn commit(&mut self, token: Token, commits: &[Commit], at: Timestamp) -> Result<(), StoreFault> {
        let ours = |commit: &Commit| self.held.is_held_by(&commit.id, token);
        if !commits.iter().all(ours) && !planted::is(Bug::NoFence) {
            return Err(StoreFault::Fenced);
        }
        for commit in commits {
            let pending = self.held.is_pending(&commit.id, token);
            if let Some(record) = self.held.commit(commit, token, at) {
                self.backend.put_open(record)?;
            }
            if pending {
                self.figures.change(StateName::Pending, StateName::Committing);
            }
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
        self.pass_time(at);
        let mut fenced = false;
        for settlement in settlements {
            if self.already_settled(token, settlement)? {
                continue;
            }
            if !self.held.is_held_by(&settlement.id, token) {
                fenced |= !self.correct(token, at, settlement)?;
                continue;
            }
            self.settle_one(token, at, settlement)?;
        }
        if fenced { Err(StoreFault::Fenced) } else { Ok(()) }
    }

    /// On a fault the claim stays held.
    fn settle_one(&mut self, token: Token, at: Timestamp, settlement: &Settlement) -> Result<(), StoreFault> {
        let before = self.known_beneath(&settlement.id)?;
        let Some(held) = self.lift(&settlement.id) else { return Err(StoreFault::Fenced) };
        let committed = held.record.state.name() == StateName::Committing;
        let ended = Held { record: settled(&held.record, before, at, settlement), ..held.clone() };
        if let Err(fault) = self.write_end(&ended, committed) {
            self.lay(held);
            return Err(fault);
        }
        self.figures.shown(&settlement.id, ended.record.state.name(), &ended.record.tenant);
        self.settled.remember(settlement.id, token, ());
        Ok(())
    }

    fn already_settled(&self, token: Token, settlement: &Settlement) -> Result<bool, StoreFault> {
        if self.settled.of(&settlement.id, token).is_none() || self.held.get(&settlement.id).is_some() {
            return Ok(false);
        }
        let record = self.backend.get(&settlement.id)?;
        let reply = cut(&settlement.outcome);
        let last = |record: &Record| record.attempts.last().is_some_and(|last| last.reply == reply);
        Ok(record.is_some_and(|record| last(&record)))
    }

    /// Writes the end of a claim. The indexes before the record, the record
    /// before the open one goes: see the rules at the top.
    fn write_end(&mut self, held: &Held, committed: bool) -> Result<(), StoreFault> {
        self.write_settled(&held.record, held.mark, held.under.as_ref())?;
        if committed {
            self.backend.remove_open(&held.record.id)?;
        }
        self.remove_stale(&held.record, held.mark, held.under.as_ref())
    }

    fn write_settled(&mut self, record: &Record, mark: u64, under: Option<&Under>) -> Result<(), StoreFault> {
        if under.is_none_or(|under| under.mark != mark) {
            self.backend.add_key(mark, &record.id)?;
        }
        self.backend.add_expiry(record.expires, &record.id)?;
        self.backend.put(record)
    }

    /// Removes the entries of a record that was written over.
    fn remove_stale(&mut self, record: &Record, mark: u64, under: Option<&Under>) -> Result<(), StoreFault> {
        let Some(under) = under else { return Ok(()) };
        if under.expires != record.expires {
            self.backend.remove_expiry(under.expires, &record.id)?;
        }
        if under.mark != mark {
            self.backend.remove_key(under.mark, &record.id)?;
        }
        Ok(())
    }

    /// Removes a record that nothing lies over, and its key's entry after it.
    fn remove_record(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.backend.remove(&record.id)?;
        self.backend.remove_key(key_mark(&record.key), &record.id)?;
        self.figures.hidden(&record.id, record.state.name(), &record.tenant);
        Ok(())
    }

    /// See [`super::Store::release`].
    pub fn release(&mut self, token: Token, ids: &[ClaimId]) {
        for id in ids {
            let committing = planted::is(Bug::CommittingReleased) && self.held.is_held_by(id, token);
            if self.held.is_pending(id, token) || committing {
                self.uncover(id);
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

    /// See [`super::Store::sweep`]. Also forgets pending claims whose lease
    /// ran out an hour ago, and old counts. Looks at a bounded number of index
    /// entries, so it may answer less than `most` though more are due.
    pub fn sweep(&mut self, now: Timestamp, most: usize) -> Result<usize, StoreFault> {
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(millis(ABANDONED)));
        let abandoned = self.held.abandoned(before, most);
        for id in &abandoned {
            self.uncover(id);
        }
        let mut gone = abandoned.len();
        for (at, id) in self.backend.due(now, most - gone)? {
            // An unreadable record keeps its place and loses its entry: better
            // a record too many than a sweep that never gets past it. A failed
            // engine fails the removal below too.
            let record = self.backend.get(&id).ok().flatten();
            if let Some(record) = record.filter(|record| expired(record, now)) {
                self.sweep_record(&record)?;
                gone += 1;
            }
            self.backend.remove_expiry(at, &id)?;
        }
        self.backend.remove_counts(counts::oldest_kept(now), most)?;
        Ok(gone)
    }

    fn sweep_record(&mut self, record: &Record) -> Result<(), StoreFault> {
        if self.held.get(&record.id).is_none() {
            return self.remove_record(record);
        }
        // A new claim lies over it, and is counted in its place.
        self.backend.remove(&record.id)?;
        self.backend.remove_key(key_mark(&record.key), &record.id)?;
        self.held.bare(&record.id);
        Ok(())
    }
}

/// How a settlement ends an attempt.
fn settled(tried: &Record, before: Option<Before>, at: Timestamp, settlement: &Settlement) -> Record {
    let Settlement { outcome, kind, heard, upstream, marks, .. } = settlement;
    let ending = End { at, kind: *kind, outcome: outcome.clone(), heard: *heard };
    ended(Record { upstream: upstream.clone(), marks: marks.clone(), ..tried.clone() }, before, ending)
}

/// An expired record is absent for every purpose, swept or not.
fn expired(record: &Record, now: Timestamp) -> bool {
    !planted::is(Bug::ExpiryIgnored) && indexed_expiry(record).is_some_and(|expires| expires <= now)
}

/// When a record expires; only settled ones do.
fn indexed_expiry(record: &Record) -> Option<Timestamp> {
    matches!(record.state, State::Settled(_)).then_some(record.expires)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
