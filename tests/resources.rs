//! What many sessions and large messages cost the real binary, measured from
//! outside: `VmRSS` and `VmHWM` of its process.
//!
//! The bounds hold for a debug build, whose code is slower but whose data is
//! the same. They do not show how memory behaves over days.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers are tests")]

mod proc;

use std::sync::Arc;
use std::time::Instant;

use proc::client::Client;
use proc::upstream::Upstream;
use proc::{Home, raise_open_files, within};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

const MIB: u64 = 1024 * 1024;

/// A thousand sessions that have said EHLO and wait.
#[tokio::test]
async fn a_thousand_idle_sessions_stay_small() {
    const SESSIONS: usize = 1000;
    let files = raise_open_files();
    assert!(files >= 2 * SESSIONS as u64, "this system allows only {files} open files");
    let upstream = Upstream::start().await;
    let home = Home::new(
        upstream.address,
        // So many are no crowd, in which idle ones would have to go.
        &format!("[limits]\nmax_connections = {}\nmax_connections_per_ip = {SESSIONS}", 2 * SESSIONS),
    );
    let proxy = home.start(None).await;
    let before = proxy.memory("VmRSS");
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(within("a session", Client::connect(proxy.address)).await.unwrap());
    }
    let after = proxy.memory("VmRSS");
    println!("{SESSIONS} idle sessions: {} KiB resident, {} KiB before", after / 1024, before / 1024);
    assert!(after < 64 * MIB, "{after} octets");
    // All of them are served, and one more is not.
    for session in [0, SESSIONS / 2, SESSIONS - 1] {
        sessions[session].write(b"NOOP\r\n").await.unwrap();
        assert!(within("a reply", sessions[session].reply()).await.unwrap().starts_with("250"));
    }
    let one_more = within("a refusal", Client::greeting(proxy.address)).await.unwrap();
    assert!(one_more.starts_with("421 4.3.2"), "{one_more}");
    drop(sessions);
    proxy.stop().await;
}

/// Many large messages at once: each arrives whole and once, and the process
/// never takes as much memory as messages may take together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_stay_within_the_budget() {
    const MESSAGES: usize = 50;
    const OCTETS: usize = 25 * MIB as usize;
    const BUDGET: u64 = 128 * MIB;
    let began = Instant::now();
    let upstream = Upstream::start().await;
    let home = Home::new(upstream.address, "[limits]\nin_memory_total = \"128 MiB\"");
    let proxy = home.start(None).await;
    let start = proxy.memory("VmRSS");
    let block = Arc::new(lines());
    let mut clients = JoinSet::new();
    for number in 0..MESSAGES {
        clients.spawn(send(proxy.address, number, block.clone(), OCTETS / block.len()));
    }
    let mut sums = vec![[0; 32]; MESSAGES];
    while let Some(sent) = within("a large message is delivered", clients.join_next()).await {
        let (number, sum) = sent.unwrap();
        sums[number] = sum;
    }
    let (now, peak) = (proxy.memory("VmRSS"), proxy.memory("VmHWM"));
    println!(
        "{MESSAGES} messages of {} MiB: {} MiB resident at most, {} MiB at start, {} MiB after, in {:.1} s",
        OCTETS as u64 / MIB,
        peak / MIB,
        start / MIB,
        now / MIB,
        began.elapsed().as_secs_f64()
    );
    assert_eq!(upstream.mails().len(), MESSAGES);
    for (number, sum) in sums.iter().enumerate() {
        let arrived = upstream.mails_of(&format!("large-{number}"));
        assert_eq!(arrived.len(), 1, "message {number}");
        assert_eq!(arrived[0].body, *sum, "message {number} arrived changed");
    }
    assert!(peak < BUDGET, "{} MiB at most, of {} MiB", peak / MIB, BUDGET / MIB);
    proxy.stop().await;
}

/// 64 KiB of lines that pass for text and for base64.
fn lines() -> Vec<u8> {
    let line =
        |number: usize| format!("{number:06}{}\r\n", "Thequickbrownfox+jumps/over1dog4me".repeat(2) + "aZ");
    let text: String = (0..64 * 1024 / line(0).len()).map(line).collect();
    text.into_bytes()
}

/// Sends one message of `blocks` blocks, every second one an attachment, no faster than it is taken; answers
/// the SHA-256 of its body.
async fn send(
    proxy: std::net::SocketAddr,
    number: usize,
    block: Arc<Vec<u8>>,
    blocks: usize,
) -> (usize, [u8; 32]) {
    let mut client = Client::connect(proxy).await.unwrap();
    client.envelope(&["ann@user.test"]).await.unwrap();
    let (media, encoding) = if number.is_multiple_of(2) {
        ("text/plain", "7bit")
    } else {
        ("application/octet-stream", "base64")
    };
    let head = format!(
        "Content-Type: {media}\r\nContent-Transfer-Encoding: {encoding}\r\nFrom: app@app.test\r\nSubject: large\r\nMessage-ID: <{number}@app.test>\r\n\
         Date: Sat, 21 Nov 2026 08:15:00 +0000\r\nX-Idempotency-Key: large-{number}\r\nX-Letter: large-{number}\r\n\r\n"
    );
    client.write(head.as_bytes()).await.unwrap();
    let own = format!("{number:076}\r\n");
    let mut sum = Sha256::new();
    for part in std::iter::once(own.as_bytes()).chain((0..blocks).map(|_| block.as_slice())) {
        sum.update(part);
        client.write(part).await.unwrap();
    }
    client.write(b".\r\n").await.unwrap();
    let reply = client.reply().await.unwrap();
    assert_eq!(reply, format!("250 2.0.0 took large-{number}"));
    (number, sum.finalize().into())
}
