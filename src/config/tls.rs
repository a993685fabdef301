//! The TLS of a `[[listener]]`, and what a certificate goes with.

use super::NamedFile;

/// How a listener speaks TLS, and with which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// When the handshake is due.
    pub start: TlsStart,
    /// At least one; the first is shown to clients that ask for no name that
    /// another one has.
    pub key_pairs: Vec<KeyPair>,
    /// Who signs the certificates of clients; without it they are not asked
    /// for one.
    pub client_ca: Option<NamedFile>,
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
    pub certificate: NamedFile,
    /// PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub private_key: NamedFile,
}
