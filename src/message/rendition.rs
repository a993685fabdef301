//! What goes upstream: our Received field and edited header fields from
//! memory, the rest straight from where the message was received.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// How much of a file is read at once: each time costs two changes of thread.
const BLOCK: usize = 256 * 1024;

/// A message as the upstream will get it: lines end in CRLF, and the last line
/// does. Not dot-stuffed.
#[derive(Clone, Debug, Default)]
pub struct Rendition {
    parts: Vec<Part>,
    len: u64,
    eight_bit: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Memory(Bytes),
    File(Arc<std::fs::File>, Range<u64>),
    Late(Late),
}

/// Gives a text for the recipients at these places of the envelope.
type TextFor = dyn Fn(&[usize]) -> String + Send + Sync;

/// Octets that depend on which recipients the upstream takes, of a length that
/// does not.
#[derive(Clone)]
pub struct Late {
    len: usize,
    text: Arc<TextFor>,
}

impl Late {
    /// `text` is asked when the replies to RCPT are there, with the places of the
    /// recipients taken, and gives `len` octets.
    pub fn new(len: usize, text: impl Fn(&[usize]) -> String + Send + Sync + 'static) -> Self {
        Self { len, text: Arc::new(text) }
    }

    fn octets(&self, taken: &[usize]) -> Vec<u8> {
        let mut octets = (self.text)(taken).into_bytes();
        octets.resize(self.len, b' ');
        octets
    }
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Rendition {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes from memory.
    pub fn push_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len() as u64;
            self.parts.push(Part::Memory(bytes));
        }
    }

    /// Appends a stretch of a file.
    pub fn push_file(&mut self, file: Arc<std::fs::File>, range: Range<u64>) {
        if !range.is_empty() {
            self.len += range.end - range.start;
            self.parts.push(Part::File(file, range));
        }
    }

    /// Appends what is known only when the replies to RCPT are there.
    pub fn push_late(&mut self, late: Late) {
        self.len += late.len as u64;
        self.parts.push(Part::Late(late));
    }

    /// Says that header section or body hold octets above 127.
    pub fn set_eight_bit(&mut self, eight_bit: bool) {
        self.eight_bit = eight_bit;
    }

    /// Whether header section or body hold octets above 127.
    pub fn is_eight_bit(&self) -> bool {
        self.eight_bit
    }

    /// Octets in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads it from the start, for the recipients at these places of the
    /// envelope; as often as wanted.
    pub fn reader<'a>(&'a self, taken: &'a [usize]) -> Reader<'a> {
        Reader { parts: self.parts.iter(), taken, file: None, block: Vec::new() }
    }
}

/// Reads a [`Rendition`] block by block.
#[derive(Debug)]
pub struct Reader<'a> {
    parts: std::slice::Iter<'a, Part>,
    taken: &'a [usize],
    file: Option<(Arc<std::fs::File>, Range<u64>)>,
    block: Vec<u8>,
}

impl Reader<'_> {
    /// The next block, or `None` at the end. Blocks from memory are not
    /// copied and may be as long as a message in memory; blocks from a file
    /// hold at most 256 KiB.
    ///
    /// # Errors
    /// When the temporary file can't be read; the client hears
    /// `451 4.3.0`, nothing is complete at the upstream.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.file.is_none() {
            match self.parts.next() {
                None => return Ok(None),
                Some(Part::Memory(bytes)) => return Ok(Some(bytes)),
                Some(Part::Late(late)) => {
                    self.block = late.octets(self.taken);
                    return Ok(Some(&self.block));
                }
                Some(Part::File(file, range)) => self.file = Some((file.clone(), range.clone())),
            }
        }
        self.next_of_file().await?;
        Ok(Some(&self.block))
    }

    async fn next_of_file(&mut self) -> io::Result<()> {
        let Some((file, mut range)) = self.file.take() else {
            return Ok(());
        };
        let want = (range.end - range.start).min(BLOCK as u64);
        let mut block = std::mem::take(&mut self.block);
        let reader = file.clone();
        let start = range.start;
        self.block = tokio::task::spawn_blocking(move || {
            block.resize(want as usize, 0);
            std::os::unix::fs::FileExt::read_exact_at(&*reader, &mut block, start)?;
            io::Result::Ok(block)
        })
        .await??;
        range.start += want;
        if !range.is_empty() {
            self.file = Some((file, range));
        }
        Ok(())
    }
}
