//! The pool and its transactions against a scripted upstream over TCP.

use tokio::join;
use tokio::time::{advance, pause, resume};

use super::super::{Access, Completion, Phase, Prepared, Transaction, Upstream, UpstreamFault};
use super::*;

fn upstream(fars: &[&Far]) -> Upstream {
    let addresses: Vec<&str> = fars.iter().map(|far| far.address.as_str()).collect();
    Upstream::new(settings(&addresses), Access::default(), "relay.example".to_owned())
}

#[track_caller]
pub(super) fn ready(prepared: Result<Prepared, UpstreamFault>) -> Transaction {
    match prepared {
        Ok(Prepared::Ready { transaction, .. }) => transaction,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn replied(completion: &Completion) -> u16 {
    match completion {
        Completion::Replied(reply) => reply.code(),
        other => panic!("{other:?}"),
    }
}

/// Plays a transaction up to the content.
pub(super) async fn take(peer: &mut Peer<TcpStream>, group: &str) {
    peer.hear(group).await;
    if group.starts_with("RSET") {
        peer.say("250 reset\r\n").await;
    }
    peer.say(GRANTED).await;
    peer.hear("x\r\n").await;
}

pub(super) async fn finish(transaction: Transaction, peer: &mut Peer<TcpStream>, reply: &str) -> Completion {
    let far = async {
        peer.hear(".\r\n").await;
        peer.say(reply).await;
    };
    join!(transaction.complete(), far).0
}

/// Sends one message over a fresh connection, which then is idle.
async fn warm(upstream: &Upstream, far: &Far) -> Peer<TcpStream> {
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = far.greet(PIPELINING).await;
        take(&mut peer, GROUP).await;
        peer
    };
    let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
    let completion = finish(ready(prepared), &mut peer, "250 taken\r\n").await;
    assert_eq!(replied(&completion), 250);
    peer
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    assert_eq!(upstream.capabilities(), None);
    let mut peer = warm(&upstream, &far).await;
    assert!(upstream.capabilities().unwrap().pipelining);
    assert_eq!(upstream.idle_connections(), 1);

    let (envelope, content) = (envelope(), content("x\r\n"));
    let (prepared, ()) = join!(upstream.prepare(None, &envelope, &content), take(&mut peer, GROUP));
    let transaction = ready(prepared);
    assert_eq!(transaction.upstream(), far.address);
    let completion = finish(transaction, &mut peer, "452 full\r\n").await;
    assert_eq!(replied(&completion), 452);

    // The refusal may have left something behind: RSET goes in front.
    let group = format!("RSET\r\n{GROUP}");
    let (prepared, ()) = join!(upstream.prepare(None, &envelope, &content), take(&mut peer, &group));
    ready(prepared).abort();
    peer.hear_last("").await;
    assert_eq!(upstream.idle_connections(), 0);
}

#[tokio::test]
async fn a_dead_connection_is_replaced_and_the_message_sent_again() {
    for goodbye in ["", "421 idle too long\r\n"] {
        let far = Far::listen().await;
        let upstream = upstream(&[&far]);
        let mut peer = warm(&upstream, &far).await;
        let (envelope, content) = (envelope(), content_in_file("", b"x\r\n"));
        let play = async {
            // It dies only when the commands are under way.
            peer.hear(GROUP).await;
            peer.say(goodbye).await;
            drop(peer);
            let mut peer = far.greet(PIPELINING).await;
            take(&mut peer, GROUP).await;
            peer
        };
        let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
        assert_eq!(replied(&finish(ready(prepared), &mut peer, "250 ok\r\n").await), 250);
    }
}

#[tokio::test]
async fn a_connection_that_dies_in_the_content_is_replaced_too() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let mut peer = warm(&upstream, &far).await;
    let (envelope, long) = (envelope(), content(&"line\r\n".repeat(2_000_000)));
    let play = async {
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("line\r\n").await;
        drop(peer);
        let mut peer = far.greet(PIPELINING).await;
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear(&"line\r\n".repeat(2_000_000)).await;
        peer
    };
    let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &long), play);
    assert_eq!(replied(&finish(ready(prepared), &mut peer, "250 ok\r\n").await), 250);
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_a_fault() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = far.greet(PIPELINING).await;
        peer.hear(GROUP).await;
    };
    let (prepared, ()) = join!(upstream.prepare(None, &envelope, &content), play);
    let fault = prepared.unwrap_err();
    assert!(matches!(fault, UpstreamFault::Closed { .. }), "{fault:?}");
    assert!(fault.reply().to_string().starts_with("451 4.4.1 [UPSTREAM] "));
}

#[tokio::test]
async fn a_connection_that_spoke_unasked_is_not_used() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let mut peer = warm(&upstream, &far).await;
    peer.say("250 surprise\r\n").await;
    let (envelope, content) = (envelope(), content("x\r\n"));
    // The reactor learns of it while the probe goes back and forth.
    let play = async { far.greet(PIPELINING).await.hear("QUIT\r\n").await };
    let (probe, ()) = join!(upstream.probe(), play);
    probe.unwrap();
    let play = async {
        let mut fresh = far.greet(PIPELINING).await;
        take(&mut fresh, GROUP).await;
        fresh
    };
    let (prepared, _fresh) = join!(upstream.prepare(None, &envelope, &content), play);
    ready(prepared).abort();
    peer.hear_last("").await;
}

#[tokio::test]
async fn a_stale_connection_proves_itself_with_reset() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let mut peer = warm(&upstream, &far).await;
    pass(6).await;
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        peer.hear("RSET\r\n").await;
        peer.say("250 reset\r\n").await;
        take(&mut peer, GROUP).await;
    };
    let (prepared, ()) = join!(upstream.prepare(None, &envelope, &content), play);
    assert_eq!(replied(&finish(ready(prepared), &mut peer, "250 ok\r\n").await), 250);

    // One that refuses is replaced.
    pass(6).await;
    let play = async {
        peer.hear("RSET\r\n").await;
        peer.say("451 what?\r\n").await;
        let mut fresh = far.greet(PIPELINING).await;
        take(&mut fresh, GROUP).await;
        fresh
    };
    let (prepared, _fresh) = join!(upstream.prepare(None, &envelope, &content), play);
    ready(prepared).abort();
}

/// Lets `seconds` go by.
pub(super) async fn pass(seconds: u64) {
    pause();
    advance(Duration::from_secs(seconds)).await;
    resume();
}

#[tokio::test]
async fn idle_connections_expire() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let mut peer = warm(&upstream, &far).await;
    upstream.close_idle().await;
    assert_eq!(upstream.idle_connections(), 1);
    pass(31).await;
    let bye = async {
        peer.hear("QUIT\r\n").await;
        peer.say("221 bye\r\n").await;
    };
    join!(upstream.close_idle(), bye);
    assert_eq!(upstream.idle_connections(), 0);
    peer.hear_last("").await;
}

#[tokio::test]
async fn no_more_connections_are_kept_than_asked_for() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let (envelope, content) = (envelope(), content("x\r\n"));
    let mut open = Vec::new();
    for _ in 0..3 {
        let play = async {
            let mut peer = far.greet(PIPELINING).await;
            take(&mut peer, GROUP).await;
            peer
        };
        let (prepared, peer) = join!(upstream.prepare(None, &envelope, &content), play);
        open.push((ready(prepared), peer));
    }
    let mut peers = Vec::new();
    for (transaction, mut peer) in open {
        finish(transaction, &mut peer, "250 ok\r\n").await;
        peers.push(peer);
    }
    assert_eq!(upstream.idle_connections(), 2);
    peers.pop().unwrap().hear_last("QUIT\r\n").await;
    let bye = async {
        for mut peer in peers {
            peer.hear("QUIT\r\n").await;
        }
    };
    join!(upstream.close(), bye);
    assert_eq!(upstream.idle_connections(), 0);
}

#[tokio::test]
async fn a_closed_pool_keeps_nothing() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    upstream.close().await;
    let mut peer = warm(&upstream, &far).await;
    assert_eq!(upstream.idle_connections(), 0);
    peer.hear_last("QUIT\r\n").await;
}

#[tokio::test]
async fn the_next_address_serves_where_one_fails() {
    let gone = Far::listen().await;
    let gone_address = gone.address.clone();
    drop(gone);
    let (busy, good) = (Far::listen().await, Far::listen().await);
    let addresses = [gone_address.as_str(), &busy.address, &good.address];
    let upstream = Upstream::new(settings(&addresses), Access::default(), "relay.example".to_owned());
    let play = async {
        busy.accept().await.say("554 not here\r\n").await;
        good.greet(PIPELINING).await.hear("QUIT\r\n").await;
    };
    let (probe, ()) = join!(upstream.probe(), play);
    assert_eq!(probe.unwrap().address, good.address);

    // For a while the two that failed are not even asked.
    let play = async { good.greet(PIPELINING).await.hear("QUIT\r\n").await };
    let (probe, ()) = join!(upstream.probe(), play);
    assert_eq!(probe.unwrap().address, good.address);

    pass(11).await;
    let play = async { busy.greet(PLAIN).await.hear("QUIT\r\n").await };
    let (probe, ()) = join!(upstream.probe(), play);
    assert_eq!(probe.unwrap().address, busy.address);
}

#[tokio::test]
async fn garbage_for_a_greeting_is_no_upstream() {
    let (web, good) = (Far::listen().await, Far::listen().await);
    let upstream = upstream(&[&web, &good]);
    let play = async {
        web.accept().await.say("HTTP/1.1 400 Bad Request\r\n").await;
        good.greet(PIPELINING).await.hear("QUIT\r\n").await;
    };
    let (probe, ()) = join!(upstream.probe(), play);
    assert_eq!(probe.unwrap().address, good.address);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_fault() {
    let far = Far::listen().await;
    let address = far.address.clone();
    drop(far);
    let upstream = Upstream::new(settings(&[&address]), Access::default(), "relay.example".to_owned());
    let fault = upstream.prepare(None, &envelope(), &content("x\r\n")).await.unwrap_err();
    assert_eq!(fault.at().phase, Phase::Connect);
    assert_eq!(fault.reply().code(), 451);
    let nowhere =
        Upstream::new(settings(&["nothing.invalid:x"]), Access::default(), "relay.example".to_owned());
    let fault = nowhere.probe().await.unwrap_err();
    assert!(matches!(fault, UpstreamFault::Unresolved { .. }), "{fault:?}");
}

#[tokio::test]
async fn all_refused_keeps_the_connection() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = far.greet(PIPELINING).await;
        peer.hear(GROUP).await;
        peer.say("250 a\r\n550 b\r\n450 c\r\n554 none\r\n").await;
        peer.hear("RSET\r\n").await;
        peer.say("250 reset\r\n").await;
        peer
    };
    let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
    let Ok(Prepared::Settled { replies, upstream: name }) = prepared else { panic!("{prepared:?}") };
    assert_eq!((codes(&replies), name), (vec![550, 450], far.address.clone()));
    let (prepared, ()) = join!(upstream.prepare(None, &envelope, &content), take(&mut peer, GROUP));
    ready(prepared).abort();
}

#[tokio::test]
async fn over_tcp_too_only_a_reply_after_the_dot_counts() {
    for (early, late) in [("250 taken\r\n", ""), ("", "354 go\r\n"), ("", "421 bye\r\n"), ("", "")] {
        let far = Far::listen().await;
        let upstream = upstream(&[&far]);
        let (envelope, content) = (envelope(), content("x\r\n"));
        let play = async {
            let mut peer = far.greet(PIPELINING).await;
            take(&mut peer, GROUP).await;
            peer
        };
        let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
        let transaction = ready(prepared);
        if !early.is_empty() {
            peer.say(early).await;
            let completion = transaction.complete().await;
            assert!(matches!(completion, Completion::Unsent(_)), "{completion:?}");
            peer.hear_last("").await;
            continue;
        }
        let play = async {
            peer.hear(".\r\n").await;
            peer.say(late).await;
            drop(peer);
        };
        let (completion, ()) = join!(transaction.complete(), play);
        match completion {
            Completion::ServiceClosing(fault) => {
                assert!(fault.reply().to_string().ends_with("421 bye"), "{fault:?}");
            }
            Completion::InDoubt(_) => assert!(!late.starts_with("421")),
            other => panic!("{other:?}"),
        }
        assert_eq!(upstream.idle_connections(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_speaks_out_of_turn_or_form_carries_no_other_message() {
    for (reply, farewell) in [
        ("250 taken\r\n250 and more\r\n", ""),
        ("250 taken\r\n2", ""),
        ("250\ttaken\r\n", "QUIT\r\n"),
        ("250-taken\r\n251 taken\r\n", "QUIT\r\n"),
    ] {
        let far = Far::listen().await;
        let upstream = upstream(&[&far]);
        let (envelope, content) = (envelope(), content("x\r\n"));
        let play = async {
            let mut peer = far.greet(PIPELINING).await;
            take(&mut peer, GROUP).await;
            peer
        };
        let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
        let completion = finish(ready(prepared), &mut peer, reply).await;
        assert_eq!(replied(&completion), 250, "{reply:?}");
        assert_eq!(upstream.idle_connections(), 0, "{reply:?}");
        peer.hear_last(farewell).await;
    }
}

#[tokio::test]
async fn a_refusal_before_the_dot_is_the_outcome_and_no_dot_leaves() {
    for (early, code) in [("554 5.7.1 spam\r\n", 554), ("450-4.7.1 not\r\n450 4.7.1 now\r\n", 450)] {
        let far = Far::listen().await;
        let upstream = upstream(&[&far]);
        let (envelope, content) = (envelope(), content("x\r\n"));
        let play = async {
            let mut peer = far.greet(PIPELINING).await;
            take(&mut peer, GROUP).await;
            peer
        };
        let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
        peer.say(early).await;
        let completion = ready(prepared).complete().await;
        let Completion::Replied(reply) = completion else { panic!("{completion:?}") };
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        assert_eq!((reply.code(), String::from_utf8_lossy(&wire)), (code, early.into()));
        peer.hear_last("").await;
        assert_eq!(upstream.idle_connections(), 0);
    }
}

#[tokio::test]
async fn an_attempt_can_be_a_task_of_its_own() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let attempt = tokio::spawn(async move {
        let prepared = upstream.prepare(None, &envelope(), &content("x\r\n")).await;
        ready(prepared).complete().await
    });
    let mut peer = far.greet(PIPELINING).await;
    take(&mut peer, GROUP).await;
    peer.hear(".\r\n").await;
    peer.say("250 ok\r\n").await;
    assert_eq!(replied(&attempt.await.unwrap()), 250);
}

#[tokio::test]
async fn a_dropped_transaction_never_sends_its_dot() {
    let far = Far::listen().await;
    let upstream = upstream(&[&far]);
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = far.greet(PIPELINING).await;
        take(&mut peer, GROUP).await;
        peer
    };
    let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
    drop(prepared);
    peer.hear_last("").await;
}
