//! What becomes known of a claim's clients after it was settled.

use super::super::record::key_mark;
use super::super::{Heard, Reception, Record, StoreFault};
use super::ending::remembered;
use super::held::Under;
use super::{Backend, Ledger, expired};
use crate::clock::Timestamp;

impl<B: Backend> Ledger<B> {
    /// See [`super::super::Store::note_heard`].
    pub fn note_heard(&mut self, notes: &[Heard], now: Timestamp) -> Result<(), StoreFault> {
        notes.iter().try_for_each(|note| self.note_one(*note, now))
    }

    fn note_one(&mut self, Heard { id, reception }: Heard, now: Timestamp) -> Result<(), StoreFault> {
        if let (Reception::ComeAgain, Some(held)) = (reception, self.held.get_mut(&id)) {
            held.record.window = held.record.window.max(held.record.unheard_window);
        }
        let before = self.backend.get(&id)?.filter(|before| !expired(before, now));
        let Some(before) = before else { return Ok(()) };
        let Some(after) = noted(&before, reception) else { return Ok(()) };
        let (under, mark) = (Under::of(&before), key_mark(&after.key));
        self.write_settled(&after, mark, Some(&under))?;
        self.remove_stale(&after, mark, Some(&under))?;
        if let Some(held) = self.held.get_mut(&id) {
            held.lie_over(&after);
        }
        Ok(())
    }
}

/// The record with the note; `None` where it says nothing new of it.
fn noted(before: &Record, reception: Reception) -> Option<Record> {
    let mut after = before.clone();
    match reception {
        Reception::Final { settled_at } => {
            after.heard |= before.settled_at == Some(settled_at);
        }
        Reception::Missed { settled_at } => {
            after.heard &= before.settled_at != Some(settled_at);
        }
        // What no recipient has may be sent again at any time.
        Reception::ComeAgain if before.is_out() => {
            after.heard = false;
            after.window = after.window.max(after.unheard_window);
        }
        Reception::ComeAgain => {}
    }
    let from = before.settled_at.unwrap_or(before.last_seen);
    let expires = from.plus(remembered(&after));
    after.expires = match reception {
        _ if after.heard == before.heard && after.window == before.window => return None,
        Reception::Final { .. } => before.expires.min(expires),
        Reception::Missed { .. } | Reception::ComeAgain => before.expires.max(expires),
    };
    Some(after)
}
