//! What a SIGKILL leaves behind: the real binary with its store on disk, an
//! upstream that notes what it accepts before it says so, clients that try
//! again until they hear a 2xx.
//!
//! They show that no instant at which the *process* dies makes it send an
//! e-mail twice (`in_doubt = "suppress"`) or lose one that it acknowledged
//! (`resend`). They do not show what a power failure does: what was written
//! but not yet synced outlives a killed process, and is lost with the machine.
//!
//! `MAILONCE_CRASH_KILLS` sets the number of kills of each random test (100),
//! `MAILONCE_CRASH_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers are tests")]

#[path = "crash/checker.rs"]
mod checker;
mod proc;
#[path = "crash/storm.rs"]
mod storm;

use std::collections::BTreeSet;

use checker::Promise;
use proc::client::{Client, Letter};
use proc::upstream::{Mail, Upstream};
use proc::{Home, Proxy, Random, within};
use serde_json::Value;

/// The key of the message that meets the crash.
const KEY: &str = "order-7";

/// What the first client hears before anything is settled, and what the store
/// is to say of the claim before the next start.
#[derive(Clone, Copy, Debug)]
struct Step {
    name: &'static str,
    /// How often the upstream has it after the crash.
    arrived: usize,
    /// The states, one of which the dead process left; `None` is no record.
    left: &'static [Option<&'static str>],
}

const BEFORE_THE_COMMIT: [Step; 2] = [
    Step { name: "after-claim", arrived: 0, left: &[None] },
    Step { name: "after-body", arrived: 0, left: &[None] },
];

const IN_DOUBT: [Step; 2] = [
    Step { name: "after-commit", arrived: 0, left: &[Some("committing")] },
    Step { name: "after-dot", arrived: 1, left: &[Some("committing")] },
];

const POLICIES: [&str; 3] = ["suppress", "resend", "hold"];

/// A proxy that died at one step with one message on its way.
struct Crashed {
    home: Home,
    upstream: Upstream,
    letter: Letter,
}

impl Crashed {
    async fn at(step: Step, policy: &str) -> Self {
        let upstream = Upstream::start().await;
        let home = Home::new(upstream.address, &format!("[dedup]\nin_doubt = \"{policy}\""));
        let proxy = home.start(Some(step.name)).await;
        let letter = Letter::new(KEY);
        let mut client = Client::connect(proxy.address).await.unwrap();
        let heard = within("the connection ends", client.send(&letter)).await;
        assert!(heard.is_err(), "{}: a reply from a dead process: {heard:?}", step.name);
        proxy.crashed().await;
        upstream.wait_for(step.arrived).await;

        let claims = home.claims().await;
        let left = claims.get(KEY).map(|record| record["state"].as_str().unwrap());
        assert!(step.left.contains(&left), "{}, {policy}: left as {left:?}", step.name);
        Self { home, upstream, letter }
    }

    /// Starts again and tries again with a new Message-ID, as a library would.
    async fn retry(&self) -> (Proxy, String) {
        let proxy = self.home.start(None).await;
        let mut client = Client::connect(proxy.address).await.unwrap();
        let heard = within("a reply", client.send(&self.letter.again())).await.unwrap();
        (proxy, heard)
    }

    /// How often the log calls the message in doubt.
    fn doubts(&self) -> usize {
        let doubtful = |line: &&Value| line["outcome"] == "in_doubt" && line["key"] == KEY;
        self.home.decisions().iter().filter(doubtful).count()
    }

    async fn state(&self) -> String {
        self.home.claims().await[KEY]["state"].as_str().unwrap().to_owned()
    }

    fn arrived(&self) -> Vec<Mail> {
        self.upstream.mails_of(KEY)
    }
}

/// Nothing could have been sent: the claim is forgotten, and a retry is sent.
#[tokio::test]
async fn before_the_commit_it_is_as_if_never_claimed() {
    for step in BEFORE_THE_COMMIT {
        for policy in POLICIES {
            let crashed = Crashed::at(step, policy).await;
            let (proxy, heard) = crashed.retry().await;
            assert_eq!(heard, format!("250 2.0.0 took {KEY}"), "{step:?}, {policy}");
            assert_eq!(crashed.arrived().len(), 1, "{step:?}, {policy}");
            assert_eq!(crashed.arrived()[0].message_id, crashed.letter.again().message_id());
            assert_eq!(crashed.doubts(), 0, "{step:?}, {policy}");
            proxy.stop().await;
            assert_eq!(crashed.state().await, "accepted", "{step:?}, {policy}");
        }
    }
}

/// Between the commit and the reply nobody can know: the next start says so,
/// and a retry is told that it was sent.
#[tokio::test]
async fn in_doubt_a_retry_is_suppressed() {
    for step in IN_DOUBT {
        let crashed = Crashed::at(step, "suppress").await;
        let (proxy, heard) = crashed.retry().await;
        assert_eq!(heard, "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed", "{step:?}");
        assert_eq!(crashed.arrived().len(), step.arrived, "{step:?}");
        proxy.stop().await;
        assert_eq!(crashed.doubts(), 1, "{step:?}: one line for the doubt");
        assert_eq!(crashed.state().await, "in_doubt", "{step:?}");
    }
}

/// The same, sent again: with the first attempt's Message-ID and Date, so that
/// mailboxes that collapse equal Message-IDs show one copy.
#[tokio::test]
async fn in_doubt_a_retry_is_sent_again_under_its_first_name() {
    for step in IN_DOUBT {
        let crashed = Crashed::at(step, "resend").await;
        let (proxy, heard) = crashed.retry().await;
        assert_eq!(heard, format!("250 2.0.0 took {KEY}"), "{step:?}");
        assert_eq!(crashed.arrived().len(), step.arrived + 1, "{step:?}");
        for mail in crashed.arrived() {
            assert_eq!(mail.message_id, crashed.letter.message_id(), "{step:?}");
            assert_eq!(mail.date, crashed.letter.date(), "{step:?}");
        }
        proxy.stop().await;
        assert_eq!(crashed.doubts(), 1, "{step:?}: one line for the doubt");
        assert_eq!(crashed.state().await, "accepted", "{step:?}");
    }
}

/// The same, held until an operator decides.
#[tokio::test]
async fn in_doubt_a_retry_is_held() {
    for step in IN_DOUBT {
        let crashed = Crashed::at(step, "hold").await;
        let (proxy, heard) = crashed.retry().await;
        assert!(heard.starts_with("451 4.4.2 [IN-DOUBT] "), "{step:?}: {heard}");
        assert_eq!(crashed.arrived().len(), step.arrived, "{step:?}");
        proxy.stop().await;
        assert_eq!(crashed.doubts(), 1, "{step:?}: one line for the doubt");
        assert_eq!(crashed.state().await, "in_doubt", "{step:?}");
    }
}

/// The upstream has answered and the store has it; only the client does not
/// know. Under `suppress` the acceptance need not have reached the disk.
#[tokio::test]
async fn after_the_outcome_a_retry_is_suppressed() {
    for policy in POLICIES {
        let left: &[_] = match policy {
            "suppress" => &[Some("accepted"), Some("committing")],
            _ => &[Some("accepted")],
        };
        let crashed = Crashed::at(Step { name: "after-outcome", arrived: 1, left }, policy).await;
        let (proxy, heard) = crashed.retry().await;
        let stored = heard == format!("250 2.0.0 took {KEY}");
        let doubtful = heard == "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed";
        assert!(stored || doubtful && policy == "suppress", "{policy}: {heard}");
        assert_eq!(crashed.arrived().len(), 1, "{policy}");
        proxy.stop().await;
        assert_eq!(crashed.doubts(), usize::from(doubtful), "{policy}");
    }
}

/// What was acknowledged before a crash is not forgotten by it, and is
/// answered as it was then, but for doubts under `suppress`.
#[tokio::test]
async fn a_crash_forgets_nothing_that_was_acknowledged() {
    for policy in POLICIES {
        let upstream = Upstream::start().await;
        let home = Home::new(upstream.address, &format!("[dedup]\nin_doubt = \"{policy}\""));
        let proxy = home.start(Some("after-body:6")).await;
        let mut client = Client::connect(proxy.address).await.unwrap();
        let letters: Vec<_> = (1..6).map(|number| Letter::new(&format!("order-{number}"))).collect();
        for letter in &letters {
            let heard = within("a reply", client.send(letter)).await.unwrap();
            assert_eq!(heard, format!("250 2.0.0 took {}", letter.key));
        }
        within("the connection ends", client.send(&Letter::new("order-6"))).await.unwrap_err();
        proxy.crashed().await;

        let proxy = home.start(None).await;
        let mut client = Client::connect(proxy.address).await.unwrap();
        for letter in &letters {
            let heard = within("a reply", client.send(&letter.again())).await.unwrap();
            let doubtful = policy == "suppress" && heard.starts_with("250 2.0.0 [IN-DOUBT]");
            assert!(heard == format!("250 2.0.0 took {}", letter.key) || doubtful, "{policy}: {heard}");
        }
        proxy.stop().await;
        assert!(upstream.counts().values().all(|count| *count == 1), "{policy}: {:?}", upstream.counts());
        assert_eq!(upstream.mails().len(), 5, "{policy}");
    }
}

/// SIGKILL at random instants while many clients send: nothing is accepted
/// twice, and what was acknowledged was accepted or is listed in doubt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_nothing_is_sent_twice() {
    let storm = storm::run("suppress", Random::seeded()).await;
    let claims = storm.home.claims().await;
    let in_doubt = claims.iter().filter(|(_, record)| record["state"] == "in_doubt");
    let in_doubt: BTreeSet<String> = in_doubt.map(|(key, _)| key.clone()).collect();
    storm.report(in_doubt.len());
    assert!(!in_doubt.is_empty(), "no kill left a doubt: this run shows nothing");
    let faults = storm.logs(in_doubt).faults(Promise::AtMostOnce);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The same where doubts are resent: nothing that was acknowledged is missing,
/// and copies of one e-mail have one Message-ID.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_nothing_is_lost() {
    let storm = storm::run("resend", Random::seeded()).await;
    let copies = storm.upstream.counts().into_values().filter(|count| *count > 1).count();
    storm.report(copies);
    assert!(copies > 0, "no doubt was resent: this run shows nothing");
    let mut faults = storm.logs(BTreeSet::new()).faults(Promise::AtLeastOnce);
    for (key, _) in storm.upstream.counts().into_iter().filter(|(_, count)| *count > 1) {
        let names = storm.upstream.mails_of(&key).into_iter().map(|mail| (mail.message_id, mail.date));
        let names: BTreeSet<_> = names.collect();
        if names.len() > 1 {
            faults.push(format!("{key}: its copies have several names: {names:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
