//! Running it: signals, reloads, the commands beside it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::program::{Process, bounded, mailonce};
use common::{At, Client, Mail, Proxy, Setup, Upstream, until};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn sigterm_lets_attempts_under_way_finish() {
    let upstream = Upstream::start();
    let mut proxy = Proxy::before(&upstream);
    let gate = upstream.gate(At::Dot);
    let (mut busy, mut idle, mut gone) = (proxy.client(), proxy.client(), proxy.client());
    gone.envelope(&Mail::keyed("half").to(&["half@b.test"]));
    busy.start(&Mail::keyed("k"));
    gate.reached();
    proxy.process.signal(Signal::TERM);
    idle.expect("421 4.3.2");
    assert!(idle.is_closed());
    until("no new connections", || TcpStream::connect(proxy.address).is_err().then_some(()));
    // A transaction that has begun may come to its end.
    gone.send("X-Idempotency-Key: half\r\n\r\n.\r\n");
    gone.expect("250 2.0.0 queued as 1");
    gone.expect("421 4.3.2");
    gate.open();
    busy.expect("250 2.0.0 queued as 2");
    busy.expect("421 4.3.2");
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert_eq!(upstream.messages().len(), 2);
    let proxy = proxy.setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 2", "it was written down");
}

#[test]
fn the_attempt_of_a_client_that_left_finishes_too() {
    let upstream = Upstream::start();
    let mut proxy = Proxy::before(&upstream);
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    client.start(&Mail::keyed("k"));
    gate.reached();
    drop(client);
    proxy.process.signal(Signal::INT);
    proxy.says("ending");
    gate.say("250 2.0.0 late but done");
    assert_eq!(proxy.process.wait().code(), Some(0));
    let proxy = proxy.setup.start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 late but done");
    upstream.only();
}

#[test]
fn a_second_signal_and_the_drain_time_end_it_at_once() {
    for (drain, second) in [("5m", true), ("100ms", false)] {
        let upstream = Upstream::start();
        let mut proxy = Setup::new(upstream.address).top(&format!("drain = \"{drain}\"")).start();
        let gate = upstream.gate(At::Dot);
        let mut client = proxy.client();
        client.start(&Mail::keyed("k"));
        gate.reached();
        proxy.process.signal(Signal::TERM);
        proxy.says("ending");
        if second {
            proxy.process.signal(Signal::TERM);
        }
        assert_eq!(proxy.process.wait().code(), Some(0), "{drain}");
        gate.open();
        // What it left behind is a doubt, not a new message.
        let proxy = proxy.setup.start();
        let reply = proxy.send(&Mail::keyed("k"));
        assert_eq!(reply, "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed");
    }
}

#[test]
fn sighup_applies_a_new_configuration() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let proxy = Setup::new(first.address).start();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    let path = proxy.setup.write();
    let text = proxy.setup.text().replace("[dedup]\n", "[dedup]\non_duplicate = \"reject\"\n");
    let text = text.replace(&first.address.to_string(), &second.address.to_string());
    let text = text.replace("hostname = \"relay.test\"", "hostname = \"renamed.test\"");
    std::fs::write(&path, text).unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.says("the configuration was read again");
    assert!(proxy.send(&Mail::keyed("k")).starts_with("554 5.5.0 [DUPLICATE]"));
    assert_eq!(proxy.send(&Mail::keyed("new")), "250 2.0.0 queued as 1");
    assert!(second.only().text().contains("by renamed.test (mailonce)"));
    Client::raw(proxy.address).expect("220 renamed.test");
}

#[test]
fn a_faulty_file_changes_nothing() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let path = proxy.setup.write();
    std::fs::write(&path, proxy.setup.text().replace("[dedup]\n", "[dedup]\non_duplicate = \"never\"\n"))
        .unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.says("dedup.on_duplicate");
    proxy.send(&Mail::keyed("k"));
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

#[test]
fn what_needs_a_restart_is_said() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let path = proxy.setup.write();
    let text = proxy.setup.text().replace("127.0.0.1:0", "127.0.0.2:0").replace("claims\"", "elsewhere\"");
    std::fs::write(&path, text).unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.says("listeners change only with a restart");
    proxy.says("the store changes only with a restart");
    proxy.says("the configuration was read again");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert!(!proxy.setup.directory().join("elsewhere").exists());
}

#[test]
fn a_second_proxy_on_the_same_claims_does_not_start() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut command = mailonce(&["serve", "--config"]);
    command.arg(proxy.setup.write());
    let output = bounded(command);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("another process has the store") && complaint.contains("claims"),
        "{complaint}"
    );
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1", "the first one goes on");
    let output = proxy.setup.run(&["keys", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another process"));
}

#[test]
fn the_audit_trail_can_be_read_after_the_end() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    upstream.say(At::Dot, "451 4.7.0 later");
    let mail = Mail::keyed("order-7").header("Message-ID", "<7@a.test>");
    for due in ["451 4.7.0 later", "250 2.0.0 queued as 1", "250 2.0.0 queued as 1", "250 2.0.0 queued as 1"]
    {
        assert_eq!(proxy.send(&mail), due);
    }
    upstream.say(At::Dot, "550 5.7.1 no");
    proxy.send(&Mail::keyed("refused").from("else@a.test"));
    let setup = proxy.setup.clone();
    assert_eq!(proxy.stop().code(), Some(0));

    let records = |arguments: &[&str]| -> Vec<Value> {
        let output = setup.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    assert_eq!(records(&["keys", "list", "--json"]).len(), 2);
    assert_eq!(records(&["keys", "list", "--json", "--state", "refused"])[0]["key"], "refused");
    assert_eq!(records(&["keys", "list", "--json", "--key", "order-*"]).len(), 1);
    assert_eq!(records(&["keys", "list", "--json", "--recipient", "nobody@b.test"]).len(), 0);
    let record = &records(&["keys", "show", "--json", "order-7"])[0];
    for (field, value) in [
        ("tenant", "in"),
        ("strategy", "header"),
        ("recipient", "ann@b.test"),
        ("sender", "app@a.test"),
        ("state", "accepted"),
        ("reply", "250 2.0.0 queued as 1"),
        ("message_id", "<7@a.test>"),
    ] {
        assert_eq!(record[field], value, "{field} of {record}");
    }
    assert_eq!(record["upstream"], upstream.address.to_string());
    assert_eq!((&record["duplicates"], &record["size"]), (&2.into(), &mail.content().len().into()));
    let attempts: Vec<_> =
        record["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["reply"]).collect();
    assert_eq!(attempts, ["451 4.7.0 later", "250 2.0.0 queued as 1"]);
    let id = record["id"].as_str().unwrap();
    assert_eq!(records(&["keys", "show", "--json", &id[..8]]).len(), 1);
    let missing = setup.run(&["keys", "show", "nothing-like-it"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn check_tries_the_upstream() {
    let mut upstream = Upstream::asleep();
    let setup = Setup::new(upstream.address);
    let dead = setup.run(&["check"]);
    assert_eq!(dead.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&dead.stderr).contains(&upstream.address.to_string()));
    upstream.listen();
    let live = setup.run(&["check"]);
    let said = String::from_utf8_lossy(&live.stdout);
    assert_eq!(live.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("{}: answers, PIPELINING 8BITMIME", upstream.address)), "{said}");
    let faulty = setup.clone().dedup("window = \"tomorrow\"").run(&["check"]);
    let complaint = String::from_utf8_lossy(&faulty.stderr);
    assert_eq!(faulty.status.code(), Some(1));
    assert!(complaint.contains("mailonce.toml:") && complaint.contains("dedup.window"), "{complaint}");
    assert_eq!(setup.run(&["check", "--nonsense"]).status.code(), Some(2));
}

/// `mailonce sink` with these arguments, and where it listens.
fn sink(arguments: &[&str]) -> (Process, std::net::SocketAddr) {
    let mut command = mailonce(&["sink", "--listen", "127.0.0.1:0"]);
    command.args(arguments);
    let process = Process::start(command);
    let line = process.stdout_line(|line| line.starts_with("listening on "));
    (process, line.trim_start_matches("listening on ").parse().unwrap())
}

#[test]
fn the_sink_keeps_messages_and_misbehaves_as_told() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("mail");
    let faults = ["rcpt:550:nobody@*", "dot:451*1", "dot:accept-drop*1"];
    let mut arguments = vec!["--dir", kept.to_str().unwrap()];
    arguments.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
    let (sink, address) = sink(&arguments);
    let proxy = Setup::new(address).upstream("received_header = false").start();
    let reply = proxy.send(&Mail::keyed("a").to(&["nobody@b.test"]));
    assert!(reply.starts_with("550 "), "{reply}");
    let mail = Mail::plain("kept").body(".dot\r\n");
    assert!(proxy.send(&mail).starts_with("451 "));
    assert!(proxy.send(&mail).starts_with("451 4.4.2 [IN-DOUBT]"));
    sink.stdout_line(|line| {
        line.starts_with("1 from <app@a.test> to <ann@b.test>") && line.contains("000001.eml")
    });
    assert_eq!(std::fs::read(kept.join("000001.eml")).unwrap(), mail.content());
    assert!(proxy.send(&Mail::keyed("b")).starts_with("250 2.0.0 kept as message 2"));
    assert!(kept.join("000002.eml").exists());
    let nonsense = bounded(mailonce(&["sink", "--fault", "lunch:550"]));
    assert_eq!(nonsense.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nonsense.stderr).contains("PHASE:ACTION"));
}

#[test]
fn the_log_can_go_to_a_file() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let file = setup.directory().join("mailonce.log");
    let mut proxy = setup.start_with(|command| {
        command.env("MAILONCE_LOG__FILE", &file);
    });
    proxy.send(&Mail::keyed("k"));
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
    let mut text = String::new();
    for entry in std::fs::read_dir(setup.directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.to_string_lossy().contains("mailonce.log") && !path.is_symlink() {
            std::fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
        }
    }
    assert!(text.contains("\"outcome\":\"relayed\""), "{text}");
    std::io::stdout().flush().unwrap();
}
