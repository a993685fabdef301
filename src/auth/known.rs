//! Which credentials were found good lately.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use ring::hmac;
use tokio::time::Instant;

use crate::smtp::sasl::{Credentials, Mechanism};

/// How long credentials that were found good are believed.
pub const BELIEVED: Duration = Duration::from_secs(10 * 60);

/// The most credentials that are remembered at a time.
const MOST: usize = 10_000;

/// Credentials that were found good within the last ten minutes, as keyed
/// hashes: nothing in it shows a password, nor lets one be guessed by whoever
/// does not have the key, which is random and never leaves the process.
pub struct Known {
    key: hmac::Key,
    /// When each was found good. The order is that of remembering: the one
    /// that gives way to a new one is the one that would be forgotten next.
    good: Mutex<LruCache<Fingerprint, Good>>,
}

type Fingerprint = [u8; 32];

struct Good {
    since: Instant,
    user: Fingerprint,
}

impl Good {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < BELIEVED
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

impl Known {
    /// Knows nobody.
    ///
    /// # Errors
    /// When the machine gives no random number.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            // Room is taken as it is needed.
            good: Mutex::new(LruCache::unbounded()),
        })
    }

    /// These credentials were found good just now. `scope` names what they are
    /// good for; in another one they are not known.
    pub fn remember(&self, scope: &str, credentials: &Credentials) {
        let fingerprint = self.fingerprint(scope, credentials);
        let user = self.hash(&[scope, &credentials.username]);
        let mut good = self.good();
        good.put(fingerprint, Good { since: Instant::now(), user });
        if good.len() > MOST {
            good.pop_lru();
        }
    }

    /// Whether they were found good within the last [`BELIEVED`].
    pub fn has(&self, scope: &str, credentials: &Credentials) -> bool {
        let fingerprint = self.fingerprint(scope, credentials);
        let mut good = self.good();
        let fresh = good.peek(&fingerprint).is_some_and(Good::is_fresh);
        if !fresh {
            good.pop(&fingerprint);
        }
        fresh
    }

    /// Whether any credentials of this user were found good within that time.
    pub fn has_user(&self, scope: &str, username: &str) -> bool {
        let user = self.hash(&[scope, username]);
        self.good().iter().any(|(_, good)| good.user == user && good.is_fresh())
    }

    /// They are good no longer.
    pub fn forget(&self, scope: &str, credentials: &Credentials) {
        let fingerprint = self.fingerprint(scope, credentials);
        self.good().pop(&fingerprint);
    }

    fn good(&self) -> MutexGuard<'_, LruCache<Fingerprint, Good>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of everything that the answer depends on.
    fn fingerprint(&self, scope: &str, credentials: &Credentials) -> Fingerprint {
        let Credentials { mechanism, username, authzid, secret } = credentials;
        let kind = match mechanism {
            // Two ways to say one password.
            Mechanism::Plain | Mechanism::Login => "password",
            Mechanism::XOAuth2 | Mechanism::OAuthBearer => mechanism.name(),
        };
        self.hash(&[scope, kind, username, authzid, secret.reveal()])
    }

    /// Each part behind its length: no two splits of one text are the same.
    fn hash(&self, parts: &[&str]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut fingerprint = Fingerprint::default();
        // As long as the tag of this algorithm.
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use super::*;
    use crate::secret::Secret;

    fn credentials(username: &str, secret: &str) -> Credentials {
        Credentials {
            mechanism: Mechanism::Plain,
            username: username.to_owned(),
            authzid: String::new(),
            secret: Secret::new(secret.to_owned()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_good_are_known_for_ten_minutes() {
        let (known, ann) = (Known::new().unwrap(), credentials("ann", "secret"));
        assert!(!known.has("a", &ann));
        known.remember("a", &ann);
        assert!(known.has_user("a", "ann") && !known.has_user("b", "ann") && !known.has_user("a", "bob"));
        tokio::time::advance(BELIEVED - Duration::from_millis(1)).await;
        // Being asked for makes nobody known for longer.
        assert!(known.has("a", &ann));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!known.has("a", &ann));
        assert_eq!(known.good().len(), 0, "what is over takes no room");
    }

    #[test]
    fn what_was_forgotten_is_not_known() {
        let (known, ann) = (Known::new().unwrap(), credentials("ann", "secret"));
        known.remember("a", &ann);
        known.forget("a", &ann);
        assert!(!known.has("a", &ann));
    }

    #[test]
    fn a_password_is_the_same_by_plain_and_login_but_not_as_a_token() {
        let (known, plain) = (Known::new().unwrap(), credentials("ann", "secret"));
        known.remember("a", &plain);
        let by = |mechanism| known.has("a", &Credentials { mechanism, ..plain.clone() });
        assert!(by(Mechanism::Login));
        assert!(!by(Mechanism::XOAuth2) && !by(Mechanism::OAuthBearer));
        assert!(!known.has("a", &Credentials { authzid: "boss".to_owned(), ..plain.clone() }));
    }

    #[test]
    fn the_oldest_give_way() {
        let known = Known::new().unwrap();
        let nth = |n: usize| credentials(&n.to_string(), "secret");
        (0..MOST).for_each(|n| known.remember("a", &nth(n)));
        // Known again, so it is the youngest.
        known.remember("a", &nth(0));
        known.remember("a", &nth(MOST));
        assert!(known.has("a", &nth(0)) && !known.has("a", &nth(1)) && known.has("a", &nth(2)));
        assert_eq!(known.good().len(), MOST);
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let known = Known::new().unwrap();
        known.remember("a", &credentials("ann", "hunter2"));
        assert_eq!(format!("{known:?}"), "Known { .. }");
    }

    proptest! {
        /// Few letters, so that parts run into each other often.
        #[test]
        fn only_what_is_the_same_in_every_part_is_known(
            one in ("[ab]{0,2}", "[ab]{1,2}", "[ab]{1,2}"),
            other in ("[ab]{0,2}", "[ab]{1,2}", "[ab]{1,2}"),
        ) {
            let known = Known::new().unwrap();
            known.remember(&one.0, &credentials(&one.1, &one.2));
            prop_assert_eq!(known.has(&other.0, &credentials(&other.1, &other.2)), one == other);
        }

        #[test]
        fn moving_the_borders_makes_another(text in "[a-z]{3,12}", at in 1usize..12, to in 1usize..12) {
            let (at, to) = (at.min(text.len() - 1), to.min(text.len() - 1));
            let known = Known::new().unwrap();
            known.remember("a", &credentials(&text[..at], &text[at..]));
            prop_assert_eq!(known.has("a", &credentials(&text[..to], &text[to..])), at == to);
        }
    }
}
