//! Claims that an earlier version recorded under an id of its own.
//!
//! Such a record moves to the id of today when its e-mail comes again. It is
//! written there before it goes where it was, so a crash in between leaves it
//! twice and never not at all; then the one under the id of today counts.

use super::super::record::key_mark;
use super::super::{ClaimId, ClaimRequest, Claimed, Outcome, Record, Slot, State, StoreFault};
use super::held::Under;
use super::judge::{Verdict, judge};
use super::{Backend, Ledger, expired};
use crate::clock::Timestamp;

impl<B: Backend> Ledger<B> {
    /// The answer of a record under a former id of the slot; `None` where the
    /// slot's own id decides. `stored` is the record that stands there.
    pub(super) fn claim_former(
        &mut self,
        request: &ClaimRequest,
        slot: &Slot,
        stored: Option<&Record>,
    ) -> Result<Option<Claimed>, StoreFault> {
        if slot.former.is_empty() || !self.backend.has_former() {
            return Ok(None);
        }
        let own = stored.filter(|record| !expired(record, request.at));
        if own.is_some_and(|record| !is_open_to_all(record)) {
            return Ok(None);
        }
        for id in &slot.former {
            let Some(former) = self.former(id, request.at)? else { continue };
            if own.is_some() && is_open_to_all(&former) {
                continue;
            }
            if is_own(slot, &former, request) && former.state.holder().is_none() {
                self.move_to(slot, former, stored)?;
                return self.claim_stored(request, slot).map(Some);
            }
            if let Some(answer) = self.judge_in_place(request, slot, former)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// What stands under a former id.
    fn former(&mut self, id: &ClaimId, at: Timestamp) -> Result<Option<Record>, StoreFault> {
        if self.held.lapsed(id, at) {
            self.uncover(id);
        }
        self.get(id, at)
    }

    /// A record that is not moved answers from where it is: one of another text
    /// may be another tenant's, whose retry must find it; and one that is held
    /// will be settled under its own id.
    fn judge_in_place(
        &mut self,
        request: &ClaimRequest,
        slot: &Slot,
        mut former: Record,
    ) -> Result<Option<Claimed>, StoreFault> {
        let verdict = judge(&former, slot, request.token);
        let Some(touch) = verdict.touch() else { return Ok(None) };
        former.touch(request.at, &slot.client, touch);
        match self.held.get_mut(&former.id) {
            Some(held) => held.record.clone_from(&former),
            None => self.backend.put(&former)?,
        }
        Ok(Some(verdict.answer(former)))
    }

    /// Writes a record under the slot's own id. [`Ledger::remove_moved`] takes
    /// it away where it was.
    fn move_to(&mut self, slot: &Slot, former: Record, stored: Option<&Record>) -> Result<(), StoreFault> {
        let under = stored.map(Under::of);
        let record = Record { id: slot.id, recipient: slot.recipient.clone(), ..former.clone() };
        let mark = key_mark(&record.key);
        self.write_settled(&record, mark, under.as_ref())?;
        self.remove_stale(&record, mark, under.as_ref())?;
        self.figures.covered(&slot.id, under.as_ref());
        self.figures.shown(&slot.id, record.state.name(), &record.tenant);
        self.moved.insert(former.id, former);
        Ok(())
    }

    /// Removes what was moved. Once for all slots of a message: the backend may
    /// have to wait for the disk before it removes anything.
    pub(super) fn remove_moved(&mut self) -> Result<(), StoreFault> {
        for former in std::mem::take(&mut self.moved).into_values() {
            self.remove_record(&former)?;
            self.backend.remove_expiry(former.expires, &former.id)?;
        }
        Ok(())
    }

    /// What is imported may have an id of an earlier version.
    pub(super) fn expect_former(&mut self) -> Result<(), StoreFault> {
        if self.backend.has_former() { Ok(()) } else { self.backend.expect_former() }
    }
}

/// Whether a record goes on as the slot's own. One of another text may be another tenant's,
/// whose retry must find it, so it answers where it is; it moves where the slot is to be
/// sent for those who lack it.
fn is_own(slot: &Slot, former: &Record, request: &ClaimRequest) -> bool {
    let is_claimed = || judge(former, slot, request.token) == Verdict::New;
    former.fingerprint == slot.fingerprint || slot.is_same_mail(former) && is_claimed()
}

/// Whether the e-mail would be sent again to all of its recipients, whatever its
/// text: a record that says more than that goes before it.
fn is_open_to_all(record: &Record) -> bool {
    let deferred = matches!(record.state, State::Settled(Outcome::Deferred(_) | Outcome::Refused(_)));
    deferred && record.marks.delivered.is_empty()
}
