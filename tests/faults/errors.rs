//! A disk that answers with errors: EIO from reading, writing or syncing the
//! store's files, by a library that is loaded into the proxy.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::place::{run, source};
use crate::proc::Home;
use crate::proc::upstream::Upstream;
use crate::proc::within;
use crate::stream::Habits;
use crate::trial::Trial;

/// What the library is told to do.
struct Orders(TempDir);

impl Orders {
    /// Compiles it.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("shim.so");
        let shim = source("shim.c");
        run(
            "cc",
            &["-shared", "-fPIC", "-O1", "-o", library.to_str().unwrap(), shim.to_str().unwrap(), "-ldl"],
        );
        Self(directory)
    }

    /// The store is where the library looks.
    fn home(&self, upstream: &Upstream) -> Home {
        let store = self.0.path().join("store");
        Home::new(upstream.address, "")
            .with_admin()
            .env("MAILONCE_STORE__PATH", &store)
            .env("FAULTS_UNDER", &store)
            .env("FAULTS_ORDERS", self.0.path())
            .env("LD_PRELOAD", self.0.path().join("shim.so"))
    }

    fn order(&self, what: &str) -> PathBuf {
        self.0.path().join(what)
    }

    fn fail(&self, what: &str) {
        std::fs::write(self.order(what), "").unwrap();
    }

    fn heal(&self, what: &str) {
        std::fs::remove_file(self.order(what)).unwrap();
    }
}

/// Nothing is acknowledged after the error, though the disk is well again,
/// until a new start has read it; and what was not sent is no doubt.
async fn fails_at(what: &str) {
    let orders = Orders::new();
    let upstream = Upstream::start().await;
    let home = orders.home(&upstream);
    let trial = Trial::start(upstream, home, Habits::default()).await;
    orders.fail(what);
    trial.stream.hears("451 4.3.0 [STORE] ").await;
    trial.readyz(503, "restart mailonce").await;
    trial.logs("the claim store has failed").await;
    orders.heal(what);
    let arrived = trial.upstream.mails().len();
    for _ in 0..10 {
        trial.stream.hears("451 4.3.0 [STORE] ").await;
    }
    assert!(trial.upstream.mails().len() <= arrived, "nothing is sent without a claim on disk");
    let trial = trial.restart(|| ()).await;
    trial.readyz(200, "ready").await;
    let book = trial.judge_without_losses().await;
    assert!(book.heard("451 4.3.0 [STORE] "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_can_not_be_written_loses_nothing() {
    fails_at("write").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_loses_nothing_and_leaves_no_doubt_about_what_was_not_sent() {
    fails_at("sync").await;
}

/// A store that can't be read at start is left as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_can_not_be_read_keeps_the_proxy_from_starting() {
    let orders = Orders::new();
    let upstream = Upstream::start().await;
    let home = orders.home(&upstream);
    let Trial { upstream, home, proxy, stream } = Trial::start(upstream, home, Habits::default()).await;
    proxy.stop().await;
    orders.fail("read");
    let ended = within("the proxy ends", home.spawn(None).ready()).await;
    assert_eq!(ended.err().and_then(|status| status.code()), Some(1));
    let log = home.log_text();
    let complaint = log.lines().last().unwrap_or_default();
    assert!(complaint.contains("Input/output error"), "{complaint}");
    orders.heal("read");
    let proxy = home.start(None).await;
    stream.turn_to(proxy.address);
    Trial { upstream, home, proxy, stream }.judge_without_losses().await;
}
