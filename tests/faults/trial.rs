//! A proxy, an upstream and a stream of e-mails, and what is to be said of them
//! in the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::checker::{Logs, Promise};
use crate::proc::upstream::Upstream;
use crate::proc::{Home, Proxy, within};
use crate::stream::{Book, Habits, Stream};

/// All that takes part.
pub(crate) struct Trial {
    pub(crate) upstream: Upstream,
    pub(crate) home: Home,
    pub(crate) proxy: Proxy,
    pub(crate) stream: Stream,
}

impl Trial {
    /// A stream of e-mails through a proxy; some have arrived already.
    pub(crate) async fn start(upstream: Upstream, home: Home, habits: Habits) -> Self {
        let proxy = home.start(None).await;
        let stream = Stream::start(proxy.address, habits);
        stream.taken(20).await;
        Self { upstream, home, proxy, stream }
    }

    /// Waits for a line of the log that says so.
    pub(crate) async fn logs(&self, text: &str) {
        look(&format!("the log says {text}"), || self.home.log_text().contains(text).then_some(())).await;
    }

    /// How many lines of the log say so.
    pub(crate) fn lines(&self, text: &str) -> usize {
        self.home.log_text().lines().filter(|line| line.contains(text)).count()
    }

    /// What `/readyz` says, once it says so.
    pub(crate) async fn readyz(&self, status: u16, text: &str) {
        let admin = self.proxy.admin.expect("an admin address");
        let until = async {
            loop {
                let answer = ask(admin, "/readyz").await;
                if answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text) {
                    return;
                }
                let _ = timeout(Duration::from_millis(10), std::future::pending::<()>()).await;
            }
        };
        within(&format!("readyz says {status} {text}"), until).await;
    }

    /// Stops the proxy and starts another, which takes the stream over.
    pub(crate) async fn restart(self, repair: impl FnOnce()) -> Self {
        let Self { upstream, home, proxy, stream } = self;
        proxy.stop().await;
        repair();
        let proxy = home.start(None).await;
        stream.turn_to(proxy.address);
        Self { upstream, home, proxy, stream }
    }

    /// The fault is over: everything still owed goes through, the proxy ends
    /// politely, and nothing arrived twice or was lost. What the clients heard,
    /// and which e-mails are in doubt though they never arrived.
    pub(crate) async fn judge(self) -> (Book, Vec<String>) {
        self.stream.taken(20).await;
        let book = self.stream.finish().await;
        self.proxy.stop().await;
        let claims = self.home.claims().await;
        let in_doubt = claims.iter().filter(|(_, record)| record["state"] == "in_doubt");
        let in_doubt: BTreeSet<String> = in_doubt.map(|(key, _)| key.clone()).collect();
        let arrived = self.upstream.counts();
        let needless = in_doubt.iter().filter(|key| !arrived.contains_key(*key)).cloned().collect();
        let doubts = in_doubt.len();
        let logs = Logs { heard: book.taken.clone(), accepted: arrived, in_doubt };
        let faults = logs.faults(Promise::AtMostOnce);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        println!(
            "{} e-mails, {doubts} in doubt, put off: {:?}, broken off: {}",
            book.taken.len(),
            book.put_off,
            book.broken
        );
        (book, needless)
    }

    /// The same where nothing that was not sent may be in doubt: a client would
    /// hear that it was. (What arrived may: its acceptance was not written.)
    pub(crate) async fn judge_without_losses(self) -> Book {
        let (book, needless) = self.judge().await;
        assert!(needless.is_empty(), "never sent, and in doubt: {needless:?}");
        book
    }
}

/// Looks again and again until there is something; what is looked at tells
/// nobody.
pub(crate) async fn look<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = find() {
                return found;
            }
            let _ = timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
        }
    };
    within(what, found).await
}

async fn ask(admin: SocketAddr, path: &str) -> String {
    let mut stream = within("the admin address", TcpStream::connect(admin)).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
    answer
}
