//! The commands that look into claims and mend them: through the running proxy,
//! and in its store where none runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::process::Output;

use common::program::{Process, bounded, mailonce};
use common::{At, Do, Mail, Proxy, Setup, Upstream, until};
use rustix::process::Signal;
use serde_json::Value;

/// Runs a command that asks this proxy.
fn ask(proxy: &Proxy, arguments: &[&str]) -> Output {
    let mut command = mailonce(arguments);
    command.arg("--config").arg(proxy.setup.write());
    bounded(with_admin(command, proxy))
}

fn with_admin(mut command: std::process::Command, proxy: &Proxy) -> std::process::Command {
    command.env("MAILONCE_ADMIN__ADDRESS", proxy.admin.expect("no admin address").to_string());
    command
}

/// What a command printed that did what it was asked for.
#[track_caller]
fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command complained of.
#[track_caller]
fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_running_proxy_answers_and_mends() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).admin().start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    let listed = ask(&proxy, &["keys", "list", "--key", "k", "--json"]);
    let record = json(&said(&listed));
    assert_eq!((&record["key"], &record["duplicates"]), (&"k".into(), &1.into()));
    assert!(listed.stderr.is_empty(), "{listed:?}");
    let page = said(&ask(&proxy, &["keys", "show", "k"]));
    let first = page.lines().next().unwrap();
    assert!(first.starts_with("accepted once, at 20"), "{page}");
    assert!(first.ends_with(&format!(" by {}; 1 duplicate suppressed since", upstream.address)), "{page}");
    assert!(
        page.lines().any(|line| line.starts_with("suppressed ") && line.contains("from 127.0.0.1:")),
        "{page}"
    );
    let stats = json(&said(&ask(&proxy, &["stats", "--json"])));
    assert_eq!((&stats["relayed"], &stats["suppressed"]), (&1.into(), &1.into()), "{stats}");
    assert_eq!(stats["by_rule"]["(none)"]["relayed"], 1);
    assert_eq!(stats["by_tenant"]["in"]["suppressed"], 1);
    assert!(said(&ask(&proxy, &["stats", "--since", "1h"])).contains("tenant in"), "{stats}");
    // Forgotten, it is sent again.
    let id = record["id"].as_str().unwrap();
    let released = said(&ask(&proxy, &["keys", "release", "--yes", &id[..8]]));
    assert!(released.starts_with(&id[..16]) && released.contains("released"), "{released}");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 2");
    let fault = complaint(&ask(&proxy, &["keys", "show", "unheard-of"]), 1);
    assert!(fault.contains("no record has the id or key"), "{fault}");
}

#[test]
fn without_a_proxy_the_store_is_opened() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).admin();
    let fault = complaint(&setup.run(&["keys", "list"]), 1);
    assert!(
        fault.contains("no proxy answers at 127.0.0.1:0") && fault.contains("there is no store at"),
        "{fault}"
    );
    assert!(!setup.directory().join("claims").exists(), "a command that looks makes nothing");
    let proxy = setup.start();
    proxy.send(&Mail::keyed("k"));
    proxy.stop();
    let listed = setup.run(&["keys", "list"]);
    assert!(said(&listed).contains("accepted"), "{listed:?}");
    assert!(complaint(&listed, 0).contains("; reading the store in "), "{listed:?}");
    let listed = setup.run(&["keys", "list", "--json"]);
    assert_eq!(json(&said(&listed))["key"], "k");
    assert!(listed.stderr.is_empty(), "{listed:?}");
    assert_eq!(json(&said(&setup.run(&["stats", "--json"])))["relayed"], 1);
    // Nobody can be asked, so nothing is forgotten.
    assert!(complaint(&setup.run(&["keys", "release", "k"]), 2).contains("--yes"));
    said(&setup.run(&["keys", "release", "--yes", "k"]));
    assert_eq!(setup.start().send(&Mail::keyed("k")), "250 2.0.0 queued as 2", "the start brought it back");
}

#[test]
fn a_store_that_a_proxy_has_open_says_what_to_do() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let fault = complaint(&proxy.setup.run(&["keys", "list"]), 1);
    assert!(
        fault.contains("admin.address is \"\"") && fault.contains("let it serve its admin address"),
        "{fault}"
    );
    let fault = complaint(&proxy.setup.run(&["tail"]), 1);
    assert!(fault.contains("tail follows a running proxy"), "{fault}");
}

#[test]
fn a_proxy_that_does_not_know_the_token_is_named() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).admin().start();
    let mut command = mailonce(&["keys", "list", "--config"]);
    command.arg(proxy.setup.write()).env("MAILONCE_ADMIN__TOKEN_FILE", "/nowhere/token");
    let fault = complaint(&bounded(with_admin(command, &proxy)), 1);
    assert!(
        fault.contains("it wants a token") && fault.contains("admin.token_file (/nowhere/token)"),
        "{fault}"
    );
}

#[test]
fn a_doubt_is_resolved_once() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).admin().start();
    for (key, as_, then) in
        [("a", "not-sent", "250 2.0.0 queued as "), ("b", "sent", "250 2.0.0 sent earlier, confirmed")]
    {
        upstream.once(At::Dot, Do::AcceptDrop);
        assert!(proxy.send(&Mail::keyed(key)).contains("[IN-DOUBT]"));
        let page = said(&ask(&proxy, &["keys", "show", key]));
        assert!(page.starts_with("in doubt: sent at "), "{page}");
        said(&ask(&proxy, &["keys", "resolve", key, "--as", as_]));
        let fault = complaint(&ask(&proxy, &["keys", "resolve", key, "--as", as_]), 1);
        assert!(fault.contains("not in doubt") && fault.contains("1 of 1 could not be resolved"), "{fault}");
        let reply = proxy.send(&Mail::keyed(key));
        assert!(reply.starts_with(then), "{reply}");
    }
}

#[test]
fn what_can_be_released_is_and_the_rest_is_named() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).admin().start();
    proxy.send(&Mail::keyed("done"));
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    client.start(&Mail::keyed("flying"));
    gate.reached();
    let fault = complaint(&ask(&proxy, &["keys", "release", "--yes", "nothing", "flying", "done"]), 1);
    assert!(fault.contains("nothing: no record has this id or key"), "{fault}");
    assert!(
        fault.contains("an attempt is under way") && fault.contains("2 of 3 could not be released"),
        "{fault}"
    );
    assert_eq!(said(&ask(&proxy, &["keys", "list", "--key", "done"])), "no records\n");
    let page = said(&ask(&proxy, &["keys", "show", "flying"]));
    assert!(page.starts_with("being sent right now"), "{page}");
    gate.open();
    client.expect("250 ");
}

#[test]
fn an_export_comes_back_byte_for_byte() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).admin().start();
    proxy.send(&Mail::keyed("accepted"));
    upstream.say(At::Dot, "550 5.1.1 no\n5.1.1 such user");
    proxy.send(&Mail::keyed("refused"));
    upstream.say(At::Dot, "450 4.2.0 later");
    proxy.send(&Mail::keyed("deferred"));
    upstream.once(At::Dot, Do::AcceptDrop);
    proxy.send(&Mail::keyed("in doubt"));
    let text = said(&ask(&proxy, &["keys", "export"]));
    let states: Vec<String> = text.lines().map(|line| json(line)["state"].to_string()).collect();
    assert_eq!(states.len(), 4, "{text}");
    // Into a store that no proxy has open, and into one that one has.
    let closed = Setup::new(upstream.address);
    let file = closed.directory().join("claims.jsonl");
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        said(&closed.run(&["keys", "import", file])),
        "4 added, 0 kept as the store has them, 0 expired\n"
    );
    assert_eq!(
        said(&closed.run(&["keys", "import", file])),
        "0 added, 4 kept as the store has them, 0 expired\n"
    );
    assert_eq!(said(&closed.run(&["keys", "export"])), text);
    let open = Setup::new(upstream.address).admin().start();
    said(&ask(&open, &["keys", "import", file]));
    let copy = closed.directory().join("copy.jsonl");
    said(&ask(&open, &["keys", "export", copy.to_str().unwrap()]));
    assert_eq!(std::fs::read_to_string(copy).unwrap(), text);
    // The first of them is known there now.
    let first = json(text.lines().next().unwrap());
    let rest = said(&ask(&open, &["keys", "export", "--after", first["id"].as_str().unwrap()]));
    assert_eq!(rest.lines().count(), 3);
    assert_eq!(
        open.send(&Mail::keyed("accepted")),
        "250 2.0.0 queued as 1",
        "the claim moved with its reply"
    );
}

#[test]
fn tail_follows_until_somebody_ends() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).admin().start();
    // Written once: two that start together read it.
    let config = proxy.setup.write();
    let tail = |more: &[&str]| {
        let mut command = mailonce(&["tail", "--config"]);
        command.arg(&config).args(more);
        Process::start(with_admin(command, &proxy))
    };
    let mut interrupted = tail(&["--recipient", "*@B.test"]);
    let mut left = tail(&["--json", "--outcome", "relayed"]);
    let mut number = 0;
    // Whoever follows hears what is decided from then on.
    until("both follow", || {
        assert!(interrupted.stderr().is_empty() && left.stderr().is_empty(), "{left:?} {interrupted:?}");
        number += 1;
        proxy.send(&Mail::keyed(&number.to_string()));
        (!interrupted.stdout().is_empty() && !left.stdout().is_empty()).then_some(())
    });
    let line = &interrupted.stdout()[0];
    assert!(line.contains("Z relayed            ann@b.test tenant=in strategy=header key="), "{line}");
    assert_eq!(json(&left.stdout()[0])["outcome"], "relayed");
    interrupted.signal(Signal::INT);
    interrupted.wait();
    assert!(interrupted.stderr().is_empty(), "{:?}", interrupted.stderr());
    proxy.stop();
    assert_eq!(left.wait().code(), Some(1));
    assert!(left.stderr()[0].contains("the proxy has ended"), "{:?}", left.stderr());
}
