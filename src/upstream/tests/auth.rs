//! The proxy's own account at the upstream.

use tokio::join;

use super::super::{Phase, UpstreamFault};
use super::certs::{Authority, upstream_at};
use super::*;

const ACCOUNT: &str = "username = \"me\"\npassword = \"hunter2\"";
/// `\0me\0hunter2`
const MESSAGE: &str = "AG1lAGh1bnRlcjI=";

/// What is said and answered to AUTH in clear on loopback, and the result.
async fn asked(offered: &str, lines: &str, dialogue: &[(&str, &str)]) -> Result<(), UpstreamFault> {
    let far = Far::listen().await;
    let upstream = upstream_at(&far.address, lines);
    let play = async {
        let mut peer = far.greet(&format!("250-hello\r\n250 {offered}\r\n")).await;
        for (heard, said) in dialogue {
            peer.hear(&format!("{heard}\r\n")).await;
            peer.say(&format!("{said}\r\n")).await;
        }
        let mut rest = [0; 64];
        let count = peer.stream.read(&mut rest).await.unwrap();
        assert!(count == 0 || &rest[..count] == b"QUIT\r\n", "{:?}", &rest[..count]);
    };
    let (probed, ()) = join!(upstream.probe(), play);
    probed.map(|_| ())
}

#[tokio::test]
async fn plain_is_used_where_it_is_offered_and_login_else() {
    let plain = format!("AUTH PLAIN {MESSAGE}");
    asked("AUTH LOGIN PLAIN", ACCOUNT, &[(&plain, "235 welcome")]).await.unwrap();
    let login =
        [("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("bWU=", "334 UGFzc3dvcmQ6"), ("aHVudGVyMg==", "235 welcome")];
    asked("AUTH CRAM-MD5 LOGIN", ACCOUNT, &login).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_on_a_line_waits_for_its_challenge() {
    let password = "p".repeat(400);
    let account = format!("username = \"me\"\npassword = \"{password}\"");
    let far = Far::listen().await;
    let upstream = upstream_at(&far.address, &account);
    let play = async {
        let mut peer = far.greet("250-hello\r\n250 AUTH PLAIN\r\n").await;
        peer.hear("AUTH PLAIN\r\n").await;
        peer.say("334 \r\n").await;
        peer.hear("AG1lAHBw").await;
    };
    let (probed, ()) = join!(upstream.probe(), play);
    assert_eq!(probed.unwrap_err().at().phase, Phase::Auth);
}

#[tokio::test]
async fn a_refusal_is_told_without_the_password() {
    let plain = format!("AUTH PLAIN {MESSAGE}");
    let told = async |said: &str| {
        let fault = asked("AUTH PLAIN", ACCOUNT, &[(&plain, said)]).await.unwrap_err();
        let reply = fault.reply().to_string();
        assert!(reply.starts_with("451 4.4.1 [UPSTREAM] 127.0.0.1:"), "{reply}");
        fault.to_string().split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(told("535 5.7.8 bad credentials").await, "535 5.7.8 bad credentials (AUTH)");
    assert_eq!(told("454 4.7.0 later").await, "454 4.7.0 later (AUTH)");
    // Some repeat what they do not like.
    assert_eq!(told(&format!("500 what? {plain}")).await, "500 what? AUTH PLAIN *** (AUTH)");
    assert_eq!(told("535 me/hunter2 is wrong").await, "535 me/*** is wrong (AUTH)");
    assert_eq!(told("421 hunter2").await, "closes the service: 421 ***");
    assert_eq!(told("334 hunter2").await, "unexpected reply to AUTH: 334 *** (AUTH)");
    // Only 235 lets us in (RFC 4954 §6).
    assert_eq!(told("250 hello").await, "unexpected reply to AUTH: 250 hello (AUTH)");
}

#[tokio::test]
async fn an_account_that_can_not_be_used_is_a_fault() {
    let told = async |offered: &str| {
        asked(offered, ACCOUNT, &[]).await.unwrap_err().to_string().split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(told("PIPELINING").await, "does not offer AUTH here, but upstream.username is set");
    assert_eq!(
        told("AUTH CRAM-MD5 XOAUTH2").await,
        "offers neither AUTH PLAIN nor LOGIN, only CRAM-MD5 XOAUTH2"
    );
}

#[tokio::test]
async fn credentials_follow_the_handshake_and_mail_follows_them() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let server = authority.issue("127.0.0.1").server();
    let ca = authority.file.path().display();
    let lines = format!("tls = \"starttls\"\nca_file = \"{ca}\"\n{ACCOUNT}");
    let upstream = upstream_at(&far.address, &lines);
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = server.secured(&far, "250-hello\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n").await;
        peer.hear(&format!("AUTH PLAIN {MESSAGE}\r\n")).await;
        peer.say("235 welcome\r\n").await;
        peer.hear(GROUP).await;
    };
    let (prepared, ()) = join!(upstream.prepare(None, &envelope, &content), play);
    assert!(prepared.is_err());
    // Where they are refused, nothing follows.
    let play = async {
        let mut peer = server.secured(&far, "250-hello\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n").await;
        peer.hear(&format!("AUTH PLAIN {MESSAGE}\r\n")).await;
        peer.say("535 no\r\n").await;
        peer.hear_last("").await;
    };
    let (prepared, ()) = join!(upstream.prepare(None, &envelope, &content), play);
    assert_eq!(prepared.unwrap_err().at().phase, Phase::Auth);
}
