//! Named steps of a message's life at which the crash tests kill the process.
//!
//! With the feature `crash-points`, `MAILONCE_CRASH_AT=after-commit` ends the
//! process at that step as SIGKILL would; `after-commit:3` at its third time.
//! Without the feature there is nothing here.
//!
//! The steps, in the order of a message's life:
//!
//! | step | what has happened by then |
//! |---|---|
//! | `after-claim` | the store has answered the claim; nothing went upstream |
//! | `after-body` | the upstream has everything but the last octets |
//! | `after-commit` | the commit point is on stable storage, the last octets are not sent |
//! | `after-dot` | the last octets were handed to the socket; no reply was read |
//! | `after-outcome` | the outcome is in the store; the client has not heard it |

/// Ends the process if this is the step that the environment names.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_step: &str) {}

/// Ends the process if this is the step that the environment names.
#[cfg(feature = "crash-points")]
pub fn point(step: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var("MAILONCE_CRASH_AT").ok()?;
        let (step, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((step.to_owned(), count.parse().ok()?))
    });
    static SEEN: AtomicU64 = AtomicU64::new(0);

    let Some((wanted, count)) = &*WANTED else { return };
    if wanted == step && SEEN.fetch_add(1, Ordering::SeqCst) + 1 == *count {
        // SIGKILL can't fail for the process itself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
