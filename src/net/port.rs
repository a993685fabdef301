//! A listener with what it needs beyond its address: certificates, and whom
//! AUTH asks.

use std::sync::Arc;

use crate::auth::Authority;
use crate::clock::Timestamp;
use crate::config::{Listener, TlsStart};
use crate::files::FileFault;

use super::tls::Tls;

/// A listener, its certificates and its users.
#[derive(Clone, Debug)]
pub struct Port {
    /// What was configured.
    pub listener: Listener,
    /// Its TLS, where that is on.
    pub tls: Option<Arc<Tls>>,
    /// Who checks the credentials of its clients, where AUTH is on.
    pub authority: Option<Authority>,
}

impl Port {
    /// Reads the files of all listeners.
    ///
    /// # Errors
    /// [`FileFault`] with a line for every file that can't be used.
    pub fn all(listeners: &[Listener], now: Timestamp) -> Result<Vec<Arc<Self>>, FileFault> {
        let mut ports = Vec::new();
        let mut faults = Vec::new();
        for listener in listeners {
            let tls = listener.tls.as_ref().map(|settings| Tls::load(settings, now)).transpose();
            match (tls, Authority::load(&listener.auth)) {
                (Ok(tls), Ok(authority)) => {
                    ports.push(Arc::new(Self {
                        listener: listener.clone(),
                        tls: tls.map(Arc::new),
                        authority,
                    }));
                }
                (tls, authority) => faults.extend(tls.err().into_iter().chain(authority.err())),
            }
        }
        faults.into_iter().reduce(FileFault::and).map_or(Ok(ports), Err)
    }

    /// TLS, where it begins before the greeting.
    pub fn implicit(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref().filter(|tls| tls.start() == TlsStart::Implicit)
    }

    /// Whether there are files that may change.
    pub fn has_files(&self) -> bool {
        self.tls.is_some() || matches!(self.authority, Some(Authority::Local(_)))
    }

    /// Reads files again where they have changed. Faulty ones change nothing,
    /// and the log says so, once.
    pub fn refresh(&self, now: Timestamp) {
        self.tls.iter().for_each(|tls| tls.refresh(now));
        self.authority.iter().for_each(Authority::refresh);
    }

    /// What is hardly meant, such as a certificate that has expired.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        let certificates = self.tls.iter().flat_map(|tls| tls.warnings());
        certificates.chain(self.authority.iter().flat_map(Authority::warnings))
    }
}
