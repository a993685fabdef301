//! What `stats` adds up: decisions by hour, tenant and rule, gathered in
//! memory on their way to the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Decision, DecisionOutcome};
use crate::clock::Timestamp;
use crate::smtp::reply::{Class, Reply};
use crate::store::counts::hour_of;
use crate::store::{Count, Store, StoreFault, Tally};

/// Pairs of a tenant and a rule that one hour tells apart. A tenant may come
/// out of a header, so that there is no end to them.
const MOST_PAIRS: usize = 1000;

/// The tenant under which the others are counted.
const OTHER: &str = "(other)";

/// Hours that are kept for a store that takes nothing.
const MOST_HOURS: usize = 24;

/// The deltas that the store does not have yet.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    hours: Mutex<BTreeMap<u64, Hour>>,
    /// One at a time, so that who flushes knows that nothing is on its way.
    flush: tokio::sync::Mutex<()>,
}

/// One hour: what was flushed stays as zero, which tells which pairs the hour
/// has seen.
#[derive(Debug, Default)]
struct Hour {
    tenants: HashMap<String, HashMap<String, Tally>>,
    pairs: usize,
}

impl Tallies {
    pub(super) fn add(&self, decision: &Decision) {
        let Some(one) = counts_as(decision) else { return };
        let rule = decision.rule.as_deref().unwrap_or_default();
        let hour = hour_of(decision.at);
        self.hours().entry(hour).or_default().add(&decision.context.tenant, rule, one);
    }

    /// Brings everything to the store. What it can't take now is kept.
    pub(super) async fn flush(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreFault> {
        let _turn = self.flush.lock().await;
        let deltas = self.take(now);
        if deltas.is_empty() {
            return Ok(());
        }
        let written = store.count(deltas.clone()).await;
        // A stalled call may still be carried out; nobody is counted twice.
        if matches!(written, Err(StoreFault::Failed(_) | StoreFault::Locked(_) | StoreFault::Full(_))) {
            self.give_back(deltas);
        }
        written
    }

    fn take(&self, now: Timestamp) -> Vec<Count> {
        let mut deltas = Vec::new();
        let mut hours = self.hours();
        for (hour, gathered) in hours.iter_mut() {
            gathered.take(*hour, &mut deltas);
        }
        hours.retain(|hour, _| *hour >= hour_of(now));
        deltas
    }

    fn give_back(&self, deltas: Vec<Count>) {
        let mut hours = self.hours();
        for Count { hour, tenant, rule, tally } in deltas {
            hours.entry(hour).or_default().add(&tenant, &rule, tally);
        }
        while hours.len() > MOST_HOURS {
            hours.pop_first();
        }
    }

    /// The values behind the lock are whole between any two statements.
    fn hours(&self) -> MutexGuard<'_, BTreeMap<u64, Hour>> {
        self.hours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hour {
    fn add(&mut self, tenant: &str, rule: &str, more: Tally) {
        if let Some(tally) = self.tenants.get_mut(tenant).and_then(|rules| rules.get_mut(rule)) {
            *tally += more;
            return;
        }
        let tenant = if self.pairs < MOST_PAIRS { tenant } else { OTHER };
        self.pairs += 1;
        let rules = self.tenants.entry(tenant.to_owned()).or_default();
        *rules.entry(rule.to_owned()).or_default() += more;
    }

    fn take(&mut self, hour: u64, deltas: &mut Vec<Count>) {
        for (tenant, rules) in &mut self.tenants {
            for (rule, tally) in rules {
                let tally = std::mem::take(tally);
                if tally != Tally::default() {
                    deltas.push(Count { hour, tenant: tenant.clone(), rule: rule.clone(), tally });
                }
            }
        }
    }
}

/// What a decision adds; nothing for a message that never was complete.
fn counts_as(decision: &Decision) -> Option<Tally> {
    let mut one = Tally::default();
    match decision.outcome {
        DecisionOutcome::Relayed | DecisionOutcome::Unclaimed => one.relayed = 1,
        DecisionOutcome::ObservedDuplicate
        | DecisionOutcome::ObservedConflict
        | DecisionOutcome::ObservedBadKey => {
            one.observed = 1;
            // It was sent all the same; the reply says how that ended.
            match decision.reply.as_ref().map(Reply::class) {
                Some(Class::Transient) => one.deferred = 1,
                Some(Class::Permanent) => one.refused = 1,
                _ => one.relayed = 1,
            }
        }
        DecisionOutcome::Duplicate => one.suppressed = 1,
        DecisionOutcome::Conflict => one.conflicts = 1,
        DecisionOutcome::InDoubt => one.in_doubt = 1,
        DecisionOutcome::Unkeyed => one.unkeyed = 1,
        DecisionOutcome::Deferred
        | DecisionOutcome::InFlightTimeout
        | DecisionOutcome::Held
        | DecisionOutcome::StoreFailure => one.deferred = 1,
        DecisionOutcome::Refused | DecisionOutcome::Rejected | DecisionOutcome::BadKey => one.refused = 1,
        DecisionOutcome::Aborted => return None,
    }
    Some(one)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::Context;
    use super::*;
    use crate::store::faulty::FaultyStore;
    use crate::store::memory::MemoryStore;

    const NOW: Timestamp = Timestamp::from_millis(1_795_248_900_123);

    fn add(tallies: &Tallies, at: Timestamp, outcome: DecisionOutcome, tenant: &str, rule: &str) {
        let context = Context { tenant: tenant.to_owned(), ..Context::default() };
        let mut decision = Decision::new(at, outcome, Arc::new(context), "ann@b.test");
        decision.rule = Some(rule.to_owned()).filter(|rule| !rule.is_empty());
        tallies.add(&decision);
    }

    async fn counts(store: &dyn Store) -> Vec<Count> {
        store.counts(Timestamp::default()).await.unwrap()
    }

    #[tokio::test]
    async fn every_outcome_is_counted_as_what_it_means_to_the_sender() {
        let (tallies, store) = (Tallies::default(), MemoryStore::new());
        for outcome in DecisionOutcome::ALL {
            add(&tallies, NOW, outcome, "shop", "");
        }
        tallies.flush(&store, NOW).await.unwrap();
        let expected = Tally {
            relayed: 5,
            suppressed: 1,
            conflicts: 1,
            in_doubt: 1,
            unkeyed: 1,
            deferred: 4,
            refused: 3,
            observed: 3,
        };
        assert_eq!(counts(&store).await[0].tally, expected);
    }

    #[tokio::test]
    async fn what_was_flushed_is_not_counted_again_and_later_hours_stand_apart() {
        let (tallies, store) = (Tallies::default(), MemoryStore::new());
        let later = NOW.plus(Duration::from_secs(3600));
        add(&tallies, NOW, DecisionOutcome::Relayed, "shop", "codes");
        tallies.flush(&store, NOW).await.unwrap();
        add(&tallies, NOW, DecisionOutcome::Duplicate, "shop", "codes");
        add(&tallies, later, DecisionOutcome::Relayed, "shop", "codes");
        tallies.flush(&store, later).await.unwrap();
        tallies.flush(&store, later).await.unwrap();
        let counts = counts(&store).await;
        assert_eq!(counts.len(), 2, "{counts:?}");
        assert_eq!((counts[0].tally.relayed, counts[0].tally.suppressed), (1, 1));
        assert_eq!((counts[1].tally.relayed, counts[1].hour), (1, counts[0].hour + 1));
        assert_eq!(counts[1].rule, "codes");
    }

    #[tokio::test]
    async fn tenants_beyond_the_bound_are_counted_together() {
        let (tallies, store) = (Tallies::default(), MemoryStore::new());
        for number in 0..MOST_PAIRS + 5 {
            add(&tallies, NOW, DecisionOutcome::Relayed, &format!("t{number}"), "codes");
        }
        tallies.flush(&store, NOW).await.unwrap();
        add(&tallies, NOW, DecisionOutcome::Relayed, "one more", "codes");
        add(&tallies, NOW, DecisionOutcome::Relayed, "t0", "codes");
        tallies.flush(&store, NOW).await.unwrap();
        let counts = counts(&store).await;
        let relayed = |tenant: &str| {
            let count = counts.iter().find(|count| count.tenant == tenant);
            count.map_or(0, |count| count.tally.relayed)
        };
        assert_eq!(counts.len(), MOST_PAIRS + 1);
        assert_eq!((relayed(OTHER), relayed("t0"), relayed("one more")), (6, 2, 0));
    }

    #[tokio::test]
    async fn what_the_store_can_not_take_is_brought_again() {
        let tallies = Tallies::default();
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        store.fail_next("count", 1);
        add(&tallies, NOW, DecisionOutcome::Relayed, "shop", "");
        assert!(tallies.flush(&store, NOW).await.is_err());
        add(&tallies, NOW, DecisionOutcome::Relayed, "shop", "");
        tallies.flush(&store, NOW).await.unwrap();
        assert_eq!(counts(&store).await[0].tally.relayed, 2);
    }
}
