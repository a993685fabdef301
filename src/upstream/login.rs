//! AUTH of a client, answered by the upstream.

use std::fmt;
use std::time::Duration;

use super::auth::{Account, Party, Refusal, usable};
use super::deadline::Deadline;
use super::fault::UpstreamFault;
use super::open::Unopened;
use super::pool::Upstream;
use crate::smtp::reply::{Class, Reply};
use crate::smtp::sasl::Mechanism;

/// How long the upstream has to answer a client's AUTH, all its addresses
/// together.
const LOGIN: Duration = Duration::from_secs(30);

/// What the upstream answered to a client's AUTH. The replies are its own,
/// octet for octet, and may repeat what it was told: they are for that client
/// alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// 235.
    Accepted(Reply),
    /// 5yz.
    Refused {
        /// What the client hears.
        reply: Reply,
        /// What it hears before, with `334`: why a token was refused, in base64.
        challenge: Option<String>,
    },
    /// 4yz: it can't tell now.
    Deferred(Reply),
}

impl fmt::Debug for Login {
    /// The codes alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::Accepted(reply) => write!(f, "Accepted({})", reply.code()),
            Login::Refused { reply, .. } => write!(f, "Refused({})", reply.code()),
            Login::Deferred(reply) => write!(f, "Deferred({})", reply.code()),
        }
    }
}

impl From<Refusal> for Login {
    fn from(Refusal { reply, challenge, .. }: Refusal) -> Self {
        match reply.class() {
            Class::Transient => Login::Deferred(reply),
            _ => Login::Refused { reply, challenge },
        }
    }
}

impl Upstream {
    /// Asks the upstream whether it lets `account` in, over a fresh connection,
    /// even where one of the same account is kept: so a password that was
    /// withdrawn is refused at once. The connection of an accepted account is
    /// kept for it, and those of a refused one are let go. A refusal says
    /// nothing about the address nor about the upstream's health.
    ///
    /// # Errors
    /// When no address has an answer within 30 seconds, or none offers AUTH
    /// ([`UpstreamFault::NoMechanism`]). No fault shows a secret.
    pub async fn login(&self, account: &Account) -> Result<Login, UpstreamFault> {
        let opened = self.shared.connect(Party::Client(account), Deadline::after(LOGIN)).await;
        match opened {
            Ok(opened) => {
                self.shared.keep(opened.connection);
                Ok(Login::Accepted(opened.welcome.unwrap_or_else(|| Reply::new(235, "2.7.0 welcome"))))
            }
            Err(Unopened::Refused(refusal)) => Ok((*refusal).into()),
            Err(Unopened::Fault(UpstreamFault::NoMechanism { offered, .. })) if !offered.is_empty() => {
                let reply = Reply::new(504, "5.7.4 the upstream does not offer this mechanism");
                Ok(Login::Refused { reply, challenge: None })
            }
            Err(Unopened::Fault(fault)) => Err(fault),
        }
    }

    /// Its addresses as configured: what an answer to [`Upstream::login`] is
    /// the answer of.
    pub fn name(&self) -> String {
        self.shared.settings.addresses.join(",")
    }

    /// The mechanisms by which a client may authenticate at the upstream, as it
    /// was last seen: PLAIN and LOGIN where it offers one of them, the others
    /// as it offers them. PLAIN and LOGIN before it was ever reached, and where
    /// it offers nothing that we know: never empty.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        usable(&self.capabilities().and_then(|offered| offered.auth).unwrap_or_default())
    }
}
