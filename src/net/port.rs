//! A listener with what it needs beyond its address: certificates, and whom
//! AUTH asks.

use std::fmt;
use std::sync::Arc;

use crate::auth::{Authority, Users};
use crate::clock::Timestamp;
use crate::config::{Auth, Listener, TlsStart};

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

/// Why a listener can't be served: a line for each file that can't be used,
/// which says who names it, which it is and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFault(String);

impl fmt::Display for PortFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PortFault {}

impl Port {
    /// Reads the files of all listeners.
    ///
    /// # Errors
    /// [`PortFault`] with a line for every file that can't be used.
    pub fn all(listeners: &[Listener], now: Timestamp) -> Result<Vec<Self>, PortFault> {
        let mut ports = Vec::new();
        let mut faults = Vec::new();
        for listener in listeners {
            let tls = listener.tls.as_ref().map(|settings| Tls::load(settings, now)).transpose();
            let tls = tls.map_err(|fault| faults.push(fault.to_string()));
            let authority = authority(&listener.auth).map_err(|fault| faults.push(fault.to_string()));
            if let (Ok(tls), Ok(authority)) = (tls, authority) {
                ports.push(Self { listener: listener.clone(), tls: tls.map(Arc::new), authority });
            }
        }
        if faults.is_empty() { Ok(ports) } else { Err(PortFault(faults.join("\n"))) }
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
        if let Some(tls) = &self.tls {
            tls.refresh(now);
        }
        if let Some(Authority::Local(users)) = &self.authority {
            users.refresh();
        }
    }

    /// What is hardly meant, such as a certificate that has expired.
    pub fn warnings(&self) -> Vec<String> {
        let certificates = self.tls.iter().flat_map(|tls| tls.warnings());
        let users = match &self.authority {
            Some(Authority::Local(users)) => users.warnings(),
            Some(Authority::Passthrough) | None => Vec::new(),
        };
        certificates.cloned().chain(users).collect()
    }
}
