//! Connections kept for the next message, each for the account that it logged
//! in with, and for no other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::auth::Account;
use super::pool::Link;

/// How many accounts can have all the connections that one may have. Past
/// that, the connection that was idle for longest makes room: many clients
/// must not pile up more connections than the upstream bears.
const FULL_ACCOUNTS: usize = 10;

/// The connections kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// The most for one account.
    pool_size: usize,
    idle_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The latest given back is at the end, and taken first.
    links: Vec<Link>,
    closed: bool,
}

impl Kept {
    pub(super) fn new(pool_size: usize, idle_timeout: Duration) -> Self {
        Self { pool_size, idle_timeout, state: Mutex::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.state().links.len()
    }

    /// Takes the connection to `address` in the name of `account` that was
    /// last given back and has not been idle for too long.
    pub(super) fn take(&self, address: &Arc<str>, account: Option<&Account>) -> Option<Link> {
        let mut state = self.state();
        let fits = |link: &Link| {
            link.address() == address
                && link.account.as_ref() == account
                && link.idle_since.elapsed() < self.idle_timeout
        };
        let at = state.links.iter().rposition(fits)?;
        Some(state.links.remove(at))
    }

    /// Keeps a connection, and returns the one that there is no room for.
    pub(super) fn put(&self, link: Link) -> Option<Link> {
        let mut state = self.state();
        let of_account = state.links.iter().filter(|other| other.account == link.account).count();
        if state.closed || of_account >= self.pool_size {
            return Some(link);
        }
        state.links.push(link);
        let is_over = state.links.len() > self.pool_size.saturating_mul(FULL_ACCOUNTS);
        is_over.then(|| state.links.remove(0))
    }

    /// Takes out all that were idle for too long.
    pub(super) fn expired(&self) -> Vec<Link> {
        let is_over = |link: &mut Link| link.idle_since.elapsed() >= self.idle_timeout;
        self.state().links.extract_if(.., is_over).collect()
    }

    /// Takes out all that are in the name of `account`.
    pub(super) fn of(&self, account: &Account) -> Vec<Link> {
        self.state().links.extract_if(.., |link| link.account.as_ref() == Some(account)).collect()
    }

    /// Takes out all, and keeps none from now on.
    pub(super) fn close(&self) -> Vec<Link> {
        let mut state = self.state();
        state.closed = true;
        std::mem::take(&mut state.links)
    }

    /// The value behind the lock is whole between any two statements.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
