//! Log lines that anybody can cause by knocking: a flood must not fill the
//! disk with them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// At most one line in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts what is worth a line, and says when to write one.
#[derive(Debug, Default)]
pub struct Sparing(Mutex<Since>);

#[derive(Debug, Default)]
struct Since {
    told: Option<Instant>,
    untold: u64,
}

impl Sparing {
    /// It happened once more. How often since the last line, this time
    /// included, if a line is due.
    pub fn count(&self) -> Option<u64> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        since.untold += 1;
        if since.told.is_some_and(|told| now < told + PAUSE) {
            return None;
        }
        since.told = Some(now);
        Some(std::mem::take(&mut since.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_line_a_second_that_says_how_many() {
        let sparing = Sparing::default();
        let lines = |times: usize| (0..times).filter_map(|_| sparing.count()).collect::<Vec<_>>();
        assert_eq!(lines(1000), [1], "the first is told at once");
        tokio::time::advance(PAUSE).await;
        assert_eq!(lines(2), [1000], "999 that were not told, and this one");
        tokio::time::advance(PAUSE).await;
        assert_eq!(lines(1), [2]);
    }
}
