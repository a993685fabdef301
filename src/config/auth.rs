//! What a `[[listener]]` says about AUTH.

use super::NamedFile;

/// How clients of a listener prove who they are (RFC 4954).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    #[default]
    Off,
    /// By a password, which we check.
    Local {
        /// The file with the users and what their passwords are checked against.
        /// It is read where it is used, not here.
        users: NamedFile,
    },
    /// As the upstream wants it: it is asked, and its answer given back.
    Passthrough {
        /// What makes a tenant of a client.
        tenant_from: TenantFrom,
    },
}

/// What of credentials that the upstream found good makes the tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantFrom {
    /// The account: a user name that is no address counts together with its
    /// password, because all customers of a provider may have that name.
    #[default]
    Account,
    /// The user name alone.
    User,
}
