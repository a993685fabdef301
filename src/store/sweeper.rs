//! The background work of forgetting what has expired.

use std::sync::Arc;
use std::time::Duration;

use super::Store;
use crate::clock::Clock;

/// Records of one batch: small, so that no claim waits long behind one.
const BATCH: usize = 256;

/// Between two batches while there is more to do.
const BREATHER: Duration = Duration::from_millis(50);

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
