//! A claim taken over in a conflict, and the doubt that is left of the old one.

use super::super::{
    AttemptKind, ClaimRequest, Claimed, Fingerprint, Marks, Record, Settlement, Share, Slot, State,
    StateName, StoreFault, Token,
};
use super::ending::{Before, End, ended};
use super::held::Under;
use super::{Backend, Ledger, settled};
use crate::clock::Timestamp;

const TAKEN_OVER: &str =
    "4.4.2 [IN-DOUBT] another message took the key over before the upstream's answer; it may have been sent";

/// A claim that another text took over between its commit and its outcome.
#[derive(Clone, Debug)]
pub(super) struct Overtaken {
    /// The text that was being sent.
    text: Fingerprint,
    /// What was known before it.
    before: Option<Box<Before>>,
}

impl<B: Backend> Ledger<B> {
    /// What is held is to be the slot's: claimed again by its own token, or
    /// taken over in a conflict.
    pub(super) fn claim_over(&mut self, request: &ClaimRequest, slot: &Slot) -> Result<Claimed, StoreFault> {
        let id = &slot.id;
        let Some(mut held) = self.held.get_mut(id).cloned() else { return self.claim_stored(request, slot) };
        let State::Committing { holder } = held.record.state else {
            // It has sent nothing. What it lay over is what is known of the id.
            self.uncover(id);
            return self.claim_stored(request, slot);
        };
        // A doubt from here on, even if the new claim is given up: else
        // nobody might be left to end this one. Its holder may still know
        // better: see `correct`.
        let before = self.known_beneath(id)?;
        let overtaken = Overtaken { text: held.record.fingerprint, before: before.clone().map(Box::new) };
        self.overtaken.remember(*id, holder, overtaken);
        let doubt = End::in_doubt(request.at, AttemptKind::TakenOver, TAKEN_OVER);
        held.record = ended(held.record, before, doubt);
        self.write_end(&held, true)?;
        self.lift(id);
        held.under = Some(Under::of(&held.record));
        self.figures.uncovered(id, held.under.as_ref());
        Ok(self.begin(request, slot, Some(held.record), held.under))
    }

    /// Who was committing what is in doubt now, and has not told its outcome yet.
    pub(super) fn overtaken_holder(&self, record: &Record) -> Option<Token> {
        let (holder, overtaken) = self.overtaken.last(&record.id)?;
        let is_its_own = overtaken.text == record.fingerprint && doubt_of_takeover(record).is_some();
        is_its_own.then_some(holder)
    }

    /// The attempt of a settled record that was taken over, where it is for any of
    /// the slot's recipients and under way still. It mostly learns the outcome yet:
    /// until then it is no doubt to them.
    pub(super) fn under_way(&self, slot: &Slot, record: &Record) -> Option<State> {
        let holder = self.overtaken_holder(record)?;
        let marks = &record.marks;
        let is_for = |mark: &u64| marks.share(*mark) == Some(Share::Doubtful);
        let is_for_any = marks.is_empty() || slot.marks.is_empty() || slot.marks.iter().any(is_for);
        is_for_any.then_some(State::Committing { holder })
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
        let Some(Overtaken { text, before }) = self.overtaken.of(id, token).cloned() else {
            return Ok(false);
        };
        let Some(mut tried) = self.backend.get(id)? else { return Ok(false) };
        let Some(place) = doubt_of_takeover(&tried).filter(|_| tried.fingerprint == text) else {
            return Ok(false);
        };
        let doubt = Under::of(&tried);
        tried.attempts.remove(place);
        tried.attempt_count -= 1;
        // Others may have received the message since.
        let others = Marks { doubtful: Vec::new(), ..tried.marks.clone() };
        let mut settlement = settlement.clone();
        settlement.marks.unite(&others);
        let record = settled(&tried, before.map(|before| *before), at, &settlement);
        self.write_settled(&record, doubt.mark, Some(&doubt))?;
        self.remove_stale(&record, doubt.mark, Some(&doubt))?;
        self.overtaken.forget(id, token);
        match self.held.get_mut(id) {
            Some(held) => held.lie_over(&record),
            None => {
                self.figures.hidden(id, doubt.state, &doubt.tenant);
                self.figures.shown(id, record.state.name(), &record.tenant);
            }
        }
        Ok(true)
    }
}

/// Where among its attempts a record has the one that was taken over, if that
/// is still in doubt, and no later attempt is.
fn doubt_of_takeover(record: &Record) -> Option<usize> {
    let place = record.attempts.iter().rposition(|attempt| attempt.kind.is_doubt())?;
    let is_takeover = record.attempts[place].kind == AttemptKind::TakenOver;
    (is_takeover && record.state.name() == StateName::InDoubt).then_some(place)
}
