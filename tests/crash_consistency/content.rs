//! What is in files, and what changes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The smallest piece that a disk writes whole.
pub(crate) const SECTOR: u64 = 512;

/// How the name of a directory begins in which a copy is made.
pub(crate) const COPY: &str = "copy-";

/// A file's octets. What is not there is zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    sectors: BTreeMap<u64, Arc<[u8; SECTOR as usize]>>,
    pub(crate) length: u64,
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && self.written().eq(other.written())
    }
}

impl Content {
    pub(crate) fn of(octets: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, octets, |_| true);
        content
    }

    /// Writes those sectors of `octets` that `which` takes.
    fn write(&mut self, at: u64, octets: &[u8], which: impl Fn(u64) -> bool) {
        let end = at + octets.len() as u64;
        for number in at / SECTOR..end.div_ceil(SECTOR) {
            if !which(number) {
                continue;
            }
            let (from, to) = (at.max(number * SECTOR), end.min((number + 1) * SECTOR));
            let piece = &octets[(from - at) as usize..(to - at) as usize];
            if !self.sectors.contains_key(&number) && piece.iter().all(|octet| *octet == 0) {
                // Zero as it is.
            } else {
                let sector = self.sectors.entry(number).or_insert_with(|| Arc::new([0; SECTOR as usize]));
                let place = (from % SECTOR) as usize;
                Arc::make_mut(sector)[place..place + piece.len()].copy_from_slice(piece);
            }
            self.length = self.length.max(to);
        }
    }

    fn cut(&mut self, length: u64) {
        if length < self.length {
            self.sectors.retain(|number, _| number * SECTOR < length);
            if let Some(last) = self.sectors.get_mut(&(length / SECTOR)) {
                Arc::make_mut(last)[(length % SECTOR) as usize..].fill(0);
            }
        }
        self.length = length;
    }

    pub(crate) fn apply(&mut self, change: &Change, which: impl Fn(u64) -> bool) {
        match change {
            Change::Write { at, octets } => self.write(*at, octets, which),
            Change::Length(length) => self.cut(*length),
        }
    }

    fn save(&self, path: &Path) -> std::io::Result<()> {
        let file = File::create(path)?;
        let (mut run, mut start) = (Vec::new(), 0);
        for (number, sector) in &self.sectors {
            if start + run.len() as u64 != number * SECTOR {
                file.write_all_at(&run, start)?;
                run.clear();
                start = number * SECTOR;
            }
            run.extend_from_slice(&sector[..]);
        }
        file.write_all_at(&run, start)?;
        file.set_len(self.length)
    }

    /// How many of these octets stand at `at`, from the first on.
    pub(crate) fn agrees(&self, at: u64, octets: &[u8]) -> usize {
        let is_there = |(octet, at): (&u8, u64)| {
            let sector = self.sectors.get(&(at / SECTOR));
            at < self.length && sector.map_or(0, |sector| sector[(at % SECTOR) as usize]) == *octet
        };
        octets.iter().zip(at..).take_while(|next| is_there(*next)).count()
    }

    /// The octets that are not zero.
    fn written(&self) -> impl Iterator<Item = (&u64, &Arc<[u8; SECTOR as usize]>)> {
        self.sectors.iter().filter(|(_, sector)| sector.iter().any(|octet| *octet != 0))
    }
}

/// What is done to a file.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { at: u64, octets: Arc<[u8]> },
    Length(u64),
}

impl Change {
    pub(crate) fn sectors(&self) -> std::ops::Range<u64> {
        match self {
            Change::Write { at, octets } => at / SECTOR..(at + octets.len() as u64).div_ceil(SECTOR),
            Change::Length(_) => 0..0,
        }
    }
}

/// The files of a directory, and of the directories in it that a copy is made in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Image(pub(crate) BTreeMap<String, Content>);

impl Image {
    pub(crate) fn save(&self, directory: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        self.0.iter().try_for_each(|(name, content)| {
            let path = directory.join(name);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            content.save(&path)
        })
    }

    /// The files of a real directory.
    pub(crate) fn of(directory: &Path) -> std::io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_file() {
                files.insert(name, Content::of(&std::fs::read(entry.path())?));
            } else if entry.file_type()?.is_dir() && name.starts_with(COPY) {
                let inner = Self::of(&entry.path())?.0;
                files.extend(inner.into_iter().map(|(file, content)| (format!("{name}/{file}"), content)));
            }
        }
        Ok(Self(files))
    }
}
