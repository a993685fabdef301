//! What operators do to records: forgetting, resolving, importing.
//!
//! The engine makes a checkpoint before it answers. Then no frame of a commit
//! log still speaks of an earlier state, which a start would bring back.

use super::super::record::{MAX_ATTEMPTS, MAX_SUPPRESSED, key_mark};
use super::super::{
    Attempt, Change, ClaimId, Imported, Outcome, Record, Resolution, Share, State, StoreFault,
};
use super::held::Under;
use super::{Backend, Ledger, end, expired};
use crate::clock::Timestamp;
use crate::smtp::reply::Reply;

const IMPORTED: &str =
    "4.4.2 [IN-DOUBT] imported while it was being sent, before the upstream's answer; it may have been sent";

impl<B: Backend> Ledger<B> {
    /// See [`super::super::Store::forget`]; a checkpoint makes it durable.
    pub fn forget(&mut self, id: &ClaimId, at: Timestamp) -> Result<Change, StoreFault> {
        let record = match self.settled_record(id, at)? {
            Ok(record) => record,
            Err(change) => return Ok(change),
        };
        self.remove_record(&record)?;
        self.backend.remove_expiry(record.expires, id)?;
        Ok(Change::Done(Box::new(record)))
    }

    /// See [`super::super::Store::resolve`]; a checkpoint makes it durable.
    pub fn resolve(&mut self, id: &ClaimId, as_: Resolution, at: Timestamp) -> Result<Change, StoreFault> {
        let mut record = match self.settled_record(id, at)? {
            Ok(record) => record,
            Err(change) => return Ok(change),
        };
        if !matches!(record.state, State::Settled(Outcome::InDoubt(_))) {
            return Ok(Change::Refused(Box::new(record)));
        }
        self.figures.hidden(id, record.state.name(), &record.tenant);
        resolve(&mut record, as_, at);
        self.figures.shown(id, record.state.name(), &record.tenant);
        self.backend.put(&record)?;
        Ok(Change::Done(Box::new(record)))
    }

    /// The record of `id` if it may be changed, else the answer.
    fn settled_record(&mut self, id: &ClaimId, at: Timestamp) -> Result<Result<Record, Change>, StoreFault> {
        if self.held.lapsed(id, at) {
            self.uncover(id);
        }
        if let Some(held) = self.held.get(id) {
            return Ok(Err(Change::Refused(Box::new(held.clone()))));
        }
        let stored = self.backend.get(id)?.filter(|record| !expired(record, at));
        Ok(stored.ok_or(Change::Absent))
    }

    /// See [`super::super::Store::import`]; a checkpoint makes it durable.
    pub fn import(&mut self, records: Vec<Record>, now: Timestamp) -> Result<Imported, StoreFault> {
        self.pass_time(now);
        self.expect_former()?;
        let mut imported = Imported::default();
        for record in records {
            self.import_one(record, now, &mut imported)?;
        }
        Ok(imported)
    }

    fn import_one(
        &mut self,
        mut record: Record,
        now: Timestamp,
        imported: &mut Imported,
    ) -> Result<(), StoreFault> {
        let id = record.id;
        if matches!(record.state, State::Pending { .. }) || expired(&record, now) {
            imported.expired += 1;
            return Ok(());
        }
        if self.held.lapsed(&id, now) {
            self.uncover(&id);
        }
        let stored = self.backend.get(&id)?;
        let newer = |stored: &Record| !expired(stored, now) && stored.last_seen >= record.last_seen;
        if self.held.get(&id).is_some() || stored.as_ref().is_some_and(newer) {
            imported.kept += 1;
            return Ok(());
        }
        shorten(&mut record);
        if matches!(record.state, State::Committing { .. }) {
            end(&mut record, now, Outcome::InDoubt(Reply::new(451, IMPORTED)));
        }
        let under = stored.as_ref().map(Under::of);
        self.figures.covered(&id, under.as_ref());
        let mark = key_mark(&record.key);
        self.write_settled(&record, mark, under.as_ref())?;
        self.remove_stale(&record, mark, under.as_ref())?;
        self.figures.shown(&id, record.state.name(), &record.tenant);
        imported.added += 1;
        Ok(())
    }
}

/// Notes what an operator found out. The expiry stays as it is.
fn resolve(record: &mut Record, as_: Resolution, at: Timestamp) {
    let (outcome, note, share) = match as_ {
        Resolution::Sent => {
            let reply = Reply::new(250, "2.0.0 sent earlier, confirmed by an operator");
            (Outcome::Accepted(reply), "resolved as sent by an operator", Share::Delivered)
        }
        Resolution::NotSent => {
            let reply = Reply::new(451, "4.4.2 not sent, as an operator found out");
            (Outcome::Deferred(reply), "resolved as not sent by an operator", Share::Owed)
        }
    };
    record.marks.resolve(share);
    record.state = State::Settled(outcome);
    record.settled_at = record.settled_at.max(Some(at));
    record.attempts.push(Attempt { at, reply: note.to_owned() });
    shorten(record);
}

/// Keeps the last entries of the lists that are bounded.
fn shorten(record: &mut Record) {
    let attempts = record.attempts.len().saturating_sub(MAX_ATTEMPTS);
    record.attempts.drain(..attempts);
    let suppressed = record.suppressed.len().saturating_sub(MAX_SUPPRESSED);
    record.suppressed.drain(..suppressed);
}
