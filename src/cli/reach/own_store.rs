//! The store of a proxy that does not run, opened for a command.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{Changed, NONE, Stats, Take, Wanted};
use crate::cli::CliFault;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::store::search::{self, Filter, KeyGlob, Search};
use crate::store::sled::SledStore;
use crate::store::view::RecordView;
use crate::store::{
    Change, ClaimId, Imported, Query, Record, Resolution, Selection, State, Store, StoreFault,
};

/// A store and what it runs on.
pub struct OwnStore {
    store: Box<dyn Store>,
    runtime: Runtime,
    clock: Box<dyn Clock>,
}

impl std::fmt::Debug for OwnStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnStore").finish_non_exhaustive()
    }
}

impl OwnStore {
    /// Opens the store in a directory. Attempts that a crash cut off stay as
    /// they are: they are for the next start of the proxy to find.
    pub(super) fn open(path: &Path) -> Result<Self, CliFault> {
        Self::over(Box::new(SledStore::open_without_recovery(path)?), Box::new(SystemClock))
    }

    /// A store that is open already.
    pub(in crate::cli) fn over(store: Box<dyn Store>, clock: Box<dyn Clock>) -> Result<Self, CliFault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { store, runtime, clock })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, StoreFault>>) -> Result<T, CliFault> {
        Ok(self.runtime.block_on(work)?)
    }

    pub(super) fn each(&self, wanted: &Wanted, take: &mut Take<'_>) -> Result<(), CliFault> {
        let now = self.clock.now();
        let filter = filter(wanted, now);
        if wanted.limit > 0 {
            // One page is all; to ask again would be to search again.
            let page = self.wait(Search::new(&*self.store, &filter, now).next())?;
            return hand_over(&page.unwrap_or_default(), take).map(|_| ());
        }
        let of = match &filter.key {
            Some(KeyGlob::Exact(key)) => Selection::Key(key.clone()),
            Some(KeyGlob::Pattern(_)) | None => Selection::All,
        };
        let mut next = Some(Query { of, after: wanted.after, ..Query::default() });
        while let Some(query) = next {
            let (mut page, after) = self.wait(self.store.list(query.clone(), now))?;
            next = after.map(|after| Query { after: Some(after), ..query });
            page.retain(|record| filter.wants(record));
            if hand_over(&page, take)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn find(&self, what: &str) -> Result<Vec<RecordView>, CliFault> {
        let found = self.wait(search::find(&*self.store, what, self.clock.now()))?;
        Ok(found.iter().map(RecordView::from).collect())
    }

    pub(super) fn get(&self, id: &ClaimId) -> Result<Option<RecordView>, CliFault> {
        let record = self.wait(self.store.get(*id, self.clock.now()))?;
        Ok(record.as_ref().map(RecordView::from))
    }

    pub(super) fn forget(&self, id: &str) -> Result<Changed, CliFault> {
        let Some(id) = ClaimId::parse(id) else { return Ok(Changed::Absent) };
        let change = self.wait(self.store.forget(id, self.clock.now()))?;
        Ok(changed(
            change,
            "its attempt had begun when the proxy ended, and may have sent it. Start the proxy: \
            it puts the claim in doubt, and then it can be released or resolved",
        ))
    }

    pub(super) fn resolve(&self, id: &str, as_: Resolution) -> Result<Changed, CliFault> {
        let Some(id) = ClaimId::parse(id) else { return Ok(Changed::Absent) };
        let change = self.wait(self.store.resolve(id, as_, self.clock.now()))?;
        Ok(match change {
            Change::Refused(record) if matches!(record.state, State::Settled(_)) => {
                Changed::Refused(format!("it is {}, not in doubt", record.state.name()))
            }
            change => changed(
                change,
                "its attempt had begun when the proxy ended. Start the proxy: it puts the \
                claim in doubt, and then it can be resolved",
            ),
        })
    }

    pub(super) fn import(&self, records: Vec<Record>) -> Result<Imported, CliFault> {
        self.wait(self.store.import(records, self.clock.now()))
    }

    pub(super) fn stats(&self, since: Option<Duration>) -> Result<Stats, CliFault> {
        let since = since.map_or(Timestamp::default(), |age| before(self.clock.now(), age));
        let mut stats = Stats::default();
        for count in self.wait(self.store.counts(since))? {
            let [rule, tenant] = [count.rule, count.tenant].map(named);
            stats.all += count.tally;
            *stats.by_rule.entry(rule).or_default() += count.tally;
            *stats.by_tenant.entry(tenant).or_default() += count.tally;
        }
        Ok(stats)
    }

    pub(super) fn close(self) -> Result<(), CliFault> {
        self.wait(self.store.close())
    }
}

fn hand_over(page: &[Record], take: &mut Take<'_>) -> Result<ControlFlow<()>, CliFault> {
    for record in page {
        if take(RecordView::from(record))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn changed(change: Change, refused: &str) -> Changed {
    match change {
        Change::Done(_) => Changed::Done,
        Change::Absent => Changed::Absent,
        Change::Refused(_) => Changed::Refused(refused.to_owned()),
    }
}

fn named(name: String) -> String {
    if name.is_empty() { NONE.to_owned() } else { name }
}

fn filter(wanted: &Wanted, now: Timestamp) -> Filter {
    let Wanted { state, tenant, recipient, key, since, limit, .. } = wanted;
    let since = since.map(|age| before(now, age));
    Filter::new(*state, tenant.as_deref(), recipient.as_deref(), key.as_deref(), since, *limit)
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(age))
}
