//! Who waits for which attempt. A duplicate that arrives while its original
//! is on the way subscribes here, and is told the outcome when it lands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::clock::Timestamp;
use crate::planted::{self, Bug};
use crate::store::{ClaimId, Marks, Outcome, Token};

/// How a flight ended, for those who waited.
#[derive(Clone, Debug)]
pub struct Landing {
    /// What the upstream answered.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// With one claim for a whole message: what is known of its recipients.
    pub marks: Marks,
    /// With one claim for a whole message: the marks of the recipients of the
    /// flight. `None` where they are not known.
    pub tried: Option<Vec<u64>>,
}

/// One attempt at one claim. A claim that was taken over is two flights: the
/// outcome of the one says nothing of the other, whose text may differ.
type Flight = (ClaimId, Token);

/// What is sent is the landing, once; whoever waits is woken in the order in which they came.
type Waiting = HashMap<Flight, broadcast::Sender<Landing>>;

/// The flights that somebody waits for. Flights that nobody waits for cost
/// nothing here.
#[derive(Debug, Default)]
pub struct Flights(Mutex<Waiting>);

impl Flights {
    /// Waits for the landing of `id` in the hands of `holder`. Subscribe first, then look at the
    /// record: a flight that lands in between is then seen by one or the other.
    pub fn subscribe(self: &Arc<Self>, id: ClaimId, holder: Token) -> Subscription {
        let flight = (id, holder);
        let landing = self.lock().entry(flight).or_insert_with(|| broadcast::Sender::new(1)).subscribe();
        Subscription { flights: self.clone(), flight, landing }
    }

    /// Tells everyone who waits for this flight. The outcome must be visible in the
    /// store before.
    pub fn land(&self, id: ClaimId, holder: Token, landing: Landing) {
        if planted::is(Bug::WaiterNotWoken) {
            return;
        }
        if let Some(sender) = self.lock().remove(&(id, holder)) {
            // It fails where nobody waits any more.
            let _ = sender.send(landing);
        }
    }

    /// Wakes everyone who waits for this flight without an outcome: it was
    /// given up.
    pub fn give_up(&self, id: ClaimId, holder: Token) {
        self.lock().remove(&(id, holder));
    }

    /// Whether anybody waits for this flight now.
    pub fn is_awaited(&self, id: ClaimId, holder: Token) -> bool {
        self.lock().contains_key(&(id, holder))
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
    flight: Flight,
    landing: broadcast::Receiver<Landing>,
}

impl Subscription {
    /// The landing; `None` when the flight was given up. Waits without limit.
    pub async fn landed(&mut self) -> Option<Landing> {
        self.landing.recv().await.ok()
    }
}

impl Drop for Subscription {
    /// The last one to leave takes the entry along.
    fn drop(&mut self) {
        let mut waiting = self.flights.lock();
        // Where the flight has landed, the entry is gone or a newer flight's.
        let ours = !self.landing.is_closed();
        if ours && waiting.get(&self.flight).is_some_and(|sender| sender.receiver_count() == 1) {
            waiting.remove(&self.flight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Reply;

    const ID: ClaimId = ClaimId([7; 32]);
    const HOLDER: Token = Token { owner: 1, attempt: 1 };
    const NEXT: Token = Token { owner: 1, attempt: 2 };

    fn landing() -> Landing {
        let outcome = Outcome::Accepted(Reply::new(250, "2.0.0 ok"));
        Landing { outcome, at: Timestamp::default(), marks: Marks::default(), tried: None }
    }

    #[tokio::test]
    async fn everyone_who_waits_is_told() {
        let flights = Arc::new(Flights::default());
        let mut waiting: Vec<_> = (0..3).map(|_| flights.subscribe(ID, HOLDER)).collect();
        flights.land(ID, HOLDER, landing());
        for subscription in &mut waiting {
            assert_eq!(subscription.landed().await.unwrap().outcome, landing().outcome);
        }
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_flight_given_up_wakes_without_an_outcome() {
        let flights = Arc::new(Flights::default());
        let mut waiting = flights.subscribe(ID, HOLDER);
        flights.give_up(ID, HOLDER);
        assert!(waiting.landed().await.is_none());
    }

    #[tokio::test]
    async fn the_landing_of_an_old_holder_is_not_the_new_ones() {
        let flights = Arc::new(Flights::default());
        let (mut old, mut new) = (flights.subscribe(ID, HOLDER), flights.subscribe(ID, NEXT));
        flights.land(ID, HOLDER, landing());
        assert!(old.landed().await.is_some());
        flights.give_up(ID, NEXT);
        assert!(new.landed().await.is_none());
    }

    #[test]
    fn the_last_to_leave_takes_the_entry_along() {
        let flights = Arc::new(Flights::default());
        let (one, two) = (flights.subscribe(ID, HOLDER), flights.subscribe(ID, HOLDER));
        drop(one);
        assert_eq!(flights.len(), 1);
        flights.give_up(ID, HOLDER);
        let later = flights.subscribe(ID, HOLDER);
        drop(two);
        assert_eq!(flights.len(), 1, "an old subscription leaves the new flight's entry alone");
        drop(later);
        assert!(flights.is_empty());
    }
}
