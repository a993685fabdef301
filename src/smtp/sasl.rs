//! What clients say to prove who they are (RFC 4954, RFC 4422): mechanisms,
//! the exchange as the server leads it, and the credentials that come of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reply::Reply;
use crate::secret::Secret;

/// The longest name of a user, in octets (RFC 4616 §2).
const MAX_NAME: usize = 255;

/// A way to prove who one is, among those that may be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Name and password in one message (RFC 4616).
    Plain,
    /// The same, asked for one after the other (draft-murchison-sasl-login).
    Login,
    /// An OAuth 2.0 token, as Google and Microsoft take it.
    XOAuth2,
    /// An OAuth 2.0 token (RFC 7628).
    OAuthBearer,
}

impl Mechanism {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Mechanism; 4] =
        [Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2, Mechanism::OAuthBearer];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::XOAuth2 => "XOAUTH2",
            Mechanism::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The one with this name, in whatever case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// What a client claims to be, and what shall prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// How they were given.
    pub mechanism: Mechanism,
    /// Who the client says it is: the authentication identity of PLAIN and
    /// LOGIN, the user of the others. Never empty, no control characters.
    pub username: String,
    /// Whom it wants to act as (PLAIN only); empty: the same.
    pub authzid: String,
    /// The password; for a token the whole message as the client sent it,
    /// decoded.
    pub secret: Secret,
}

/// An exchange under way: a response to a challenge of ours is due.
#[derive(Clone, Debug)]
pub struct Exchange(Due);

#[derive(Clone, Debug)]
enum Due {
    /// The one message of a mechanism that has but one.
    Message(Mechanism),
    Username,
    Password {
        username: String,
    },
}

/// How far an exchange came.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The client hears `334` with this text, which is base64 already, and
    /// answers.
    Challenge(&'static str, Exchange),
    /// All is said.
    Complete(Credentials),
    /// What came is not what the mechanism has.
    Malformed(Malformed),
    /// The client gave up (`*`): `501 5.7.0`.
    Cancelled,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is not what is due: `501 5.5.2` with this text.
    Syntax(&'static str),
    /// It is too long (RFC 5321 §4.5.3.1.4, RFC 4954 §4): `500 5.5.2`.
    TooLong,
    /// It ends in a bare LF, and such lines are not taken: `500 5.5.2`.
    BareNewline,
}

impl Malformed {
    /// What the client hears.
    pub fn reply(self) -> Reply {
        match self {
            Malformed::Syntax(why) => Reply::new(501, format!("5.5.2 {why}")),
            Malformed::TooLong => Reply::new(500, "5.5.2 line too long"),
            Malformed::BareNewline => Reply::new(500, "5.5.2 lines end in CRLF"),
        }
    }
}

impl Exchange {
    /// After `AUTH mechanism [initial-response]` (RFC 4954 §4).
    pub fn start(mechanism: Mechanism, initial_response: Option<&str>) -> Progress {
        let (challenge, exchange) = match mechanism {
            // base64 of "Username:"
            Mechanism::Login => ("VXNlcm5hbWU6", Exchange(Due::Username)),
            mechanism => ("", Exchange(Due::Message(mechanism))),
        };
        match initial_response {
            None => Progress::Challenge(challenge, exchange),
            // An empty one, which can't be written otherwise.
            Some("=") => exchange.respond(b""),
            Some(response) => exchange.respond(response.as_bytes()),
        }
    }

    /// After the line with a response, without its end.
    pub fn respond(self, line: &[u8]) -> Progress {
        if line == b"*" {
            return Progress::Cancelled;
        }
        let read = STANDARD.decode(line).map_err(|_| "this is not base64");
        match read.and_then(|octets| String::from_utf8(octets).map_err(|_| "this is not UTF-8")) {
            Ok(text) => self.next(text),
            Err(why) => Progress::Malformed(Malformed::Syntax(why)),
        }
    }

    fn next(self, text: String) -> Progress {
        let read = match self.0 {
            Due::Username => {
                return match name(&text) {
                    // base64 of "Password:"
                    Ok(username) => Progress::Challenge("UGFzc3dvcmQ6", Exchange(Due::Password { username })),
                    Err(why) => Progress::Malformed(Malformed::Syntax(why)),
                };
            }
            Due::Password { username } => password(text).map(|secret| Credentials {
                mechanism: Mechanism::Login,
                username,
                authzid: String::new(),
                secret,
            }),
            Due::Message(Mechanism::OAuthBearer) => oauth_bearer(text),
            Due::Message(Mechanism::XOAuth2) => xoauth2(text),
            Due::Message(Mechanism::Plain | Mechanism::Login) => plain(&text),
        };
        match read {
            Ok(credentials) => Progress::Complete(credentials),
            Err(why) => Progress::Malformed(Malformed::Syntax(why)),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
fn plain(message: &str) -> Result<Credentials, &'static str> {
    let mut parts = message.split('\0');
    let (Some(authzid), Some(authcid), Some(secret), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("PLAIN has three parts with a NUL between them");
    };
    let authzid = if authzid.is_empty() { String::new() } else { name(authzid)? };
    Ok(Credentials {
        mechanism: Mechanism::Plain,
        username: name(authcid)?,
        authzid,
        secret: password(secret.to_owned())?,
    })
}

/// `user=NAME ^A auth=Bearer TOKEN ^A ^A`
fn xoauth2(message: String) -> Result<Credentials, &'static str> {
    let users: Vec<_> = fields(&message)?.filter_map(|field| field.strip_prefix("user=")).collect();
    // Servers differ in which of several they take: it might not be ours.
    let [user] = users[..] else { return Err("there must be one user= in it") };
    token(Mechanism::XOAuth2, name(user)?, message)
}

/// `n,a=NAME, ^A … auth=Bearer TOKEN ^A ^A` (RFC 7628 §3.1). The name may be
/// left out there; here it is needed, since it says whose mail this is.
fn oauth_bearer(message: String) -> Result<Credentials, &'static str> {
    let header = fields(&message)?.next().unwrap_or_default();
    let user = header.strip_prefix("n,a=").and_then(|rest| rest.strip_suffix(','));
    let user = user.ok_or("the user must be named: n,a=NAME,")?;
    if user.contains(',') {
        return Err("a comma in the user's name is written =2C");
    }
    // The two octets that a name can't have as they are (RFC 5801 §4).
    let user = name(&user.replace("=2C", ",").replace("=3D", "="))?;
    token(Mechanism::OAuthBearer, user, message)
}

fn token(mechanism: Mechanism, username: String, message: String) -> Result<Credentials, &'static str> {
    Ok(Credentials { mechanism, username, authzid: String::new(), secret: Secret::new(message) })
}

/// The fields of an OAuth message, which end in ^A each, as does the message.
fn fields(message: &str) -> Result<impl Iterator<Item = &str>, &'static str> {
    let inner = message.strip_suffix("\x01\x01").ok_or("the message does not end in two ^A")?;
    let has_token =
        inner.split('\x01').any(|field| field.strip_prefix("auth=").is_some_and(|token| !token.is_empty()));
    if !has_token {
        return Err("no auth= in it");
    }
    Ok(inner.split('\x01'))
}

fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.len() > MAX_NAME {
        return Err("a user's name has 1 to 255 octets");
    }
    if text.contains(char::is_control) {
        return Err("a user's name has no control characters");
    }
    Ok(text.to_owned())
}

fn password(text: String) -> Result<Secret, &'static str> {
    if text.is_empty() || text.contains('\0') {
        return Err("a password is not empty and has no NUL");
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(text: &str) -> String {
        STANDARD.encode(text)
    }

    fn said(mechanism: Mechanism, message: &str) -> Result<Credentials, Malformed> {
        match Exchange::start(mechanism, Some(&base64(message))) {
            Progress::Complete(credentials) => Ok(credentials),
            Progress::Malformed(what) => Err(what),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_has_three_parts() {
        let credentials = said(Mechanism::Plain, "\0jo\u{e9}\0p w").unwrap();
        assert_eq!((&*credentials.username, &*credentials.authzid), ("jo\u{e9}", ""));
        assert_eq!(credentials.secret.reveal(), "p w");
        assert_eq!(said(Mechanism::Plain, "boss\0joe\0pw").unwrap().authzid, "boss");
        for bad in ["", "joe\0pw", "\0joe\0", "\0\0pw", "\0joe\0pw\0", "\0jo\ne\0pw", "a\x07\0joe\0pw"] {
            assert!(said(Mechanism::Plain, bad).is_err(), "{bad:?}");
        }
        let long = "x".repeat(256);
        assert!(said(Mechanism::Plain, &format!("\0{long}\0pw")).is_err());
    }

    #[test]
    fn login_asks_twice_or_takes_the_name_at_once() {
        let Progress::Challenge("VXNlcm5hbWU6", exchange) = Exchange::start(Mechanism::Login, None) else {
            panic!("no challenge");
        };
        let with_name = [
            exchange.respond(base64("joe").as_bytes()),
            Exchange::start(Mechanism::Login, Some(&base64("joe"))),
        ];
        for progress in with_name {
            let Progress::Challenge("UGFzc3dvcmQ6", exchange) = progress else { panic!("no challenge") };
            let Progress::Complete(credentials) = exchange.respond(base64("pw").as_bytes()) else {
                panic!("not complete");
            };
            assert_eq!((&*credentials.username, credentials.secret.reveal()), ("joe", "pw"));
        }
    }

    #[test]
    fn tokens_are_kept_as_they_came() {
        let message = "user=joe@x.test\x01auth=Bearer abc\x01\x01";
        let credentials = said(Mechanism::XOAuth2, message).unwrap();
        assert_eq!((&*credentials.username, credentials.secret.reveal()), ("joe@x.test", message));
        let message = "n,a=a=2Cb=3Dc@x.test,\x01host=h\x01port=587\x01auth=Bearer abc\x01\x01";
        let credentials = said(Mechanism::OAuthBearer, message).unwrap();
        assert_eq!((&*credentials.username, credentials.secret.reveal()), ("a,b=c@x.test", message));
        for bad in [
            "user=joe\x01\x01",
            "user=joe\x01auth=\x01\x01",
            "auth=Bearer a\x01\x01",
            "user=joe\x01auth=Bearer a",
            "user=ann\x01user=joe\x01auth=Bearer a\x01\x01",
            "user=joe\x01auth=Bearer a\x01user=joe\x01\x01",
        ] {
            assert!(said(Mechanism::XOAuth2, bad).is_err(), "{bad:?}");
        }
        for bad in [
            "n,,\x01auth=Bearer a\x01\x01",
            "a=joe,\x01auth=Bearer a\x01\x01",
            "n,a=,\x01auth=Bearer a\x01\x01",
            "n,a=ann,a=joe,\x01auth=Bearer a\x01\x01",
        ] {
            assert!(said(Mechanism::OAuthBearer, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_base64_or_no_text_is_malformed() {
        for bad in ["*x", "a b", "YQ", "YQ=", "=YQ=", "/w=="] {
            let progress = Exchange::start(Mechanism::Plain, Some(bad));
            assert!(matches!(progress, Progress::Malformed(_)), "{bad}: {progress:?}");
        }
        assert!(matches!(Exchange::start(Mechanism::Plain, Some("=")), Progress::Malformed(_)));
        assert!(matches!(Exchange::start(Mechanism::Plain, Some("*")), Progress::Cancelled));
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", said(Mechanism::Plain, "\0joe\0hunter2"));
        assert!(shown.contains("joe") && !shown.contains("hunter2"), "{shown}");
    }
}
