//! Attempt after attempt under one key: what a later one takes over from an
//! earlier one, and what it must not. The real binary, an upstream that does
//! as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers are tests")]

mod proc;

use std::sync::Arc;

use proc::client::{Client, Letter};
use proc::upstream::{Answer, Upstream};
use proc::{Home, Proxy, within};
use tokio::sync::Notify;

const KEY: &str = "order-7";
const TOOK: &str = "250 2.0.0 took order-7";
const ANN: &str = "ann@user.test";
const BOB: &str = "bob@user.test";

/// A proxy with `dedup` as its `[dedup]`.
struct Stage {
    upstream: Upstream,
    home: Home,
    proxy: Proxy,
}

impl Stage {
    async fn new(dedup: &str) -> Self {
        let upstream = Upstream::start().await;
        let home = Home::new(upstream.address, &format!("[dedup]\n{dedup}"));
        let proxy = home.start(None).await;
        Self { upstream, home, proxy }
    }

    async fn send(&self, letter: &Letter, recipients: &[&str]) -> String {
        let mut client = Client::connect(self.proxy.address).await.unwrap();
        within("a reply", client.send_to(letter, recipients)).await.unwrap()
    }
}

/// The same key with another text.
fn another(letter: &Letter) -> Letter {
    Letter { text: "something else".to_owned(), ..letter.again() }
}

/// Doubt, then a deferral, then acceptance: the last copy too has the first
/// one's Message-ID, for the first may well have arrived.
#[tokio::test]
async fn a_deferral_in_between_does_not_end_the_doubt() {
    let stage = Stage::new("in_doubt = \"resend\"").await;
    stage.upstream.script([Answer::AcceptAndDrop, Answer::Reply("451 4.3.0 later")]);
    let letter = Letter::new(KEY);
    let first = stage.send(&letter, &[ANN]).await;
    assert!(first.starts_with("451 4.4.2 [IN-DOUBT]"), "{first}");
    assert_eq!(stage.send(&letter.again(), &[ANN]).await, "451 4.3.0 later");
    assert_eq!(stage.send(&letter.again().again(), &[ANN]).await, TOOK);
    let names: Vec<_> = stage.upstream.mails().into_iter().map(|mail| (mail.message_id, mail.date)).collect();
    assert_eq!(names, vec![(letter.message_id(), letter.date()); 2]);
    stage.proxy.stop().await;
}

/// What takes a doubtful claim over with another text is another e-mail: under
/// the first one's Message-ID, mailboxes could take it for a copy and drop it.
#[tokio::test]
async fn another_text_keeps_its_own_message_id() {
    let stage = Stage::new("in_doubt = \"resend\"\non_conflict = \"relay\"").await;
    stage.upstream.script([Answer::AcceptAndDrop]);
    let letter = Letter::new(KEY);
    stage.send(&letter, &[ANN]).await;
    let other = another(&letter);
    assert_eq!(stage.send(&other, &[ANN]).await, TOOK);
    assert_eq!(stage.upstream.mails()[1].message_id, other.message_id());
    stage.proxy.stop().await;
}

/// A deferral in between leaves the doubt: another text is a conflict with it,
/// and where it takes the claim over all the same, it keeps its own names.
#[tokio::test]
async fn another_text_after_a_deferral_meets_the_doubt() {
    for (policy, due) in [("reject", "554 5.5.0 [CONFLICT] "), ("relay", TOOK)] {
        let stage = Stage::new(&format!("in_doubt = \"resend\"\non_conflict = \"{policy}\"")).await;
        stage.upstream.script([Answer::AcceptAndDrop, Answer::Reply("451 4.3.0 later")]);
        let letter = Letter::new(KEY);
        stage.send(&letter, &[ANN]).await;
        stage.send(&letter.again(), &[ANN]).await;
        let other = another(&letter.again());
        let reply = stage.send(&other, &[ANN]).await;
        assert!(reply.starts_with(due), "{reply}");
        let names: Vec<_> = stage.upstream.mails().into_iter().map(|mail| mail.message_id).collect();
        let own = Some(other.message_id()).filter(|_| policy == "relay");
        assert_eq!(names, [letter.message_id()].into_iter().chain(own).collect::<Vec<_>>());
        stage.proxy.stop().await;
    }
}

/// What the first text brought outlasts a later text that is put off.
#[tokio::test]
async fn an_acceptance_outlasts_another_text_that_is_put_off() {
    let stage = Stage::new("on_conflict = \"relay\"").await;
    let letter = Letter::new(KEY);
    assert_eq!(stage.send(&letter, &[ANN]).await, TOOK);
    stage.upstream.script([Answer::Reply("451 4.3.0 later")]);
    assert_eq!(stage.send(&another(&letter), &[ANN]).await, "451 4.3.0 later");
    assert_eq!(stage.send(&letter.again(), &[ANN]).await, TOOK);
    assert_eq!(stage.upstream.mails().len(), 1, "the first text goes twice");
    stage.proxy.stop().await;
}

/// With one claim for the whole message, another text that takes it over goes
/// to everyone, those who had the first one too.
#[tokio::test]
async fn another_text_goes_to_everyone() {
    let stage = Stage::new("scope = \"message\"\non_conflict = \"relay\"").await;
    let letter = Letter::new(KEY);
    assert_eq!(stage.send(&letter, &[ANN, BOB]).await, TOOK);
    assert_eq!(stage.send(&letter.again(), &[ANN, BOB]).await, TOOK);
    assert_eq!(stage.upstream.mails().len(), 1);
    assert_eq!(stage.send(&another(&letter), &[ANN, BOB]).await, TOOK);
    assert_eq!(stage.upstream.mails().len(), 2);
    stage.proxy.stop().await;
}

/// With one claim for the whole message, a retry for those alone who have it
/// sends nothing, and does not pass for the delivery to those who have not.
#[tokio::test]
async fn a_retry_for_those_who_have_it_settles_nothing_for_the_others() {
    let stage = Stage::new("scope = \"message\"").await;
    stage.upstream.defer(Some(BOB));
    let letter = Letter::new(KEY);
    let partial = stage.send(&letter, &[ANN, BOB]).await;
    assert!(partial.starts_with("451-4.5.0 [PARTIAL]"), "{partial}");
    let spared = stage.send(&letter.again(), &[ANN]).await;
    assert!(spared.starts_with("250 "), "{spared}");
    assert_eq!(stage.upstream.mails().len(), 1);
    stage.upstream.defer(None);
    assert_eq!(stage.send(&letter.again().again(), &[BOB]).await, TOOK);
    assert_eq!(stage.upstream.mails().len(), 2, "the deferred recipient never gets it");
    stage.proxy.stop().await;
}

/// One of two claims of a message is taken over while its answer is awaited:
/// the other one still gets its outcome.
#[tokio::test]
async fn a_claim_taken_over_leaves_the_others_their_outcome() {
    let stage = Stage::new("on_conflict = \"relay\"\nin_flight_wait = \"2s\"").await;
    let answer = Arc::new(Notify::new());
    stage.upstream.script([Answer::AcceptWhen(answer.clone())]);
    let letter = Letter::new(KEY);
    let mut client = Client::connect(stage.proxy.address).await.unwrap();
    let first = async { within("a reply", client.send_to(&letter, &[ANN, BOB])).await.unwrap() };
    let second = async {
        stage.upstream.wait_for(1).await;
        assert_eq!(stage.send(&another(&letter), &[ANN]).await, TOOK);
        answer.notify_one();
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first, TOOK);
    assert_eq!(stage.send(&letter.again(), &[BOB]).await, TOOK, "the second recipient's claim is stuck");
    assert_eq!(stage.upstream.mails().len(), 2);
    stage.proxy.stop().await;
    assert_eq!(stage.home.claims().await[KEY]["state"], "accepted");
}
