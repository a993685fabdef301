//! A store that fails: nothing is relayed without a claim unless the
//! configuration says so, and no outcome is lost. In one process, for the
//! faults are planned in the store itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{At, Client, Mail, Setup, Upstream, until};
use mailonce::clock::{Clock, SystemClock};
use mailonce::config::Config;
use mailonce::server::{self, Files, Opened, Server};
use mailonce::store::Store;
use mailonce::store::faulty::{FaultyStore, Moment};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A proxy over a real store that fails on demand.
struct Running {
    runtime: Runtime,
    server: Option<Server>,
    store: Arc<FaultyStore>,
    address: SocketAddr,
    upstream: Upstream,
    setup: Setup,
}

impl Running {
    fn start(dedup: &str) -> Self {
        let upstream = Upstream::start();
        let setup = Setup::new(upstream.address).dedup(dedup);
        let runtime = Runtime::new().unwrap();
        let config = Config::parse(&setup.text(), "test", std::iter::empty()).unwrap();
        let inner = server::open_store(&config.store).unwrap().store;
        let store = Arc::new(FaultyStore::new(inner));
        let (server, address) = runtime.block_on(async {
            let bound = server::bind(&config).unwrap();
            let files = Files::read(&config, SystemClock.now()).unwrap();
            let address = bound[0].0.local_addr().unwrap();
            let opened = Opened::fresh(store.clone()).unwrap();
            (Server::start(config, bound, files, opened).unwrap(), address)
        });
        Self { runtime, server: Some(server), store, address, upstream, setup }
    }

    fn send(&self, key: &str) -> String {
        Client::hello(self.address).deliver(&Mail::keyed(key))
    }

    /// The state of the only record, from the store itself.
    fn states(&self) -> Vec<String> {
        let query = mailonce::store::Query { scan: 10, ..Default::default() };
        let now = mailonce::clock::Clock::now(&mailonce::clock::SystemClock);
        let (records, _) = self.runtime.block_on(self.store.list(query, now)).unwrap();
        records.iter().map(|record| record.state.name().to_string()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.stop(CancellationToken::new()));
    }
}

#[test]
fn without_a_claim_nothing_is_relayed() {
    let proxy = Running::start("");
    proxy.store.fail_next("claim", 2);
    for _ in 0..2 {
        let reply = proxy.send("k");
        assert!(reply.starts_with("451 4.3.0 [STORE] "), "{reply}");
    }
    assert_eq!(proxy.upstream.connections(), 0);
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
}

#[test]
fn without_a_commit_the_last_byte_does_not_leave() {
    let proxy = Running::start("");
    proxy.store.fail_next("commit", 1);
    let reply = proxy.send("k");
    assert!(reply.starts_with("451 4.3.0 [STORE] "), "{reply}");
    assert_eq!(proxy.upstream.messages().len(), 0);
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
    proxy.upstream.only();
}

#[test]
fn a_commit_whose_answer_was_lost_sends_nothing_and_frees_the_claim() {
    let proxy = Running::start("");
    proxy.store.fail("commit", 0..1, Moment::After);
    let reply = proxy.send("k");
    assert!(reply.starts_with("451 4.3.0 [STORE] "), "{reply}");
    assert_eq!(proxy.upstream.messages().len(), 0);
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
    proxy.upstream.only();
}

#[test]
fn a_claim_whose_answer_was_lost_is_never_sent_twice() {
    let proxy = Running::start("in_flight_wait = \"100ms\"");
    proxy.store.fail("claim", 0..1, Moment::After);
    let reply = proxy.send("k");
    assert!(reply.starts_with("451 4.3.0 [STORE] "), "{reply}");
    assert_eq!(proxy.upstream.connections(), 0);
    let reply = proxy.send("k");
    assert!(reply.starts_with("451 4.5.0 [IN-FLIGHT]") || reply.starts_with("250 "), "{reply}");
    assert!(proxy.upstream.messages().len() <= 1);
}

#[test]
fn a_panic_costs_one_attempt_and_not_its_session() {
    let proxy = Running::start("");
    proxy.store.fail("claim", 0..1, Moment::Panic);
    proxy.store.fail("commit", 1..2, Moment::Panic);
    let mut session = Client::hello(proxy.address);
    assert!(session.deliver(&Mail::keyed("k")).starts_with("451 4.3.0 internal error"));
    assert_eq!(session.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    // Behind the commit nobody can know what was sent before the panic.
    assert!(session.deliver(&Mail::keyed("other")).starts_with("451 4.3.0 internal error"));
    let reply = session.deliver(&Mail::keyed("other"));
    assert!(reply.contains("[IN-DOUBT]"), "{reply}");
    let reply = session.deliver(&Mail::keyed("other"));
    assert!(reply.starts_with("250 2.0.0 [IN-DOUBT]"), "{reply}");
    proxy.upstream.only();
}

/// The upstream refused one recipient before the commit. The panic behind it leaves a doubt about
/// the other one alone.
#[test]
fn a_panic_leaves_no_doubt_about_who_was_refused_before_the_commit() {
    let proxy = Running::start("");
    proxy.store.fail("commit", 0..1, Moment::Panic);
    let mail = Mail::keyed("k").to(&["ann@b.test", "bob@b.test"]);
    proxy.upstream.say(At::Rcpt("bob@b.test".into()), "450 4.2.0 greylisted");
    let mut session = Client::hello(proxy.address);
    assert!(session.deliver(&mail).starts_with("451 4.3.0 internal error"));
    let doubts = || proxy.states().iter().filter(|state| *state == "in_doubt").count();
    until("the claims are given up", || (doubts() > 0).then_some(()));
    until("bob's claim is released", || (!proxy.states().contains(&"pending".to_owned())).then_some(()));
    let reply = session.deliver(&mail);
    assert!(reply.contains("[IN-DOUBT] outcome unconfirmed for 1 of 2 recipients"), "{reply}");
    assert_eq!(proxy.upstream.only().to(), ["bob@b.test"]);
}

#[test]
fn told_to_relay_it_relays_without_a_claim() {
    let proxy = Running::start("on_store_failure = \"relay\"");
    proxy.store.fail_next("claim", 2);
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 2");
    proxy.store.fail_next("commit", 1);
    assert_eq!(proxy.send("other"), "250 2.0.0 queued as 3");
}

#[test]
fn an_outcome_is_written_again_until_it_is_there() {
    let proxy = Running::start("in_flight_wait = \"100ms\"");
    proxy.store.fail_next("settle", usize::MAX);
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1", "the client hears it all the same");
    let reply = proxy.send("k");
    assert!(reply.starts_with("451 4.5.0 [IN-FLIGHT]") || reply.starts_with("250 "), "{reply}");
    assert_eq!(proxy.states(), ["committing"], "never released");
    proxy.store.heal();
    until("the outcome is written", || (proxy.states() == ["accepted"]).then_some(()));
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
    proxy.upstream.only();
}

#[test]
fn a_refusal_that_can_not_be_written_is_heard_and_written_later() {
    let proxy = Running::start("in_flight_wait = \"100ms\"");
    proxy.upstream.say(At::Dot, "550 5.7.1 no");
    proxy.store.fail_next("settle", 1);
    assert_eq!(proxy.send("k"), "550 5.7.1 no");
    until("the outcome is written", || (proxy.states() == ["refused"]).then_some(()));
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
}

#[test]
fn with_broken_claims_duplicates_get_through() {
    let proxy = Running::start("");
    proxy.store.break_claims();
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 2", "so the store is what keeps them back");
    assert!(proxy.setup.directory().join("claims").exists());
}

#[test]
fn observing_relays_whatever_the_store_does() {
    let proxy = Running::start("mode = \"observe\"");
    proxy.store.fail_next("claim", 1);
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 1");
    proxy.store.fail_next("commit", 1);
    assert_eq!(proxy.send("k"), "250 2.0.0 queued as 2");
}
