//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;

/// Counts connections.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place; left when dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// A place for a client from `address`; `None` when there are too many
    /// (the client hears `421 4.3.2`).
    pub fn enter(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Option<Place> {
        let mut counts = self.counts();
        let from_here = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.all >= limits.max_connections || from_here >= limits.max_connections_per_ip {
            return None;
        }
        counts.all += 1;
        *counts.by_address.entry(address).or_insert(0) += 1;
        Some(Place { gate: self.clone(), address })
    }

    /// Connections at this moment.
    pub fn len(&self) -> usize {
        self.counts().all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}
