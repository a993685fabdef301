//! A claim taken over in a conflict, and the doubt that is left of the old one.

use super::super::{ClaimRequest, Claimed, Outcome, Record, Settlement, Slot, State, StoreFault, Token};
use super::held::Under;
use super::{Backend, Ledger, end, expired};
use crate::clock::Timestamp;
use crate::smtp::reply::Reply;

const TAKEN_OVER: &str =
    "4.4.2 [IN-DOUBT] another message took the key over before the upstream's answer; it may have been sent";

impl<B: Backend> Ledger<B> {
    /// What is held is to be the slot's: claimed again by its own token, or
    /// taken over in a conflict.
    pub(super) fn claim_over(&mut self, request: &ClaimRequest, slot: &Slot) -> Result<Claimed, StoreFault> {
        let id = &slot.id;
        if self.held.is_pending(id, request.token) {
            let under = self.uncover(id).and_then(|held| held.under);
            let stored = self.backend.get(id)?.filter(|record| !expired(record, request.at));
            return Ok(self.begin(request, slot, stored, under));
        }
        let Some(mut held) = self.held.get_mut(id).cloned() else { return self.claim_stored(request, slot) };
        if let State::Committing { holder } = held.record.state {
            // A doubt from here on, even if the new claim is given up: else
            // nobody might be left to end this one. Its holder may still know
            // better: see `correct`.
            self.overtaken.remember(*id, holder);
            end(&mut held.record, request.at, Outcome::InDoubt(Reply::new(451, TAKEN_OVER)));
            self.write_end(&held, true)?;
            self.lift(id);
            held.under = Some(Under::of(&held.record));
            self.figures.uncovered(id, held.under.as_ref());
        } else {
            self.uncover(id);
        }
        Ok(self.begin(request, slot, Some(held.record), held.under))
    }

    /// What became of a claim that was taken over takes the place of the doubt
    /// that was left for it, if that is there still. Whether it was.
    pub(super) fn correct(
        &mut self,
        token: Token,
        at: Timestamp,
        settlement: &Settlement,
    ) -> Result<bool, StoreFault> {
        let id = &settlement.id;
        if !self.overtaken.by(id, token) {
            return Ok(false);
        }
        let Some(mut record) = self.backend.get(id)?.filter(is_taken_over) else { return Ok(false) };
        let doubt = Under::of(&record);
        record.attempts.pop();
        record.attempt_count -= 1;
        record.upstream.clone_from(&settlement.upstream);
        record.marks.clone_from(&settlement.marks);
        end(&mut record, at, settlement.outcome.clone());
        self.write_settled(&record, doubt.mark, Some(&doubt))?;
        self.remove_stale(&record, doubt.mark, Some(&doubt))?;
        match self.held.get_mut(id) {
            Some(held) => held.under = Some(Under::of(&record)),
            None => {
                self.figures.hidden(id, doubt.state, &doubt.tenant);
                self.figures.shown(id, record.state.name(), &record.tenant);
            }
        }
        Ok(true)
    }
}

/// Whether a record is the doubt about a claim that was taken over.
fn is_taken_over(record: &Record) -> bool {
    matches!(&record.state, State::Settled(Outcome::InDoubt(reply)) if *reply == Reply::new(451, TAKEN_OVER))
}
