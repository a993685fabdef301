//! Octets at the upstream equal those that the client sent, for 10,000 random
//! and hostile messages, apart from the edits that the documentation names.
//!
//! `MAILONCE_OCTETS_SEED` repeats a run, `MAILONCE_OCTETS` sets the number of
//! messages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;
#[path = "octets/model.rs"]
mod model;
#[path = "octets/random.rs"]
mod random;

use std::collections::HashMap;

use common::{Client, Setup, Upstream, meanwhile};
use model::{Received, relayed};
use random::{Framing, Message, Random};

/// Connections that send at the same time; half of them have a proxy that
/// leaves its Received field out.
const CONNECTIONS: usize = 8;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// Sends a message and expects that the upstream takes it.
fn send(client: &mut Client, number: usize, message: &Message) {
    let envelope = format!("MAIL FROM:<{number}@a.test>\r\nRCPT TO:<b@b.test>\r\n");
    let shown = message.content.escape_ascii();
    match message.framing {
        Framing::Chunks(first) => {
            let (first, rest) = message.content.split_at(first);
            let heads = [format!("BDAT {}\r\n", first.len()), format!("BDAT {} LAST\r\n", rest.len())];
            client
                .send([envelope.as_bytes(), heads[0].as_bytes(), first, heads[1].as_bytes(), rest].concat());
            client.expect_all(&["250 2.1.0", "250 2.1.5", "250 2.0.0 chunk"]);
        }
        Framing::Dots => {
            client.send(format!("{envelope}DATA\r\n"));
            client.expect_all(&["250 2.1.0", "250 2.1.5", "354 "]);
            client.send(message.stuffed());
        }
    }
    let reply = client.reply();
    assert!(reply.starts_with("250 2.0.0 queued"), "message {number}: {reply}: {shown}");
}

#[test]
fn octets_at_the_upstream_equal_those_that_were_sent() {
    let seed = setting("MAILONCE_OCTETS_SEED", 1);
    let count = usize::try_from(setting("MAILONCE_OCTETS", 10_000)).unwrap();
    println!("MAILONCE_OCTETS_SEED={seed}");
    let upstream = Upstream::start();
    let proxies = ["received_header = true", "received_header = false"]
        .map(|line| Setup::new(upstream.address).upstream(line).dedup("chain = [\"header\"]").start());
    let mut random = Random::new(seed);
    let messages: Vec<Message> = (0..count).map(|number| random.message(number)).collect();
    let mut shares: Vec<Vec<(usize, Message)>> = vec![Vec::new(); CONNECTIONS];
    for (number, message) in messages.iter().enumerate() {
        shares[number % CONNECTIONS].push((number, message.clone()));
    }
    let clients = shares.into_iter().enumerate().map(|(connection, share)| {
        let mut client = Client::hello(proxies[connection % 2].address);
        meanwhile(move || share.iter().for_each(|(number, message)| send(&mut client, *number, message)))
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());

    let mut arrived: HashMap<String, Vec<u8>> = HashMap::new();
    for got in upstream.messages() {
        let number = got.mail.split(['<', '@']).nth(1).unwrap().to_owned();
        assert!(arrived.insert(number, got.content).is_none(), "a message arrived twice");
    }
    assert_eq!(arrived.len(), count);
    for (number, message) in messages.iter().enumerate() {
        let received = if number % 2 == 0 { Received::Added } else { Received::LeftOut };
        let due = relayed(&message.arriving(), received);
        let got = model::without_received(&arrived[&number.to_string()], received);
        assert_eq!(
            got.escape_ascii().to_string(),
            due.escape_ascii().to_string(),
            "message {number}: {}",
            message.content.escape_ascii()
        );
    }
}
