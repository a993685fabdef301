//! AUTH at the upstream (RFC 4954), with the proxy's own account or with that
//! of a client.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::connection::{Connection, Stream};
use super::fault::{Phase, UpstreamFault};
use crate::secret::Secret;
use crate::smtp::client::ProtocolFault;
use crate::smtp::reply::{Class, Reply};
use crate::smtp::sasl::{Credentials, Mechanism};

/// The longest command line, its end included (RFC 5321 §4.5.3.1.4); a
/// password that does not fit waits for a challenge (RFC 4954 §4).
const MAX_LINE: usize = 512;

/// The same for tokens, which are longer: what a server must take at least
/// (RFC 4954 §4).
const MAX_TOKEN_LINE: usize = 12_288;

/// The longest reason of a refusal that is passed on, in octets of base64.
const MAX_CHALLENGE: usize = 4096;

/// What a client has proved to be, shared by whatever goes on in its name.
/// Connections are only ever shared between equal ones.
pub type Account = Arc<Credentials>;

/// In whose name a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Party<'a> {
    /// In nobody's: no AUTH.
    Nobody,
    /// The proxy's own account.
    Proxy(&'a Account),
    /// A client's.
    Client(&'a Account),
}

impl<'a> Party<'a> {
    pub(super) fn credentials(self) -> Option<&'a Credentials> {
        match self {
            Party::Nobody => None,
            Party::Proxy(account) | Party::Client(account) => Some(account),
        }
    }

    /// The account of a client: what connections are told apart by.
    pub(super) fn account(self) -> Option<&'a Account> {
        match self {
            Party::Nobody | Party::Proxy(_) => None,
            Party::Client(account) => Some(account),
        }
    }
}

/// The proxy's own account.
pub(super) fn own(username: &str, password: Secret) -> Account {
    Arc::new(Credentials {
        mechanism: Mechanism::Plain,
        username: username.to_owned(),
        authzid: String::new(),
        secret: password,
    })
}

/// What the upstream answered to AUTH.
#[derive(Debug)]
pub(super) enum Answer {
    /// 235.
    Accepted(Reply),
    /// 4yz or 5yz, but not 421.
    Refused(Box<Refusal>),
}

/// No, or not now.
#[derive(Debug)]
pub(super) struct Refusal {
    /// As the upstream wrote it; it may repeat what it was told.
    pub(super) reply: Reply,
    /// Why a token was refused, in base64.
    pub(super) challenge: Option<String>,
    /// The same as a fault, without secrets.
    pub(super) fault: UpstreamFault,
}

/// What is said, in the order of the challenges.
struct Exchange {
    /// Behind `AUTH `.
    start: String,
    responses: Vec<String>,
    /// What is said to one more challenge: the reason why a token is refused.
    acknowledgement: Option<&'static str>,
}

impl Exchange {
    fn new(mechanism: Mechanism, credentials: &Credentials) -> Self {
        let secret = STANDARD.encode(credentials.secret.reveal());
        match mechanism {
            Mechanism::Plain => Self::of_message(mechanism, plain_message(credentials), MAX_LINE, None),
            Mechanism::Login => Self {
                start: mechanism.name().to_owned(),
                responses: vec![STANDARD.encode(&credentials.username), secret],
                acknowledgement: None,
            },
            Mechanism::XOAuth2 => Self::of_message(mechanism, secret, MAX_TOKEN_LINE, Some("")),
            // ^A (RFC 7628 §3.2.3).
            Mechanism::OAuthBearer => Self::of_message(mechanism, secret, MAX_TOKEN_LINE, Some("AQ==")),
        }
    }

    /// One message, in the AUTH line where that does not become too long.
    fn of_message(
        mechanism: Mechanism,
        message: String,
        max_line: usize,
        acknowledgement: Option<&'static str>,
    ) -> Self {
        let name = mechanism.name();
        let fits = "AUTH ".len() + name.len() + " ".len() + message.len() + "\r\n".len() <= max_line;
        let (start, responses) =
            if fits { (format!("{name} {message}"), Vec::new()) } else { (name.to_owned(), vec![message]) };
        Self { start, responses, acknowledgement }
    }
}

/// The client's own mechanism where it is offered. PLAIN and LOGIN stand in
/// for one another, as far as LOGIN can say the same.
fn choose(offered: &[String], credentials: &Credentials) -> Option<Mechanism> {
    let Credentials { mechanism, username, authzid, .. } = credentials;
    let candidates: &[Mechanism] = match mechanism {
        Mechanism::Plain if authzid.is_empty() || authzid == username => {
            &[Mechanism::Plain, Mechanism::Login]
        }
        Mechanism::Plain => &[Mechanism::Plain],
        Mechanism::Login => &[Mechanism::Login, Mechanism::Plain],
        Mechanism::XOAuth2 => &[Mechanism::XOAuth2],
        Mechanism::OAuthBearer => &[Mechanism::OAuthBearer],
    };
    let is_offered = |mechanism: &Mechanism| offered.iter().any(|name| name == mechanism.name());
    candidates.iter().copied().find(is_offered)
}

/// Those that a client may use where the upstream offers these. Never empty:
/// where none is left, AUTH by password gets an answer that tells.
pub(super) fn usable(offered: &[String]) -> Vec<Mechanism> {
    let offers = |mechanism: Mechanism| offered.iter().any(|name| name == mechanism.name());
    let password = offers(Mechanism::Plain) || offers(Mechanism::Login);
    let is_usable = |mechanism: &Mechanism| match mechanism {
        Mechanism::Plain | Mechanism::Login => password,
        Mechanism::XOAuth2 | Mechanism::OAuthBearer => offers(*mechanism),
    };
    let usable: Vec<_> = Mechanism::ALL.into_iter().filter(is_usable).collect();
    if usable.is_empty() { vec![Mechanism::Plain, Mechanism::Login] } else { usable }
}

/// RFC 4616 §2, in base64.
fn plain_message(Credentials { username, authzid, secret, .. }: &Credentials) -> String {
    STANDARD.encode(format!("{authzid}\0{username}\0{}", secret.reveal()))
}

/// What no fault may show: the secret in every form that it is sent in, and
/// the token in it. Each comes before what may be a part of it.
fn secrets(credentials: &Credentials) -> Vec<String> {
    let secret = credentials.secret.reveal();
    let mut secrets = vec![plain_message(credentials), STANDARD.encode(secret), secret.to_owned()];
    if matches!(credentials.mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer) {
        let values = secret.split('\x01').filter_map(|field| field.strip_prefix("auth="));
        let tokens = values.map(|value| value.rsplit(' ').next().unwrap_or(value));
        secrets.extend(tokens.map(str::to_owned));
    }
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// Proves who we are. Whatever the upstream says to it, no fault repeats a
/// secret.
///
/// # Errors
/// When there is no answer: it offers no mechanism for this, the connection
/// fails, or it says 421.
pub(super) async fn authenticate<S: Stream>(
    connection: &mut Connection<S>,
    party: Party<'_>,
    credentials: &Credentials,
) -> Result<Answer, UpstreamFault> {
    let offered = connection.client.capabilities().auth.clone().unwrap_or_default();
    let Some(mechanism) = choose(&offered, credentials) else {
        let wanted = party.account().map(|account| account.mechanism);
        return Err(UpstreamFault::NoMechanism { at: connection.at(Phase::Auth), wanted, offered });
    };
    let secrets = secrets(credentials);
    let exchange = Exchange::new(mechanism, credentials);
    let (reply, challenge) = run(connection, &exchange).await.map_err(|fault| fault.without(&secrets))?;
    if reply.is_success() {
        return Ok(Answer::Accepted(reply));
    }
    let fault = UpstreamFault::Unwilling { at: connection.at(Phase::Auth), reply: reply.clone() };
    Ok(Answer::Refused(Box::new(Refusal { reply, challenge, fault: fault.without(&secrets) })))
}

/// The final reply, and the reason that came before it.
async fn run<S: Stream>(
    connection: &mut Connection<S>,
    exchange: &Exchange,
) -> Result<(Reply, Option<String>), UpstreamFault> {
    let limit = connection.timeouts.greeting;
    let Connection { client, output, .. } = &mut *connection;
    client.auth(&exchange.start, output);
    let mut responses = exchange.responses.iter();
    let mut acknowledgement = exchange.acknowledgement;
    let mut reason = None;
    loop {
        connection.flush(Phase::Auth, limit).await?;
        let (due, reply) = connection.reply(limit).await?;
        if reply.class() != Class::Intermediate {
            return Ok((reply, reason));
        }
        let response = match (responses.next(), acknowledgement) {
            (Some(response), _) => response,
            (None, Some(text)) => {
                acknowledgement = None;
                reason = explanation(&reply);
                text
            }
            (None, None) => {
                let fault = ProtocolFault::WrongClass { due, reply };
                return Err(UpstreamFault::protocol(connection.at(Phase::Auth), fault));
            }
        };
        let Connection { client, output, .. } = &mut *connection;
        client.auth_response(response, output);
    }
}

/// The reason in a challenge, where it is one that can be passed on.
fn explanation(challenge: &Reply) -> Option<String> {
    let text = challenge.text();
    let is_fit = !text.is_empty() && text.len() <= MAX_CHALLENGE && STANDARD.decode(&*text).is_ok();
    is_fit.then(|| text.into_owned())
}
