//! What operators do to records: forgetting, resolving, importing.
//!
//! The engine makes a checkpoint before it answers. Then no frame of a commit
//! log still speaks of an earlier state, which a start would bring back.

use super::super::record::{MAX_ATTEMPTS, MAX_SUPPRESSED, key_mark};
use super::super::{
    Attempt, AttemptKind, Change, ClaimId, Imported, Outcome, Record, Resolution, Share, State, StateName,
    StoreFault,
};
use super::ending::{End, is_known};
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
        let Some(mut record) = stored else { return Ok(Err(Change::Absent)) };
        // Taken over, and under way still: its holder mostly learns the outcome yet.
        let Some(holder) = self.overtaken_holder(&record) else { return Ok(Ok(record)) };
        record.state = State::Committing { holder };
        Ok(Err(Change::Refused(Box::new(record))))
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
        shorten(&mut record);
        if matches!(record.state, State::Committing { .. }) {
            let expires = record.expires;
            end(&mut record, End::in_doubt(now, AttemptKind::Imported, IMPORTED));
            if record.window.is_zero() {
                record.expires = expires;
            }
        }
        let stored = self.backend.get(&id)?;
        let live = stored.as_ref().filter(|stored| !expired(stored, now));
        let mut united = live.map_or_else(|| record.clone(), |live| unite(live.clone(), record.clone()));
        if let Some(held) = self.held.get(&id) {
            // A start takes a record that has more attempts for the end of this one.
            united.attempt_count = held.attempt_count;
        }
        if live == Some(&united) {
            imported.kept += 1;
            return Ok(());
        }
        let under = stored.as_ref().map(Under::of);
        let mark = key_mark(&united.key);
        self.write_settled(&united, mark, under.as_ref())?;
        self.remove_stale(&united, mark, under.as_ref())?;
        match self.held.get_mut(&id) {
            // It lies under an attempt that is under way, and is counted as that.
            Some(held) => held.lie_over(&united),
            None => {
                self.figures.covered(&id, under.as_ref());
                self.figures.shown(&id, united.state.name(), &united.tenant);
            }
        }
        imported.added += 1;
        Ok(())
    }
}

/// What two records of one claim know together: accepted before in doubt before
/// the rest, the longer memory, the marks of both.
fn unite(one: Record, other: Record) -> Record {
    let order = |record: &Record| (rank(record), record.last_seen);
    let (mut most, mut least) = if order(&other) > order(&one) { (other, one) } else { (one, other) };
    // Without marks it is about all recipients.
    if !is_known(&most) || !most.marks.is_empty() {
        most.marks.unite(&least.marks);
    }
    if !most.marks.doubtful.is_empty() && rank(&most) > rank(&least) && is_known(&least) {
        // The doubt about some stays, beside what others have received.
        least.marks.clone_from(&most.marks);
        std::mem::swap(&mut most, &mut least);
    }
    most.window = most.window.max(least.window);
    most.expires = most.expires.max(least.expires);
    most.first_seen = most.first_seen.min(least.first_seen);
    most.last_seen = most.last_seen.max(least.last_seen);
    most.duplicates = most.duplicates.max(least.duplicates);
    most.attempt_count = most.attempt_count.max(least.attempt_count);
    most
}

fn rank(record: &Record) -> u8 {
    match record.state.name() {
        StateName::Accepted => 2,
        StateName::InDoubt | StateName::Committing => 1,
        StateName::Pending | StateName::Deferred | StateName::Refused => 0,
    }
}

/// Notes what an operator found out. The expiry stays as it is.
fn resolve(record: &mut Record, as_: Resolution, at: Timestamp) {
    let (outcome, note, share) = match as_ {
        Resolution::Sent => {
            let reply = Reply::new(250, "2.0.0 sent earlier, confirmed by an operator");
            let note = (AttemptKind::ResolvedSent, "resolved as sent by an operator");
            (Outcome::Accepted(reply), note, Share::Delivered)
        }
        Resolution::NotSent => {
            let reply = Reply::new(451, "4.4.2 not sent, as an operator found out");
            let note = (AttemptKind::ResolvedNotSent, "resolved as not sent by an operator");
            (Outcome::Deferred(reply), note, Share::Owed)
        }
    };
    let (kind, note) = note;
    record.marks.resolve(share);
    record.state = State::Settled(outcome);
    record.settled_at = record.settled_at.max(Some(at));
    record.attempts.push(Attempt { at, kind, reply: note.to_owned() });
    shorten(record);
}

/// Keeps the last entries of the lists that are bounded.
fn shorten(record: &mut Record) {
    let attempts = record.attempts.len().saturating_sub(MAX_ATTEMPTS);
    record.attempts.drain(..attempts);
    let suppressed = record.suppressed.len().saturating_sub(MAX_SUPPRESSED);
    record.suppressed.drain(..suppressed);
}
