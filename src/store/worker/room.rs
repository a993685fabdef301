//! Whether the disk has room for more claims.
//!
//! A disk that is really full fails a write, and after that only a restart
//! knows what it holds. So nothing new is begun while little is left, and what
//! is under way has that for its outcomes.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::store::StoreFault;

/// How long one look is good for. It is one call of the system.
const LOOK: Duration = Duration::from_millis(100);

/// Tells the octets that are free.
type Free = Box<dyn FnMut() -> io::Result<u64> + Send>;

/// Watches the free space where the store is.
pub(in crate::store) struct Room {
    path: PathBuf,
    reserve: u64,
    free: Free,
    looked: Option<Instant>,
    /// What to say while there is too little.
    short: Option<String>,
}

impl Room {
    /// Keeps `reserve` octets free on the file system of `path`; 0 looks never.
    pub(in crate::store) fn on_disk(path: PathBuf, reserve: u64) -> Self {
        let place = path.clone();
        let free = move || {
            let found = rustix::fs::statvfs(&place)?;
            Ok(found.f_bavail.saturating_mul(found.f_frsize))
        };
        Self { path, reserve, free: Box::new(free), looked: None, short: None }
    }

    /// Looks if the last look is too old. [`StoreFault::Full`] while there is
    /// too little.
    pub(super) fn check(&mut self) -> Result<(), StoreFault> {
        if self.reserve > 0 && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            // Where it can't be told, the next write will show.
            if let Ok(free) = (self.free)() {
                self.judge(free);
            }
        }
        self.short.clone().map_or(Ok(()), |why| Err(StoreFault::Full(why)))
    }

    /// Octets beyond the reserve that may be used up; where it can't be told,
    /// as many as anybody wants.
    pub(super) fn spare(&mut self) -> u64 {
        (self.free)().map_or(u64::MAX, |free| free.saturating_sub(self.reserve))
    }

    /// A quarter more than the reserve ends it, lest it come and go.
    fn judge(&mut self, free: u64) {
        let path = self.path.display();
        if self.short.is_none() && free < self.reserve {
            let why = format!(
                "the disk of the claim store in {path} is nearly full: {} left, and store.reserve keeps {}. New \
                 e-mail is deferred until there is more. Free some space; nothing needs a restart",
                kib(free),
                kib(self.reserve)
            );
            tracing::error!(free, reserve = self.reserve, "{why}");
            self.short = Some(why);
        } else if self.short.is_some() && free >= self.reserve.saturating_add(self.reserve / 4) {
            tracing::info!(free, "the disk of the claim store in {path} has room again: e-mail is taken");
            self.short = None;
        }
    }
}

fn kib(octets: u64) -> String {
    format!("{} KiB", octets / 1024)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// One that finds what is set there, at every look.
    fn room(free: &Arc<AtomicU64>) -> Room {
        let free = Arc::clone(free);
        let free: Free = Box::new(move || Ok(free.load(Ordering::SeqCst)));
        Room { path: "/here".into(), reserve: 1000, free, looked: None, short: None }
    }

    /// Looks now, though a look was just made.
    fn look(room: &mut Room) -> Result<(), StoreFault> {
        room.looked = None;
        room.check()
    }

    #[test]
    fn too_little_is_a_fault_until_there_is_clearly_more() {
        let free = Arc::new(AtomicU64::new(1000));
        let mut room = room(&free);
        for (now, enough) in
            [(1000, true), (999, false), (1249, false), (1250, true), (1000, true), (0, false)]
        {
            free.store(now, Ordering::SeqCst);
            assert_eq!(look(&mut room).is_ok(), enough, "{now}");
        }
        let fault = look(&mut room).unwrap_err().to_string();
        assert!(
            fault.contains("/here") && fault.contains("store.reserve") && fault.contains("0 KiB left"),
            "{fault}"
        );
    }

    #[test]
    fn what_is_spare_is_beyond_the_reserve() {
        let free = Arc::new(AtomicU64::new(1700));
        let mut room = room(&free);
        assert_eq!(room.spare(), 700);
        free.store(300, Ordering::SeqCst);
        assert_eq!(room.spare(), 0);
        assert!(Room::on_disk("/".into(), 0).spare() > 0);
    }

    #[test]
    fn nobody_looks_for_every_claim() {
        let free = Arc::new(AtomicU64::new(1000));
        let mut room = room(&free);
        room.check().unwrap();
        free.store(0, Ordering::SeqCst);
        // A look of the future is never too old.
        room.looked = Some(Instant::now() + Duration::from_secs(60));
        room.check().unwrap();
        assert!(look(&mut room).is_err());
    }

    #[test]
    fn what_can_not_be_told_stops_nobody() {
        let mut room = Room::on_disk("/proc/nowhere".into(), u64::MAX);
        room.check().unwrap();
        let mut room = Room::on_disk("/".into(), u64::MAX);
        assert!(room.check().is_err(), "no disk is that large");
    }
}
