//! Who a client is: AUTH, checked by ourselves or by the upstream, with
//! guessing kept slow.

mod account;
mod guard;
pub mod hash;
pub mod known;
mod local;
mod passthrough;
#[cfg(test)]
mod tests;
pub mod users;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::config::{Auth, TenantFrom};
use crate::files::FileFault;
use crate::identity::Tenant;
use crate::metrics::{AuthResult, Metrics};
use crate::secret::SecretKey;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Malformed;
use crate::smtp::session::Verdict;
use crate::upstream::{Account, Upstream};

use account::Accounts;
pub use account::names_an_account;
use guard::{Attempt, Failed, Guard, Refusal};
use known::Known;
use local::Hashing;
pub use local::MECHANISMS as LOCAL_MECHANISMS;
use users::Users;

/// How long a client waits that is not let in, beside what finding out takes.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Who says whether credentials are good; one for each listener with AUTH.
#[derive(Clone, Debug)]
pub enum Authority {
    /// We, by a file.
    Local(Arc<Users>),
    /// The upstream.
    Passthrough(TenantFrom),
}

impl Authority {
    /// The one that a listener is configured with, and its file read; none
    /// where AUTH is off.
    ///
    /// # Errors
    /// [`FileFault`] where the file can't be used.
    pub fn load(auth: &Auth) -> Result<Option<Self>, FileFault> {
        Ok(match auth {
            Auth::Off => None,
            Auth::Local { users } => Some(Authority::Local(Arc::new(Users::load(users)?))),
            Auth::Passthrough { tenant_from } => Some(Authority::Passthrough(*tenant_from)),
        })
    }

    /// What is hardly meant about its file.
    pub fn warnings(&self) -> &[String] {
        match self {
            Authority::Local(users) => users.warnings(),
            Authority::Passthrough(_) => &[],
        }
    }

    /// Reads its file again where that has changed. A faulty one changes
    /// nothing, and the log says so, once.
    pub fn refresh(&self) {
        match self {
            Authority::Local(users) => users.refresh(),
            Authority::Passthrough(_) => {}
        }
    }
}

/// Who wants to be authenticated, for the log and for slowing down.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// The session's name in the log.
    pub session: &'a str,
    /// The name of the listener where it came in.
    pub listener: &'a str,
}

/// Answers AUTH for all listeners. There is one for as long as the process
/// lives: no reload makes it forget who has failed how often.
#[derive(Debug)]
pub struct Authenticator {
    guard: Guard,
    known: Known,
    hashing: Hashing,
    accounts: Accounts,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    /// One that has seen no client yet. `tenant_key` must be the same for as long as
    /// there are claims: with another one, tenants that their passwords tell apart
    /// become others.
    ///
    /// # Errors
    /// When the machine gives no random number.
    pub fn new(metrics: Arc<Metrics>, tenant_key: &SecretKey) -> Result<Self, getrandom::Error> {
        let accounts = Accounts::new(tenant_key);
        Ok(Self { guard: Guard::new(), known: Known::new()?, hashing: Hashing::new(), accounts, metrics })
    }

    /// The tenant that a client is by credentials that `authority` found good.
    pub fn tenant(&self, authority: &Authority, credentials: &Account) -> Tenant {
        self.accounts.tenant(authority, credentials)
    }

    /// The answer to one AUTH command, `attempt` being what came of it: `235
    /// 2.7.0`, `535 5.7.8` or what the upstream says, what
    /// [`Malformed::reply`] says, or `454 4.7.0` where nobody can tell, or
    /// there were too many failures for it to be checked. Counts it, writes
    /// failures to the log, and takes its time over them: to be called for
    /// every AUTH command, and waited for before the client may say more.
    pub async fn check(
        &self,
        authority: &Authority,
        upstream: &Upstream,
        client: Client<'_>,
        attempt: &Result<Account, Malformed>,
    ) -> Verdict {
        let verdict = match attempt {
            Ok(credentials) => self.judge(authority, upstream, client, credentials).await,
            Err(malformed) => self.malformed(client, *malformed).await,
        };
        self.metrics.authenticated(match &verdict {
            Verdict::Accepted(_) => AuthResult::Accepted,
            Verdict::Refused { .. } => AuthResult::Refused,
            Verdict::Deferred(_) => AuthResult::Deferred,
        });
        // With nothing held meanwhile.
        if !matches!(verdict, Verdict::Accepted(_)) {
            sleep(PAUSE).await;
        }
        verdict
    }

    async fn judge(
        &self,
        authority: &Authority,
        upstream: &Upstream,
        client: Client<'_>,
        credentials: &Account,
    ) -> Verdict {
        let attempt = || self.look_up(authority, upstream, credentials);
        let by_address = match self.guard.address(client.address.ip(), attempt).await {
            Ok(turn) => turn,
            Err(refusal) => return not_checked(refusal),
        };
        // Whoever logged in lately is not locked out by others who guess.
        let by_user = match attempt() {
            Attempt::Known => None,
            Attempt::Guess => match self.guard.user(&credentials.username).await {
                Ok(turn) => Some(turn),
                Err(refusal) => return not_checked(refusal),
            },
        };
        let verdict = match authority {
            Authority::Local(users) => local::check(&self.known, &self.hashing, users, credentials).await,
            Authority::Passthrough(_) => passthrough::check(&self.known, upstream, credentials).await,
        };
        if !self.is_failure(&verdict, authority, upstream, credentials) {
            return verdict;
        }
        let user = &credentials.username;
        tracing::info!(user, client = %client.address, session = client.session, listener = client.listener,
            "AUTH failed");
        if by_address.failed() == Failed::Last {
            kept_out(client);
        }
        if by_user.is_some_and(|turn| turn.failed() == Failed::Last) {
            tracing::warn!(user, client = %client.address, listener = client.listener,
                "a user failed to log in too often; for what is left of a minute only credentials that were good lately will do");
        }
        verdict
    }

    /// Credentials that nobody can check now count where others of their user
    /// were good lately: else an upstream that is away would leave its users
    /// to whoever guesses what is believed meanwhile.
    fn is_failure(
        &self,
        verdict: &Verdict,
        authority: &Authority,
        upstream: &Upstream,
        credentials: &Account,
    ) -> bool {
        match (verdict, authority) {
            (Verdict::Refused { .. }, _) => true,
            (Verdict::Deferred(_), Authority::Passthrough(_)) => {
                passthrough::is_guess(&self.known, upstream, credentials)
            }
            (Verdict::Accepted(_) | Verdict::Deferred(_), _) => false,
        }
    }

    /// What is malformed counts like a wrong password: else it would be a way
    /// to keep us busy.
    async fn malformed(&self, client: Client<'_>, malformed: Malformed) -> Verdict {
        let turn = match self.guard.address(client.address.ip(), || Attempt::Guess).await {
            Ok(turn) => turn,
            Err(refusal) => return not_checked(refusal),
        };
        let reply = malformed.reply();
        tracing::info!(client = %client.address, session = client.session, listener = client.listener, %reply,
            "AUTH was malformed");
        if turn.failed() == Failed::Last {
            kept_out(client);
        }
        Verdict::Refused { reply, challenge: None }
    }

    fn look_up(&self, authority: &Authority, upstream: &Upstream, credentials: &Account) -> Attempt {
        let is_known = match authority {
            Authority::Local(users) => local::is_known(&self.known, users, credentials),
            Authority::Passthrough(_) => passthrough::is_known(&self.known, upstream, credentials),
        };
        if is_known { Attempt::Known } else { Attempt::Guess }
    }
}

fn not_checked(refusal: Refusal) -> Verdict {
    let text = match refusal {
        Refusal::TooMany => "4.7.0 too many failures, try again in a minute",
        Refusal::Busy => "4.7.0 too many at once, try again",
    };
    Verdict::Deferred(Reply::new(454, text))
}

fn kept_out(client: Client<'_>) {
    tracing::warn!(client = %client.address, listener = client.listener,
        "AUTH failed too often from this address; for a minute nothing from there is checked");
}
