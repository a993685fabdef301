//! AUTH with the proxy's own account (RFC 4954): PLAIN, else LOGIN.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::access::Account;
use super::connection::{Connection, Stream};
use super::fault::{Phase, UpstreamFault};
use crate::smtp::client::ProtocolFault;
use crate::smtp::reply::Class;

/// The longest command line, its end included (RFC 5321 §4.5.3.1.4); what does
/// not fit waits for a challenge (RFC 4954 §4).
const MAX_LINE: usize = 512;

/// What is said, in the order of the challenges.
struct Exchange {
    /// Behind `AUTH `.
    start: String,
    responses: Vec<String>,
}

impl Exchange {
    fn plain(account: &Account) -> Self {
        let message = plain_message(account);
        let start = format!("PLAIN {message}");
        if "AUTH ".len() + start.len() + "\r\n".len() <= MAX_LINE {
            Self { start, responses: Vec::new() }
        } else {
            Self { start: "PLAIN".to_owned(), responses: vec![message] }
        }
    }

    fn login(account: &Account) -> Self {
        let Account { username, password } = account;
        let responses = vec![STANDARD.encode(username), STANDARD.encode(password.reveal())];
        Self { start: "LOGIN".to_owned(), responses }
    }

    /// By the best mechanism that is offered.
    fn choose(offered: &[String], account: &Account) -> Option<Self> {
        let offers = |name: &str| offered.iter().any(|mechanism| mechanism == name);
        if offers("PLAIN") {
            Some(Self::plain(account))
        } else {
            offers("LOGIN").then(|| Self::login(account))
        }
    }
}

/// RFC 4616 §2, in base64.
fn plain_message(Account { username, password }: &Account) -> String {
    STANDARD.encode(format!("\0{username}\0{}", password.reveal()))
}

/// Proves who we are. Whatever the upstream says to it, no fault repeats the
/// password.
pub(super) async fn authenticate<S: Stream>(
    connection: &mut Connection<S>,
    account: &Account,
) -> Result<(), UpstreamFault> {
    let offered = connection.client.capabilities().auth.clone().unwrap_or_default();
    let Some(exchange) = Exchange::choose(&offered, account) else {
        return Err(UpstreamFault::NoMechanism { at: connection.at(Phase::Auth), offered });
    };
    let password = account.password.reveal();
    let secrets = [plain_message(account), STANDARD.encode(password), password.to_owned()];
    run(connection, &exchange).await.map_err(|fault| fault.without(&secrets))
}

async fn run<S: Stream>(connection: &mut Connection<S>, exchange: &Exchange) -> Result<(), UpstreamFault> {
    let limit = connection.timeouts.greeting;
    let Connection { client, output, .. } = &mut *connection;
    client.auth(&exchange.start, output);
    let mut responses = exchange.responses.iter();
    loop {
        connection.flush(Phase::Auth, limit).await?;
        let (due, reply) = connection.reply(limit).await?;
        if reply.class() != Class::Intermediate {
            return connection.willing(Phase::Auth, reply);
        }
        let Some(response) = responses.next() else {
            let fault = ProtocolFault::WrongClass { due, reply };
            return Err(UpstreamFault::protocol(connection.at(Phase::Auth), fault));
        };
        let Connection { client, output, .. } = &mut *connection;
        client.auth_response(response, output);
    }
}
