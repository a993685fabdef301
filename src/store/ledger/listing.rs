//! Looking at many records, and at the counts.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Bound;

use super::super::record::key_mark;
use super::super::{ClaimId, Count, Query, Record, Selection, StateName, StoreFault, counts};
use super::backend::IdRange;
use super::ending::is_known;
use super::{Backend, Ledger, expired};
use crate::clock::Timestamp;

/// The most records that one [`Ledger::list`] looks at, so that a reader can
/// not hold up the claims. Also what a [`Query`] with `scan = 0` gets.
pub const MAX_SCAN: usize = 1000;

/// A page, and where the next starts.
type Page = (Vec<Record>, Option<ClaimId>);

impl<B: Backend> Ledger<B> {
    /// See [`super::super::Store::list`]. Looks at no more than [`MAX_SCAN`]
    /// records; `scan = 0` means that many.
    pub fn list(&self, query: &Query, now: Timestamp) -> Result<Page, StoreFault> {
        let scan = if query.scan == 0 { MAX_SCAN } else { query.scan.min(MAX_SCAN) };
        let from = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        match &query.of {
            Selection::All => self.between((from, Bound::Unbounded), scan, now),
            Selection::Ids(ids) => match part(ids.start(), ids.end(), query.after) {
                Some(ids) => self.between(ids, scan, now),
                None => Ok((Vec::new(), None)),
            },
            Selection::Key(key) if self.backend.is_indexed() => self.keyed(key, query.after, scan, now),
            // The index is still being built.
            Selection::Key(key) => {
                let (mut page, next) = self.between((from, Bound::Unbounded), scan, now)?;
                page.retain(|record| record.key == *key);
                Ok((page, next))
            }
        }
    }

    fn between(&self, ids: IdRange, scan: usize, now: Timestamp) -> Result<Page, StoreFault> {
        // One more than asked for, to know whether another page follows.
        let stored = self.backend.range(ids, scan + 1)?;
        let mut page: BTreeMap<ClaimId, Vec<Record>> = BTreeMap::new();
        for held in self.held.range(ids, scan + 1) {
            page.entry(held.id).or_default().push(held.clone());
        }
        for record in stored {
            let of_id = page.entry(record.id).or_default();
            if of_id.first().is_none_or(|held| shows_through(held, &record)) {
                of_id.push(record);
            }
        }
        let more = page.len() > scan;
        while page.len() > scan {
            page.pop_last();
        }
        let last = page.last_key_value().map(|(id, _)| *id);
        let records = page.into_values().flatten().filter(|record| !expired(record, now)).collect();
        Ok((records, last.filter(|_| more)))
    }

    /// By the index, which may name too many: two keys may share a mark, and a
    /// crash may leave an entry without its record.
    fn keyed(
        &self,
        key: &str,
        after: Option<ClaimId>,
        scan: usize,
        now: Timestamp,
    ) -> Result<Page, StoreFault> {
        let mark = key_mark(key);
        let mut ids: BTreeSet<ClaimId> =
            self.backend.keyed(mark, after.as_ref(), scan + 1)?.into_iter().collect();
        ids.extend(self.held.keyed(mark, after, scan + 1));
        let more = ids.len() > scan;
        while ids.len() > scan {
            ids.pop_last();
        }
        let mut records = Vec::new();
        for id in &ids {
            let found = [self.get(id, now)?, self.shown_through(id, now)?];
            records.extend(found.into_iter().flatten().filter(|record| record.key == key));
        }
        Ok((records, ids.last().copied().filter(|_| more)))
    }

    /// What is known of `id` beneath an attempt that has sent nothing yet.
    fn shown_through(&self, id: &ClaimId, now: Timestamp) -> Result<Option<Record>, StoreFault> {
        let Some(held) = self.held.get(id) else { return Ok(None) };
        let stored = self.backend.get(id)?;
        Ok(stored.filter(|record| shows_through(held, record) && !expired(record, now)))
    }

    /// See [`super::super::Store::count`]; on disk with the next checkpoint.
    pub fn count(&mut self, deltas: &[Count]) -> Result<(), StoreFault> {
        deltas.iter().try_for_each(|delta| self.backend.add_count(delta))
    }

    /// Up to `most` of what [`super::super::Store::counts`] answers, from behind
    /// `after`.
    pub fn counts(
        &self,
        since: Timestamp,
        after: Option<&Count>,
        most: usize,
    ) -> Result<Vec<Count>, StoreFault> {
        self.backend.counts(counts::hour_of(since), after, most)
    }
}

/// Whether a record is listed though a claim lies over it: that claim has sent
/// nothing yet, and the upstream has the record's message, or may have it.
fn shows_through(held: &Record, record: &Record) -> bool {
    held.state.name() == StateName::Pending && is_known(record)
}

/// What of these ids lies behind `after`; a map panics at a range that ends
/// before it starts.
fn part(first: &ClaimId, last: &ClaimId, after: Option<ClaimId>) -> Option<IdRange> {
    let (from, to) = (Bound::Included(*first), Bound::Included(*last));
    match after.filter(|after| after >= first) {
        None => (first <= last).then_some((from, to)),
        Some(after) => (after < *last).then_some((Bound::Excluded(after), to)),
    }
}
