//! TLS towards clients: certificates that can be replaced while sessions go
//! on, the handshake, and whose certificate a client has shown.

mod files;
mod name;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock::Timestamp;
use crate::config::{Listener, ListenerTls, TlsStart};
use crate::files::FileFault;

use files::Stamps;
pub use name::{NameFault, name_of};

/// A listener and its certificates.
#[derive(Clone, Debug)]
pub struct Port {
    /// What was configured.
    pub listener: Listener,
    /// Its TLS, where that is on.
    pub tls: Option<Arc<Tls>>,
}

impl Port {
    /// Reads the certificates of all listeners.
    ///
    /// # Errors
    /// [`FileFault`] with a line for every listener whose files can't be used.
    pub fn all(listeners: &[Listener], now: Timestamp) -> Result<Vec<Self>, FileFault> {
        let mut ports = Vec::new();
        let mut faults = Vec::new();
        for listener in listeners {
            match listener.tls.as_ref().map(|settings| Tls::load(settings, now)).transpose() {
                Ok(tls) => ports.push(Self { listener: listener.clone(), tls: tls.map(Arc::new) }),
                Err(fault) => faults.push(fault),
            }
        }
        faults.into_iter().reduce(FileFault::and).map_or(Ok(ports), Err)
    }

    /// TLS, where it begins before the greeting.
    pub fn implicit(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref().filter(|tls| tls.settings.start == TlsStart::Implicit)
    }
}

/// The TLS of one listener.
#[derive(Debug)]
pub struct Tls {
    settings: ListenerTls,
    /// Replaced as a whole, with its memory of sessions: one that was begun
    /// under an older CA for clients must not be taken up again.
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Stamps>,
    warnings: Vec<String>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`FileFault`] where one can't be read, holds nothing of use, or does not
    /// fit to the others.
    pub fn load(settings: &ListenerTls, now: Timestamp) -> Result<Self, FileFault> {
        // What changes from here on is seen at the next look.
        let seen = Stamps::of(settings);
        let loaded = files::load(settings, now)?;
        Ok(Self {
            settings: settings.clone(),
            current: ArcSwap::new(loaded.config),
            seen: Mutex::new(seen),
            warnings: loaded.warnings,
        })
    }

    /// What is hardly meant, such as a certificate that has expired.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// When the handshake is due.
    pub fn start(&self) -> TlsStart {
        self.settings.start
    }

    /// Reads the files again where they have changed. Faulty ones change
    /// nothing, and the log says so, once.
    pub fn refresh(&self, now: Timestamp) {
        let stamps = Stamps::of(&self.settings);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamps {
                return;
            }
            *seen = stamps;
        }
        match files::load(&self.settings, now) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                self.current.store(loaded.config);
                tracing::info!("changed TLS files were read again");
            }
            Err(fault) => {
                tracing::warn!(%fault, "changed TLS files can't be used; those read before stay in use");
            }
        }
    }

    /// The handshake; bounded in time by whoever calls it.
    ///
    /// # Errors
    /// Where it fails; the client was told why, if it can be.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}
