//! What the tests of this module share.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time of this thread, which other work on the machine hardly
/// changes.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What some work costs in processor time: the least of three times.
pub(super) fn least_cost(work: impl Fn()) -> Duration {
    let once = || {
        let before = used();
        work();
        used() - before
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}
