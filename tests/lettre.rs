//! lettre, a client that we did not write, against the program: unique e-mails
//! arrive, and repeated ones arrive once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on ends")]

mod common;

use std::collections::BTreeSet;
use std::thread;

use common::{Proxy, Upstream};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::{Message, SmtpTransport, Transport};

fn message(key: &str) -> Message {
    let name = HeaderName::new_from_ascii_str("X-Idempotency-Key");
    let builder = Message::builder().from("app@a.test".parse().unwrap()).to("user@b.test".parse().unwrap());
    let mut message = builder.subject(key).body(format!("about {key}")).unwrap();
    message.headers_mut().insert_raw(HeaderValue::new(name, key.to_owned()));
    message
}

/// Each try over a connection of its own, as a worker would make it.
fn send(proxy: &Proxy, message: &Message) -> String {
    let mailer = SmtpTransport::builder_dangerous(proxy.address.ip().to_string()).port(proxy.address.port());
    let response = mailer.build().send(message).expect("the proxy refuses");
    format!("{} {}", response.code(), response.message().collect::<Vec<_>>().join(" "))
}

#[test]
fn every_e_mail_arrives_once_however_often_it_is_sent() {
    const EMAILS: usize = 16;
    const TRIES: usize = 4;
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let answers: Vec<BTreeSet<String>> = thread::scope(|scope| {
        let messages = (0..EMAILS).map(|number| message(&format!("event-{number}")));
        let tries: Vec<Vec<_>> = messages
            .map(|message| {
                let proxy = &proxy;
                (0..TRIES)
                    .map(|_| {
                        let message = message.clone();
                        scope.spawn(move || send(proxy, &message))
                    })
                    .collect()
            })
            .collect();
        tries.into_iter().map(|tries| tries.into_iter().map(|t| t.join().unwrap()).collect()).collect()
    });
    assert!(answers.iter().all(|heard| heard.len() == 1), "every try hears the same: {answers:?}");
    let different: BTreeSet<_> = answers.iter().flatten().collect();
    assert_eq!(different.len(), EMAILS, "and each e-mail its own: {different:?}");
    assert_eq!(upstream.messages().len(), EMAILS);
}
