//! The thread that waits for the disk, on behalf of all who do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Answer, Poison};
use crate::store::StoreFault;

/// How long something written may stay off the disk while nobody waits for it.
const IDLE: Duration = Duration::from_millis(100);

/// Makes everything durable that was written before the call; else says what
/// failed and what to do.
pub(in crate::store) trait Sync: FnMut() -> Result<(), String> + Send + 'static {}

impl<F: FnMut() -> Result<(), String> + Send + 'static> Sync for F {}

enum Wake {
    /// Something was written that nobody waits for.
    Dirty,
    /// Acknowledge this once all that was written before it is durable.
    Waiting(Answer<()>),
}

/// The writer's end of the syncer.
pub(super) struct Syncer {
    wakes: Sender<Wake>,
    dirty: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Syncer {
    pub(super) fn start(mut sync: Box<dyn Sync>, poison: Arc<Poison>) -> io::Result<Self> {
        let (wakes, inbox) = channel();
        let dirty = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&dirty);
        let thread = thread::Builder::new()
            .name("store-syncer".into())
            .spawn(move || run(&inbox, &mut sync, &flag, &poison))?;
        Ok(Self { wakes, dirty, thread })
    }

    /// Something was written; it is to be on disk soon.
    pub(super) fn written(&self) {
        // One message for each flush, however many writes it covers.
        if !self.dirty.swap(true, Ordering::SeqCst) {
            let _ = self.wakes.send(Wake::Dirty);
        }
    }

    /// Answers once everything written before this call is durable. False if
    /// the thread is gone.
    pub(super) fn acknowledge(&self, answer: Answer<()>) -> bool {
        self.wakes.send(Wake::Waiting(answer)).is_ok()
    }

    /// Makes the rest durable and ends the thread. False if it had panicked.
    pub(super) fn stop(self) -> bool {
        drop(self.wakes);
        self.thread.join().is_ok()
    }
}

fn run(inbox: &Receiver<Wake>, sync: &mut Box<dyn Sync>, dirty: &AtomicBool, poison: &Poison) {
    let mut open = true;
    while open {
        let mut waiting = Vec::new();
        match inbox.recv() {
            Ok(Wake::Waiting(answer)) => waiting.push(answer),
            Ok(Wake::Dirty) => match inbox.recv_timeout(IDLE) {
                Ok(Wake::Waiting(answer)) => waiting.push(answer),
                Ok(Wake::Dirty) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            },
            Err(_) => return,
        }
        waiting.extend(inbox.try_iter().filter_map(|wake| match wake {
            Wake::Waiting(answer) => Some(answer),
            Wake::Dirty => None,
        }));
        // Cleared before the sync: what is written while it runs wakes again.
        dirty.store(false, Ordering::SeqCst);
        let result = make_durable(sync, poison);
        for answer in waiting {
            let _ = answer.send(result.clone());
        }
    }
}

/// A failed sync is final: the kernel may have thrown the unwritten pages
/// away, and a second try that succeeds would prove nothing.
fn make_durable(sync: &mut Box<dyn Sync>, poison: &Poison) -> Result<(), StoreFault> {
    poison.check()?;
    sync().map_err(|why| poison.set(why))?;
    // The engine may have failed in the writer meanwhile.
    poison.check()
}
