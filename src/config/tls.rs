//! The TLS of a `[[listener]]`.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// How a listener speaks TLS, and with which files. The files are read where
/// they are used, not here: a command that only looks something up need not be
/// allowed to read private keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// When the handshake is due.
    pub start: TlsStart,
    /// At least one; the first is shown to clients that ask for no name that
    /// another one has.
    pub key_pairs: Vec<KeyPair>,
    /// Who signs the certificates of clients; without it they are not asked
    /// for one.
    pub client_ca: Option<TlsFile>,
}

/// When TLS starts on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStart {
    /// When the client says STARTTLS, if it does.
    Offered,
    /// The same, and MAIL is refused before it.
    Required,
    /// At once, before the greeting.
    Implicit,
}

/// A certificate and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// PEM: the certificate first, then those that lead to its CA.
    pub certificate: TlsFile,
    /// PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub private_key: TlsFile,
}

/// A file that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFile {
    /// The file.
    pub path: PathBuf,
    /// Who names it, for faults: `mailonce.toml:7: listener.certificate`.
    pub named_by: String,
}

/// How a file looked: whatever replaces or writes it changes its stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl TlsFile {
    /// How it looks now; `None` where that can't be seen.
    pub fn stamp(&self) -> Option<FileStamp> {
        let seen = std::fs::metadata(&self.path).ok()?;
        Some(FileStamp { modified: (seen.mtime(), seen.mtime_nsec()), size: seen.size(), inode: seen.ino() })
    }
}
