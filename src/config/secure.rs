//! How connections to the upstream are secured, and who we are to it.

use super::{KeyPair, NamedFile};
use crate::secret::Secret;

/// TLS towards the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// When, and what follows where it can't be had.
    pub manner: TlsManner,
    /// Who asks for it, for faults: `mailonce.toml:3: upstream.tls`.
    pub named_by: String,
    /// The CAs that may sign the upstream's certificate; `None`: those of the
    /// system. Not looked at where nothing is verified.
    pub ca_file: Option<NamedFile>,
    /// Our certificate, shown where the upstream asks for one.
    pub key_pair: Option<KeyPair>,
}

/// When TLS starts, and whether it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsManner {
    /// By STARTTLS where that is offered, unverified; else in clear.
    Opportunistic,
    /// By STARTTLS (RFC 3207), or nothing is sent.
    StartTls,
    /// From the first octet on (RFC 8314 §3).
    Implicit,
}

impl TlsManner {
    /// Whether the certificate is verified, and nothing sent where it fails.
    pub fn verifies(self) -> bool {
        self != TlsManner::Opportunistic
    }
}

/// The proxy's own account at the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Who we are.
    pub username: String,
    /// What proves it.
    pub password: Password,
}

/// Where the password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// In the configuration.
    Written {
        /// The password.
        secret: Secret,
        /// The configuration's own file, where it stands in that; `None`: in
        /// the environment.
        place: Option<NamedFile>,
    },
    /// In a file of its own.
    File(NamedFile),
}
