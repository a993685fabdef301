//! What became of each letter: one octet for each recipient, so that millions
//! fit, and totals by name.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::letter::{Letter, RECIPIENTS};

/// How often it arrived, up to three times.
const ARRIVED: u8 = 0b11;
/// Its sender heard a 2xx that is an acceptance.
const HEARD: u8 = 1 << 2;
/// Its sender heard that it is in doubt.
const DOUBTED: u8 = 1 << 3;
/// The upstream gave a reason for doubt: it hung up behind the end of the
/// message.
const DOUBTFUL: u8 = 1 << 4;

/// So many faults are kept in words.
const SHOWN: usize = 20;

/// All letters, and how often what happened.
pub(crate) struct Books {
    recipients: Vec<AtomicU8>,
    next: AtomicU32,
    /// Times that the upstream hung up on everybody.
    pub(crate) stops: AtomicU32,
    pub(crate) sent: AtomicU64,
    pub(crate) arrived: AtomicU64,
    totals: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
}

impl Books {
    /// With room for so many letters.
    pub(crate) fn new(letters: usize) -> Self {
        Self {
            recipients: (0..letters * RECIPIENTS).map(|_| AtomicU8::new(0)).collect(),
            next: AtomicU32::new(0),
            stops: AtomicU32::new(0),
            sent: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            totals: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// A new e-mail; `None` when the books are full.
    pub(crate) fn letter(&self) -> Option<Letter> {
        self.entry().map(|entry| Letter { entry, key: entry })
    }

    /// The same key once more, when the proxy has forgotten it: another e-mail.
    pub(crate) fn anew(&self, letter: Letter) -> Option<Letter> {
        self.entry().map(|entry| Letter { entry, ..letter })
    }

    fn entry(&self) -> Option<u32> {
        let entry = self.next.fetch_add(1, Ordering::Relaxed);
        ((entry as usize + 1) * RECIPIENTS <= self.recipients.len()).then_some(entry)
    }

    /// The upstream took it for one recipient.
    pub(crate) fn arrived(&self, letter: Letter, recipient: usize) {
        let Some(mark) = self.mark(letter, recipient) else {
            return self.fault(format!("{letter:?} arrived, and nobody sent it to recipient {recipient}"));
        };
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let once_more = |mark: u8| (mark & ARRIVED < ARRIVED).then_some(mark + 1);
        let before = mark.fetch_update(Ordering::Relaxed, Ordering::Relaxed, once_more);
        if before.is_err() || before.is_ok_and(|mark| mark & ARRIVED > 0) {
            self.count("arrived twice");
        }
    }

    /// Its sender heard 2xx.
    pub(crate) fn heard(&self, letter: Letter, in_doubt: bool) {
        self.set(letter, if in_doubt { DOUBTED } else { HEARD });
    }

    /// The upstream hung up on it at the end of the message.
    pub(crate) fn doubtful(&self, letter: Letter) {
        self.set(letter, DOUBTFUL);
    }

    fn set(&self, letter: Letter, bit: u8) {
        for mark in (0..letter.recipients()).filter_map(|recipient| self.mark(letter, recipient)) {
            mark.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn mark(&self, letter: Letter, recipient: usize) -> Option<&AtomicU8> {
        let known = letter.entry < self.next.load(Ordering::Relaxed) && recipient < letter.recipients();
        known.then(|| self.recipients.get(letter.entry as usize * RECIPIENTS + recipient)).flatten()
    }

    /// One more of these.
    pub(crate) fn count(&self, name: &str) {
        let mut totals = self.totals.lock().unwrap();
        match totals.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(totals.insert(name.to_owned(), 1)),
        }
    }

    /// Something that must not be.
    pub(crate) fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap();
        if faults.len() < SHOWN {
            faults.push(what);
        }
        drop(faults);
        self.count("faults");
    }

    /// How many letters there are.
    pub(crate) fn letters(&self) -> u64 {
        (self.recipients.len() / RECIPIENTS).min(self.next.load(Ordering::Relaxed) as usize) as u64
    }

    /// The totals so far.
    pub(crate) fn totals(&self) -> BTreeMap<String, u64> {
        self.totals.lock().unwrap().clone()
    }

    /// Judges every letter, at the end; what is wrong in words, the first few
    /// of it.
    pub(crate) fn judge(&self) -> Vec<String> {
        for (number, mark) in self.recipients.iter().enumerate() {
            let mark = mark.load(Ordering::Relaxed);
            let name = format!("letter {}, recipient {}", number / RECIPIENTS, number % RECIPIENTS);
            let alone = self.recipients[number / RECIPIENTS * RECIPIENTS + 1].load(Ordering::Relaxed) == 0;
            let (arrived, heard, doubted) = (mark & ARRIVED, mark & HEARD != 0, mark & DOUBTED != 0);
            let doubtful = mark & DOUBTFUL != 0;
            if arrived > 1 {
                self.fault(format!("{name}: arrived {arrived} times"));
            }
            // The reply for several is that of the first newly sent one; that another
            // is in doubt was told before.
            if heard && arrived == 0 && (alone || !doubtful) {
                self.fault(format!("{name}: never arrived, though its sender heard 2xx"));
            }
            if doubted && !doubtful {
                self.fault(format!("{name}: in doubt, though the upstream gave no reason"));
            }
            if doubted {
                self.count(if arrived > 0 { "in doubt and arrived" } else { "in doubt and not arrived" });
            }
        }
        self.faults.lock().unwrap().clone()
    }
}
