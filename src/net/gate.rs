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
    /// Whose it is, once that is known.
    client: Option<IpAddr>,
}

impl Gate {
    /// A place among all connections, for a client that is not known yet;
    /// `None` when there are too many (the client hears `421 4.3.2`).
    pub fn enter(self: &Arc<Self>, limits: &Limits) -> Option<Place> {
        let mut counts = self.counts();
        if counts.all >= limits.max_connections {
            return None;
        }
        counts.all += 1;
        Some(Place { gate: self.clone(), client: None })
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

impl Place {
    /// The same place for the client at `address`; `None`, and the place is
    /// left, when there are too many from there (`421 4.3.2`, too).
    pub fn taken_by(mut self, address: IpAddr, limits: &Limits) -> Option<Self> {
        let has_room = {
            let mut counts = self.gate.counts();
            let from_there = counts.by_address.entry(address).or_insert(0);
            let has_room = *from_there < limits.max_connections_per_ip;
            *from_there += usize::from(has_room);
            has_room
        };
        if !has_room {
            return None;
        }
        self.client = Some(address);
        Some(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.all -= 1;
        let Some(client) = self.client else { return };
        if let Some(count) = counts.by_address.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits(all: usize, each: usize) -> Limits {
        let limits = format!("[limits]\nmax_connections = {all}\nmax_connections_per_ip = {each}");
        let text = format!("[upstream]\naddress = \"a:1\"\n{limits}");
        Config::parse(&text, "m.toml", std::iter::empty()).unwrap().limits
    }

    #[test]
    fn who_is_not_known_yet_counts_among_all_and_for_no_address() {
        let (gate, limits) = (Arc::new(Gate::default()), limits(3, 1));
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let enter = || gate.enter(&limits);
        let places = [enter(), enter(), enter()].map(Option::unwrap);
        assert!(enter().is_none());
        let [first, second, third] = places;
        let first = first.taken_by(one, &limits).unwrap();
        assert!(second.taken_by(one, &limits).is_none());
        assert_eq!(gate.len(), 2, "the place that was refused is left");
        let third = third.taken_by(other, &limits).unwrap();
        drop(first);
        let again = enter().unwrap().taken_by(one, &limits).unwrap();
        drop((again, third));
        assert!(gate.is_empty() && gate.counts().by_address.is_empty());
    }
}
