//! What a client may do and is offered, by where it comes from and what it
//! comes over.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::auth::Authority;
use crate::config::TlsStart;
use crate::dedup::Channel;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;
use crate::smtp::session::{AuthOffer, Offers, Policy, Step};

use super::Live;
use super::port::Port;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address; behind a balancer, the one that it names.
    pub address: SocketAddr,
    /// The address that it connected to, likewise.
    pub local: SocketAddr,
    /// Whose address that is.
    pub names: Names,
    /// Where it came in.
    pub port: Arc<Port>,
}

/// Whose address we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The client's own.
    Client,
    /// A balancer's, which does not say for whom it connects: its check of our
    /// health, or anybody. What its own address may do is not for them.
    Balancer,
}

/// Whether the client may relay, and whether it must do something before.
#[derive(Debug)]
pub(super) struct RelayPolicy {
    pub(super) relaying: Relaying,
    before_mail: BeforeMail,
}

/// Whether a client may relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relaying {
    /// By its address, its certificate or its credentials.
    Allowed,
    /// Once it has proved who it is.
    AfterAuth,
    Denied,
}

/// What a client must do before MAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BeforeMail {
    Nothing,
    StartTls,
}

impl Policy for RelayPolicy {
    fn check(&mut self, step: Step<'_>) -> Option<Reply> {
        match step {
            Step::Mail(_) if self.before_mail == BeforeMail::StartTls => {
                Some(Reply::new(530, "5.7.0 Must issue a STARTTLS command first"))
            }
            Step::Rcpt(..) => match self.relaying {
                Relaying::Allowed => None,
                Relaying::AfterAuth => Some(Reply::new(530, "5.7.0 Authentication required")),
                Relaying::Denied => Some(Reply::new(554, "5.7.1 relay access denied")),
            },
            _ => None,
        }
    }
}

impl Peer {
    /// Whether it may relay by its address.
    pub(super) fn is_listed(&self) -> bool {
        let address = self.address.ip();
        self.names == Names::Client
            && self.port.listener.allow_from.iter().any(|network| network.contains(&address))
    }

    /// What holds before it has proved anything.
    pub(super) fn policy(&self, channel: Channel) -> RelayPolicy {
        let before_mail = match channel {
            Channel::Clear if self.requires_tls() => BeforeMail::StartTls,
            Channel::Clear | Channel::Encrypted => BeforeMail::Nothing,
        };
        RelayPolicy {
            relaying: if self.is_listed() { Relaying::Allowed } else { self.unproven() },
            before_mail,
        }
    }

    /// What holds for somebody who may not relay as things stand.
    pub(super) fn unproven(&self) -> Relaying {
        if self.port.authority.is_some() { Relaying::AfterAuth } else { Relaying::Denied }
    }

    /// What EHLO offers beyond what is our own: as the upstream was last seen
    /// to, and what fits the channel.
    pub(super) fn offers(&self, live: &Live, channel: Channel) -> Offers {
        let own = Offers {
            starttls: channel == Channel::Clear && self.port.tls.is_some(),
            auth: self.auth_offer(live, channel),
            ..Offers::default()
        };
        match live.services.upstream.capabilities() {
            None => Offers { eight_bit_mime: true, ..own },
            Some(upstream) => Offers {
                eight_bit_mime: upstream.eight_bit_mime,
                smtputf8: upstream.smtputf8,
                dsn: upstream.dsn,
                ..own
            },
        }
    }

    /// Passwords travel under TLS, or never leave the machine.
    fn auth_offer(&self, live: &Live, channel: Channel) -> AuthOffer {
        let Some(authority) = &self.port.authority else { return AuthOffer::Off };
        if channel == Channel::Clear && (self.requires_tls() || !self.is_on_this_machine()) {
            return if self.port.tls.is_some() { AuthOffer::UnderTls } else { AuthOffer::Off };
        }
        let mechanisms = match authority {
            Authority::Local(_) => vec![Mechanism::Plain, Mechanism::Login],
            Authority::Passthrough(_) => live.services.upstream.mechanisms(),
        };
        if mechanisms.is_empty() { AuthOffer::Off } else { AuthOffer::Now(mechanisms) }
    }

    fn requires_tls(&self) -> bool {
        self.port.tls.as_ref().is_some_and(|tls| tls.start() == TlsStart::Required)
    }

    fn is_on_this_machine(&self) -> bool {
        self.names == Names::Client && [self.address, self.local].iter().all(|end| end.ip().is_loopback())
    }
}
