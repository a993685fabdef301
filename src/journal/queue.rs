//! Log lines on their way to a file or a pipe, on a thread of their own.
//!
//! Nobody who has something to log waits for whoever reads the log. Lines
//! gather for a few milliseconds and are written together: waking a thread for
//! each costs more than writing it.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long lines gather.
const GATHER: Duration = Duration::from_millis(5);

/// Octets that may wait for a slow reader. A proxy that stops because nobody
/// reads its log would be worse than a gap in the log.
const WAITING: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    lost: u64,
    closing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where lines are handed in.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

/// Keeps the thread going. Dropping it writes what is waiting.
#[derive(Debug)]
pub(super) struct Drain {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A queue whose lines go to `out`. `report` is told how many were lost once
/// the reader takes lines again; it may put one in itself.
pub(super) fn start(
    out: impl Write + Send + 'static,
    report: impl Fn(u64) + Send + 'static,
) -> io::Result<(Queue, Drain)> {
    let shared = Arc::new(Shared::default());
    let ours = shared.clone();
    let thread = thread::Builder::new().name("log".into()).spawn(move || run(&ours, out, report))?;
    Ok((Queue(shared.clone()), Drain { shared, thread: Some(thread) }))
}

fn run(shared: &Shared, mut out: impl Write, report: impl Fn(u64)) {
    let mut lines = Vec::new();
    loop {
        let mut state = shared.state();
        while state.waiting.is_empty() && !state.closing {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closing {
            let gathered = shared.wake.wait_timeout_while(state, GATHER, |state| !state.closing);
            state = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        mem::swap(&mut lines, &mut state.waiting);
        let (lost, closing) = (mem::take(&mut state.lost), state.closing);
        drop(state);
        // Where the log itself can't be written there is nowhere to say so.
        let _ = out.write_all(&lines);
        let _ = out.flush();
        if lost > 0 {
            report(lost);
        }
        if closing {
            return;
        }
        lines.clear();
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Write for Queue {
    /// Takes one or more whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.waiting.len() + lines.len() > WAITING {
            state.lost += 1;
        } else {
            // The thread is woken by the first line, and gathers the rest.
            if state.waiting.is_empty() {
                self.0.wake.notify_one();
            }
            state.waiting.extend_from_slice(lines);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reader that takes nothing before it is told to.
    struct Reader {
        may_go_on: Receiver<()>,
        got: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.may_go_on.recv();
            let _ = self.got.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_holds_nobody_up_and_hears_how_much_it_missed() {
        let (go_on, may_go_on) = channel();
        let (got, taken) = channel();
        let (lost, losses) = channel();
        let report = move |count| lost.send(count).unwrap();
        let (mut queue, drain) = start(Reader { may_go_on, got }, report).unwrap();
        let block = vec![b'x'; WAITING / 2 + 1];
        for _ in 0..5 {
            queue.write_all(&block).unwrap();
        }
        drop(go_on);
        drop(drain);
        let bytes: Vec<u8> = taken.iter().flatten().collect();
        assert!(bytes.len() < 3 * block.len());
        let lost: u64 = losses.iter().sum();
        assert_eq!(bytes.len() as u64 + lost * block.len() as u64, 5 * block.len() as u64);
    }

    #[test]
    fn dropping_the_drain_writes_what_waits_in_order() {
        let (go_on, may_go_on) = channel();
        let (got, taken) = channel();
        let (mut queue, drain) = start(Reader { may_go_on, got }, |_| ()).unwrap();
        for number in 0..100 {
            queue.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(go_on);
        drop(drain);
        let text = String::from_utf8(taken.iter().flatten().collect()).unwrap();
        assert!(text.lines().map(|line| line.parse::<u32>().unwrap()).eq(0..100));
    }
}
