//! Passwords that we check ourselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::smtp::reply::Reply;
use crate::smtp::sasl::{Credentials, Mechanism};
use crate::smtp::session::Verdict;

use super::hash::{Cost, Hash};
use super::known::Known;
use super::users::Users;

/// What clients may use: whatever gives us the password.
pub const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// How long a password waits to be hashed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hashes passwords on threads of their own, as many at once as there are
/// cores: more would be no faster, and each takes its memory.
#[derive(Debug)]
pub(super) struct Hashing(Arc<Semaphore>);

/// Nobody found out whether a password is right.
#[derive(Debug)]
struct Unchecked;

impl Hashing {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &Semaphore {
        &self.0
    }

    /// Whether the hash, if there is one, is that of the password of these
    /// credentials. Takes as long in either case.
    async fn verify(
        &self,
        against: Result<Arc<Hash>, Cost>,
        credentials: &Arc<Credentials>,
    ) -> Result<bool, Unchecked> {
        let permit = timeout(PATIENCE, self.0.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(Unchecked) };
        let credentials = credentials.clone();
        let work = tokio::task::spawn_blocking(move || {
            // Given back when the work is done, whether or not anybody waits.
            let _permit = permit;
            let password = credentials.secret.reveal();
            match against {
                Ok(hash) => hash.verify(password),
                Err(cost) => {
                    cost.spend(password);
                    false
                }
            }
        });
        work.await.map_err(|error| {
            tracing::error!(%error, "a password could not be checked");
            Unchecked
        })
    }
}

/// Whether these credentials were found good lately, and still are.
pub(super) fn is_known(known: &Known, users: &Users, credentials: &Credentials) -> bool {
    users.find(&credentials.username).is_ok_and(|hash| known.has(&scope(&hash), credentials))
}

pub(super) async fn check(
    known: &Known,
    hashing: &Hashing,
    users: &Users,
    credentials: &Arc<Credentials>,
) -> Verdict {
    let Credentials { mechanism, username, authzid, .. } = &**credentials;
    if !MECHANISMS.contains(mechanism) || !(authzid.is_empty() || authzid == username) {
        return refused();
    }
    let found = users.find(username);
    let scope = found.as_ref().map(|hash| scope(hash)).ok();
    if scope.as_ref().is_some_and(|scope| known.has(scope, credentials)) {
        return accepted();
    }
    match (hashing.verify(found, credentials).await, scope) {
        (Ok(true), Some(scope)) => {
            known.remember(&scope, credentials);
            accepted()
        }
        (Ok(_), _) => refused(),
        (Err(Unchecked), _) => {
            Verdict::Deferred(Reply::new(454, "4.7.0 too busy to check this now, try again"))
        }
    }
}

/// What credentials are good for: this very hash. A changed or removed one
/// ends it.
fn scope(hash: &Hash) -> String {
    format!("local {}", hash.text())
}

fn accepted() -> Verdict {
    Verdict::Accepted(Reply::new(235, "2.7.0 authentication successful"))
}

/// The same for a stranger, a wrong password and a name that is not the
/// client's to act as.
fn refused() -> Verdict {
    Verdict::Refused { reply: Reply::new(535, "5.7.8 authentication credentials invalid"), challenge: None }
}
