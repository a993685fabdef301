//! By when something must have ended, shared among the ways to try.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::fault::{At, UpstreamFault};

/// By when a connection must be there; without one, only each step has a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// No limit to the whole.
    pub(super) const NONE: Self = Self(None);

    /// So long from now.
    pub(super) fn after(span: Duration) -> Self {
        Self(Some(Instant::now() + span))
    }

    /// An equal part of what is left for each of `tries`, for the first of
    /// them: where one hangs, there is time for the next.
    pub(super) fn share(self, tries: usize) -> Self {
        let tries = u32::try_from(tries.max(1)).unwrap_or(u32::MAX);
        Self(self.0.map(|end| {
            let now = Instant::now();
            now + end.saturating_duration_since(now) / tries
        }))
    }

    /// Ends `work` when the time is over, as one that timed out at `at`.
    pub(super) async fn hold<T, E: From<UpstreamFault>>(
        self,
        at: At,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(end) = self.0 else { return work.await };
        match timeout_at(end, work).await {
            Ok(result) => result,
            Err(_) => Err(UpstreamFault::TimedOut { at }.into()),
        }
    }
}
