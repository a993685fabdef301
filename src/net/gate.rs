//! How many connections there may be, in all and from one address, and when
//! there are so many that nobody gets as long as usual.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;

use super::sparing::Sparing;

/// Counts connections.
#[derive(Debug, Default)]
pub struct Gate {
    /// Changed under the lock of `by_address` alone, read without it.
    all: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    /// Who was turned away for want of a place, for the log.
    pub turned_away: Sparing,
    /// Who talked before the greeting, for the log.
    pub talked_early: Sparing,
}

/// What the gate knows of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// It may relay by its address.
    Known,
    /// It has yet to show that it may.
    Stranger,
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
        let _changing = self.by_address();
        if self.len() >= limits.max_connections {
            return None;
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        Some(Place { gate: self.clone(), client: None })
    }

    /// Whether nine of ten places are taken: whoever keeps one waiting keeps
    /// somebody else out.
    pub fn is_crowded(&self, limits: &Limits) -> bool {
        self.len().saturating_mul(10) >= limits.max_connections.saturating_mul(9)
    }

    /// Connections at this moment.
    pub fn len(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The same place for the client at `address`; `None`, and the place is
    /// left, when there are too many from there (`421 4.3.2`, too). In a crowd
    /// the strangers of one address get no more places than are left, so that
    /// however many connections a few addresses open, somebody else still
    /// finds a place.
    pub fn taken_by(mut self, address: IpAddr, guest: Guest, limits: &Limits) -> Option<Self> {
        let has_room = {
            let mut by_address = self.gate.by_address();
            let from_there = by_address.entry(address).or_insert(0);
            // This place is not taken by anybody yet.
            let others = self.gate.len().saturating_sub(1);
            let left = limits.max_connections.saturating_sub(others);
            let is_crowded = others.saturating_mul(10) >= limits.max_connections.saturating_mul(9);
            let has_room = *from_there < limits.max_connections_per_ip
                && (guest == Guest::Known || !is_crowded || *from_there < left);
            *from_there += usize::from(has_room);
            if *from_there == 0 {
                by_address.remove(&address);
            }
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
        let mut by_address = self.gate.by_address();
        self.gate.all.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        if let Some(count) = by_address.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits(all: usize, from_one: usize) -> Limits {
        let text = format!(
            "hostname = \"r\"\n[upstream]\naddress = \"a:25\"\n\
             [limits]\nmax_connections = {all}\nmax_connections_per_ip = {from_one}"
        );
        Config::parse(&text, "m.toml", std::iter::empty()).unwrap().limits
    }

    /// Lets in as many as it can from each of so many addresses, one from each
    /// in turn; answers how many each has.
    fn flood(gate: &Arc<Gate>, guest: Guest, addresses: u8, limits: &Limits) -> (Vec<Place>, Vec<usize>) {
        let mut places = Vec::new();
        let mut counts = vec![0; usize::from(addresses)];
        loop {
            let before = places.len();
            for (number, count) in (1..).zip(&mut counts) {
                let place = gate
                    .enter(limits)
                    .and_then(|place| place.taken_by(IpAddr::from([10, 0, 0, number]), guest, limits));
                *count += usize::from(place.is_some());
                places.extend(place);
            }
            if places.len() == before {
                return (places, counts);
            }
        }
    }

    fn newcomer(gate: &Arc<Gate>, guest: Guest, limits: &Limits) -> Option<Place> {
        gate.enter(limits)?.taken_by(NEWCOMER, guest, limits)
    }

    const NEWCOMER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn places_are_counted_in_all_and_from_one_address() {
        let gate = Arc::new(Gate::default());
        let limits = limits(5, 3);
        let (places, counts) = flood(&gate, Guest::Known, 2, &limits);
        assert_eq!((counts, gate.len()), (vec![3, 2], 5));
        assert!(newcomer(&gate, Guest::Known, &limits).is_none());
        drop(places);
        assert!(gate.is_empty() && gate.by_address().is_empty());
    }

    #[test]
    fn strangers_of_a_few_addresses_leave_places_for_others() {
        for addresses in [1, 10, 100] {
            let gate = Arc::new(Gate::default());
            let limits = limits(1000, 1000);
            let (_places, counts) = flood(&gate, Guest::Stranger, addresses, &limits);
            assert!(gate.len() >= 900 && gate.is_crowded(&limits), "{counts:?}");
            assert!(newcomer(&gate, Guest::Stranger, &limits).is_some(), "{counts:?}");
        }
    }

    #[test]
    fn without_a_crowd_strangers_get_what_the_limits_say() {
        let gate = Arc::new(Gate::default());
        let (_places, counts) = flood(&gate, Guest::Stranger, 2, &limits(3, 2));
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn nine_of_ten_are_a_crowd() {
        let gate = Arc::new(Gate::default());
        let limits = limits(20, 20);
        let mut places = Vec::new();
        for taken in 0..20 {
            assert_eq!(gate.is_crowded(&limits), taken >= 18, "{taken}");
            places.extend(newcomer(&gate, Guest::Known, &limits));
        }
    }

    #[test]
    fn who_is_not_known_yet_counts_among_all_and_for_no_address() {
        let (gate, limits) = (Arc::new(Gate::default()), limits(3, 1));
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let enter = || gate.enter(&limits);
        let places = [enter(), enter(), enter()].map(Option::unwrap);
        assert!(enter().is_none());
        let [first, second, third] = places;
        let first = first.taken_by(one, Guest::Known, &limits).unwrap();
        assert!(second.taken_by(one, Guest::Known, &limits).is_none());
        assert_eq!(gate.len(), 2, "the place that was refused is left");
        let third = third.taken_by(other, Guest::Known, &limits).unwrap();
        drop(first);
        let again = enter().unwrap().taken_by(one, Guest::Known, &limits).unwrap();
        drop((again, third));
        assert!(gate.is_empty() && gate.by_address().is_empty());
    }
}
