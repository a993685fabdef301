//! Finding records: by what is in them, or by what somebody calls them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wildmatch::WildMatch;

pub use super::record::StateName;
use super::{ClaimId, Query, Record, Selection, Store, StoreFault};
use crate::clock::Timestamp;
use crate::smtp::address::Path;

/// The fewest hex digits that are taken for the start of an id.
pub const SHORTEST_PREFIX: usize = 8;

/// The most records that [`find`] answers.
pub const MOST_FOUND: usize = 1000;

/// Which records are wanted: those that pass all of it.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In this state.
    pub state: Option<StateName>,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// For such a recipient.
    pub recipient: Option<AddressGlob>,
    /// With such a key.
    pub key: Option<KeyGlob>,
    /// Last seen then or later.
    pub since: Option<Timestamp>,
    /// At most so many, the newest; 0 for all.
    pub limit: usize,
}

/// A pattern for addresses, whose spelling does not matter; `*` and `?` stand
/// for anything.
#[derive(Clone, Debug)]
pub struct AddressGlob(WildMatch);

impl AddressGlob {
    /// The pattern that `text` is.
    pub fn new(text: &str) -> Self {
        Self(WildMatch::new(&address(text)))
    }

    /// Whether an address is meant.
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(&address(text))
    }
}

/// A pattern for keys, which are compared exactly; `*` and `?` stand for
/// anything.
#[derive(Clone, Debug)]
pub enum KeyGlob {
    /// Without `*` and `?`: the store can look it up.
    Exact(String),
    /// With them.
    Pattern(WildMatch),
}

impl KeyGlob {
    /// The pattern that `text` is.
    pub fn new(text: &str) -> Self {
        if text.contains(['*', '?']) {
            KeyGlob::Pattern(WildMatch::new(text))
        } else {
            KeyGlob::Exact(text.to_owned())
        }
    }

    /// Whether a key is meant.
    pub fn matches(&self, key: &str) -> bool {
        match self {
            KeyGlob::Exact(text) => text == key,
            KeyGlob::Pattern(glob) => glob.matches(key),
        }
    }
}

impl Filter {
    /// A filter out of plain texts.
    pub fn new(
        state: Option<StateName>,
        tenant: Option<&str>,
        recipient: Option<&str>,
        key: Option<&str>,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Self {
        Self {
            state,
            tenant: tenant.map(str::to_owned),
            recipient: recipient.map(AddressGlob::new),
            key: key.map(KeyGlob::new),
            since,
            limit,
        }
    }

    /// Whether a record passes.
    pub fn wants(&self, record: &Record) -> bool {
        self.state.is_none_or(|state| state == record.state.name())
            && self.tenant.as_ref().is_none_or(|tenant| *tenant == record.tenant)
            && self.recipient.as_ref().is_none_or(|glob| glob.matches(&record.recipient))
            && self.key.as_ref().is_none_or(|glob| glob.matches(&record.key))
            && self.since.is_none_or(|since| record.last_seen >= since)
    }

    /// The records among which the wanted ones are.
    fn selection(&self) -> Selection {
        match &self.key {
            Some(KeyGlob::Exact(key)) => Selection::Key(key.clone()),
            Some(KeyGlob::Pattern(_)) | None => Selection::All,
        }
    }
}

/// The form in which spellings of one address are equal.
fn address(text: &str) -> String {
    Path::parse(text).map_or_else(|| text.to_lowercase(), |path| path.identity())
}

/// A search under way. With a limit it gives one page, the newest records
/// first, and holds no more than that many; without one, page after page in
/// the order of their ids, each as the store has it.
///
/// ```no_run
/// # use mailonce::store::{Store, StoreFault, search::{Filter, Search}};
/// # async fn example(store: &dyn Store, filter: &Filter, now: mailonce::clock::Timestamp) -> Result<(), StoreFault> {
/// let mut search = Search::new(store, filter, now);
/// while let Some(page) = search.next().await? {
///     // ...
/// }
/// # Ok(())
/// # }
/// ```
pub struct Search<'a> {
    filter: &'a Filter,
    pages: Pages<'a>,
    found: usize,
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search")
            .field("filter", self.filter)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl<'a> Search<'a> {
    /// Begins a search for what has not expired at `now`.
    pub fn new(store: &'a dyn Store, filter: &'a Filter, now: Timestamp) -> Self {
        Self { filter, pages: Pages::new(store, filter.selection(), now), found: 0 }
    }

    /// The next records, never none; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreFault> {
        if self.filter.limit > 0 {
            let newest = self.newest(self.filter.limit).await?;
            return Ok(Some(newest).filter(|page| !page.is_empty()));
        }
        while let Some(page) = self.pages.next().await? {
            let wanted: Vec<Record> = page.into_iter().filter(|r| self.filter.wants(r)).collect();
            self.found += wanted.len();
            if !wanted.is_empty() {
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }

    /// How many records were found so far, those past the limit included.
    pub fn found(&self) -> usize {
        self.found
    }

    async fn newest(&mut self, limit: usize) -> Result<Vec<Record>, StoreFault> {
        let mut newest = BinaryHeap::new();
        while let Some(page) = self.pages.next().await? {
            for record in page.into_iter().filter(|record| self.filter.wants(record)) {
                self.found += 1;
                newest.push(Reverse(ByTime(record)));
                if newest.len() > limit {
                    newest.pop();
                }
            }
        }
        // Reverse turns the heap's ascending order into the newest first.
        Ok(newest.into_sorted_vec().into_iter().map(|Reverse(ByTime(record))| record).collect())
    }
}

/// The pages of a store's list, one after the other.
struct Pages<'a> {
    store: &'a dyn Store,
    now: Timestamp,
    /// Where the next page starts; `None` at the end.
    next: Option<Query>,
}

impl<'a> Pages<'a> {
    fn new(store: &'a dyn Store, of: Selection, now: Timestamp) -> Self {
        Self { store, now, next: Some(Query { of, ..Query::default() }) }
    }

    async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreFault> {
        let Some(query) = self.next.take() else { return Ok(None) };
        let (page, after) = self.store.list(query.clone(), self.now).await?;
        self.next = after.map(|after| Query { after: Some(after), ..query });
        Ok(Some(page))
    }
}

/// A record in the order of when it was last seen.
struct ByTime(Record);

impl ByTime {
    fn rank(&self) -> (Timestamp, Reverse<ClaimId>) {
        (self.0.last_seen, Reverse(self.0.id))
    }
}

impl PartialEq for ByTime {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for ByTime {}

impl PartialOrd for ByTime {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTime {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// The records that `what` names: a whole claim id; else a key; else the first
/// digits of an id, at least [`SHORTEST_PREFIX`] of them. In the order of
/// their ids, and no more than [`MOST_FOUND`].
pub async fn find(store: &dyn Store, what: &str, now: Timestamp) -> Result<Vec<Record>, StoreFault> {
    if let Some(id) = ClaimId::parse(what)
        && let Some(record) = store.get(id, now).await?
    {
        return Ok(vec![record]);
    }
    let found = some_of(store, Selection::Key(what.to_owned()), now).await?;
    match prefixed(what) {
        Some(ids) if found.is_empty() => some_of(store, ids, now).await,
        _ => Ok(found),
    }
}

async fn some_of(store: &dyn Store, of: Selection, now: Timestamp) -> Result<Vec<Record>, StoreFault> {
    let (mut pages, mut found) = (Pages::new(store, of, now), Vec::new());
    while found.len() < MOST_FOUND
        && let Some(page) = pages.next().await?
    {
        found.extend(page);
    }
    // An attempt that is under way comes before what lies beneath it.
    found.dedup_by_key(|record| record.id);
    found.truncate(MOST_FOUND);
    Ok(found)
}

/// The ids that start with these digits.
fn prefixed(digits: &str) -> Option<Selection> {
    let missing = 64_usize.checked_sub(digits.len()).filter(|_| digits.len() >= SHORTEST_PREFIX)?;
    let bound = |fill: &str| ClaimId::parse(&format!("{digits}{}", fill.repeat(missing)));
    Some(Selection::Ids(bound("0")?..=bound("f")?))
}

#[cfg(test)]
mod tests;
