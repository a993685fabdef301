//! Disks that are full or read-only: the store's, the log's, that of large
//! messages.

use crate::place::Place;
use crate::proc::Home;
use crate::proc::client::Client;
use crate::proc::upstream::Upstream;
use crate::proc::within;
use crate::stream::Habits;
use crate::trial::{Trial, look};

const MIB: u64 = 1024 * 1024;

/// Somebody else fills the disk of the store: new e-mail is put off while there
/// is still room for what is under way, and taken again without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_stores_disk_is_full_nothing_new_is_taken() {
    let place = Place::in_memory(96);
    let upstream = Upstream::start().await;
    let home =
        Home::new(upstream.address, "").with_admin().env("MAILONCE_STORE__PATH", place.path().join("store"));
    let trial = Trial::start(upstream, home, Habits::default()).await;
    trial.readyz(200, "ready").await;

    place.fill(24 * MIB);
    trial.stream.hears("451 4.3.0 [STORE] ").await;
    trial.readyz(503, "nearly full").await;
    trial.logs("nearly full").await;
    let taken = trial.upstream.mails().len();
    for _ in 0..10 {
        trial.stream.hears("451 4.3.0 [STORE] ").await;
    }
    assert!(trial.upstream.mails().len() <= taken + 4, "only what was under way");
    assert_eq!(trial.lines("New e-mail is deferred"), 1, "told once");
    assert_eq!(trial.lines("the claim store has failed"), 0);

    place.free_up();
    trial.stream.taken(50).await;
    trial.readyz(200, "ready").await;
    trial.logs("has room again").await;
    trial.judge_without_losses().await;
}

/// Without a reserve, and with a disk that is full to the last block: nothing
/// is acknowledged any more until a restart, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_needs_a_restart() {
    let place = Place::on_disk(64);
    let upstream = Upstream::start().await;
    let home = Home::new(upstream.address, "")
        .with_admin()
        .env("MAILONCE_STORE__PATH", place.path().join("store"))
        .env("MAILONCE_STORE__RESERVE", "0");
    let trial = Trial::start(upstream, home, Habits::default()).await;
    place.fill(0);
    trial.stream.hears("451 4.3.0 [STORE] ").await;
    trial.readyz(503, "restart mailonce").await;
    place.free_up();
    trial.stream.hears("451 4.3.0 [STORE] ").await;
    let trial = trial.restart(|| ()).await;
    trial.readyz(200, "ready").await;
    trial.judge_without_losses().await;
}

/// The kernel makes the file system read-only, as it does after an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_turns_read_only_loses_nothing() {
    let place = Place::on_disk(64);
    let upstream = Upstream::start().await;
    let home =
        Home::new(upstream.address, "").with_admin().env("MAILONCE_STORE__PATH", place.path().join("store"));
    let trial = Trial::start(upstream, home, Habits::default()).await;
    place.make_read_only();
    trial.stream.hears("451 4.3.0 [STORE] ").await;
    trial.readyz(503, "restart mailonce").await;
    let trial = trial.restart(|| place.mount_again()).await;
    trial.readyz(200, "ready").await;
    trial.judge_without_losses().await;
}

/// The log's disk is full: mail goes on, and the log says later how much is
/// missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_can_not_be_written_stops_no_mail() {
    let place = Place::in_memory(2);
    let upstream = Upstream::start().await;
    let file = place.path().join("mailonce.log");
    let home = Home::new(upstream.address, "").with_admin().env("MAILONCE_LOG__FILE", &file);
    let trial = Trial::start(upstream, home, Habits::default()).await;
    place.fill(0);
    // Standard error is the only other place there is.
    trial.logs("can't be written: No space left on device").await;
    trial.stream.taken(100).await;
    trial.readyz(200, "ready").await;
    place.free_up();
    place.grow(64);
    let text = || std::fs::read_to_string(&file).unwrap();
    look("the log says what is missing", || text().contains("log lines were lost").then_some(())).await;
    assert_eq!(trial.lines("can't be written"), 1, "told once");
    let book = trial.judge_without_losses().await;
    assert!(book.put_off.is_empty() && book.broken == 0, "{book:?}");
    let torn = text().lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
    assert!(torn <= 1, "one line was cut off at most: {torn}");
}

/// Where large messages are kept there is no room: these are deferred, and
/// small ones go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_room_for_a_large_message_is_a_deferral_of_that_message() {
    let place = Place::in_memory(4);
    let upstream = Upstream::start().await;
    let home = Home::new(upstream.address, "").with_admin().env("TMPDIR", place.path());
    let trial = Trial::start(upstream, home, Habits::default()).await;
    let heard = within("a reply", send_large(&trial)).await.unwrap();
    assert!(heard.starts_with("452 4.3.1 "), "{heard}");
    trial.stream.taken(20).await;
    trial.readyz(200, "ready").await;
    place.grow(64);
    let heard = within("a reply", send_large(&trial)).await.unwrap();
    assert_eq!(heard, "250 2.0.0 took large");
    trial.stream.note("large", heard);
    let book = trial.judge_without_losses().await;
    assert!(book.put_off.is_empty(), "{book:?}");
}

/// One e-mail of 8 MiB.
async fn send_large(trial: &Trial) -> std::io::Result<String> {
    let mut client = Client::connect(trial.proxy.address).await?;
    client.envelope(&["ann@user.test"]).await?;
    let head = "From: app@app.test\r\nSubject: large\r\nMessage-ID: <large@app.test>\r\n\
                Date: Sat, 21 Nov 2026 08:15:00 +0000\r\nX-Idempotency-Key: large\r\nX-Letter: large\r\n\r\n";
    client.write(head.as_bytes()).await?;
    let block = format!("{}\r\n", "x".repeat(62)).repeat(1024);
    for _ in 0..128 {
        client.write(block.as_bytes()).await?;
    }
    client.write(b".\r\n").await?;
    client.reply().await
}
