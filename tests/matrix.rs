//! Every client of a list against every upstream of a list, each pair through
//! the real program: an e-mail with a key is sent twice, as by a retry. What
//! came of it is a table, which `docs/clients.md` shows; this test holds the
//! page to it. With `MAILONCE_WRITE_DOCS=1` it writes the tables there.
//!
//! `./test` installs all of it. A program that is missing fails the test and is
//! named. Postfix, Exim and OpenSMTPD want to be started by root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "matrix/clients.rs"]
mod clients;
mod common;
#[path = "matrix/page.rs"]
mod page;
#[path = "peers/servers.rs"]
mod servers;
#[path = "matrix/upstreams.rs"]
mod upstreams;

use std::path::{Path, PathBuf};
use std::thread;

use clients::{CLIENTS, Client, Heard, Job};
use common::{Mail, Proxy, Setup, until};
use page::{Pair, Program};
use upstreams::{UPSTREAMS, Upstream};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Something that `tests/generators/install.sh` installs.
fn installed(path: &str) -> PathBuf {
    let path = here("target/generators").join(path);
    assert!(path.exists(), "{} is missing: run tests/generators/install.sh", path.display());
    path
}

/// Dots where lines begin, the longest line that SMTP allows, letters of many
/// alphabets, blanks that are easily lost.
fn text() -> String {
    let long = "0123456789".repeat(100);
    format!(
        "Grüße aus Łódź \u{2013} привет, 你好 \u{2709}\n\n.\n..\n.one dot\n...three of them\n{}\n.{}\n\
         From me to you\n. \n  blanks in front\n\nthe end\n",
        &long[..998],
        &long[..997]
    )
}

/// Sends with one client twice, and looks at what came of it.
fn try_pair(client: &Client, upstream: &Upstream, proxy: &Proxy) -> Pair {
    let key =
        format!("{} to {}", client.name, upstream.name).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let directory = tempfile::tempdir().unwrap();
    let text = text();
    let job = Job { port: proxy.address.port(), directory: directory.path(), key: &key, text: &text };
    let tries = [(client.send)(&job), (client.send)(&job)];
    let outcomes = decisions(proxy, &key, tries.iter().filter(|heard| heard.success).count());
    let mut pair = Pair::new(client.name, upstream.name);
    pair.line_added = client.adds_line_end;
    pair.succeeded = tries.iter().filter(|heard| heard.success).count();
    pair.outcomes = outcomes.iter().map(|(outcome, _)| outcome.clone()).collect();
    pair.same_reply = outcomes.len() == 2 && outcomes[0].1 == outcomes[1].1;
    // The log has the lines of a reply in one, some clients leave the code away.
    let words = |reply: &str| reply.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let told = |heard: &Heard| {
        outcomes.iter().flat_map(|(_, reply)| words(reply)).all(|word| heard.said.contains(&word))
    };
    pair.reply_seen = client.tells_reply.then(|| tries.iter().all(told));
    if outcomes.iter().any(|(outcome, _)| outcome == "relayed") {
        let arrived = until(&format!("{key} arrives"), || {
            Some(arrived(upstream, &key)).filter(|arrived| !arrived.is_empty())
        });
        pair.arrived = arrived.len();
        let sent = without_key(&tries[0].sent, client.adds_line_end);
        pair.same_octets = sent.is_some() && sent == without_our_field(&arrived[0]);
        pair.same_text = decoded(&arrived[0]).is_some_and(|got| got.trim_end() == text.trim_end());
        if !pair.same_octets {
            pair.notes =
                format!("arrived:\n{}\nsent:\n{}\n", arrived[0].escape_ascii(), tries[0].sent.escape_ascii());
        }
    }
    pair.notes += &tries.iter().map(|heard| format!("{}\n", heard.said)).collect::<String>();
    pair
}

/// The outcome and the reply of each decision about a key, once there are so
/// many.
fn decisions(proxy: &Proxy, key: &str, count: usize) -> Vec<(String, String)> {
    let of_key = || {
        let decisions = proxy.decisions().into_iter().filter(|decision| decision["key"] == key);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        decisions.map(|decision| (text(&decision["outcome"]), text(&decision["reply"]))).collect::<Vec<_>>()
    };
    until("the decisions are logged", || Some(of_key()).filter(|decisions| decisions.len() >= count))
}

/// The messages of a pair that the upstream has by now.
fn arrived(upstream: &Upstream, key: &str) -> Vec<Vec<u8>> {
    let subject = format!("\nSubject: {key}\n");
    let of_pair = |message: &Vec<u8>| String::from_utf8_lossy(message).contains(&subject);
    upstream.server.messages().into_iter().filter(of_pair).collect()
}

/// What follows our Received field.
fn without_our_field(message: &[u8]) -> Option<Vec<u8>> {
    let mut lines = message.split_inclusive(|&byte| byte == b'\n');
    let ours = lines.next()?.starts_with(b"Received: from ")
        && lines.next()?.starts_with(b"\tby relay.test (mailonce) with ");
    let rest: Vec<&[u8]> = lines.skip_while(|line| line.starts_with(b"\t")).collect();
    ours.then(|| rest.concat())
}

/// What was sent, with LF and without the field that holds the key. A client
/// may leave the end of the last line to SMTP.
fn without_key(sent: &[u8], with_line_end: bool) -> Option<Vec<u8>> {
    let end: &[u8] = if sent.ends_with(b"\r\n") && !with_line_end { b"" } else { b"\r\n" };
    let whole = [sent, end].concat();
    let lines = whole.split_inclusive(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.starts_with(b"X-Idempotency-Key: "));
    let lines: Option<Vec<_>> =
        lines.map(|line| Some([line.strip_suffix(b"\r\n")?, b"\n"].concat())).collect();
    Some(lines?.concat())
}

/// The text of a message as its reader sees it.
fn decoded(message: &[u8]) -> Option<String> {
    let message = mail_parser::MessageParser::default().parse(message)?;
    Some(message.body_text(0)?.replace("\r\n", "\n"))
}

/// One upstream with all clients.
fn try_upstream(start: fn() -> Upstream) -> (Program, Vec<Pair>) {
    let upstream = start();
    let proxy = Setup::new(upstream.server.address()).start();
    let pairs: Vec<Pair> = CLIENTS.iter().map(|client| try_pair(client, &upstream, &proxy)).collect();
    // Whatever was under way has arrived once this has, too.
    assert!(
        proxy.send(&Mail::keyed("last")).starts_with("250"),
        "{}: the last e-mail is refused",
        upstream.name
    );
    until("the last e-mail arrives", || (!arrived(&upstream, "hello").is_empty()).then_some(()));
    let expected = pairs.iter().map(|pair| pair.arrived).sum::<usize>() + 1;
    assert_eq!(upstream.server.messages().len(), expected, "{}: more has arrived", upstream.name);
    (Program { name: upstream.name, version: upstream.version.clone() }, pairs)
}

#[test]
fn every_client_sends_once_to_every_upstream() {
    let (versions, results) = thread::scope(|scope| {
        let clients =
            scope.spawn(|| CLIENTS.map(|client| Program { name: client.name, version: (client.version)() }));
        let upstreams = UPSTREAMS.map(|start| scope.spawn(move || try_upstream(start)));
        let results: Vec<_> = upstreams.into_iter().map(|upstream| upstream.join().unwrap()).collect();
        (clients.join().unwrap(), results)
    });
    let (upstreams, pairs): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    let mut pairs: Vec<Pair> = pairs.into_iter().flatten().collect();
    pairs.sort_by_key(|pair| CLIENTS.iter().position(|client| client.name == pair.client));
    let shown = page::show(&versions, &upstreams, &pairs);
    let bad: Vec<&Pair> = pairs.iter().filter(|pair| !pair.is_good()).collect();
    assert!(bad.is_empty(), "{} of {} pairs: {bad:#?}", bad.len(), pairs.len());
    assert_eq!(pairs.len(), CLIENTS.len() * UPSTREAMS.len());
    assert!(shown, "docs/clients.md differs from target/clients.md; MAILONCE_WRITE_DOCS=1 writes it");
}
