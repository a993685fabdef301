//! A scripted upstream, and what the tests of this module share.

mod auth;
mod certs;
mod health;
mod histories;
mod login;
mod names;
mod pooling;
mod replies;
mod tls;
mod wire;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{self, UpstreamTimeouts};
use crate::message::rendition::Rendition;
use crate::smtp::address::Path;
use crate::smtp::envelope::{Envelope, MailParameters, Recipient};
use crate::smtp::reply::Reply;

const PIPELINING: &str = "250-hello\r\n250-8BITMIME\r\n250 PIPELINING\r\n";
const CHUNKING: &str = "250-hello\r\n250-CHUNKING\r\n250 PIPELINING\r\n";
const PLAIN: &str = "250 hello\r\n";

const MAIL: &str = "MAIL FROM:<a@x.example>\r\n";
const GROUP: &str = "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n";
const GRANTED: &str = "250 sender\r\n250 b\r\n250 c\r\n354 go\r\n";

const TIMEOUTS: UpstreamTimeouts = UpstreamTimeouts {
    connect: Duration::from_secs(30),
    greeting: Duration::from_secs(301),
    envelope: Duration::from_secs(302),
    data: Duration::from_secs(120),
    block: Duration::from_secs(180),
    completion: Duration::from_secs(600),
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn envelope() -> Envelope {
    let recipient = |text| Recipient::new(Path::parse(text).unwrap());
    Envelope {
        reverse_path: Path::parse("a@x.example").unwrap(),
        parameters: MailParameters::default(),
        recipients: vec![recipient("b@x.example"), recipient("c@x.example")],
    }
}

fn content(text: &str) -> Rendition {
    let mut content = Rendition::new();
    content.push_bytes(Bytes::copy_from_slice(text.as_bytes()));
    content
}

/// A message of which a part is in a temporary file.
fn content_in_file(head: &str, rest: &[u8]) -> Rendition {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(rest).unwrap();
    let mut content = content(head);
    content.push_file(Arc::new(file), 0..rest.len() as u64);
    content
}

fn codes(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(Reply::code).collect()
}

fn rejected_codes(replies: &[Option<Reply>]) -> Vec<Option<u16>> {
    replies.iter().map(|reply| reply.as_ref().map(Reply::code)).collect()
}

/// The far end of a connection, played by the test.
struct Peer<S> {
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads exactly as much as `text` and compares.
    #[track_caller]
    fn hear(&mut self, text: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut heard = vec![0; text.len()];
            let mut count = 0;
            while count < heard.len() {
                let n = self.stream.read(&mut heard[count..]).await.unwrap();
                assert_ne!(n, 0, "closed after {:?}, {caller}", String::from_utf8_lossy(&heard[..count]));
                count += n;
            }
            assert_eq!(String::from_utf8_lossy(&heard), text, "{caller}");
        }
    }

    /// Reads to the end of the stream and compares.
    #[track_caller]
    fn hear_last(&mut self, text: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut heard = Vec::new();
            // A reset is an end as well.
            let _ = self.stream.read_to_end(&mut heard).await;
            assert_eq!(String::from_utf8_lossy(&heard), text, "{caller}");
        }
    }

    async fn greet(&mut self, offered: &str) {
        self.say("220 ready\r\n").await;
        self.hear("EHLO relay.example\r\n").await;
        self.say(offered).await;
    }
}

/// A listening upstream on a free port.
struct Far {
    listener: TcpListener,
    address: String,
}

impl Far {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address }
    }

    async fn accept(&self) -> Peer<TcpStream> {
        let accept = tokio::time::timeout(PATIENCE, self.listener.accept());
        let (stream, _) = accept.await.expect("nobody connects").unwrap();
        // What is said arrives at once, and not when the last was acknowledged.
        stream.set_nodelay(true).unwrap();
        Peer { stream }
    }

    async fn greet(&self, offered: &str) -> Peer<TcpStream> {
        let mut peer = self.accept().await;
        peer.greet(offered).await;
        peer
    }
}

fn settings(addresses: &[&str]) -> config::Upstream {
    config::Upstream {
        addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
        tls: None,
        credentials: None,
        pool_size: 2,
        idle_timeout: Duration::from_secs(30),
        idempotency_header: None,
        received_header: true,
        timeouts: TIMEOUTS,
    }
}
