//! One connection and one transaction, over a stream in memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::join;
use tokio::time::Instant;

use super::super::connection::{Connection, Incomplete, Stream};
use super::super::fault::{Phase, UpstreamFault};
use super::super::transaction::{Failure, Standing, prepare};
use super::*;
use crate::smtp::client::{Due, ProtocolFault, ReplyFault};

/// Counts what is written at once.
#[derive(Debug)]
struct Counting {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if result.is_ready() {
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Stream for Counting {}

impl Stream for DuplexStream {}

/// Both ends, greeted, with `room` octets in each direction.
async fn joined(room: usize, offered: &str) -> (Connection<Counting>, Peer<DuplexStream>, Arc<AtomicUsize>) {
    let (near, far) = duplex(room);
    let writes = Arc::new(AtomicUsize::new(0));
    let stream = Counting { stream: near, writes: writes.clone() };
    let mut connection = Connection::new(stream, "mx.example:25".into(), TIMEOUTS);
    let mut peer = Peer { stream: far };
    let (hello, ()) = join!(connection.hello("relay.example"), peer.greet(offered));
    hello.unwrap();
    writes.store(0, Ordering::SeqCst);
    (connection, peer, writes)
}

#[track_caller]
fn rejected(result: Result<Standing, Failure>) -> Vec<Option<u16>> {
    match result {
        Ok(Standing::Ready { rejected, .. }) => rejected_codes(&rejected),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn settled(result: Result<Standing, Failure>) -> (Vec<u16>, bool) {
    match result {
        Ok(Standing::Settled { replies, keep }) => (codes(&replies), keep),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn fault(result: Result<Standing, Failure>) -> UpstreamFault {
    result.err().unwrap().fault
}

#[tokio::test]
async fn envelope_and_data_go_out_in_one_write() {
    let (mut connection, mut peer, writes) = joined(1 << 16, PIPELINING).await;
    let (envelope, content) = (envelope(), content("Subject: x\r\n\r\n.dot\r\n"));
    let far = async {
        peer.hear(GROUP).await;
        assert_eq!(writes.swap(0, Ordering::SeqCst), 1);
        peer.say(GRANTED).await;
        peer.hear("Subject: x\r\n\r\n..dot\r\n").await;
        assert_eq!(writes.swap(0, Ordering::SeqCst), 1);
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(rejected(result), [None, None]);
    let far = async {
        peer.hear(".\r\n").await;
        peer.say("250 2.0.0 taken\r\n").await;
    };
    let (reply, ()) = join!(connection.complete(), far);
    assert_eq!(reply.unwrap(), Reply::new(250, "2.0.0 taken"));
    assert!(connection.is_quiet() && !connection.dirty);
}

#[tokio::test]
async fn with_chunking_offered_content_goes_by_data_all_the_same() {
    let (mut connection, mut peer, writes) = joined(1 << 16, CHUNKING).await;
    let (envelope, content) = (envelope(), content("Subject: x\r\n\r\n.dot\r\n"));
    let far = async {
        peer.hear(GROUP).await;
        assert_eq!(writes.load(Ordering::SeqCst), 1);
        peer.say("250 sender\r\n550 b\r\n250 c\r\n354 go\r\n").await;
        peer.hear("Subject: x\r\n\r\n..dot\r\n").await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(rejected(result), [Some(550), None]);
    let far = async {
        peer.hear(".\r\n").await;
        peer.say("250 taken\r\n").await;
    };
    let (reply, ()) = join!(connection.complete(), far);
    assert!(reply.unwrap().is_success());
    assert!(connection.dirty, "a partial transaction is followed by RSET");
}

#[tokio::test]
async fn without_pipelining_each_command_waits() {
    let (mut connection, mut peer, _) = joined(1 << 16, PLAIN).await;
    let (envelope, content) = (envelope(), content("x\r\n"));
    let far = async {
        for (command, reply) in [
            (MAIL, "250 ok\r\n"),
            ("RCPT TO:<b@x.example>\r\n", "450 later\r\n"),
            ("RCPT TO:<c@x.example>\r\n", "252 perhaps\r\n"),
            ("DATA\r\n", "354 go\r\n"),
        ] {
            let mut heard = vec![0; 1000];
            let count = peer.stream.read(&mut heard).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&heard[..count]), command);
            peer.say(reply).await;
        }
        peer.hear("x\r\n").await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(rejected(result), [Some(450), None]);
}

#[tokio::test]
async fn without_pipelining_nothing_is_asked_in_vain() {
    let (mut connection, mut peer, _) = joined(1 << 16, PLAIN).await;
    let (envelope, content) = (envelope(), content("x\r\n"));
    let far = async {
        peer.hear(MAIL).await;
        peer.say("250 ok\r\n").await;
        peer.hear("RCPT TO:<b@x.example>\r\n").await;
        peer.say("550 no\r\n").await;
        peer.hear("RCPT TO:<c@x.example>\r\n").await;
        peer.say("551 no\r\n").await;
        peer.hear("RSET\r\n").await;
        peer.say("250 ok\r\n").await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(settled(result), (vec![550, 551], true));
    let far = async {
        peer.hear(MAIL).await;
        peer.say("450 later\r\n").await;
        peer.hear("RSET\r\n").await;
        peer.say("250 ok\r\n").await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(settled(result), (vec![450, 450], true));
    drop(connection);
    peer.hear_last("").await;
}

/// What becomes of a pipelined transaction that is answered with `replies`,
/// and RSET behind it with 250.
async fn answered(offered: &str, replies: &str) -> Result<Standing, Failure> {
    let (mut connection, mut peer, _) = joined(1 << 16, offered).await;
    let (envelope, content) = (envelope(), content("x\r\n"));
    let far = async {
        peer.hear(GROUP).await;
        peer.say(replies).await;
        // Whatever comes of them, it ends or is followed by RSET.
        let mut rest = [0; 16];
        if peer.stream.read(&mut rest).await.unwrap() > 0 && rest.starts_with(b"RSET\r\n") {
            peer.say("250 reset\r\n").await;
        }
    };
    let near = async {
        let result = prepare(&mut connection, &envelope, &content).await;
        drop(connection);
        result
    };
    join!(near, far).0
}

#[tokio::test]
async fn refusals_settle_each_recipient() {
    let settles = async |replies: &str| settled(answered(PIPELINING, replies).await);
    let all = settles("250 a\r\n550 b\r\n450 c\r\n554 none\r\n").await;
    assert_eq!(all, (vec![550, 450], true));
    let mail = settles("452 full\r\n503 b\r\n503 c\r\n503 data\r\n").await;
    assert_eq!(mail, (vec![452, 452], true));
    let data = settles("250 a\r\n550 b\r\n250 c\r\n451 later\r\n").await;
    assert_eq!(data, (vec![550, 451], true));
}

#[tokio::test]
async fn a_connection_that_wants_content_nobody_is_to_get_is_dropped() {
    for replies in ["250 a\r\n550 b\r\n550 c\r\n354 go\r\n", "550 a\r\n503 b\r\n503 c\r\n354 go\r\n"] {
        assert!(!settled(answered(PIPELINING, replies).await).1);
    }
}

#[tokio::test]
async fn service_closing_is_for_all_recipients() {
    for replies in
        ["421 bye\r\n", "250 a\r\n421 b\r\n250 c\r\n354 go\r\n", "250 a\r\n250 b\r\n250 c\r\n421 data\r\n"]
    {
        let fault = fault(answered(PIPELINING, replies).await);
        assert!(matches!(fault, UpstreamFault::ServiceClosing { .. }), "{fault:?}");
    }
}

#[tokio::test]
async fn replies_out_of_class_or_form_are_faults() {
    let protocol = async |replies: &str| match fault(answered(PIPELINING, replies).await) {
        UpstreamFault::Protocol { fault, .. } => fault,
        other => panic!("{other:?}"),
    };
    let wrong = protocol("250 a\r\n250 b\r\n250 c\r\n250 data\r\n").await;
    assert!(matches!(wrong, ProtocolFault::WrongClass { due: Due::Data, .. }));
    let wrong = protocol("250 a\r\n354 b\r\n").await;
    assert!(matches!(wrong, ProtocolFault::WrongClass { due: Due::Recipient(0), .. }));
    assert_eq!(protocol("ok\r\n").await, ProtocolFault::Malformed(ReplyFault::NotAReply));
    let early = protocol("250 a\r\n250 b\r\n250 c\r\n354 go\r\n250 taken\r\n").await;
    assert_eq!(early, ProtocolFault::Early(Some(Reply::new(250, "taken"))));
}

#[tokio::test]
async fn a_reply_in_the_middle_of_the_content_ends_it() {
    let (mut connection, mut peer, _) = joined(1 << 12, PIPELINING).await;
    let (envelope, content) = (envelope(), content(&"line\r\n".repeat(100_000)));
    let far = async {
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("line\r\n").await;
        peer.say("250 taken\r\n").await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    let UpstreamFault::Protocol { at, fault } = fault(result) else { panic!() };
    assert_eq!(at.phase, Phase::Body);
    assert_eq!(fault, ProtocolFault::Early(Some(Reply::new(250, "taken"))));
}

#[tokio::test]
async fn a_close_in_the_middle_of_the_content_ends_it() {
    for goodbye in ["", "421 too big for today\r\n"] {
        let (mut connection, mut peer, _) = joined(1 << 12, PIPELINING).await;
        let (envelope, content) = (envelope(), content(&"line\r\n".repeat(100_000)));
        let far = async {
            peer.hear(GROUP).await;
            peer.say(GRANTED).await;
            peer.hear("line\r\n").await;
            peer.say(goodbye).await;
            peer.stream.shutdown().await.unwrap();
        };
        let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
        match fault(result) {
            UpstreamFault::Closed { at, .. } => assert_eq!((at.phase, goodbye), (Phase::Body, "")),
            fault => assert!(matches!(fault, UpstreamFault::ServiceClosing { .. })),
        }
    }
}

#[tokio::test]
async fn large_and_filed_content_arrives_whole() {
    let text = ".dot\r\nsome more\r\n".repeat(20_000);
    let (mut connection, mut peer, _) = joined(1 << 14, PIPELINING).await;
    let (envelope, content) = (envelope(), content_in_file("Subject: x\r\n\r\n", text.as_bytes()));
    let far = async {
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("Subject: x\r\n\r\n").await;
        peer.hear(&text.replace(".dot", "..dot")).await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(rejected(result), [None, None]);
}

#[tokio::test]
async fn content_that_can_not_be_read_is_our_own_fault() {
    let mut content = Rendition::new();
    content.push_file(Arc::new(tempfile::tempfile().unwrap()), 0..10);
    let (mut connection, mut peer, _) = joined(1 << 14, PIPELINING).await;
    let envelope = envelope();
    let far = async {
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(fault(result).reply().code(), 451);
}

#[tokio::test]
async fn empty_content_is_a_dot_alone() {
    let (mut connection, mut peer, _) = joined(1 << 14, PIPELINING).await;
    let (envelope, content) = (envelope(), Rendition::new());
    let far = async {
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(rejected(result), [None, None]);
}

#[tokio::test]
async fn smtputf8_is_asked_for_only_where_it_is_needed() {
    let mut envelope = envelope();
    envelope.parameters.smtputf8 = true;
    let content = content("x\r\n");
    let (mut connection, mut peer, _) = joined(1 << 14, PIPELINING).await;
    let far = async {
        peer.hear(GROUP).await;
        peer.say("450 a\r\n503 b\r\n503 c\r\n503 d\r\n").await;
        peer.hear("RSET\r\n").await;
        peer.say("250 reset\r\n").await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    assert_eq!(settled(result).0, [450, 450]);
    envelope.recipients[1] = Recipient::new(Path::parse("jürgen@x.example").unwrap());
    let fault = fault(prepare(&mut connection, &envelope, &content).await);
    assert_eq!(fault.reply().code(), 550);
    assert_eq!(fault.reply().enhanced_code(), Some("5.6.7"));
    assert!(connection.is_quiet());
}

/// A connection at the point where only the final dot is missing.
async fn prepared(room: usize) -> (Connection<Counting>, Peer<DuplexStream>) {
    let (mut connection, mut peer, _) = joined(room, PIPELINING).await;
    let (envelope, content) = (envelope(), content("x\r\n"));
    let far = async {
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("x\r\n").await;
    };
    let (result, ()) = join!(prepare(&mut connection, &envelope, &content), far);
    rejected(result);
    (connection, peer)
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_dot_is_never_an_acceptance() {
    for early in ["250 taken\r\n", "250 tak", "250-taken\r\n", "2", "421 bye\r\n", "421", "\r\n"] {
        let (mut connection, mut peer) = prepared(1 << 14).await;
        peer.say(early).await;
        let result = connection.complete().await;
        assert!(matches!(result, Err(Incomplete::Unsent(_))), "{early:?}: {result:?}");
        drop(connection);
        peer.hear_last("").await;
    }
}

#[tokio::test]
async fn a_connection_found_dead_before_the_dot_leaves_no_doubt() {
    let (mut connection, peer) = prepared(1 << 14).await;
    drop(peer);
    let result = connection.complete().await;
    assert!(matches!(result, Err(Incomplete::Unsent(UpstreamFault::Closed { .. }))), "{result:?}");
}

#[tokio::test]
async fn after_the_dot_only_a_final_reply_settles() {
    for (answer, closing) in [
        ("", false),
        ("25", false),
        ("hello\r\n", false),
        ("354 go\r\n", false),
        ("250-a\r\n550 b\r\n", false),
        ("421 bye\r\n", true),
    ] {
        let (mut connection, mut peer) = prepared(1 << 14).await;
        let far = async {
            peer.hear(".\r\n").await;
            peer.say(answer).await;
            peer.stream.shutdown().await.unwrap();
        };
        let (result, ()) = join!(connection.complete(), far);
        let Err(Incomplete::InDoubt(fault)) = result else { panic!("{answer:?}: {result:?}") };
        assert_eq!(matches!(fault, UpstreamFault::ServiceClosing { .. }), closing, "{answer:?}");
    }
    for answer in ["250 2.0.0 taken\r\n", "452 4.3.1 full\r\n", "554-no\r\n554 spam\r\n"] {
        let (mut connection, mut peer) = prepared(1 << 14).await;
        let far = async {
            peer.hear(".\r\n").await;
            peer.say(answer).await;
        };
        let (result, ()) = join!(connection.complete(), far);
        let mut wire = Vec::new();
        result.unwrap().write_to(&mut wire);
        assert_eq!(wire, answer.as_bytes());
    }
}

#[tokio::test]
async fn a_dot_that_left_in_part_is_a_doubt_and_one_that_never_left_is_none() {
    // The far end has room for two octets of the three, and reads none.
    let (mut connection, mut peer) = prepared(256).await;
    peer.stream.write_all(b"").await.unwrap();
    connection.write(&[b'x'; 254], Phase::Body, TIMEOUTS.block).await.unwrap();
    let far = async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        drop(peer);
    };
    let (result, ()) = join!(connection.complete(), far);
    assert!(matches!(result, Err(Incomplete::InDoubt(_))), "{result:?}");

    let (mut connection, peer) = prepared(256).await;
    connection.write(&[b'x'; 256], Phase::Body, TIMEOUTS.block).await.unwrap();
    let far = async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        drop(peer);
    };
    let (result, ()) = join!(connection.complete(), far);
    assert!(matches!(result, Err(Incomplete::Unsent(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_counts_while_the_dot_is_half_sent_and_an_acceptance_does_not() {
    for (said, room) in
        [("554 no\r\n", 254), ("554 no\r\n", 256), ("250 taken\r\n", 254), ("421 bye\r\n", 254)]
    {
        // The far end has room for two octets of the dot or for none, and reads none.
        let (mut connection, mut peer) = prepared(256).await;
        connection.write(&vec![b'x'; room], Phase::Body, TIMEOUTS.block).await.unwrap();
        let far = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            peer.say(said).await;
        };
        let (result, ()) = join!(connection.complete(), far);
        match (&said[..3], result) {
            ("554", Ok(reply)) => assert_eq!(reply.code(), 554),
            ("250", Err(Incomplete::InDoubt(UpstreamFault::Protocol { .. }))) => {}
            ("421", Err(Incomplete::InDoubt(UpstreamFault::ServiceClosing { .. }))) => {}
            (_, result) => panic!("{said:?}: {result:?}"),
        }
        assert!(!connection.is_reusable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_half_there_before_the_dot_is_waited_for() {
    for (rest, due) in [(" no\r\n", "no"), ("", "")] {
        let (mut connection, mut peer) = prepared(1 << 14).await;
        peer.say("554").await;
        let start = Instant::now();
        let far = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            peer.say(rest).await;
        };
        let (result, ()) = join!(connection.complete(), far);
        assert_eq!(result.unwrap(), Reply::new(554, due));
        assert!(start.elapsed() <= Duration::from_secs(6));
        drop(connection);
        peer.hear_last("").await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_phase_has_its_deadline() {
    let (near, far) = duplex(64);
    let mut connection = Connection::new(near, "mx.example:25".into(), TIMEOUTS);
    let start = Instant::now();
    let fault = connection.hello("relay.example").await.unwrap_err();
    assert_eq!((fault.at().phase, start.elapsed()), (Phase::Greeting, TIMEOUTS.greeting));
    drop(far);

    let (envelope, long) = (envelope(), content(&"line\r\n".repeat(100_000)));
    for (replies, phase, limit) in [
        ("", Phase::Mail, TIMEOUTS.envelope),
        ("250 a\r\n25", Phase::Recipient, TIMEOUTS.envelope),
        ("250 a\r\n250 b\r\n250 c\r\n", Phase::Data, TIMEOUTS.data),
        (GRANTED, Phase::Body, TIMEOUTS.block),
    ] {
        let (mut connection, mut peer, _) = joined(1 << 10, PIPELINING).await;
        let start = Instant::now();
        let far = async {
            peer.hear(GROUP).await;
            peer.say(replies).await;
        };
        let (result, ()) = join!(prepare(&mut connection, &envelope, &long), far);
        let failure = result.unwrap_err();
        assert!(matches!(failure.fault, UpstreamFault::TimedOut { .. }), "{failure:?}");
        assert_eq!((failure.fault.at().phase, start.elapsed()), (phase, limit));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_after_the_dot_is_a_doubt_in_the_end() {
    let (mut connection, mut peer) = prepared(1 << 14).await;
    let start = Instant::now();
    let (result, ()) = join!(connection.complete(), peer.hear(".\r\n"));
    assert!(matches!(result, Err(Incomplete::InDoubt(UpstreamFault::TimedOut { .. }))), "{result:?}");
    assert_eq!(start.elapsed(), TIMEOUTS.completion);
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_within_the_deadline_counts() {
    let (mut connection, mut peer) = prepared(1 << 14).await;
    let far = async {
        peer.hear(".\r\n").await;
        tokio::time::advance(TIMEOUTS.completion - Duration::from_secs(1)).await;
        peer.say("250 taken\r\n").await;
    };
    let (result, ()) = join!(connection.complete(), far);
    assert!(result.unwrap().is_success());
}

#[tokio::test]
async fn helo_follows_where_ehlo_is_refused_for_good() {
    let (near, far) = duplex(1 << 10);
    let mut connection = Connection::new(near, "mx.example:25".into(), TIMEOUTS);
    let mut peer = Peer { stream: far };
    let far = async {
        peer.greet("502 what?\r\n").await;
        peer.hear("HELO relay.example\r\n").await;
        peer.say("250 hello\r\n").await;
    };
    let (result, ()) = join!(connection.hello("relay.example"), far);
    result.unwrap();
    assert!(!connection.client.capabilities().pipelining);
}

#[tokio::test]
async fn an_answer_before_its_question_is_a_fault_from_the_first_line_on() {
    let (near, far) = duplex(1 << 10);
    let mut connection = Connection::new(near, "mx.example:25".into(), TIMEOUTS);
    let mut peer = Peer { stream: far };
    peer.say("220 ready\r\n250 PIPELINING\r\n").await;
    let fault = connection.hello("relay.example").await.unwrap_err();
    assert!(matches!(fault, UpstreamFault::Protocol { fault: ProtocolFault::Early(_), .. }), "{fault:?}");
}
