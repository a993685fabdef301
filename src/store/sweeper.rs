//! The background work of forgetting what has expired.

use std::sync::Arc;
use std::time::Duration;

use super::Store;
use crate::clock::Clock;

/// Records of one batch: small, so that no claim waits long behind one.
const BATCH: usize = 64;

/// Between two batches while there is more to do.
const BREATHER: Duration = Duration::from_millis(5);

/// Between two looks when there was nothing more to do.
const PAUSE: Duration = Duration::from_secs(10);

/// After a fault of the store.
const AFTER_FAULT: Duration = Duration::from_secs(60);

/// Sweeps in small batches with pauses, for as long as the task lives. A fault
/// is logged once until a sweep succeeds again.
pub async fn sweep_forever(store: Arc<dyn Store>, clock: Arc<dyn Clock>) {
    let mut failing = false;
    loop {
        let pause = match store.sweep(clock.now(), BATCH).await {
            Ok(gone) => {
                failing = false;
                if gone >= BATCH { BREATHER } else { PAUSE }
            }
            Err(fault) => {
                if !failing {
                    tracing::warn!(%fault, "expired claims can't be removed; trying again every minute");
                }
                failing = true;
                AFTER_FAULT
            }
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{accepted, at, send, slot};
    use super::super::faulty::FaultyStore;
    use super::super::memory::MemoryStore;
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::Query;

    async fn left(store: &dyn Store) -> usize {
        store.list(Query::default(), at(0)).await.unwrap().0.len()
    }

    /// On tokio's paused clock: a sleep costs no time.
    #[tokio::test(start_paused = true)]
    async fn what_expires_goes_away_and_a_fault_is_outlived() {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let clock = Arc::new(ManualClock::new(at(0)));
        for number in 0..5 {
            send(&*faulty, 1, at(0), slot(number), accepted()).await;
        }
        faulty.fail_next("sweep", 1);
        let (store, time): (Arc<dyn Store>, Arc<dyn Clock>) = (faulty.clone(), clock.clone());
        let sweeper = tokio::spawn(sweep_forever(store, time));
        tokio::time::sleep(AFTER_FAULT * 2).await;
        assert!(faulty.calls("sweep") > 1);
        assert_eq!(left(&*faulty).await, 5);
        clock.advance(Duration::from_secs(3600));
        tokio::time::sleep(PAUSE * 2).await;
        assert_eq!(left(&*faulty).await, 0);
        sweeper.abort();
    }
}
