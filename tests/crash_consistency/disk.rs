//! One directory as the operating system has it, and as the disk may have it:
//! what was synced, and what was done since then.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{Change, Content, Image, SECTOR};

/// A change that is not known to be on stable storage.
#[derive(Clone, Debug)]
struct Pending {
    call: usize,
    change: Change,
    done: bool,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Content,
    pending: Vec<Pending>,
}

/// What is done to the names in the directory.
#[derive(Clone, Debug)]
enum Naming {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

type Names = BTreeMap<String, usize>;

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Naming::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
            Naming::Unlink(name) => drop(names.remove(name)),
            Naming::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

/// Which unsynced changes of files a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of them: the process was killed, not the machine.
    Nothing,
    /// None.
    Everything,
    /// Any of them, each whole or not at all.
    Some,
    /// Some last ones only: everything before them was still in a cache.
    Backwards,
    /// All, but for the last one: of that, some first sectors.
    TornEnd,
    /// Each sector, or page of 4 KiB, as it was at any moment since the last
    /// sync; the length as well.
    Sectors,
    Pages,
}

impl Loss {
    pub(crate) const ALL: [Loss; 7] = [
        Loss::Nothing,
        Loss::Everything,
        Loss::Some,
        Loss::Backwards,
        Loss::TornEnd,
        Loss::Sectors,
        Loss::Pages,
    ];
}

/// Which changes of names a crash leaves of those that no sync of the directory
/// has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// Some first ones, in order: file systems with a journal.
    Journalled,
    /// Any of them: all that POSIX promises.
    Loose,
}

impl Metadata {
    pub(crate) const ALL: [Metadata; 2] = [Metadata::Journalled, Metadata::Loose];
}

/// The directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    names: Names,
    durable: Names,
    naming: Vec<Naming>,
}

impl Disk {
    /// A directory that holds `image`, all of it synced.
    pub(crate) fn holding(image: &Image) -> Self {
        let mut disk = Self::default();
        for (name, content) in &image.0 {
            disk.durable.insert(name.clone(), disk.inodes.len());
            disk.inodes.push(Inode { durable: content.clone(), pending: Vec::new() });
        }
        disk.names = disk.durable.clone();
        disk
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.naming.push(naming);
    }

    pub(crate) fn create(&mut self, name: &str) {
        if !self.names.contains_key(name) {
            self.inodes.push(Inode::default());
            self.name(Naming::Link(name.to_owned(), self.inodes.len() - 1));
        }
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        self.name(Naming::Rename(from.to_owned(), to.to_owned()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.name(Naming::Unlink(name.to_owned()));
    }

    /// The file that has this name now.
    pub(crate) fn find(&self, name: &str) -> usize {
        *self.names.get(name).unwrap_or_else(|| panic!("no file {name:?} in {:?}", self.names))
    }

    pub(crate) fn begin(&mut self, call: usize, inode: usize, change: Change) {
        self.inodes[inode].pending.push(Pending { call, change, done: false });
    }

    pub(crate) fn done(&mut self, call: usize, inode: usize) {
        let pending = self.inodes[inode].pending.iter_mut().find(|pending| pending.call == call);
        pending.unwrap().done = true;
    }

    /// The changes that a sync which begins now makes durable.
    pub(crate) fn syncable(&self, inode: usize) -> BTreeSet<usize> {
        self.inodes[inode].pending.iter().filter(|pending| pending.done).map(|pending| pending.call).collect()
    }

    pub(crate) fn synced(&mut self, inode: usize, calls: &BTreeSet<usize>) {
        let Inode { durable, pending } = &mut self.inodes[inode];
        pending.retain(|pending| {
            let synced = calls.contains(&pending.call);
            if synced {
                durable.apply(&pending.change, |_| true);
            }
            !synced
        });
    }

    /// How many changes of names a sync which begins now makes durable.
    pub(crate) fn named(&self) -> usize {
        self.naming.len()
    }

    pub(crate) fn names_synced(&mut self, count: usize) {
        for naming in self.naming.drain(..count.min(self.naming.len())) {
            naming.apply(&mut self.durable);
        }
    }

    /// The process is gone. What it was writing is there, or in part (a kill ends
    /// a large write between two pages), or not, as the `real` directory shows;
    /// `None` where nothing of that explains it.
    pub(crate) fn ended(&self, real: &Image) -> Option<Self> {
        let pending = self.inodes.iter().flat_map(|inode| &inode.pending);
        let undone: Vec<usize> = pending.filter(|it| !it.done).map(|it| it.call).collect();
        let ends = 3_usize.pow(u32::try_from(undone.len()).unwrap());
        (0..ends).find_map(|end| {
            let mut disk = self.clone();
            for (number, inode) in disk.inodes.iter_mut().enumerate() {
                inode.pending.retain_mut(|pending| {
                    let place = undone.iter().position(|call| *call == pending.call);
                    pending.done = true;
                    match place.map_or(0, |place| end / 3_usize.pow(place as u32) % 3) {
                        0 => true,
                        1 => self.begun(number, real, &mut pending.change),
                        _ => false,
                    }
                });
            }
            (disk.crash(Loss::Nothing, Metadata::Loose, &mut |_| 1) == *real).then_some(disk)
        })
    }

    /// Cuts a write off where the real file goes on otherwise.
    fn begun(&self, inode: usize, real: &Image, change: &mut Change) -> bool {
        let name = self.names.iter().find(|(_, it)| **it == inode).map(|(name, _)| name);
        let (Some(real), Change::Write { at, octets }) = (name.and_then(|name| real.0.get(name)), change)
        else {
            return false;
        };
        *octets = octets[..real.agrees(*at, octets)].into();
        true
    }

    /// What a crash may leave. `chance(n)` is a number below `n`.
    pub(crate) fn crash(&self, loss: Loss, metadata: Metadata, chance: &mut dyn FnMut(u64) -> u64) -> Image {
        let names =
            if loss == Loss::Nothing { self.names.clone() } else { self.names_left(loss, metadata, chance) };
        let pending = self.inodes.iter().flat_map(|inode| &inode.pending);
        let mut calls: Vec<usize> = pending.map(|pending| pending.call).collect();
        calls.sort_unstable();
        let last = match loss {
            Loss::Backwards if !calls.is_empty() => Some(calls[chance(calls.len() as u64) as usize]),
            _ => calls.last().copied(),
        };
        let content = |(name, inode): (String, usize)| (name, left(&self.inodes[inode], loss, last, chance));
        Image(names.into_iter().map(content).collect())
    }

    fn names_left(&self, loss: Loss, metadata: Metadata, chance: &mut dyn FnMut(u64) -> u64) -> Names {
        let mut names = self.durable.clone();
        if loss == Loss::Everything {
            return names;
        }
        let first = chance(self.naming.len() as u64 + 1) as usize;
        for (number, naming) in self.naming.iter().enumerate() {
            let left = match metadata {
                Metadata::Journalled => number < first,
                Metadata::Loose => chance(2) == 1,
            };
            if left {
                naming.apply(&mut names);
            }
        }
        names
    }
}

/// `last` is the last of all calls, or the first of the last ones.
fn left(inode: &Inode, loss: Loss, last: Option<usize>, chance: &mut dyn FnMut(u64) -> u64) -> Content {
    let mut content = inode.durable.clone();
    if let Loss::Sectors | Loss::Pages = loss {
        let piece = if loss == Loss::Pages { 4096 / SECTOR } else { 1 };
        return scattered(content, &inode.pending, piece, chance);
    }
    for pending in &inode.pending {
        let is_last = Some(pending.call) == last;
        match loss {
            Loss::Nothing if !pending.done && chance(2) == 0 => {}
            Loss::Some if chance(2) == 0 => {}
            Loss::Everything => {}
            Loss::Backwards if last.is_some_and(|first| pending.call < first) => {}
            Loss::TornEnd if is_last => {
                let sectors = pending.change.sectors();
                let end = sectors.start + chance(sectors.end - sectors.start + 1);
                content.apply(&pending.change, |number| number < end);
            }
            _ => content.apply(&pending.change, |_| true),
        }
    }
    content
}

/// Each piece of so many sectors with the first few of the writes to it.
fn scattered(
    mut content: Content,
    pending: &[Pending],
    piece: u64,
    chance: &mut dyn FnMut(u64) -> u64,
) -> Content {
    let count = pending.len() as u64;
    // Mostly old, mostly new, or anything.
    let lean = chance(3);
    let mut moments: BTreeMap<u64, u64> = BTreeMap::new();
    for number in pending.iter().flat_map(|pending| pending.change.sectors()) {
        let moment = match chance(4) {
            0 => chance(count + 1),
            _ if lean == 0 => 0,
            _ if lean == 1 => count,
            _ => chance(count + 1),
        };
        moments.entry(number / piece).or_insert(moment);
    }
    for (number, pending) in pending.iter().enumerate() {
        content.apply(&pending.change, |sector| moments[&(sector / piece)] > number as u64);
    }
    // A length that came before its octets leaves zeros.
    if chance(4) == 0 {
        let ends = pending.iter().map(|pending| pending.change.sectors().end * SECTOR);
        content.length = content.length.max(ends.max().unwrap_or(0));
    }
    content
}
