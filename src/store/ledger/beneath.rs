//! What is known of an id beneath a claim that an attempt holds.

use super::super::{ClaimId, ClaimRequest, Claimed, Record, Slot, StateName, StoreFault};
use super::ending::Before;
use super::judge::judge;
use super::{Backend, Ledger, expired};

impl<B: Backend> Ledger<B> {
    /// The answer of what lies beneath a pending claim of another text, where that
    /// is the slot's own e-mail: the pending one has sent nothing yet.
    pub(super) fn answered_beneath(
        &mut self,
        request: &ClaimRequest,
        slot: &Slot,
    ) -> Result<Option<Claimed>, StoreFault> {
        let is_another = |record: &Record| {
            record.state.name() == StateName::Pending && record.fingerprint != slot.fingerprint
        };
        if !self.held.get(&slot.id).is_some_and(is_another) {
            return Ok(None);
        }
        let own = |record: &Record| !expired(record, request.at) && record.fingerprint == slot.fingerprint;
        let beneath = self.known_beneath(&slot.id)?.map(|before| before.record);
        let Some(record) = beneath.filter(own) else { return Ok(None) };
        Ok(self.answered_by(request, slot, record)?.ok())
    }

    /// The answer of a settled record; the record where the slot is to be claimed.
    pub(super) fn answered_by(
        &mut self,
        request: &ClaimRequest,
        slot: &Slot,
        mut record: Record,
    ) -> Result<Result<Claimed, Record>, StoreFault> {
        let under_way = self.under_way(slot, &record);
        let verdict = match under_way.clone() {
            Some(state) => judge(&Record { state, ..record.clone() }, slot, request.token),
            None => judge(&record, slot, request.token),
        };
        let Some(touch) = verdict.touch() else { return Ok(Err(record)) };
        record.touch(request.at, &slot.client, touch);
        self.backend.put(&record)?;
        record.state = under_way.unwrap_or(record.state);
        Ok(Ok(verdict.answer(record)))
    }

    /// The record that lies under a claim, where the upstream has its message for
    /// any recipient or may have it.
    pub(super) fn known_beneath(&self, id: &ClaimId) -> Result<Option<Before>, StoreFault> {
        let Some(under) = self.held.under(id).filter(|under| under.lasts) else { return Ok(None) };
        let continued = under.continued;
        Ok(self.backend.get(id)?.map(|record| Before { record, continued }))
    }
}
