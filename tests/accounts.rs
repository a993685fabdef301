//! Dialogues of clients with accounts, pipelined, over one proxy and its kept
//! connections, to an upstream that misbehaves at random. Each ends as its
//! replies say: for every recipient, and under no other account.

#![allow(unreachable_pub, reason = "it has no other crate")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

#[path = "accounts/upstream.rs"]
mod upstream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use common::{Client, Proxy, Setup};
use upstream::{Rng, Taken, Upstream};

/// Clients at a time.
const CLIENTS: u64 = 16;

/// How often a client tries a message before the test calls it stuck.
const TRIES: usize = 100;

const TIMEOUTS: &str = "[upstream.timeouts]\ngreeting = \"5s\"\nenvelope = \"5s\"\ndata = \"5s\"\n\
                        block = \"5s\"\ncompletion = \"5s\"";

/// A message with a key of its own.
#[derive(Debug)]
struct Message {
    name: String,
    recipients: Vec<String>,
    body: String,
}

impl Message {
    fn draw(name: String, rng: &mut Rng) -> Self {
        let count = rng.of(&[1, 1, 2, 3]);
        let start = rng.of(&["x\r\n", ".\r\n", "..a\r\n.\r\n", "\r\n"]);
        let rest = "a line of text\r\n".repeat(rng.of(&[0, 3, 600]));
        let recipients = (0..count).map(|number| format!("r{number}@{name}.test")).collect();
        Self { name, recipients, body: format!("{start}{rest}") }
    }

    /// MAIL, RCPT and DATA, in one group.
    fn group(&self) -> String {
        let to: String = self.recipients.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
        format!("MAIL FROM:<app@from.test>\r\n{to}DATA\r\n")
    }

    /// The content and the end of data.
    fn content(&self) -> String {
        let name = &self.name;
        let body = self.body.split_inclusive("\r\n").map(|line| match line.starts_with('.') {
            true => format!(".{line}"),
            false => line.to_owned(),
        });
        let body: String = body.collect();
        format!("Subject: {name}\r\nX-Idempotency-Key: {name}\r\n\r\n{body}.\r\n")
    }
}

/// What a reply says of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Accepted,
    NotSent,
    InDoubt,
}

/// What `reply` says of `recipient`.
fn told(reply: &str, recipient: &str) -> Told {
    let says = |text: &str| text.contains("[IN-DOUBT]");
    let own = reply.lines().find(|line| line.contains(&format!("<{recipient}>")));
    let has_list = reply.lines().any(|line| line.contains(".test>: "));
    match own {
        Some(line) if says(line) => Told::InDoubt,
        Some(_) => Told::NotSent,
        None if reply.contains("[PARTIAL]") => Told::Accepted,
        None if says(reply) && !has_list => Told::InDoubt,
        None if reply.starts_with('2') => Told::Accepted,
        None => Told::NotSent,
    }
}

/// One client: it logs in, and sends its messages until each is settled.
struct Dialogue<'a> {
    proxy: &'a Proxy,
    upstream: &'a Upstream,
    /// Who logs in; `None` where the proxy itself does.
    user: Option<&'static str>,
    rng: Rng,
}

impl Dialogue<'_> {
    fn run(mut self, number: u64) {
        let count = self.rng.of(&[1, 2, 3]);
        let mut left: Vec<_> =
            (0..count).map(|place| Message::draw(format!("m{number}-{place}"), &mut self.rng)).collect();
        for _ in 0..TRIES {
            let Some(mut client) = self.connect() else { continue };
            left = self.session(&mut client, left);
            if left.is_empty() {
                return;
            }
        }
        panic!("dialogue {number} never ends: {left:?}");
    }

    /// A client that may send, or none where the upstream did not let it in.
    fn connect(&self) -> Option<Client> {
        let mut client = Client::hello(self.proxy.address);
        let Some(user) = self.user else { return Some(client) };
        let message = STANDARD.encode(format!("\0{user}\0pw-{user}"));
        let reply = client.command(&format!("AUTH PLAIN {message}"));
        assert!(reply.starts_with("235") || reply.starts_with('4'), "{reply}");
        reply.starts_with("235").then_some(client)
    }

    /// Sends each message once, and returns those that are to be tried again.
    fn session(&mut self, client: &mut Client, messages: Vec<Message>) -> Vec<Message> {
        let mut again = Vec::new();
        let mut asked = false;
        for at in 0..messages.len() {
            let message = &messages[at];
            if self.rng.one_in(5) && !asked {
                client.send(format!("NOOP\r\nMAIL FROM:<>\r\nRSET\r\n{}", message.group()));
                client.expect_all(&["250 ", "250 ", "250 "]);
            } else if !asked {
                client.send(message.group());
            }
            client.expect("250 ");
            message.recipients.iter().for_each(|_| drop(client.expect("250 ")));
            client.expect("354 ");
            // The next group may follow the dot in the same write (RFC 2920).
            let next = messages.get(at + 1).filter(|_| self.rng.one_in(2));
            asked = next.is_some();
            client.send(message.content() + &next.map(Message::group).unwrap_or_default());
            let reply = client.reply();
            self.check(message, &reply);
            again.push(reply.starts_with('4'));
        }
        let left = messages.into_iter().zip(again).filter(|(_, again)| *again);
        left.map(|(message, _)| message).collect()
    }

    fn check(&self, message: &Message, reply: &str) {
        let taken = self.upstream.taken_of(&message.name);
        for Taken { account, content, .. } in &taken {
            assert_eq!(
                account.as_deref(),
                Some(self.user.unwrap_or("relay")),
                "another account's connection"
            );
            let (_, body) = content.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, message.body, "{}", message.name);
        }
        for recipient in &message.recipients {
            let count = taken.iter().filter(|taken| taken.to.contains(recipient)).count();
            let holds = match told(reply, recipient) {
                Told::Accepted => count == 1,
                Told::NotSent => count == 0,
                Told::InDoubt => count <= 1,
            };
            assert!(holds, "{recipient} has {count} copies after {reply:?}\n{}", self.upstream.trace());
        }
    }
}

/// Holds `count` dialogues, of which `user` gives the account.
fn dialogues(proxy: &Proxy, upstream: &Upstream, count: u64, user: fn(u64) -> Option<&'static str>) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in (client..count).step_by(CLIENTS as usize) {
                    let (rng, user) = (Rng::new(number), user(number));
                    Dialogue { proxy, upstream, user, rng }.run(number);
                }
            });
        }
    });
    assert!(upstream.odd_endings() > count / 20, "the upstream misbehaved too little to show anything");
}

#[test]
fn dialogues_under_clients_accounts_end_as_the_replies_say() {
    let upstream = Upstream::start(&["ann", "bob", "eve"]);
    let listener = "auth = \"passthrough\"\nallow_from = []";
    let proxy = Setup::new(upstream.address()).listener(listener).upstream(TIMEOUTS).start();
    dialogues(&proxy, &upstream, 1000, |number| Some(["ann", "bob", "eve"][number as usize % 3]));
}

#[test]
fn dialogues_under_the_proxy_s_account_end_as_the_replies_say() {
    let upstream = Upstream::start(&["relay"]);
    let account = format!("username = \"relay\"\npassword = \"pw-relay\"\n{TIMEOUTS}");
    let proxy = Setup::new(upstream.address()).upstream(&account).start();
    dialogues(&proxy, &upstream, 400, |_| None);
}
