//! TLS to the upstream: who is believed, what is sent, what is read.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rcgen::date_time_ymd;
use rustls::HandshakeKind;
use tokio::io::{DuplexStream, ReadBuf, duplex};
use tokio::join;

use super::super::connection::{Connection, Stream};
use super::super::transaction::{Standing, prepare};
use super::super::{Access, Completion, Phase, Prepared, Transaction, Upstream, UpstreamFault};
use super::certs::{Authority, STARTTLS, SecurePeer, configured, file, upstream_at, verified};
use super::*;

/// Tries to send; the fault there is.
async fn fails(upstream: &Upstream) -> UpstreamFault {
    let fault = upstream.prepare(None, &envelope(), &content("x\r\n")).await.unwrap_err();
    let reply = fault.reply().to_string();
    assert!(reply.starts_with("451 4.4.1 [UPSTREAM] "), "{reply}");
    fault
}

/// Plays a whole message, of which nothing was sent yet.
async fn deliver<S>(upstream: &Upstream, peer: impl Future<Output = Peer<S>>) -> Peer<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = peer.await;
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("x\r\n").await;
        peer
    };
    let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
    let Ok(Prepared::Ready { transaction, .. }) = prepared else { panic!("{prepared:?}") };
    let finish = async {
        peer.hear(".\r\n").await;
        peer.say("250 taken\r\n").await;
    };
    let (completion, ()) = join!(transaction.complete(), finish);
    assert!(matches!(completion, Completion::Replied(_)), "{completion:?}");
    peer
}

#[tokio::test]
async fn nothing_is_sent_where_starttls_is_required_and_not_offered() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let upstream = verified(&far, "starttls", &authority);
    let play = async { far.greet(PIPELINING).await.hear_last("").await };
    let (fault, ()) = join!(fails(&upstream), play);
    let want =
        "STARTTLS is required and not offered; if mail may go in clear, write upstream.tls = \"off\" (TLS)";
    assert_eq!(fault.to_string(), format!("{}: {want}", far.address));
    let play = async {
        let mut peer = far.greet(STARTTLS).await;
        peer.hear("STARTTLS\r\n").await;
        peer.say("454 not now\r\n").await;
        peer.hear_last("").await;
    };
    let (fault, ()) = join!(fails(&upstream), play);
    assert_eq!(fault.to_string(), format!("{}: 454 not now (TLS)", far.address));
}

#[tokio::test]
async fn nothing_is_sent_to_who_can_not_prove_its_name() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let cases = [
        (authority.issue("127.0.0.2"), "not valid for name"),
        (authority.issue("localhost"), "upstream.address must hold the name in the certificate"),
        (stranger.issue("127.0.0.1"), "name it in upstream.ca_file"),
        (authority.issue_with("127.0.0.1", expired), "expired"),
    ];
    for (pair, why) in cases {
        let far = Far::listen().await;
        let server = pair.server();
        let upstream = verified(&far, "starttls", &authority);
        let (fault, shaken) = join!(fails(&upstream), server.starttls(&far));
        assert!(shaken.is_err());
        assert!(matches!(fault, UpstreamFault::Tls { .. }) && fault.to_string().contains(why), "{fault}");
        let upstream = verified(&far, "implicit", &authority);
        let (fault, shaken) = join!(fails(&upstream), server.implicit(&far));
        assert!(shaken.is_err());
        assert!(matches!(fault, UpstreamFault::Tls { .. }) && fault.to_string().contains(why), "{fault}");
        assert!(upstream.outage().is_some());
    }
}

#[tokio::test]
async fn behind_starttls_everything_is_said_anew() {
    let (far, authority) = (Far::listen().await, Authority::new());
    // The address names a host; that is what TLS asks for and verifies.
    let server = authority.issue("localhost").server();
    let port = far.address.rsplit_once(':').unwrap().1;
    let ca = authority.file.path().display();
    let upstream =
        upstream_at(&format!("localhost:{port}"), &format!("tls = \"starttls\"\nca_file = \"{ca}\""));
    let peer = deliver(&upstream, server.secured(&far, PIPELINING)).await;
    assert_eq!(peer.stream.get_ref().1.server_name(), Some("localhost"));
    let offered = upstream.capabilities().unwrap();
    assert!(offered.pipelining && !offered.dsn && !offered.starttls);
}

#[tokio::test]
async fn implicit_tls_greets_behind_the_handshake() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let server = authority.issue("127.0.0.1").server();
    let upstream = verified(&far, "implicit", &authority);
    let play = async {
        let mut peer = server.implicit(&far).await.unwrap();
        peer.greet(PIPELINING).await;
        peer
    };
    deliver(&upstream, play).await;
    let play = async {
        let mut peer = server.implicit(&far).await.unwrap();
        peer.greet(PIPELINING).await;
        peer.hear("QUIT\r\n").await;
    };
    let (probed, ()) = join!(upstream.probe(), play);
    assert_eq!(probed.unwrap().tls, Some("TLS 1.3"));
}

#[tokio::test]
async fn a_server_that_knows_nothing_newer_than_tls_1_2_will_do() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let server = authority.issue("127.0.0.1").old_server();
    let upstream = verified(&far, "starttls", &authority);
    let peer = deliver(&upstream, server.secured(&far, PIPELINING)).await;
    assert_eq!(peer.stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let peer = deliver(&upstream, async { peer }).await;
    drop(peer);
    let play = async { server.secured(&far, PIPELINING).await.hear("QUIT\r\n").await };
    let (probed, ()) = join!(upstream.probe(), play);
    assert_eq!(probed.unwrap().tls, Some("TLS 1.2"));
    // Who can't prove its name is no more believed than with TLS 1.3.
    let server = authority.issue("localhost").old_server();
    let (fault, shaken) = join!(fails(&upstream), server.starttls(&far));
    assert!(shaken.is_err());
    assert!(matches!(fault, UpstreamFault::Tls { .. }), "{fault}");
}

#[tokio::test]
async fn at_quit_tls_is_taken_leave_of() {
    let authority = Authority::new();
    let pair = authority.issue("127.0.0.1");
    for server in [pair.server(), pair.old_server()] {
        let far = Far::listen().await;
        let upstream = verified(&far, "starttls", &authority);
        let mut rest = Vec::new();
        let play = async {
            let mut peer = server.secured(&far, PIPELINING).await;
            peer.hear("QUIT\r\n").await;
            peer.say("221 bye\r\n").await;
            // An end without the farewell of TLS would be an error here.
            peer.stream.read_to_end(&mut rest).await.unwrap();
        };
        let (probed, ()) = join!(upstream.probe(), play);
        probed.unwrap();
        // So it is where no room is left to keep it, and nobody waits for 221.
        let ca = authority.file.path().display();
        let lines = format!("tls = \"starttls\"\nca_file = \"{ca}\"\npool_size = 0");
        let upstream = upstream_at(&far.address, &lines);
        let mut peer = deliver(&upstream, server.secured(&far, PIPELINING)).await;
        peer.stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "QUIT\r\n");
    }
}

#[test]
fn files_that_will_not_do_are_told_with_who_names_them() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("relay.example").files();
    let (_, other_key) = other.issue("relay.example").files();
    let ca = authority.file.path().display();
    let told = |lines: &str| {
        let settings = configured("mx.example:25", &format!("tls = \"starttls\"\n{lines}"));
        Access::load(&settings).unwrap_err().to_string()
    };
    let missing = "can't be read: No such file or directory (os error 2)";
    assert_eq!(
        told("ca_file = \"/nowhere/ca\"\nusername = \"me\"\npassword_file = \"/nowhere/p\""),
        format!(
            "m.toml:4: upstream.ca_file: /nowhere/ca: {missing}\n\
             m.toml:6: upstream.password_file: /nowhere/p: {missing}"
        )
    );
    let what = "there is no certificate in it; one begins with -----BEGIN CERTIFICATE-----";
    assert_eq!(
        told(&format!("ca_file = {:?}", key.path())),
        format!("m.toml:4: upstream.ca_file: {}: {what}", key.path().display())
    );
    let pair = format!("client_certificate = {:?}\nclient_key = {:?}", certificate.path(), other_key.path());
    let fault = told(&format!("ca_file = \"{ca}\"\n{pair}"));
    let place = format!("m.toml:5: upstream.client_certificate: {}: ", certificate.path().display());
    assert!(fault.starts_with(&format!("{place}does not go with its client_key: ")), "{fault}");
}

#[test]
fn secrets_that_everybody_can_read_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let authority = Authority::new();
    let (certificate, key) = authority.issue("relay.example").files();
    let password = file("hunter2");
    let ca = authority.file.path().display();
    let lines = format!(
        "tls = \"starttls\"\nca_file = \"{ca}\"\nclient_certificate = {:?}\nclient_key = {:?}\n\
         username = \"me\"\npassword_file = {:?}",
        certificate.path(),
        key.path(),
        password.path()
    );
    let warnings = || {
        let access = Access::load(&configured("mx.example:25", &lines)).unwrap();
        access.warnings().to_vec()
    };
    assert_eq!(warnings(), [""; 0]);
    for file in [&key, &password] {
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let told = warnings();
    let starts = ["m.toml:6: upstream.client_key: ", "m.toml:8: upstream.password_file: "];
    assert!(
        told.len() == 2 && told.iter().zip(starts).all(|(line, start)| line.starts_with(start)),
        "{told:?}"
    );
}

#[tokio::test]
async fn clear_text_behind_the_grant_is_a_fault() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let upstream = verified(&far, "starttls", &authority);
    let play = async {
        let mut peer = far.greet(STARTTLS).await;
        peer.hear("STARTTLS\r\n").await;
        peer.say("220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n").await;
        peer.hear_last("").await;
    };
    let (fault, ()) = join!(fails(&upstream), play);
    assert!(matches!(fault, UpstreamFault::Protocol { .. }), "{fault}");
    assert_eq!(fault.at().phase, Phase::Tls);
    // What comes a moment later is no TLS.
    let play = async {
        let mut peer = far.greet(STARTTLS).await;
        peer.hear("STARTTLS\r\n").await;
        peer.say("220 go\r\n").await;
        let mut hello = [0];
        peer.stream.read_exact(&mut hello).await.unwrap();
        peer.say("250 injected\r\n").await;
    };
    let (fault, ()) = join!(fails(&upstream), play);
    assert!(matches!(fault, UpstreamFault::Tls { .. }), "{fault}");
}

#[tokio::test]
async fn opportunistic_tls_takes_any_certificate_or_none() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let server = authority.issue("other.example").server();
    let upstream = || upstream_at(&far.address, "tls = \"opportunistic\"");
    deliver(&upstream(), server.secured(&far, PIPELINING)).await;
    // Where it is not offered, the same connection serves.
    deliver(&upstream(), far.greet(PIPELINING)).await;
    // Where it is offered and fails, a fresh one does.
    for answer in ["454 not now\r\n", "220 go\r\n250 not TLS\r\n"] {
        let play = async {
            let mut peer = far.greet(STARTTLS).await;
            peer.hear("STARTTLS\r\n").await;
            peer.say(answer).await;
            peer.hear_last("").await;
            far.greet(PIPELINING).await
        };
        deliver(&upstream(), play).await;
    }
}

#[tokio::test]
async fn a_certificate_of_our_own_is_shown_where_it_is_asked_for() {
    let (far, authority, clients) = (Far::listen().await, Authority::new(), Authority::new());
    let server = authority.issue("127.0.0.1").server_for(&clients);
    let (certificate, key) = clients.issue("relay.example").files();
    let ca = authority.file.path().display();
    let lines = format!("tls = \"starttls\"\nca_file = \"{ca}\"\n");
    let own = format!("client_certificate = {:?}\nclient_key = {:?}", certificate.path(), key.path());
    deliver(&upstream_at(&far.address, &(lines.clone() + &own)), server.secured(&far, PIPELINING)).await;
    let upstream = upstream_at(&far.address, &lines);
    let (fault, shaken) = join!(fails(&upstream), server.starttls(&far));
    assert!(shaken.is_err());
    assert!(fault.to_string().contains("CertificateRequired"), "{fault}");
}

#[tokio::test]
async fn one_handshake_serves_many_messages_and_its_session_the_next() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let server = authority.issue("127.0.0.1").server();
    let upstream = verified(&far, "starttls", &authority);
    // The tickets of TLS 1.3 come unasked, and are no reply.
    let peer = deliver(&upstream, server.secured(&far, PIPELINING)).await;
    assert_eq!(peer.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(upstream.idle_connections(), 1);
    let peer = deliver(&upstream, async { peer }).await;
    let mut peer = deliver(&upstream, async { peer }).await;
    // What is said unasked while it is idle is a reason to connect anew.
    peer.say("421 idle too long\r\n").await;
    // The reactor learns of it while the probe goes back and forth.
    let play = async { server.secured(&far, PIPELINING).await.hear("QUIT\r\n").await };
    let (probed, ()) = join!(upstream.probe(), play);
    probed.unwrap();
    let play = async {
        let fresh = server.secured(&far, PIPELINING).await;
        peer.hear_last("").await;
        fresh
    };
    let fresh = Box::pin(deliver(&upstream, play)).await;
    assert_eq!(fresh.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
}

/// A message of which only the dot is missing.
async fn prepared(authority: &Authority) -> (Transaction, SecurePeer) {
    let far = Far::listen().await;
    let server = authority.issue("127.0.0.1").server();
    let upstream = verified(&far, "starttls", authority);
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = server.secured(&far, PIPELINING).await;
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("x\r\n").await;
        peer
    };
    let (prepared, peer) = join!(upstream.prepare(None, &envelope, &content), play);
    let Ok(Prepared::Ready { transaction, .. }) = prepared else { panic!("{prepared:?}") };
    (transaction, peer)
}

#[tokio::test]
async fn over_tls_too_nothing_that_came_before_the_dot_is_its_reply() {
    let authority = Authority::new();
    let (transaction, mut peer) = prepared(&authority).await;
    peer.say("250 taken\r\n").await;
    let completion = transaction.complete().await;
    assert!(matches!(completion, Completion::Unsent(_)), "{completion:?}");
    peer.hear_last("").await;

    // The first part of the record that the reply comes in is enough.
    let (transaction, peer) = prepared(&authority).await;
    let (mut stream, mut tls) = peer.stream.into_inner();
    let mut record = Vec::new();
    tls.writer().write_all(b"250 taken\r\n").unwrap();
    tls.write_tls(&mut record).unwrap();
    let (first, rest) = record.split_at(7);
    stream.write_all(first).await.unwrap();
    let play = async {
        // A dot that left would be answered.
        let _ = stream.read(&mut [0]).await;
        let _ = stream.write_all(rest).await;
        drop(stream);
    };
    let (completion, ()) = join!(transaction.complete(), play);
    assert!(matches!(completion, Completion::Unsent(_)), "{completion:?}");

    let (transaction, mut peer) = prepared(&authority).await;
    peer.stream.shutdown().await.unwrap();
    let completion = transaction.complete().await;
    assert!(matches!(completion, Completion::Unsent(_)), "{completion:?}");
}

#[tokio::test]
async fn what_came_in_whole_records_counts_though_tls_is_cut_off() {
    let authority = Authority::new();
    // What the record holds, and how many octets of the record are missing.
    for (said, missing, due) in [
        ("554-no\r\n", 0, Some(554)),
        ("554", 0, Some(554)),
        ("250 2.0.0 ta", 0, Some(250)),
        ("250 2.0.0 taken\r\n", 1, None),
        ("25", 0, None),
        ("", 0, None),
    ] {
        let (transaction, peer) = prepared(&authority).await;
        let (mut stream, mut tls) = peer.stream.into_inner();
        let mut record = Vec::new();
        tls.writer().write_all(said.as_bytes()).unwrap();
        tls.write_tls(&mut record).unwrap();
        let play = async {
            // The dot, in whatever record.
            let _ = stream.read(&mut [0; 100]).await;
            stream.write_all(&record[..record.len() - missing]).await.unwrap();
            // No close_notify.
            drop(stream);
        };
        let (completion, ()) = join!(transaction.complete(), play);
        match completion {
            Completion::Replied(reply) => assert_eq!(Some(reply.code()), due, "{said:?}"),
            Completion::InDoubt(_) => assert_eq!(due, None, "{said:?}"),
            other => panic!("{said:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_refusal_is_heard_while_tls_can_not_be_written() {
    let (far, authority) = (Far::listen().await, Authority::new());
    let server = authority.issue("127.0.0.1").server();
    let upstream = verified(&far, "starttls", &authority);
    let (envelope, content) = (envelope(), content_in_file("", &vec![b'x'; 32 << 20]));
    let play = async {
        let mut peer = server.secured(&far, PIPELINING).await;
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("xxx").await;
        peer.say("552 too big\r\n").await;
        // It reads no more.
        peer
    };
    let (prepared, _peer) = join!(upstream.prepare(None, &envelope, &content), play);
    match prepared {
        Ok(Prepared::Settled { replies, .. }) => assert_eq!(codes(&replies), [552, 552]),
        other => panic!("{other:?}"),
    }
    assert_eq!(upstream.idle_connections(), 0);
}

/// Takes all that is written and, while it is stuck, sends none of it: what
/// TLS does when the other end does not read.
struct Hoard {
    stream: DuplexStream,
    stuck: Arc<AtomicBool>,
}

impl Stream for Hoard {}

impl AsyncRead for Hoard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Hoard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.stuck.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stuck.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_heard_while_what_was_taken_is_not_sent() {
    let (near, far) = duplex(4096);
    let stuck = Arc::new(AtomicBool::new(false));
    let hoard = Hoard { stream: near, stuck: stuck.clone() };
    let mut connection = Connection::new(hoard, "mx.example:25".into(), TIMEOUTS);
    let mut peer = Peer { stream: far };
    let (hello, ()) = join!(connection.hello("relay.example"), peer.greet(PIPELINING));
    hello.unwrap();
    let (envelope, content) = (envelope(), content("x\r\n"));
    let refuse = async {
        peer.hear(GROUP).await;
        stuck.store(true, Ordering::SeqCst);
        peer.say(GRANTED).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        peer.say("552 too big\r\n").await;
    };
    let (standing, ()) = join!(prepare(&mut connection, &envelope, &content), refuse);
    match standing {
        Ok(Standing::Settled { replies, keep }) => assert_eq!((codes(&replies), keep), (vec![552; 2], false)),
        other => panic!("{other:?}"),
    }
}
