//! The network: connections whose bytes take their time, which are cut at any
//! byte, and which end when a process does.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use mailonce::duplex::Duplex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::plan::Badness;
use super::process::Life;
use super::random::Random;
use super::time::{Ms, Time};

/// Who opened it; the other side has accepted it.
pub const OPENER: usize = 0;
pub const ACCEPTER: usize = 1;

/// What happens at a byte.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Both sides are told.
    Reset,
    /// Neither is.
    Silence,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Closed,
    Reset,
}

/// What one side sends.
#[derive(Debug, Default)]
struct Flow {
    segments: VecDeque<(Ms, Vec<u8>)>,
    last_due: Ms,
    sent: u64,
    read: u64,
    ending: Option<(Ms, Ending)>,
    cut: Option<(u64, Cut)>,
    /// Whether what is sent is taken and never arrives.
    is_lost: bool,
    /// Whether the sender is told that nobody takes it.
    is_broken: bool,
    /// The last octets, and for each line that began with a dot how much its
    /// sender had taken of what the other side sent.
    tail: [u8; 3],
    dots: Vec<u64>,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct State {
    flows: [Flow; 2],
    latency: u64,
    chops: bool,
    /// Whether it is cut at some octet.
    is_cut: bool,
    random: Random,
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    state: Mutex<State>,
    time: Time,
    /// Whether something was said that nobody had asked for.
    pub is_odd: AtomicBool,
}

impl Link {
    /// A connection, and its two ends.
    pub fn open(time: Time, badness: Badness, mut random: Random, lives: [Option<Arc<Life>>; 2]) -> [End; 2] {
        let mut flows = [Flow::default(), Flow::default()];
        let cut = match (random.chance(badness.reset), random.chance(badness.silent)) {
            (true, _) => Some(Cut::Reset),
            (_, true) => Some(Cut::Silence),
            _ => None,
        };
        if let Some(cut) = cut {
            let side = random.index(2);
            let most = random.pick(&[100, 800]);
            flows[side].cut = Some((random.between(1, most), cut));
        }
        let latency = random.between(0, badness.latency);
        let state = State { flows, latency, chops: badness.chops, is_cut: cut.is_some(), random };
        let link = Arc::new(Link { state: Mutex::new(state), time, is_odd: AtomicBool::new(false) });
        let mut side = 0;
        lives.map(|life| {
            if let Some(life) = &life {
                life.holds(link.clone(), side);
            }
            side += 1;
            End { link: link.clone(), side: side - 1, life, timer: None }
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How much `side` has handed over.
    pub fn sent_by(&self, side: usize) -> u64 {
        self.state().flows[side].sent
    }

    /// How much of what `side` sent was taken at the other end.
    pub fn taken_of(&self, side: usize) -> u64 {
        self.state().flows[side].read
    }

    /// How many lines of `side` began with a dot.
    pub fn dots_of(&self, side: usize) -> usize {
        self.state().flows[side].dots.len()
    }

    /// How much `side` had taken of the other's when it began this one of the
    /// lines that begin with a dot.
    pub fn taken_at_dot(&self, side: usize, dot: usize) -> Option<u64> {
        self.state().flows[side].dots.get(dot).copied()
    }

    /// Whether nothing more of `side` will ever be taken.
    pub fn is_over(&self, side: usize) -> bool {
        let flow = &self.state().flows[side];
        flow.segments.is_empty() && (flow.is_lost || flow.ending.is_some())
    }

    /// Whether the network cuts it at some octet.
    pub fn is_cut(&self) -> bool {
        self.state().is_cut
    }

    /// Whether it was, or is to be, cut, or a side has gone.
    pub fn is_bad(&self) -> bool {
        let state = self.state();
        state.flows.iter().any(|flow| flow.cut.is_some() || flow.is_lost || flow.is_broken)
    }

    /// The process at `side` is no more; with a power failure nobody says so.
    pub fn abandon(&self, side: usize, silently: bool) {
        let now = self.time.now();
        let mut state = self.state();
        if silently {
            state.flows.iter_mut().for_each(|flow| flow.is_lost = true);
        } else {
            state.close(side, now);
            state.flows[1 - side].is_broken = true;
        }
        state.wake();
    }
}

impl State {
    fn due(&mut self, side: usize, now: Ms) -> Ms {
        let way = self.random.between(self.latency / 2, self.latency);
        let flow = &mut self.flows[side];
        flow.last_due = flow.last_due.max(now + way);
        flow.last_due
    }

    fn close(&mut self, side: usize, now: Ms) {
        let due = self.due(side, now);
        let flow = &mut self.flows[side];
        if !flow.is_lost && flow.ending.is_none() {
            flow.ending = Some((due, Ending::Closed));
        }
    }

    fn send(&mut self, side: usize, bytes: &[u8], now: Ms) -> usize {
        let whole = !self.chops || self.random.chance(700);
        let count = if whole { bytes.len() } else { 1 + self.random.index(bytes.len()) };
        let due = self.due(side, now);
        let taken = self.flows[1 - side].read;
        let flow = &mut self.flows[side];
        for byte in &bytes[..count] {
            flow.tail = [flow.tail[1], flow.tail[2], *byte];
            if &flow.tail == b"\r\n." {
                flow.dots.push(taken);
            }
        }
        let room = flow.cut.map_or(u64::MAX, |(at, _)| at - flow.sent);
        let arrives = (count as u64).min(room) as usize;
        if !flow.is_lost && arrives > 0 {
            flow.segments.push_back((due, bytes[..arrives].to_vec()));
        }
        flow.sent += count as u64;
        if arrives < count {
            match flow.cut.take() {
                Some((_, Cut::Reset)) => self.flows.iter_mut().for_each(|flow| {
                    flow.ending = Some((due.max(flow.last_due), Ending::Reset));
                    flow.is_broken = true;
                }),
                _ => self.flows.iter_mut().for_each(|flow| flow.is_lost = true),
            }
        }
        count
    }

    fn wake(&mut self) {
        for flow in &mut self.flows {
            if let Some(reader) = flow.reader.take() {
                reader.wake();
            }
        }
    }
}

/// One end of a connection, in the hands of a process or of the world.
#[derive(Debug)]
pub struct End {
    link: Arc<Link>,
    side: usize,
    /// The process; it does nothing any more once that is dead.
    life: Option<Arc<Life>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl End {
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn is_dead(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.is_dead())
    }

    /// What is there to read: how many octets, an error, or when to look again.
    fn look(&self, buffer: &mut ReadBuf<'_>, cx: &Context<'_>) -> Result<io::Result<()>, Option<Ms>> {
        let now = self.link.time.now();
        let mut state = self.link.state();
        let flow = &mut state.flows[1 - self.side];
        flow.reader = Some(cx.waker().clone());
        match flow.segments.front_mut() {
            Some((due, _)) if *due > now => return Err(Some(*due)),
            Some((_, bytes)) => {
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                bytes.drain(..count);
                if bytes.is_empty() {
                    flow.segments.pop_front();
                }
                flow.read += count as u64;
                return Ok(Ok(()));
            }
            None => {}
        }
        match flow.ending {
            Some((due, _)) if due > now => Err(Some(due)),
            Some((_, Ending::Closed)) => Ok(Ok(())),
            Some((_, Ending::Reset)) => Ok(Err(io::ErrorKind::ConnectionReset.into())),
            None => Err(None),
        }
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.is_dead() {
                return Poll::Pending;
            }
            let due = match this.look(buffer, cx) {
                Ok(read) => return Poll::Ready(read),
                Err(None) => return Poll::Pending,
                Err(Some(due)) => due,
            };
            let timer = this.timer.insert(Box::pin(this.link.time.until(due)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_dead() {
            return Poll::Pending;
        }
        let now = self.link.time.now();
        let mut state = self.link.state();
        if state.flows[self.side].is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = state.send(self.side, bytes, now);
        state.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_dead() {
            let now = self.link.time.now();
            let mut state = self.link.state();
            state.close(self.side, now);
            state.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Duplex for End {
    fn has_stopped_sending(&self) -> bool {
        let now = self.link.time.now();
        self.link.state().flows[1 - self.side].ending.is_some_and(|(due, _)| due <= now)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.link.state();
        if state.flows[self.side].is_broken {
            return Poll::Ready(());
        }
        state.flows[1 - self.side].reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.is_dead() {
            self.link.abandon(self.side, false);
        }
    }
}
