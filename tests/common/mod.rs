//! What the black-box tests share: the real program with a configuration of
//! its own, a client that says exactly what it is told, and an upstream that
//! behaves as scripted. Ports come from the kernel; nothing here sleeps, it
//! waits for events and gives up after [`DEADLINE`].

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

pub mod client;
pub mod gate;
pub mod got;
pub mod http;
pub mod login;
pub mod mail;
pub mod program;
pub mod upstream;
pub mod wire;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use client::Client;
pub use mail::Mail;
pub use program::{Proxy, Setup};
pub use upstream::{At, Do, Upstream};

/// How long a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A value that one thread changes and another waits for.
#[derive(Debug, Default)]
pub struct Watched<T>(Mutex<T>, Condvar);

impl<T> Watched<T> {
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value), Condvar::new())
    }

    /// The value, now.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value and wakes those who wait for it.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.1.notify_all();
        result
    }

    /// Waits until `look` finds what it looks for.
    pub fn wait<R>(&self, mut look: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + DEADLINE;
        let mut value = self.lock();
        loop {
            if let Some(found) = look(&mut value) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            value = self.1.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Does something again and again until it yields a value.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        // What is waited for here tells nobody; looking costs little.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Runs `work` on a thread and gives its handle; for clients that wait.
pub fn meanwhile<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}
