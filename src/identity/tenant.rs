//! Whose e-mail it is, and how that was proven.

use std::fmt;

/// Whose e-mail it is. Two tenants never share a claim, and how a tenant was
/// proven is part of it: a user `shop`, a certificate `shop`, a field that says
/// `shop` and a listener `shop` are four. People are shown its name alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Tenant {
    name: String,
    proof: Proof,
}

/// How a tenant was proven.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By AUTH, checked by us.
    User,
    /// By AUTH, checked by the upstream; the user name alone counts.
    Account,
    /// By AUTH, checked by the upstream; the password counts with the user name,
    /// because all customers of a provider have that one.
    Password(PasswordHash),
    /// By a certificate.
    Certificate,
    /// By the field that the listener names, from a client that may relay by its
    /// address.
    Header,
    /// By nothing but the listener where it came in.
    Listener,
}

/// A keyed hash of a password. Nothing shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordHash(pub [u8; 32]);

impl Proof {
    /// How the claim ids name it; never changed, because that would make every
    /// claim of such a tenant a new one.
    fn word(self) -> &'static str {
        match self {
            Proof::User => "user",
            Proof::Account => "account",
            Proof::Password(_) => "password",
            Proof::Certificate => "certificate",
            Proof::Header => "header",
            Proof::Listener => "listener",
        }
    }
}

impl Tenant {
    /// The tenant of this name, so proven.
    pub fn new(name: impl Into<String>, proof: Proof) -> Self {
        Self { name: name.into(), proof }
    }

    /// What logs, records, rules and figures call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was proven.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Whether the client gave credentials (RFC 4954).
    pub fn is_authenticated(&self) -> bool {
        matches!(self.proof, Proof::User | Proof::Account | Proof::Password(_))
    }

    /// The parts by which it differs from every other tenant.
    pub(super) fn parts(&self) -> [&[u8]; 3] {
        let hash: &[u8] = match &self.proof {
            Proof::Password(PasswordHash(hash)) => hash,
            Proof::User | Proof::Account | Proof::Certificate | Proof::Header | Proof::Listener => &[],
        };
        [self.proof.word().as_bytes(), self.name.as_bytes(), hash]
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({:?} by {:?})", self.name, self.proof)
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_password_is_never_shown() {
        let tenant = Tenant::new("apikey", Proof::Password(PasswordHash([0xab; 32])));
        assert_eq!(format!("{tenant:?}"), "Tenant(\"apikey\" by password)");
        assert_eq!(format!("{:?}", PasswordHash([0xab; 32])), "***");
    }
}
