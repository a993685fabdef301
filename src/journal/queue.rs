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

/// What is told of lines that nobody got.
#[derive(Debug)]
pub(super) enum Loss {
    /// They can't be written; told once until they can.
    Failing(io::Error),
    /// So many were lost; told once lines are taken again. It may put one in
    /// itself.
    Lines(u64),
}

/// A queue whose lines go to `out`, and losses to `report`.
pub(super) fn start(
    out: impl Write + Send + 'static,
    report: impl Fn(Loss) + Send + 'static,
) -> io::Result<(Queue, Drain)> {
    let shared = Arc::new(Shared::default());
    let ours = shared.clone();
    let thread = thread::Builder::new().name("log".into()).spawn(move || run(&ours, out, report))?;
    Ok((Queue(shared.clone()), Drain { shared, thread: Some(thread) }))
}

/// Where lines go, and what became of them.
struct Sink<W> {
    out: W,
    /// Lines that could not be written since the last that could.
    unwritten: u64,
    /// The last octet that was written is not the end of a line.
    torn: bool,
}

impl<W: Write> Sink<W> {
    /// Writes whole lines; what could not be written is counted. A line that
    /// was cut off is ended before the next.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let end: &[u8] = if self.torn { b"\n" } else { b"" };
        let mut done = 0;
        let written = self.write_some(end, &mut 0).and_then(|()| {
            self.torn = false;
            self.write_some(lines, &mut done)
        });
        if done > 0 {
            self.torn = lines[done - 1] != b'\n';
        }
        self.unwritten += count(&lines[done..]);
        written
    }

    /// Counts in `done` how much it could write.
    fn write_some(&mut self, octets: &[u8], done: &mut usize) -> io::Result<()> {
        while *done < octets.len() {
            match self.out.write(&octets[*done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }

    /// The same, with losses told.
    fn take(&mut self, lines: &[u8], report: &impl Fn(Loss)) {
        let failing = self.unwritten > 0;
        match self.write(lines) {
            Ok(()) if failing => report(Loss::Lines(std::mem::take(&mut self.unwritten))),
            Ok(()) => {}
            Err(error) if !failing => report(Loss::Failing(error)),
            Err(_) => {}
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|octet| **octet == b'\n').count() as u64
}

fn run(shared: &Shared, out: impl Write, report: impl Fn(Loss)) {
    let mut out = Sink { out, unwritten: 0, torn: false };
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
        out.take(&lines, &report);
        if lost > 0 {
            report(Loss::Lines(lost));
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
        let report = move |loss| match loss {
            Loss::Lines(count) => lost.send(count).unwrap(),
            Loss::Failing(error) => panic!("{error}"),
        };
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

    /// A disk that is full, but for some octets, until it is not.
    struct Disk {
        room: Arc<Mutex<usize>>,
        got: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
            self.got.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_the_log_says_how_many() {
        let (room, got) = (Arc::new(Mutex::new(8)), Arc::new(Mutex::new(Vec::new())));
        let out = Disk { room: room.clone(), got: got.clone() };
        let mut sink = Sink { out, unwritten: 0, torn: false };
        let told = Mutex::new(Vec::new());
        let report = |loss| told.lock().unwrap().push(format!("{loss:?}"));
        for lines in ["first\nsecond\nthird\n", "fourth\n"] {
            sink.take(lines.as_bytes(), &report);
        }
        *room.lock().unwrap() = 1000;
        sink.take(b"fifth\n", &report);
        sink.take(b"sixth\n", &report);
        assert_eq!(String::from_utf8_lossy(&got.lock().unwrap()), "first\nse\nfifth\nsixth\n");
        assert_eq!(*told.lock().unwrap(), ["Failing(Kind(StorageFull))", "Lines(3)"]);
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
