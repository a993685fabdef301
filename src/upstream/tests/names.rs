//! Connections in the names of clients: kept for them, and for nobody else.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::join;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{
    Access, Account, Completion, Login, Phase, Prepared, Transaction, Upstream, UpstreamFault,
};
use super::login::{ANN, OFFER, account, ann};
use super::pooling::{finish, ready, replied, take};
use super::*;
use crate::smtp::sasl::{Credentials, Mechanism};

fn upstream(far: &Far) -> Upstream {
    Upstream::new(settings(&[&far.address]), Access::default(), "relay.example".to_owned())
}

fn line_of(account: &Account) -> String {
    let Credentials { username, authzid, secret, .. } = &**account;
    format!("AUTH PLAIN {}\r\n", STANDARD.encode(format!("{authzid}\0{username}\0{}", secret.reveal())))
}

/// A fresh connection that says this before anything else.
async fn entered(far: &Far, auth: &str) -> Peer<TcpStream> {
    let mut peer = far.greet(OFFER).await;
    if !auth.is_empty() {
        peer.hear(auth).await;
        peer.say("235 ok\r\n").await;
    }
    peer
}

/// Logs in; the connection is kept if there is room.
async fn login(upstream: &Upstream, far: &Far, account: &Account) -> Peer<TcpStream> {
    let line = line_of(account);
    let (login, peer) = join!(upstream.login(account), entered(far, &line));
    assert!(matches!(login.unwrap(), Login::Accepted(_)));
    peer
}

/// A message over the fresh connection that it asks for.
async fn prepared_anew(
    upstream: &Upstream,
    far: &Far,
    account: Option<&Account>,
    auth: &str,
) -> (Transaction, Peer<TcpStream>) {
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = entered(far, auth).await;
        take(&mut peer, GROUP).await;
        peer
    };
    let (prepared, peer) = join!(upstream.prepare(account, &envelope, &content), play);
    (ready(prepared), peer)
}

#[tokio::test]
async fn the_connection_of_a_login_serves_the_message_that_follows() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let mut peer = login(&upstream, &far, &ann()).await;
    assert_eq!((upstream.idle_connections(), upstream.busy_connections()), (1, 0));
    let (envelope, content) = (envelope(), content("x\r\n"));
    // An equal account, though another session's.
    let equal = ann();
    for _ in 0..2 {
        let prepare = upstream.prepare(Some(&equal), &envelope, &content);
        let (prepared, ()) = join!(prepare, take(&mut peer, GROUP));
        assert_eq!(replied(&finish(ready(prepared), &mut peer, "250 ok\r\n").await), 250);
    }
    assert_eq!(upstream.idle_connections(), 1);
}

#[tokio::test]
async fn no_connection_is_shared_between_accounts_nor_with_the_proxys_own() {
    let others = [
        account(Mechanism::Plain, "bob", "hunter2"),
        account(Mechanism::Plain, "ann", "hunter3"),
        Arc::new(Credentials { authzid: "bob".to_owned(), ..(*ann()).clone() }),
    ];
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let _kept = login(&upstream, &far, &ann()).await;
    for other in &others {
        let (transaction, mut peer) = prepared_anew(&upstream, &far, Some(other), &line_of(other)).await;
        // Now there is one that was used, and one that was used and refused.
        finish(transaction, &mut peer, "550 no\r\n").await;
    }
    assert_eq!(upstream.idle_connections(), 4);
    let (transaction, mut peer) = prepared_anew(&upstream, &far, None, "").await;
    finish(transaction, &mut peer, "250 ok\r\n").await;
    assert_eq!(upstream.idle_connections(), 5);
    // Nor the other way round.
    let carol = account(Mechanism::Plain, "carol", "hunter2");
    let (transaction, _peer) = prepared_anew(&upstream, &far, Some(&carol), &line_of(&carol)).await;
    transaction.abort();
}

#[tokio::test]
async fn the_proxys_own_account_is_not_that_of_a_client() {
    let far = Far::listen().await;
    let lines = "username = \"ann\"\npassword = \"hunter2\"";
    let upstream = super::certs::upstream_at(&far.address, lines);
    let (transaction, mut peer) = prepared_anew(&upstream, &far, None, ANN).await;
    finish(transaction, &mut peer, "250 ok\r\n").await;
    let bob = account(Mechanism::Plain, "bob", "x");
    let (transaction, mut peer) = prepared_anew(&upstream, &far, Some(&bob), &line_of(&bob)).await;
    finish(transaction, &mut peer, "250 ok\r\n").await;
    // Not even where the words are the same.
    let (transaction, _peer) = prepared_anew(&upstream, &far, Some(&ann()), ANN).await;
    transaction.abort();
}

#[tokio::test]
async fn a_connection_that_is_gone_is_replaced_in_the_same_name() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let mut peer = login(&upstream, &far, &ann()).await;
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        peer.hear(GROUP).await;
        drop(peer);
        let mut peer = entered(&far, ANN).await;
        take(&mut peer, GROUP).await;
        peer
    };
    let account = ann();
    let (prepared, mut peer) = join!(upstream.prepare(Some(&account), &envelope, &content), play);
    assert_eq!(replied(&finish(ready(prepared), &mut peer, "250 ok\r\n").await), 250);
}

#[tokio::test]
async fn a_password_withdrawn_before_the_message_sends_nothing() {
    for answer in ["535 5.7.8 hunter2 is wrong", "454 4.7.0 hunter2? later"] {
        let far = Far::listen().await;
        let upstream = upstream(&far);
        let (envelope, content, account) = (envelope(), content("x\r\n"), ann());
        let play = async {
            let mut peer = far.greet(OFFER).await;
            peer.hear(ANN).await;
            peer.say(&format!("{answer}\r\n")).await;
            peer.hear_last("QUIT\r\n").await;
        };
        let (prepared, ()) = join!(upstream.prepare(Some(&account), &envelope, &content), play);
        let fault = prepared.unwrap_err();
        assert!(matches!(fault, UpstreamFault::Unwilling { .. }), "{fault:?}");
        assert_eq!(fault.at().phase, Phase::Auth);
        let reply = fault.reply().to_string();
        assert!(reply.starts_with("451 4.4.1 [UPSTREAM] "), "{reply}");
        assert!(!reply.contains("hunter2") && reply.contains("***"), "{reply}");
        assert_eq!(upstream.outage(), None);
    }
}

#[tokio::test]
async fn a_withdrawn_password_is_refused_though_its_connection_is_kept() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let mut anns = login(&upstream, &far, &ann()).await;
    let bob = account(Mechanism::Plain, "bob", "x");
    let _bobs = login(&upstream, &far, &bob).await;
    let account = ann();
    let ask = async |answer: &str| {
        let play = async {
            let mut peer = far.greet(OFFER).await;
            peer.hear(ANN).await;
            peer.say(answer).await;
        };
        join!(upstream.login(&account), play).0.unwrap()
    };
    // Whoever can't tell now has withdrawn nothing.
    assert!(matches!(ask("454 later\r\n").await, Login::Deferred(_)));
    assert_eq!(upstream.idle_connections(), 2);
    assert!(matches!(ask("535 no\r\n").await, Login::Refused { .. }));
    timeout(PATIENCE, anns.hear_last("QUIT\r\n")).await.expect("it is kept");
    assert_eq!(upstream.idle_connections(), 1, "bob's");
}

#[tokio::test]
async fn each_account_has_its_bound_and_all_together_have_one() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let mut peers = Vec::new();
    for _ in 0..2 {
        peers.push(login(&upstream, &far, &ann()).await);
    }
    // `pool_size` is 2.
    login(&upstream, &far, &ann()).await.hear_last("QUIT\r\n").await;
    assert_eq!(upstream.idle_connections(), 2);
    for n in 0..18 {
        peers.push(login(&upstream, &far, &account(Mechanism::Plain, &format!("u{n}"), "x")).await);
    }
    assert_eq!(upstream.idle_connections(), 20);
    let _last = login(&upstream, &far, &account(Mechanism::Plain, "u18", "x")).await;
    assert_eq!(upstream.idle_connections(), 20);
    peers.remove(0).hear_last("QUIT\r\n").await;
}

/// Plays an upstream that knows in whose name each connection is, and fails
/// now and then. Returns the names that it saw mail of under another.
async fn watch(stream: TcpStream, number: usize) -> HashSet<String> {
    let mut stream = BufReader::new(stream);
    let (mut name, mut strangers, mut mails) = ("-".to_owned(), HashSet::new(), 0);
    let mut line = String::new();
    let _ = stream.write_all(b"220 ready\r\n").await;
    let mut in_data = false;
    while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
        let heard = std::mem::take(&mut line);
        let heard = heard.trim_end();
        let answer = match heard.split(' ').next().unwrap_or_default() {
            _ if in_data && heard != "." => continue,
            "." => {
                in_data = false;
                if mails % 3 == 0 { "550 no" } else { "250 ok" }
            }
            "EHLO" => OFFER.trim_end(),
            "AUTH" => {
                let message = STANDARD.decode(heard.rsplit(' ').next().unwrap()).unwrap();
                name = String::from_utf8(message).unwrap().split('\0').nth(1).unwrap().to_owned();
                "235 ok"
            }
            "MAIL" => {
                mails += 1;
                let from = heard.split(['<', '@']).nth(1).unwrap().to_owned();
                if from != name {
                    strangers.insert(format!("{from} over the connection of {name}"));
                }
                match (number + mails) % 5 {
                    0 => break,
                    1 => "421 enough",
                    2 => "450 later",
                    _ => "250 ok",
                }
            }
            "DATA" => {
                in_data = true;
                "354 go"
            }
            _ => "250 ok",
        };
        if stream.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() || answer.starts_with("421") {
            break;
        }
    }
    strangers
}

#[tokio::test]
async fn whatever_fails_mail_goes_in_the_name_of_its_sender() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let mut clients = JoinSet::new();
    for n in 0..48 {
        let upstream = upstream.clone();
        clients.spawn(async move {
            let name = ["-", "ann", "bob", "carol"][n % 4];
            let account = (name != "-").then(|| account(Mechanism::Plain, name, "x"));
            let path = Path::parse(&format!("{name}@x.example")).unwrap();
            let envelope = Envelope { reverse_path: path, ..envelope() };
            for _ in 0..6 {
                let prepared = upstream.prepare(account.as_ref(), &envelope, &content("x\r\n")).await;
                if let Ok(Prepared::Ready { transaction, .. }) = prepared {
                    assert!(!matches!(transaction.complete().await, Completion::Unsent(_)));
                }
            }
        });
    }
    let mut watched = JoinSet::new();
    let mut number = 0;
    let all = async {
        while !clients.is_empty() {
            tokio::select! {
                accepted = far.listener.accept() => {
                    number += 1;
                    watched.spawn(watch(accepted.unwrap().0, number));
                }
                Some(ended) = clients.join_next() => ended.unwrap(),
            }
        }
    };
    timeout(PATIENCE, all).await.expect("clients hang");
    upstream.close().await;
    drop(upstream);
    let strangers: HashSet<String> = watched.join_all().await.into_iter().flatten().collect();
    assert_eq!(strangers, HashSet::new());
    assert!(number > 4, "only {number} connections");
}
