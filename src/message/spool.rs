//! Where a message is kept while it comes in and until it is sent: in memory,
//! past a limit in a temporary file that has no name and so is gone with the
//! process, whatever ends it.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::headers::MAX_HEAD;

/// How much is gathered before it is written to the file: each time costs two
/// changes of thread.
const FILE_BLOCK: usize = 256 * 1024;

/// What a buffer for a whole message is asked for as at least, of which only
/// what is used is ever resident. glibc gives a buffer above 32 MiB back to the
/// system when it is freed, always. Each smaller one that it gives back makes it
/// keep all up to that size from then on, in a heap for each thread: a proxy
/// that has seen some 25 MiB messages would never again be smaller than ten of them.
const MAPPED: usize = 33 * 1024 * 1024;

/// The memory that all messages together may take.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` octets.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Octets in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn try_take(&self, octets: u64) -> bool {
        let fits = |used: u64| used.checked_add(octets).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// A share of the [`Budget`], given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    octets: u64,
}

impl Share {
    fn resize(&mut self, octets: u64) -> Result<(), NoRoom> {
        if octets > self.octets {
            if !self.budget.try_take(octets - self.octets) {
                return Err(NoRoom::Memory);
            }
        } else {
            self.budget.used.fetch_sub(self.octets - octets, Ordering::Relaxed);
        }
        self.octets = octets;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

/// Why a message can't be kept; the client hears `452 4.3.1`.
#[derive(Debug)]
pub enum NoRoom {
    /// All messages together take as much memory as they may.
    Memory,
    /// The temporary file can't be written.
    File(io::Error),
}

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoRoom::Memory => f.write_str("messages in memory have reached limits.in_memory_total"),
            NoRoom::File(error) => {
                write!(f, "a temporary file in {} failed: {error}", std::env::temp_dir().display())
            }
        }
    }
}

/// A message that is coming in.
#[derive(Debug)]
pub struct Spool {
    memory: Vec<u8>,
    share: Share,
    file: Option<FileTail>,
    memory_limit: usize,
}

#[derive(Debug)]
struct FileTail {
    file: Arc<std::fs::File>,
    len: u64,
}

impl Spool {
    /// An empty one that keeps up to `memory_limit` octets in memory.
    pub fn new(budget: Arc<Budget>, memory_limit: u64) -> Self {
        Self {
            memory: Vec::new(),
            share: Share { budget, octets: 0 },
            file: None,
            memory_limit: usize::try_from(memory_limit).unwrap_or(usize::MAX),
        }
    }

    /// Where up to `octets` of new content are appended; call [`Spool::settle`]
    /// after. Doubles its room as a vector does, but not past the limit: what
    /// is reserved counts, whether it is used or not.
    pub fn buffer(&mut self, octets: usize) -> &mut Vec<u8> {
        let (len, room) = (self.memory.len(), self.memory.capacity());
        if room - len < octets {
            let most = if self.file.is_some() { FILE_BLOCK } else { self.memory_limit };
            let wanted = (len + octets).max((2 * room).min(most));
            self.memory.reserve_exact(wanted - len);
        }
        &mut self.memory
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.len) + self.memory.len() as u64
    }

    /// Whether nothing has come yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Accounts for what was appended, and moves it to the file when it has
    /// become too much for memory.
    ///
    /// # Errors
    /// [`NoRoom`]: the client hears `452 4.3.1`.
    pub async fn settle(&mut self) -> Result<(), NoRoom> {
        let limit = if self.file.is_some() { FILE_BLOCK } else { self.memory_limit };
        if self.memory.len() > limit {
            self.spill().await?;
        }
        self.share.resize(self.memory.capacity() as u64)
    }

    async fn spill(&mut self) -> Result<(), NoRoom> {
        let mut block = std::mem::take(&mut self.memory);
        let tail = self.file.take();
        let written = tokio::task::spawn_blocking(move || {
            let mut tail = match tail {
                Some(tail) => tail,
                None => FileTail { file: Arc::new(tempfile::tempfile()?), len: 0 },
            };
            tail.file.write_all_at(&block, tail.len)?;
            tail.len += block.len() as u64;
            block.clear();
            io::Result::Ok((tail, block))
        });
        let (tail, block) = written.await.map_err(io::Error::other).flatten().map_err(NoRoom::File)?;
        self.file = Some(tail);
        // The buffer serves again, but for the one that was too large for memory.
        if block.capacity() <= 2 * FILE_BLOCK {
            self.memory = block;
        }
        Ok(())
    }

    /// The whole message.
    ///
    /// # Errors
    /// [`NoRoom`]: the client hears `452 4.3.1`.
    pub async fn finish(mut self) -> Result<Content, NoRoom> {
        if self.file.is_some() {
            self.spill().await?;
            self.memory = Vec::new();
        }
        self.share.resize(self.memory.capacity() as u64)?;
        let bytes = Bytes::from(std::mem::take(&mut self.memory));
        let Some(FileTail { file, len }) = self.file.take() else {
            return Ok(Content { kept: Kept::Memory(bytes), _share: Arc::new(self.share) });
        };
        let reader = file.clone();
        let most = usize::try_from(len).map_or(MAX_HEAD, |len| len.min(MAX_HEAD));
        let head = tokio::task::spawn_blocking(move || {
            let mut head = vec![0; most];
            reader.read_exact_at(&mut head, 0).map(|()| head)
        });
        let head = head.await.map_err(io::Error::other).flatten().map_err(NoRoom::File)?;
        Ok(Content { kept: Kept::File { file, len, head: head.into() }, _share: Arc::new(self.share) })
    }
}

/// A message that was received whole: lines that end in CRLF, dots unstuffed.
#[derive(Clone, Debug)]
pub struct Content {
    kept: Kept,
    /// Held for as long as the bytes are.
    _share: Arc<Share>,
}

#[derive(Clone, Debug)]
enum Kept {
    Memory(Bytes),
    File { file: Arc<std::fs::File>, len: u64, head: Bytes },
}

impl Content {
    /// Octets.
    pub fn len(&self) -> u64 {
        match &self.kept {
            Kept::Memory(bytes) => bytes.len() as u64,
            Kept::File { len, .. } => *len,
        }
    }

    /// Whether it has no octets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The beginning: all of it where it is in memory, else enough for the
    /// longest header section that is taken.
    pub fn head(&self) -> &Bytes {
        match &self.kept {
            Kept::Memory(bytes) => bytes,
            Kept::File { head, .. } => head,
        }
    }

    /// Whether [`Content::head`] is all of it.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.kept, Kept::Memory(_))
    }

    /// All of it in memory: in `buffer`, where it is in a file, which may have
    /// served before. Blocks on the file: not for runtime threads.
    ///
    /// # Errors
    /// When the temporary file can't be read.
    pub fn read_all<'b>(&'b self, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        match &self.kept {
            Kept::Memory(bytes) => Ok(bytes),
            Kept::File { file, len, .. } => {
                let len = usize::try_from(*len).map_err(io::Error::other)?;
                if buffer.len() < len {
                    *buffer = vec![0; len.max(MAPPED)];
                }
                let bytes = &mut buffer[..len];
                file.read_exact_at(bytes, 0)?;
                Ok(bytes)
            }
        }
    }

    /// Appends everything from `start` on to what goes upstream.
    pub fn append_from(&self, start: usize, rendition: &mut super::Rendition) {
        match &self.kept {
            Kept::Memory(bytes) => rendition.push_bytes(bytes.slice(start..)),
            Kept::File { file, len, .. } => rendition.push_file(file.clone(), start as u64..*len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Rendition;

    async fn spooled(spool: &mut Spool, block: &[u8], times: usize) -> Result<(), NoRoom> {
        for _ in 0..times {
            spool.buffer(block.len()).extend_from_slice(block);
            spool.settle().await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_small_message_stays_in_memory_and_is_accounted_for() {
        let budget = Budget::new(1 << 20);
        let mut spool = Spool::new(budget.clone(), 1000);
        spooled(&mut spool, b"line\r\n", 10).await.unwrap();
        let content = spool.finish().await.unwrap();
        assert!(content.is_in_memory());
        assert_eq!(content.len(), 60);
        assert!(budget.used() >= 60);
        drop(content);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_large_message_goes_to_a_file_and_frees_its_memory() {
        let budget = Budget::new(1 << 20);
        let mut spool = Spool::new(budget.clone(), 1000);
        let block = b"0123456789abcdef\r\n".repeat(1000);
        spooled(&mut spool, &block, 100).await.unwrap();
        let content = spool.finish().await.unwrap();
        assert!(!content.is_in_memory());
        assert_eq!(budget.used(), 0);
        let mut buffer = Vec::new();
        assert_eq!(content.read_all(&mut buffer).unwrap(), block.repeat(100));
        // Again, where something longer was.
        buffer.fill(1);
        assert_eq!(content.read_all(&mut buffer).unwrap(), block.repeat(100));

        let mut rendition = Rendition::new();
        content.append_from(5, &mut rendition);
        let mut reader = rendition.reader(&[]);
        let mut sent = Vec::new();
        while let Some(block) = reader.next().await.unwrap() {
            sent.extend_from_slice(block);
        }
        assert_eq!(sent, &block.repeat(100)[5..]);
    }

    #[tokio::test]
    async fn a_message_that_came_in_one_piece_is_accounted_for() {
        let budget = Budget::new(1000);
        let mut spool = Spool::new(budget.clone(), 2000);
        spool.buffer(600).extend_from_slice(&[b'a'; 600]);
        let content = spool.finish().await.unwrap();
        assert!(budget.used() >= 600);
        let mut second = Spool::new(budget.clone(), 2000);
        second.buffer(600).extend_from_slice(&[b'a'; 600]);
        assert!(matches!(second.finish().await, Err(NoRoom::Memory)));
        drop(content);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn past_the_budget_there_is_no_room() {
        let budget = Budget::new(10_000);
        let mut first = Spool::new(budget.clone(), 9_000);
        spooled(&mut first, &[b'a'; 1000], 6).await.unwrap();
        let mut second = Spool::new(budget.clone(), 9_000);
        assert!(matches!(spooled(&mut second, &[b'a'; 1000], 9).await, Err(NoRoom::Memory)));
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }
}
