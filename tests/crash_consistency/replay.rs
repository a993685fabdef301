//! A recording played on a [`Disk`], event by event.

use std::collections::{BTreeSet, HashMap};

use crate::content::Image;
use crate::disk::Disk;
use crate::history::History;
use crate::recorder::{Call, Event};

/// What a call that is under way will do when it is done.
#[derive(Clone, Debug)]
enum Under {
    Change { inode: usize },
    Sync { inode: usize, changes: BTreeSet<usize> },
    SyncDirectory { namings: usize },
}

/// The disk and the promises at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) disk: Disk,
    pub(crate) history: History,
    under_way: HashMap<usize, Under>,
    perhaps: Vec<Call>,
}

impl Replay {
    pub(crate) fn from(image: &Image, history: History) -> Self {
        Self { disk: Disk::holding(image), history, under_way: HashMap::new(), perhaps: Vec::new() }
    }

    /// Goes on by one event. Whether the disk may have changed by it.
    pub(crate) fn step(&mut self, event: &Event) -> bool {
        match event {
            Event::Note(line) => self.history.note(line),
            Event::Begin(number, call) => self.begin(*number, call),
            Event::Done(number) => self.done(*number),
            Event::Perhaps(call) => self.perhaps.push(call.clone()),
            Event::Ended(real) => self.ended(real),
        }
        matches!(event, Event::Begin(..) | Event::Done(_))
    }

    fn ended(&mut self, real: &Image) {
        self.under_way.clear();
        let perhaps = std::mem::take(&mut self.perhaps);
        let fits = (0..1 << perhaps.len()).find_map(|done: usize| {
            let mut replay = self.clone();
            for (number, call) in perhaps.iter().enumerate().filter(|(number, _)| done >> number & 1 == 1) {
                replay.begin(number, call);
            }
            replay.disk.ended(real)
        });
        self.disk = fits.expect("the recording explains what is in the directory");
    }

    fn begin(&mut self, number: usize, call: &Call) {
        let disk = &mut self.disk;
        let under = match call {
            Call::Create(name) => return disk.create(name),
            Call::Rename(from, to) => return disk.rename(from, to),
            Call::Remove(name) => return disk.remove(name),
            Call::Change(name, change) => {
                let inode = disk.find(name);
                disk.begin(number, inode, change.clone());
                Under::Change { inode }
            }
            Call::Sync(name) => {
                let inode = disk.find(name);
                Under::Sync { inode, changes: disk.syncable(inode) }
            }
            Call::SyncDirectory => Under::SyncDirectory { namings: disk.named() },
        };
        self.under_way.insert(number, under);
    }

    fn done(&mut self, number: usize) {
        match self.under_way.remove(&number) {
            Some(Under::Change { inode }) => self.disk.done(number, inode),
            Some(Under::Sync { inode, changes }) => self.disk.synced(inode, &changes),
            Some(Under::SyncDirectory { namings }) => self.disk.names_synced(namings),
            None => {}
        }
    }
}
