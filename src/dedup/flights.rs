//! Who waits for which attempt. A duplicate that arrives while its original
//! is on the way subscribes here, and is told the outcome when it lands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::store::{ClaimId, Outcome};

/// How a flight ended, for those who waited.
#[derive(Clone, Debug)]
pub struct Landing {
    /// What the upstream answered.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
}

type Waiting = HashMap<ClaimId, watch::Sender<Option<Landing>>>;

/// The flights that somebody waits for. Flights that nobody waits for cost
/// nothing here.
#[derive(Debug, Default)]
pub struct Flights(Mutex<Waiting>);

impl Flights {
    /// Waits for the next landing of `id`. Subscribe first, then look at the
    /// record: a flight that lands in between is then seen by one or the other.
    pub fn subscribe(self: &Arc<Self>, id: ClaimId) -> Subscription {
        let landing = self.lock().entry(id).or_insert_with(|| watch::channel(None).0).subscribe();
        Subscription { flights: self.clone(), id, landing }
    }

    /// Tells everyone who waits for `id`. The outcome must be visible in the
    /// store before.
    pub fn land(&self, id: ClaimId, landing: Landing) {
        if let Some(sender) = self.lock().remove(&id) {
            sender.send_replace(Some(landing));
        }
    }

    /// Wakes everyone who waits for `id` without an outcome: the flight was
    /// given up.
    pub fn give_up(&self, id: ClaimId) {
        self.lock().remove(&id);
    }

    /// How many flights are waited for.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait.
#[derive(Debug)]
pub struct Subscription {
    flights: Arc<Flights>,
    id: ClaimId,
    landing: watch::Receiver<Option<Landing>>,
}

impl Subscription {
    /// The landing; `None` when the flight was given up. Waits without limit.
    pub async fn landed(&mut self) -> Option<Landing> {
        self.landing.wait_for(Option::is_some).await.ok().and_then(|landing| landing.clone())
    }
}

impl Drop for Subscription {
    /// The last one to leave takes the entry along.
    fn drop(&mut self) {
        let mut waiting = self.flights.lock();
        // Where the flight has landed, the entry is gone or a newer flight's.
        let ours = self.landing.has_changed().is_ok_and(|landed| !landed);
        if ours && waiting.get(&self.id).is_some_and(|sender| sender.receiver_count() == 1) {
            waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Reply;

    const ID: ClaimId = ClaimId([7; 32]);

    fn landing() -> Landing {
        Landing { outcome: Outcome::Accepted(Reply::new(250, "2.0.0 ok")), at: Timestamp::default() }
    }

    #[tokio::test]
    async fn everyone_who_waits_is_told() {
        let flights = Arc::new(Flights::default());
        let mut waiting: Vec<_> = (0..3).map(|_| flights.subscribe(ID)).collect();
        flights.land(ID, landing());
        for subscription in &mut waiting {
            assert_eq!(subscription.landed().await.unwrap().outcome, landing().outcome);
        }
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_flight_given_up_wakes_without_an_outcome() {
        let flights = Arc::new(Flights::default());
        let mut waiting = flights.subscribe(ID);
        flights.give_up(ID);
        assert!(waiting.landed().await.is_none());
    }

    #[test]
    fn the_last_to_leave_takes_the_entry_along() {
        let flights = Arc::new(Flights::default());
        let (one, two) = (flights.subscribe(ID), flights.subscribe(ID));
        drop(one);
        assert_eq!(flights.len(), 1);
        flights.give_up(ID);
        let later = flights.subscribe(ID);
        drop(two);
        assert_eq!(flights.len(), 1, "an old subscription leaves the new flight's entry alone");
        drop(later);
        assert!(flights.is_empty());
    }
}
