//! Decisions as they are made, for whoever follows them.
//!
//! A follower that is too slow loses its place; nobody waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::DecisionOutcome;

/// Decisions that may wait for a follower.
const WAITING: usize = 1024;

/// One decision, as the log shows it in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was decided.
    pub outcome: DecisionOutcome,
    /// Whose mail it is.
    pub tenant: String,
    /// The recipient, whether or not the log hides it.
    pub to: String,
    /// The object on one line, without a line end.
    pub json: String,
}

/// Everybody who follows.
#[derive(Debug)]
pub(super) struct Followers {
    sender: broadcast::Sender<Arc<Event>>,
    /// So that it costs next to nothing when there is nobody.
    count: Arc<AtomicUsize>,
}

impl Default for Followers {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(WAITING), count: Arc::default() }
    }
}

impl Followers {
    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn tell(&self, event: Event) {
        // Nobody may be there any more.
        let _ = self.sender.send(Arc::new(event));
    }

    pub(super) fn join(&self) -> Follower {
        let receiver = self.sender.subscribe();
        self.count.fetch_add(1, Ordering::Relaxed);
        Follower { receiver, count: self.count.clone() }
    }
}

/// Follows every decision from the moment it was made.
#[derive(Debug)]
pub struct Follower {
    receiver: broadcast::Receiver<Arc<Event>>,
    count: Arc<AtomicUsize>,
}

/// The follower was too slow, and has missed decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged;

impl Follower {
    /// The next decision; `None` when there will be none any more.
    ///
    /// # Errors
    /// [`Lagged`] when more have been made than may wait.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, Lagged> {
        match self.receiver.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(RecvError::Closed) => Ok(None),
            Err(RecvError::Lagged(_)) => Err(Lagged),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
