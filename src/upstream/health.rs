//! Whether an upstream was there when it was last asked, by mail or by a probe.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::fault::{At, Phase, UpstreamFault};
use super::pool::{COURTESY, Upstream};
use crate::smtp::client::Capabilities;

/// How long a probe may take in all.
const PROBE: Duration = Duration::from_secs(30);

/// What the last attempt told; nothing before the first.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// Set while no address has a connection for us.
    outage: Option<UpstreamFault>,
}

impl Health {
    /// It answered.
    pub(super) fn answered(&self) {
        *self.told() = Some(Told { at: Instant::now(), outage: None });
    }

    /// Every address was tried, and none has a connection for us.
    pub(super) fn is_out(&self, fault: UpstreamFault) {
        *self.told() = Some(Told { at: Instant::now(), outage: Some(fault) });
    }

    /// Whether nothing was heard for so long.
    pub(super) fn is_silent(&self, span: Duration) -> bool {
        self.told().as_ref().is_none_or(|told| told.at.elapsed() >= span)
    }

    /// Why it is out, if it is.
    pub(super) fn outage(&self) -> Option<UpstreamFault> {
        self.told().as_ref().and_then(|told| told.outage.clone())
    }

    /// The value behind the lock is whole between any two statements.
    fn told(&self) -> MutexGuard<'_, Option<Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The `host:port` that answers.
    pub address: String,
    /// What it offers.
    pub capabilities: Capabilities,
    /// The version of TLS; `None` in clear.
    pub tls: Option<&'static str>,
}

impl Upstream {
    /// Connects and says EHLO, with TLS and AUTH as for mail, then QUIT:
    /// whether the upstream is there for us.
    ///
    /// # Errors
    /// When no address can be reached or each is unwilling.
    pub async fn probe(&self) -> Result<Probed, UpstreamFault> {
        let connection = self.shared.connect_for(None).await?;
        let found = Probed {
            address: connection.address().to_string(),
            capabilities: connection.client.capabilities().clone(),
            tls: connection.stream().tls_version(),
        };
        connection.quit(COURTESY).await;
        Ok(found)
    }

    /// Probes the upstream if neither mail nor a probe has told for `silence`
    /// whether it is there. The log says when that has changed.
    pub async fn probe_if_silent(&self, silence: Duration) {
        let health = &self.shared.health;
        if !health.is_silent(silence) {
            return;
        }
        let was_out = health.outage().is_some();
        if timeout(PROBE, self.probe()).await.is_err() {
            let address = self.shared.addresses.first().map_or_else(|| "upstream".into(), |a| a.name.clone());
            health.is_out(UpstreamFault::TimedOut { at: At { address, phase: Phase::Greeting } });
        }
        match (was_out, health.outage()) {
            (false, Some(fault)) => tracing::warn!(%fault, "the upstream can't be reached"),
            (true, None) => tracing::info!("the upstream can be reached again"),
            (false, None) | (true, Some(_)) => {}
        }
    }

    /// Why the upstream is out: at the last attempt no address had a connection
    /// for us. `None` when one had, and before the first attempt.
    pub fn outage(&self) -> Option<UpstreamFault> {
        self.shared.health.outage()
    }
}
