//! The queue between async callers and the writer.
//!
//! Waking a thread costs more than most of what it is woken for. So what
//! nobody waits for is put in without waking, and the writer takes all that is
//! there in one go.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::writer::Request;

/// What the writer is doing when a request comes.
#[derive(Debug, Default, PartialEq, Eq)]
enum Writer {
    /// It will look again before it sleeps.
    #[default]
    Awake,
    /// It wakes by itself soon.
    Dozing,
    /// It sleeps until it is woken.
    Asleep,
    /// It has ended.
    Gone,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    writer: Writer,
    /// Nobody will put anything in any more.
    abandoned: bool,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits for it.
    Now,
    /// It may wait until the writer wakes for something else.
    Soon,
}

/// The writer has ended; the request is dropped, which its caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// The queue.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

impl Inbox {
    /// Puts a request in.
    pub(super) fn put(&self, request: Request, urgency: Urgency) -> Result<(), Gone> {
        let mut state = self.state();
        match (&state.writer, urgency) {
            (Writer::Gone, _) => return Err(Gone),
            (Writer::Asleep, _) | (Writer::Dozing, Urgency::Now) => {
                state.writer = Writer::Awake;
                self.wake.notify_one();
            }
            (Writer::Awake, _) | (Writer::Dozing, Urgency::Soon) => {}
        }
        state.requests.push(request);
        Ok(())
    }

    /// Nobody will put anything in any more.
    pub(super) fn abandon(&self) {
        self.state().abandoned = true;
        self.wake.notify_one();
    }

    /// Waits until something is there or `until` has come, and takes it all.
    /// False when nothing will ever come again.
    pub(super) fn wait(&self, until: Option<Instant>, into: &mut Vec<Request>) -> bool {
        let mut state = self.state();
        while state.requests.is_empty() && !state.abandoned {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left {
                None => {
                    state.writer = Writer::Asleep;
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    state.writer = Writer::Dozing;
                    let woken = self.wake.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        state.writer = Writer::Awake;
        into.append(&mut state.requests);
        !(into.is_empty() && state.abandoned)
    }

    /// The writer has ended: what is here, and whatever comes, is not answered.
    pub(super) fn close(&self) {
        let left = {
            let mut state = self.state();
            state.writer = Writer::Gone;
            std::mem::take(&mut state.requests)
        };
        drop(left);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}
