//! Which tenant the credentials of a client make it.

use ring::hmac;

use super::Authority;
use crate::config::TenantFrom;
use crate::identity::{PasswordHash, Proof, Tenant};
use crate::secret::SecretKey;
use crate::smtp::sasl::{Credentials, Mechanism};

/// Makes tenants of accounts at the upstream.
pub(super) struct Accounts {
    key: hmac::Key,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    /// Passwords are hashed by `key`, which must be the same for as long as
    /// there are claims.
    pub(super) fn new(key: &SecretKey) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.octets()) }
    }

    /// The tenant whose credentials these are; they were found good.
    pub(super) fn tenant(&self, authority: &Authority, credentials: &Credentials) -> Tenant {
        let proof = match authority {
            Authority::Local(_) => Proof::User,
            Authority::Passthrough(from) => self.proof(*from, credentials),
        };
        Tenant::new(&credentials.username, proof)
    }

    /// A name that is no address may be that of all customers of a provider
    /// (`apikey`, `resend`): then the password tells them apart. A token is
    /// another each hour, and says nothing that lasts.
    fn proof(&self, from: TenantFrom, credentials: &Credentials) -> Proof {
        match (from, credentials.mechanism) {
            (TenantFrom::Account, Mechanism::Plain | Mechanism::Login)
                if !names_an_account(&credentials.username) =>
            {
                Proof::Password(self.hash(credentials))
            }
            _ => Proof::Account,
        }
    }

    /// Each part behind its length.
    fn hash(&self, credentials: &Credentials) -> PasswordHash {
        let mut context = hmac::Context::with_key(&self.key);
        for part in ["mailonce account 1", &credentials.username, credentials.secret.reveal()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut hash = [0; 32];
        // As long as the tag of this algorithm.
        hash.copy_from_slice(context.sign().as_ref());
        PasswordHash(hash)
    }
}

/// Whether a user name is an address, and so names one account. What counts as
/// one must never change: a tenant would become another.
pub fn names_an_account(username: &str) -> bool {
    username.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn credentials(mechanism: Mechanism, username: &str, password: &str) -> Credentials {
        let secret = Secret::new(password.to_owned());
        Credentials { mechanism, username: username.to_owned(), authzid: String::new(), secret }
    }

    fn tenant(from: TenantFrom, mechanism: Mechanism, username: &str, password: &str) -> Tenant {
        let accounts = Accounts::new(&SecretKey::new([7; 32]));
        accounts.tenant(&Authority::Passthrough(from), &credentials(mechanism, username, password))
    }

    #[test]
    fn the_password_tells_customers_of_one_user_name_apart() {
        let account = |password| tenant(TenantFrom::Account, Mechanism::Plain, "apikey", password);
        assert_eq!(account("SG.one"), account("SG.one"));
        assert_ne!(account("SG.one"), account("SG.two"));
        assert_eq!(account("SG.one").name(), "apikey");
        let by_login = tenant(TenantFrom::Account, Mechanism::Login, "apikey", "SG.one");
        assert_eq!(by_login, account("SG.one"), "two ways to say one password");
        let other = tenant(TenantFrom::Account, Mechanism::Plain, "resend", "SG.one");
        assert_ne!(other.proof(), account("SG.one").proof());
    }

    #[test]
    fn an_address_and_a_token_count_by_name_alone() {
        for (mechanism, username) in [
            (Mechanism::Plain, "ann@shop.example"),
            (Mechanism::Login, "ann@shop.example"),
            (Mechanism::XOAuth2, "apikey"),
            (Mechanism::OAuthBearer, "apikey"),
        ] {
            for password in ["one", "two"] {
                let tenant = tenant(TenantFrom::Account, mechanism, username, password);
                assert_eq!(tenant, Tenant::new(username, Proof::Account), "{mechanism:?}");
            }
        }
        for no_address in ["apikey", "@", "ann@", "@shop.example"] {
            assert!(!names_an_account(no_address), "{no_address}");
        }
    }

    #[test]
    fn the_name_is_enough_where_the_listener_says_so() {
        let tenant = tenant(TenantFrom::User, Mechanism::Plain, "apikey", "SG.one");
        assert_eq!(tenant, Tenant::new("apikey", Proof::Account));
    }

    #[test]
    fn another_key_makes_another_tenant_and_the_same_key_never_does() {
        let of = |key: [u8; 32]| {
            let accounts = Accounts::new(&SecretKey::new(key));
            let credentials = credentials(Mechanism::Plain, "apikey", "SG.one");
            accounts.tenant(&Authority::Passthrough(TenantFrom::Account), &credentials).proof()
        };
        assert_ne!(of([7; 32]), of([8; 32]));
        let Proof::Password(PasswordHash(hash)) = of([7; 32]) else { panic!() };
        assert_eq!(
            crate::store::record::hex(&hash),
            "3ab4542cbac9484f237217999df24a7bb2c1aec7b5696518999eac102022291c"
        );
    }
}
