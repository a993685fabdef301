//! The time that passes, and the wall clock, which may be set.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailonce::clock::{Clock, Timestamp};
use tokio::time::{Instant, Sleep};

/// Milliseconds since the world began, whatever the wall clock says.
pub type Ms = u64;

/// Where the wall clock stands at the beginning.
const BEGINNING: i64 = 1_800_000_000_000;

/// Of all in one world.
#[derive(Clone, Copy, Debug)]
pub struct Time(Instant);

impl Time {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    pub fn now(self) -> Ms {
        self.0.elapsed().as_millis() as Ms
    }

    pub fn until(self, at: Ms) -> Sleep {
        tokio::time::sleep_until(self.0 + Duration::from_millis(at))
    }
}

/// The wall clock.
#[derive(Debug)]
pub struct Wall {
    time: Time,
    ahead: AtomicI64,
    /// When it was set, and how far ahead it has been since.
    set: Mutex<Vec<(Ms, i64)>>,
}

impl Wall {
    pub fn new(time: Time) -> Arc<Self> {
        Arc::new(Self { time, ahead: AtomicI64::new(0), set: Mutex::new(vec![(0, 0)]) })
    }

    pub fn jump(&self, by: i64) {
        let ahead = self.ahead.fetch_add(by, Ordering::SeqCst) + by;
        self.set.lock().unwrap().push((self.time.now(), ahead));
    }

    /// Whether it may have shown `span` more at some moment than at an earlier
    /// one, both between these two.
    pub fn may_have_passed(&self, span: Duration, from: Ms, to: Ms) -> bool {
        let set = self.set.lock().unwrap();
        let mut least = i64::MAX;
        let mut most = i64::MIN;
        for (index, (since, ahead)) in set.iter().enumerate() {
            let until = set.get(index + 1).map_or(to, |(at, _)| *at).min(to);
            let since = (*since).max(from);
            if since <= until {
                least = least.min(since as i64 + ahead);
                most = most.max(until as i64 + ahead);
            }
        }
        most - least >= span.as_millis() as i64
    }
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let now = BEGINNING + self.time.now() as i64 + self.ahead.load(Ordering::SeqCst);
        Timestamp::from_millis(now as u64)
    }
}
