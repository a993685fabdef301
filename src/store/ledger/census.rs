//! How many claims there are, without looking: counted as they come and go.
//!
//! What was in the backend before is counted in slices, in the order of the
//! ids. A change behind the cursor changes the figures; one ahead of it does
//! not, for the cursor will find what came of it. Held claims count from the
//! start, and hide the record underneath them.

use std::collections::HashMap;
use std::ops::Bound;

use super::super::record::key_mark;
use super::super::{Census, ClaimId, Record, StateName, StoreFault};
use super::ending::remembered;
use super::held::Under;
use super::{Backend, Ledger};
use crate::clock::Timestamp;

/// The figures, and how far the cursor is.
#[derive(Debug, Default)]
pub(super) struct Figures {
    census: Census,
    tenants: HashMap<String, u64>,
    /// The last id that the cursor has passed.
    passed: Option<ClaimId>,
}

/// How far a work is that goes on in slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    Unfinished,
    /// There is not.
    Complete,
}

impl Figures {
    /// How many live records a tenant has.
    pub(super) fn of_tenant(&self, tenant: &str) -> u64 {
        self.tenants.get(tenant).copied().unwrap_or(0)
    }

    fn of_state(&mut self, state: StateName) -> &mut u64 {
        match state {
            StateName::Pending => &mut self.census.pending,
            StateName::Committing => &mut self.census.committing,
            StateName::Accepted => &mut self.census.accepted,
            StateName::Deferred => &mut self.census.deferred,
            StateName::Refused => &mut self.census.refused,
            StateName::InDoubt => &mut self.census.in_doubt,
        }
    }

    /// A held claim came.
    pub(super) fn add(&mut self, state: StateName, tenant: &str) {
        *self.of_state(state) += 1;
        match self.tenants.get_mut(tenant) {
            Some(count) => *count += 1,
            None => drop(self.tenants.insert(tenant.to_owned(), 1)),
        }
    }

    /// A held claim went.
    pub(super) fn remove(&mut self, state: StateName, tenant: &str) {
        let count = self.of_state(state);
        *count = count.saturating_sub(1);
        if let Some(count) = self.tenants.get_mut(tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.tenants.remove(tenant);
            }
        }
    }

    /// A held claim's state changed.
    pub(super) fn change(&mut self, from: StateName, to: StateName) {
        let count = self.of_state(from);
        *count = count.saturating_sub(1);
        *self.of_state(to) += 1;
    }

    /// A record of the backend came to light: written, or uncovered.
    pub(super) fn shown(&mut self, id: &ClaimId, state: StateName, tenant: &str) {
        if self.has_passed(id) {
            self.add(state, tenant);
        }
    }

    /// A record of the backend went: removed, or covered.
    pub(super) fn hidden(&mut self, id: &ClaimId, state: StateName, tenant: &str) {
        if self.has_passed(id) {
            self.remove(state, tenant);
        }
    }

    pub(super) fn uncovered(&mut self, id: &ClaimId, under: Option<&Under>) {
        if let Some(under) = under {
            self.shown(id, under.state, &under.tenant);
        }
    }

    pub(super) fn covered(&mut self, id: &ClaimId, under: Option<&Under>) {
        if let Some(under) = under {
            self.hidden(id, under.state, &under.tenant);
        }
    }

    fn has_passed(&self, id: &ClaimId) -> bool {
        self.census.complete || self.passed.as_ref().is_some_and(|passed| id <= passed)
    }
}

impl<B: Backend> Ledger<B> {
    /// See [`super::super::Store::census`].
    pub fn census(&self) -> Census {
        self.figures.census
    }

    /// See [`Backend::compact`]; when everything is counted.
    pub fn compact(&mut self, spare: u64, most: usize) -> Result<Progress, StoreFault> {
        self.backend.compact(self.figures.census.all(), spare, most)
    }

    /// Counts up to `most` more of the records that were there at the opening,
    /// and enters their keys into the index where an earlier version left none.
    /// What was settled under a clock that ran ahead is remembered for its
    /// window from now on, and no longer.
    pub fn count_some(&mut self, most: usize) -> Result<Progress, StoreFault> {
        if self.figures.census.complete {
            return Ok(Progress::Complete);
        }
        let from = self.figures.passed.map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.backend.range((from, Bound::Unbounded), most)?;
        let indexed = self.backend.is_indexed();
        let mut shortened = false;
        for record in &records {
            shortened |= self.shorten(record)?;
            if !indexed {
                self.backend.add_key(key_mark(&record.key), &record.id)?;
            }
            self.pass(record);
        }
        if shortened {
            self.backend.checkpoint()?;
        }
        if records.len() == most {
            return Ok(Progress::Unfinished);
        }
        if !indexed {
            self.backend.set_indexed()?;
        }
        self.figures.census.complete = true;
        Ok(Progress::Complete)
    }

    /// It is now `at`; never earlier than it was.
    pub(super) fn pass_time(&mut self, at: Timestamp) {
        self.now = self.now.map(|now| now.max(at));
    }

    /// Brings forward the end of a record that would outlast its window, counted
    /// from now. Whether it did. One without a window keeps its end.
    fn shorten(&mut self, record: &Record) -> Result<bool, StoreFault> {
        if record.window.is_zero() {
            return Ok(false);
        }
        let latest = self.now.map(|at| at.plus(remembered(record)));
        let Some(latest) = latest.filter(|latest| record.expires > *latest) else { return Ok(false) };
        if self.held.get(&record.id).is_some() {
            return Ok(false);
        }
        self.backend.add_expiry(latest, &record.id)?;
        self.backend.put(&Record { expires: latest, ..record.clone() })?;
        self.backend.remove_expiry(record.expires, &record.id)?;
        Ok(true)
    }

    /// The cursor passes a record of the backend.
    fn pass(&mut self, record: &Record) {
        self.figures.passed = Some(record.id);
        if self.held.get(&record.id).is_none() {
            self.figures.add(record.state.name(), &record.tenant);
        }
    }
}
