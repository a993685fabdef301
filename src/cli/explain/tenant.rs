//! Whose e-mail it would be.

use super::Terms;
use crate::auth::names_an_account;
use crate::config::{Auth, Listener, TenantFrom};
use crate::identity::{self, IdentityFault, Proof, Tenant};
use crate::message::Headers;

/// Whose e-mail it would be, and who says so.
#[derive(Debug)]
pub(super) struct Whose {
    /// The tenant whose claim ids are shown.
    pub(super) tenant: Result<Tenant, IdentityFault>,
    /// Tenants of the same name, as the listener could come to them too.
    pub(super) others: Vec<Tenant>,
    pub(super) by: NamedBy,
    /// The client may log in with a password that is a part of the tenant, and
    /// is not known here.
    pub(super) password: bool,
}

/// Who says whose e-mail it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NamedBy {
    Option,
    Header(String),
    Listener,
}

impl Whose {
    pub(super) fn of(terms: &Terms<'_>, headers: &Headers) -> Self {
        let (listener, field) = (terms.listener, terms.listener.tenant_header.as_deref());
        if let Some(name) = &terms.tenant {
            let mut proofs = proofs(name, listener).into_iter().map(|proof| Tenant::new(name, proof));
            let first = proofs.next().unwrap_or_else(|| Tenant::new(name, Proof::User));
            let password = has_passwords(listener) && !names_an_account(name);
            return Self { tenant: Ok(first), others: proofs.collect(), by: NamedBy::Option, password };
        }
        let by = match field.filter(|field| headers.first(field).is_some()) {
            Some(field) => NamedBy::Header(field.to_owned()),
            None => NamedBy::Listener,
        };
        let tenant = identity::tenant_of(field, &listener.name, headers);
        Self { tenant, others: Vec::new(), by, password: false }
    }

    /// Who says so, in words that follow the tenant's name.
    pub(super) fn said_by(&self, listener: &str) -> String {
        let by = match &self.by {
            NamedBy::Option => "as given".to_owned(),
            NamedBy::Header(name) => format!("from the field {name}"),
            NamedBy::Listener => format!("the name of the listener {listener}"),
        };
        match self.password {
            true => format!(
                "{by}; each password of this user name is a tenant of its own with other claim ids than these \
                 (tenant_from)"
            ),
            false => by,
        }
    }
}

/// The ways in which a client of this listener may come to be called `name`,
/// without a password that is not known here.
fn proofs(name: &str, listener: &Listener) -> Vec<Proof> {
    let by_certificate = listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let by_auth = match listener.auth {
        Auth::Off => None,
        Auth::Local { .. } => Some(Proof::User),
        Auth::Passthrough { .. } => Some(Proof::Account),
    };
    let all = [
        by_auth,
        by_certificate.then_some(Proof::Certificate),
        listener.tenant_header.is_some().then_some(Proof::Header),
        (listener.name == name).then_some(Proof::Listener),
    ];
    all.into_iter().flatten().collect()
}

/// Whether a password may be a part of the tenant.
fn has_passwords(listener: &Listener) -> bool {
    listener.auth == Auth::Passthrough { tenant_from: TenantFrom::Account }
}
