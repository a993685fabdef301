//! AUTH of clients: what goes over the wire, and what comes of the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::join;

use super::super::{Access, Account, Login, Phase, Upstream, UpstreamFault};
use super::pooling::pass;
use super::*;
use crate::secret::Secret;
use crate::smtp::sasl::{Credentials, Mechanism};

const XOAUTH2: &str = "user=ann@x.example\x01auth=Bearer ya29.token\x01\x01";
const BEARER: &str = "n,a=ann@x.example,\x01auth=Bearer ya29.token\x01\x01";

pub(super) fn account(mechanism: Mechanism, username: &str, secret: &str) -> Account {
    Arc::new(Credentials {
        mechanism,
        username: username.to_owned(),
        authzid: String::new(),
        secret: Secret::new(secret.to_owned()),
    })
}

pub(super) fn ann() -> Account {
    account(Mechanism::Plain, "ann", "hunter2")
}

/// `\0ann\0hunter2`
pub(super) const ANN: &str = "AUTH PLAIN AGFubgBodW50ZXIy\r\n";
pub(super) const OFFER: &str = "250-hello\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n";

fn upstream(fars: &[&Far]) -> Upstream {
    let addresses: Vec<&str> = fars.iter().map(|far| far.address.as_str()).collect();
    Upstream::new(settings(&addresses), Access::default(), "relay.example".to_owned())
}

/// What the upstream hears and says to AUTH, and what comes of it.
async fn asked(
    account: &Account,
    offered: &str,
    dialogue: &[(&str, &str)],
) -> (Result<Login, UpstreamFault>, Upstream) {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let play = async {
        let mut peer = far.greet(&format!("250-hello\r\n250 {offered}\r\n")).await;
        for (heard, said) in dialogue {
            peer.hear(&format!("{heard}\r\n")).await;
            peer.say(&format!("{said}\r\n")).await;
        }
        peer
    };
    let (login, _peer) = join!(upstream.login(account), play);
    (login, upstream)
}

async fn answered(account: &Account, offered: &str, dialogue: &[(&str, &str)]) -> Login {
    asked(account, offered, dialogue).await.0.unwrap()
}

fn refused(code: u16, text: &str) -> Login {
    Login::Refused { reply: Reply::new(code, text), challenge: None }
}

/// Compares texts, too, which Debug does not show.
#[track_caller]
fn same(login: &Login, expected: &Login) {
    assert!(login == expected, "{login:?} is not {expected:?}, or has another text");
}

#[tokio::test]
async fn each_mechanism_says_what_the_client_said() {
    let welcome = "235 2.7.0 welcome\r\n".trim_end();
    let expected = Login::Accepted(Reply::new(235, "2.7.0 welcome"));
    let offered = "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER";
    let line = |name: &str, message: &str| format!("AUTH {name} {}", STANDARD.encode(message));

    same(&answered(&ann(), offered, &[(ANN.trim_end(), welcome)]).await, &expected);
    let boss = Credentials { authzid: "boss".to_owned(), ..(*ann()).clone() };
    let plain = line("PLAIN", "boss\0ann\0hunter2");
    same(&answered(&Arc::new(boss), offered, &[(&plain, welcome)]).await, &expected);
    let login = [("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("YW5u", "334 UGFzc3dvcmQ6"), ("aHVudGVyMg==", welcome)];
    same(&answered(&account(Mechanism::Login, "ann", "hunter2"), offered, &login).await, &expected);
    for (mechanism, message) in [(Mechanism::XOAuth2, XOAUTH2), (Mechanism::OAuthBearer, BEARER)] {
        let token = account(mechanism, "ann@x.example", message);
        let line = line(mechanism.name(), message);
        same(&answered(&token, offered, &[(&line, welcome)]).await, &expected);
    }
}

#[tokio::test]
async fn a_token_goes_along_with_auth_up_to_the_longest_line() {
    // Three octets become four; `AUTH XOAUTH2 ` and the line's end are 15.
    for (length, fits) in [(3 * 3068, true), (3 * 3069, false)] {
        let message = "t".repeat(length);
        let encoded = STANDARD.encode(&message);
        let whole = format!("AUTH XOAUTH2 {encoded}");
        let dialogue = match fits {
            true => vec![(whole.as_str(), "235 ok")],
            false => vec![("AUTH XOAUTH2", "334 "), (encoded.as_str(), "235 ok")],
        };
        let token = account(Mechanism::XOAuth2, "ann", &message);
        same(&answered(&token, "AUTH XOAUTH2", &dialogue).await, &Login::Accepted(Reply::new(235, "ok")));
    }
    // A password waits for its challenge much earlier.
    let long = account(Mechanism::Plain, "ann", &"p".repeat(400));
    let message = STANDARD.encode(format!("\0ann\0{}", "p".repeat(400)));
    let dialogue = [("AUTH PLAIN", "334 "), (message.as_str(), "235 ok")];
    same(&answered(&long, "AUTH PLAIN", &dialogue).await, &Login::Accepted(Reply::new(235, "ok")));
}

#[tokio::test]
async fn plain_and_login_stand_in_for_one_another() {
    let dialogue =
        [("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("YW5u", "334 UGFzc3dvcmQ6"), ("aHVudGVyMg==", "235 ok")];
    let welcome = Login::Accepted(Reply::new(235, "ok"));
    same(&answered(&ann(), "AUTH LOGIN XOAUTH2", &dialogue).await, &welcome);
    let itself = Credentials { authzid: "ann".to_owned(), ..(*ann()).clone() };
    same(&answered(&Arc::new(itself), "AUTH LOGIN", &dialogue).await, &welcome);
    let login = account(Mechanism::Login, "ann", "hunter2");
    same(&answered(&login, "AUTH PLAIN", &[(ANN.trim_end(), "235 ok")]).await, &welcome);

    // LOGIN can't say whom to act as, and nothing stands in for a token.
    let not_offered = refused(504, "5.7.4 the upstream does not offer this mechanism");
    let boss = Credentials { authzid: "boss".to_owned(), ..(*ann()).clone() };
    same(&answered(&Arc::new(boss), "AUTH LOGIN", &[]).await, &not_offered);
    let token = account(Mechanism::XOAuth2, "ann", XOAUTH2);
    same(&answered(&token, "AUTH PLAIN LOGIN OAUTHBEARER", &[]).await, &not_offered);
}

#[tokio::test]
async fn an_upstream_without_auth_is_a_fault_that_says_so() {
    let (login, upstream) = asked(&ann(), "PIPELINING", &[]).await;
    let fault = login.unwrap_err();
    assert!(matches!(fault, UpstreamFault::NoMechanism { .. }), "{fault:?}");
    assert!(fault.to_string().contains("does not offer AUTH here, but a listener has auth"), "{fault}");
    assert_eq!(upstream.outage(), None, "it has answered");
}

#[tokio::test]
async fn the_upstreams_answer_is_given_back_as_it_is() {
    let told = async |said| answered(&ann(), "AUTH PLAIN", &[(ANN.trim_end(), said)]).await;
    same(&told("535-5.7.8 one\r\n535 5.7.8 two").await, &refused(535, "5.7.8 one\n5.7.8 two"));
    same(&told("534 5.7.9 use a token").await, &refused(534, "5.7.9 use a token"));
    same(&told("454 4.7.0 later").await, &Login::Deferred(Reply::new(454, "4.7.0 later")));
    // The client hears it, and nothing else shows it.
    let echo = told("535 hunter2 is wrong").await;
    same(&echo, &refused(535, "hunter2 is wrong"));
    assert_eq!(format!("{echo:?}"), "Refused(535)");
}

#[tokio::test]
async fn why_a_token_is_refused_comes_along() {
    let reason = STANDARD.encode(r#"{"status":"invalid_token"}"#);
    let challenge = format!("334 {reason}");
    let reply = || Reply::new(535, "5.7.8 expired");
    for (mechanism, acknowledged) in [(Mechanism::XOAuth2, ""), (Mechanism::OAuthBearer, "AQ==")] {
        let token = account(mechanism, "ann", BEARER);
        let start = format!("AUTH {} {}", mechanism.name(), STANDARD.encode(BEARER));
        let offered = "AUTH XOAUTH2 OAUTHBEARER";
        let dialogue = [(start.as_str(), challenge.as_str()), (acknowledged, "535 5.7.8 expired")];
        let expected = Login::Refused { reply: reply(), challenge: Some(reason.clone()) };
        same(&answered(&token, offered, &dialogue).await, &expected);
        // What is no base64 is not passed on.
        for odd in ["334 not base64!", "334 ", "334-aGk=\r\n334 aGk="] {
            let dialogue = [(start.as_str(), odd), (acknowledged, "535 5.7.8 expired")];
            let expected = Login::Refused { reply: reply(), challenge: None };
            same(&answered(&token, offered, &dialogue).await, &expected);
        }
        // It has one reason, not two.
        let dialogue = [(start.as_str(), challenge.as_str()), (acknowledged, challenge.as_str())];
        let fault = asked(&token, offered, &dialogue).await.0.unwrap_err();
        assert!(matches!(fault, UpstreamFault::Protocol { .. }), "{fault:?}");
    }
}

#[tokio::test]
async fn no_fault_shows_a_secret() {
    let token = account(Mechanism::XOAuth2, "ann", XOAUTH2);
    let encoded = STANDARD.encode(XOAUTH2);
    for said in [
        "421 hunter2 AGFubgBodW50ZXIy aHVudGVyMg==".to_owned(),
        format!("421 {encoded}"),
        format!("421 {}", &encoded[..24]),
        "421 Bearer ya29.token".to_owned(),
        "334 hunter2".to_owned(),
        "250 hunter2".to_owned(),
    ] {
        let offered = "AUTH PLAIN XOAUTH2";
        for (account, line) in [(&ann(), ANN.trim_end()), (&token, &format!("AUTH XOAUTH2 {encoded}"))] {
            let dialogue = [(line, said.as_str()), ("", "421 hunter2 ya29.token")];
            let steps = if line.contains("XOAUTH2") && said.starts_with("334") { 2 } else { 1 };
            let fault = asked(account, offered, &dialogue[..steps]).await.0.unwrap_err();
            let shown = format!("{fault} {fault:?} {}", fault.reply());
            let secrets: &[&str] = match account.mechanism {
                Mechanism::Plain => &["hunter2", "AGFubgBodW50ZXIy", "aHVudGVyMg=="],
                _ => &["ya29", &encoded[..16]],
            };
            assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_refused_client_is_no_outage() {
    for (answer, kept_off) in [("535 no", ""), ("454 later", "")] {
        let (first, second, account) = (Far::listen().await, Far::listen().await, ann());
        let upstream = upstream(&[&first, &second]);
        let play = async {
            let mut peer = first.greet(OFFER).await;
            peer.hear(ANN).await;
            peer.say(&format!("{answer}\r\n")).await;
            peer.hear_last(&format!("QUIT\r\n{kept_off}")).await;
        };
        let (login, ()) = join!(upstream.login(&account), play);
        assert!(!matches!(login.unwrap(), Login::Accepted(_)));
        assert_eq!((upstream.outage(), upstream.idle_connections()), (None, 0));
        // The address is still the first that is tried.
        let play = async { first.greet(PLAIN).await.hear("QUIT\r\n").await };
        assert_eq!(join!(upstream.probe(), play).0.unwrap().address, first.address);
    }
}

#[tokio::test]
async fn an_address_that_has_no_answer_is_not_the_answer() {
    for how in ["421 at the greeting", "421 at AUTH", "closed at AUTH", "no AUTH"] {
        let (first, second, account) = (Far::listen().await, Far::listen().await, ann());
        let upstream = upstream(&[&first, &second]);
        let play = async {
            match how {
                "421 at the greeting" => first.accept().await.say("421 busy\r\n").await,
                "no AUTH" => drop(first.greet(PLAIN).await),
                _ => {
                    let mut peer = first.greet(OFFER).await;
                    peer.hear(ANN).await;
                    peer.say(if how == "421 at AUTH" { "421 busy\r\n" } else { "" }).await;
                }
            }
            let mut peer = second.greet(OFFER).await;
            peer.hear(ANN).await;
            peer.say("535 no\r\n").await;
        };
        let (login, ()) = join!(upstream.login(&account), play);
        same(&login.unwrap(), &refused(535, "no"));
    }
}

#[tokio::test]
async fn an_address_that_hangs_leaves_time_for_the_next() {
    let (first, second, account) = (Far::listen().await, Far::listen().await, ann());
    let upstream = upstream(&[&first, &second]);
    let play = async {
        let silent = first.accept().await;
        pass(16).await;
        let mut peer = second.greet(OFFER).await;
        peer.hear(ANN).await;
        peer.say("235 ok\r\n").await;
        (silent, peer)
    };
    let (login, _peers) = join!(upstream.login(&account), play);
    same(&login.unwrap(), &Login::Accepted(Reply::new(235, "ok")));
    assert_eq!(upstream.outage(), None);
}

#[tokio::test]
async fn a_login_ends_after_half_a_minute() {
    let (far, account) = (Far::listen().await, ann());
    let upstream = upstream(&[&far]);
    let play = async {
        let mut peer = far.greet(OFFER).await;
        peer.hear(ANN).await;
        pass(31).await;
        peer
    };
    let (login, _peer) = join!(upstream.login(&account), play);
    let fault = login.unwrap_err();
    assert!(matches!(fault, UpstreamFault::TimedOut { .. }), "{fault:?}");
    assert_eq!(fault.at().phase, Phase::Auth);
    assert_eq!(upstream.outage(), None, "it answers, though not this");
}

/// A session goes on when a reload puts another upstream in the place of the
/// one that let its client in.
#[tokio::test]
async fn no_password_leaves_the_machine_where_tls_is_not_verified() {
    let upstream = Upstream::new(settings(&["192.0.2.1:25"]), Access::default(), "relay.example".to_owned());
    let account = ann();
    let login = upstream.login(&account).await.unwrap_err();
    let mail = upstream.prepare(Some(&account), &envelope(), &content("")).await.unwrap_err();
    for fault in [login, mail] {
        assert!(fault.to_string().contains("a password could be read on its way there"), "{fault}");
    }
    assert_eq!(upstream.outage(), None, "that says nothing of the upstream");
}

#[tokio::test]
async fn clients_are_offered_what_the_upstream_offers() {
    let both = [Mechanism::Plain, Mechanism::Login];
    let seen = async |offered: &str| asked(&ann(), offered, &[]).await.1.mechanisms();
    assert_eq!(upstream(&[]).mechanisms(), both, "before it was reached");
    assert_eq!(seen("AUTH XOAUTH2").await, [Mechanism::XOAuth2], "though it let nobody in");
    assert_eq!(seen("PIPELINING").await, both);
    assert_eq!(seen("AUTH GSSAPI").await, both);
    for (offered, line) in
        [("AUTH OAUTHBEARER PLAIN", ANN.trim_end()), ("AUTH OAUTHBEARER LOGIN", "AUTH LOGIN")]
    {
        let (_, upstream) = asked(&ann(), offered, &[(line, "535 no")]).await;
        assert_eq!(upstream.mechanisms(), [Mechanism::Plain, Mechanism::Login, Mechanism::OAuthBearer]);
    }
}
