//! What the last process left behind.

use super::super::record::key_mark;
use super::super::{AttemptKind, Record, StoreFault};
use super::ending::{Before, End, ended};
use super::held::{Held, Under};
use super::{Backend, Ledger};
use crate::clock::Timestamp;
use crate::planted::{self, Bug};

const ENDED: &str = "4.4.2 [IN-DOUBT] the proxy ended before the upstream's answer; it may have been sent";

impl<B: Backend> Ledger<B> {
    /// At start: everything that was `committing` when the last process ended
    /// is in doubt from `at` on. Answers those records. Reads nothing but the
    /// open records and what lies under them.
    pub fn recover(&mut self, at: Timestamp) -> Result<Vec<Record>, StoreFault> {
        self.now = Some(at);
        let mut doubtful = Vec::new();
        for mut held in self.left_open()? {
            let before = self.backend.get(&held.record.id)?.map(|record| {
                let continued = record.fingerprint == held.record.fingerprint;
                Before { record, continued }
            });
            let doubt = End::in_doubt(at, AttemptKind::Restart, ENDED);
            held.record = ended(held.record, before, doubt);
            self.write_end(&held, true)?;
            doubtful.push(held.record);
        }
        // The rest had ended; only that was not noted any more.
        for record in self.backend.open()? {
            self.backend.remove_open(&record.id)?;
        }
        Ok(doubtful)
    }

    /// For reading only: what was `committing` when the last process ended is
    /// shown so, and left for the next start.
    pub fn load(&mut self) -> Result<(), StoreFault> {
        for Held { record, under, .. } in self.left_open()? {
            self.hold(record, under);
        }
        Ok(())
    }

    /// The open records that no settled one has ended.
    fn left_open(&self) -> Result<Vec<Held>, StoreFault> {
        let mut left = Vec::new();
        if planted::is(Bug::OpenForgotten) {
            return Ok(left);
        }
        for record in self.backend.open()? {
            let settled = self.backend.get(&record.id)?;
            // The same claim (an expired one underneath is another) with one
            // more attempt: the crash came before the open record was removed.
            let has_ended = |settled: &Record| {
                settled.first_seen == record.first_seen && settled.attempt_count > record.attempt_count
            };
            if !settled.as_ref().is_some_and(has_ended) {
                let (mark, under) = (key_mark(&record.key), settled.as_ref().map(Under::of));
                left.push(Held { record, mark, under });
            }
        }
        Ok(left)
    }
}
