//! The fingerprints of large messages: off the runtime's threads, and one after
//! the other, because each is in memory meanwhile.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::config::Exclude;
use crate::message::Content;
use crate::message::fingerprint::{Fingerprint, fingerprint};

/// How long the memory is kept for the next one: to have it from the system
/// costs as much as the hashing.
const KEPT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Large(Arc<Mutex<Buffer>>);

#[derive(Debug, Default)]
struct Buffer {
    octets: Vec<u8>,
    used: Option<Instant>,
}

impl Large {
    /// Waits for its turn, which a panic does not take from the next.
    ///
    /// # Errors
    /// When the temporary file can't be read.
    pub(super) async fn fingerprint(&self, content: &Content, exclude: &Exclude) -> io::Result<Fingerprint> {
        let is_read = !content.is_in_memory();
        let (content, exclude) = (content.clone(), exclude.clone());
        let mut buffer = Arc::clone(&self.0).lock_owned().await;
        let work = move || {
            let found = content.read_all(&mut buffer.octets).map(|message| fingerprint(message, &exclude));
            buffer.used = Some(Instant::now());
            found
        };
        let found = spawn_blocking(work).await.map_err(io::Error::other).flatten();
        if is_read {
            tokio::spawn(free(Arc::clone(&self.0)));
        }
        found
    }
}

/// Whoever has it now will see to it.
async fn free(buffer: Arc<Mutex<Buffer>>) {
    sleep(KEPT).await;
    if let Ok(mut buffer) = buffer.try_lock()
        && buffer.used.is_none_or(|used| used.elapsed() >= KEPT)
    {
        *buffer = Buffer::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Budget, Spool};

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_kept_while_it_serves_and_no_longer() {
        let spooled = async |memory_limit| {
            let mut spool = Spool::new(Budget::new(1 << 20), memory_limit);
            spool.buffer(2000).extend_from_slice(&b"Subject: x\r\n\r\n".repeat(100));
            spool.settle().await.unwrap();
            spool.finish().await.unwrap()
        };
        let (in_memory, in_file) = (spooled(10_000).await, spooled(100).await);
        assert!(in_memory.is_in_memory() && !in_file.is_in_memory());

        let large = Large::default();
        let of = async |content| large.fingerprint(content, &Exclude::default()).await.unwrap();
        let octets = async || large.0.lock().await.octets.len();
        let found = of(&in_memory).await;
        assert_eq!(octets().await, 0);
        assert_eq!(of(&in_file).await, found);
        sleep(KEPT / 2).await;
        assert_eq!(of(&in_file).await, found);
        sleep(KEPT * 3 / 4).await;
        assert!(octets().await > 0, "used a moment ago");
        sleep(KEPT).await;
        assert_eq!(octets().await, 0);
    }
}
