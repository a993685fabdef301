//! The admin address of the real program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use common::program::{bounded, mailonce};
use common::{At, Do, Mail, Proxy, Setup, Upstream, http, until};
use rustix::process::Signal;
use serde_json::Value;

const LINES: &str = "Accept: application/x-ndjson";

fn start(upstream: &Upstream) -> Proxy {
    Setup::new(upstream.address).admin().start()
}

/// The id of the only record.
fn only_id(proxy: &Proxy) -> String {
    let records = proxy.ask("GET /v1/claims", &[], "").json();
    assert_eq!(records.as_array().unwrap().len(), 1, "{records}");
    records[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_token_is_made_for_one_user_and_is_never_logged() {
    let upstream = Upstream::start();
    let mut proxy = start(&upstream);
    let address = proxy.admin.unwrap();
    let file = proxy.setup.token_file();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    for request in ["GET /", "GET /v1/claims", "GET /v1/stats", "GET /v1/events", "POST /v1/claims"] {
        let refused = http::ask(address, request, &["Authorization: Bearer guess"], "");
        assert_eq!(refused.status, 401, "{request}");
        assert!(refused.head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{}", refused.head);
        assert!(refused.json()["error"].is_string());
    }
    for request in ["GET /livez", "GET /readyz", "GET /metrics"] {
        assert_eq!(http::ask(address, request, &[], "").status, 200, "{request}");
    }
    assert!(proxy.ask("GET /", &[], "").body.contains("/v1/claims"));
    proxy.process.signal(Signal::TERM);
    proxy.process.wait();
    let said = [proxy.process.stderr(), proxy.process.stdout()].concat().join("\n");
    assert!(!said.contains(token.trim()), "{said}");
    // The same token serves the next start.
    let proxy = proxy.setup.start();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
    assert_eq!(proxy.ask("GET /", &[], "").status, 200);
}

#[test]
fn a_released_claim_is_relayed_again() {
    let upstream = Upstream::start();
    let proxy = start(&upstream);
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    let id = only_id(&proxy);
    let record = proxy.ask(&format!("GET /v1/claims/{}", &id[..8]), &[], "").json();
    assert_eq!((&record["key"], &record["duplicates"]), (&"k".into(), &1.into()), "{record}");
    let released = proxy.ask(&format!("POST /v1/claims/{id}/release"), &[], "");
    assert_eq!((released.status, &released.json()["state"]), (200, &"accepted".into()));
    proxy.says("an operator released a claim");
    assert_eq!(proxy.ask(&format!("GET /v1/claims/{id}"), &[], "").status, 404);
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 2");
    upstream.wait(2);
}

#[test]
fn a_claim_in_flight_is_not_released() {
    let upstream = Upstream::start();
    let proxy = start(&upstream);
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    client.start(&Mail::keyed("k"));
    gate.reached();
    let id = only_id(&proxy);
    assert_eq!(proxy.ask(&format!("POST /v1/claims/{id}/release"), &[], "").status, 409);
    let busy = http::ask(proxy.admin.unwrap(), "GET /metrics", &[], "").body;
    assert!(busy.contains("mailonce_upstream_connections{state=\"in_use\"} 1\n"), "{busy}");
    gate.open();
    client.expect("250 2.0.0 queued as 1");
    assert_eq!(proxy.ask(&format!("POST /v1/claims/{id}/release"), &[], "").status, 200);
}

#[test]
fn a_doubt_is_resolved_either_way() {
    for (word, reply, count) in [("sent", "250 ", 1), ("not-sent", "250 2.0.0 queued as 2", 2)] {
        let upstream = Upstream::start();
        let proxy = Setup::new(upstream.address).dedup("in_doubt = \"hold\"").admin().start();
        upstream.once(At::Dot, Do::AcceptDrop);
        assert!(proxy.send(&Mail::keyed("k")).starts_with("451 4.4.2 [IN-DOUBT]"));
        assert!(proxy.send(&Mail::keyed("k")).starts_with("451 4.4.2 [IN-DOUBT]"));
        let id = only_id(&proxy);
        let doubts = proxy.ask("GET /v1/claims?state=in_doubt", &[LINES], "");
        assert_eq!(doubts.body.lines().count(), 1, "{doubts:?}");
        let resolve = format!("POST /v1/claims/{id}/resolve");
        assert_eq!(proxy.ask(&resolve, &[], "{\"as\": \"maybe\"}").status, 400);
        assert_eq!(proxy.ask(&resolve, &[], &format!("{{\"as\": \"{word}\"}}")).status, 200);
        proxy.says("an operator resolved a claim");
        assert_eq!(proxy.ask(&resolve, &[], "{\"as\": \"sent\"}").status, 409);
        let heard = proxy.send(&Mail::keyed("k"));
        assert!(heard.starts_with(reply) && !heard.contains("unconfirmed"), "{word}: {heard}");
        assert_eq!(upstream.wait(count).len(), count, "{word}");
    }
}

#[test]
fn claims_move_to_another_proxy() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let (old, new) = (start(&upstream), start(&other));
    for number in 0..20 {
        old.send(&Mail::keyed(&format!("k{number}")));
    }
    let exported = old.ask("GET /v1/claims?limit=0", &[LINES], "").body;
    assert_eq!(exported.lines().count(), 20);
    let half = exported.lines().nth(9).unwrap();
    let id = serde_json::from_str::<Value>(half).unwrap()["id"].as_str().unwrap().to_owned();
    let rest = old.ask(&format!("GET /v1/claims?after={id}"), &[LINES], "").body;
    assert!(exported.ends_with(&rest) && rest.lines().count() == 10, "{rest}");
    let typed = "Content-Type: application/x-ndjson";
    let imported = new.ask("POST /v1/claims", &[typed], &exported);
    assert_eq!(imported.json(), serde_json::json!({ "added": 20, "kept": 0, "expired": 0 }));
    // Tenants have the listener's name, which is the same here.
    assert_eq!(new.send(&Mail::keyed("k7")), "250 2.0.0 queued as 8");
    assert_eq!(other.messages().len(), 0);
}

#[test]
fn figures_are_exact_and_outlive_a_restart() {
    let upstream = Upstream::start();
    let proxy = start(&upstream);
    for _ in 0..3 {
        proxy.send(&Mail::keyed("k"));
    }
    proxy.send(&Mail::keyed("k").body("Another text.\r\n"));
    upstream.say(At::Dot, "451 4.7.0 later");
    proxy.send(&Mail::keyed("deferred"));
    upstream.say(At::Dot, "550 5.7.1 no");
    proxy.send(&Mail::keyed("refused"));
    upstream.once(At::Dot, Do::AcceptDrop);
    proxy.send(&Mail::keyed("doubt"));
    proxy.send(&Mail::keyed("two").to(&["ann@b.test", "bob@b.test"]));
    let due = serde_json::json!({
        "relayed": 3, "suppressed": 2, "conflicts": 1, "in_doubt": 1, "unkeyed": 0, "deferred": 1, "refused": 1,
        "observed": 0,
    });
    let check = |stats: Value| {
        for (name, count) in due.as_object().unwrap() {
            assert_eq!(&stats[name], count, "{name} in {stats}");
        }
        assert_eq!(stats["by_tenant"], serde_json::json!({ "in": due }));
        assert_eq!(stats["by_rule"], serde_json::json!({ "(none)": due }));
    };
    check(proxy.ask("GET /v1/stats", &[], "").json());
    check(proxy.ask("GET /v1/stats?since=1h", &[], "").json());
    let setup = proxy.setup.clone();
    assert_eq!(proxy.stop().code(), Some(0));
    check(setup.start().ask("GET /v1/stats", &[], "").json());
}

#[test]
fn events_are_the_lines_of_the_log() {
    let upstream = Upstream::start();
    let proxy = start(&upstream);
    let mut all = proxy.events("");
    let mut duplicates = proxy.events("?outcome=duplicate&recipient=*@b.test");
    for _ in 0..3 {
        proxy.send(&Mail::keyed("k"));
    }
    let heard: Vec<String> = (0..3).map(|_| all.next().unwrap()).collect();
    for line in &heard {
        until("the line is in the log", || proxy.process.stderr().contains(line).then_some(()));
    }
    assert_eq!(proxy.decisions().len(), 3);
    assert_eq!(duplicates.next().as_ref(), Some(&heard[1]));
    assert_eq!(duplicates.next().as_ref(), Some(&heard[2]));
    // At the end of the proxy its readers hear the end.
    proxy.process.signal(Signal::TERM);
    assert_eq!(all.next(), None);
}

#[test]
fn a_reader_that_reads_nothing_holds_no_mail_up() {
    let upstream = Upstream::start();
    let proxy = start(&upstream);
    let stuck = http::open(proxy.admin.unwrap(), "GET /v1/events", &[&proxy.bearer()], "");
    let mut quick = proxy.events("");
    // Enough lines to fill every buffer on the way to the one that is stuck.
    let to: Vec<String> = (0..100).map(|number| format!("{number:0>60}@b.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mail = Mail::keyed(&"k".repeat(200)).to(&to);
    let mut client = proxy.client();
    for _ in 0..120 {
        assert_eq!(client.deliver(&mail), "250 2.0.0 queued as 1");
        for _ in 0..to.len() {
            assert!(quick.next().is_some(), "one that reads is not dropped");
        }
    }
    drop(stuck);
}

#[test]
fn the_default_address_is_done_without_where_it_is_taken() {
    // Whether it is this test or another program that has it now.
    let _taken = TcpListener::bind("127.0.0.1:9925");
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address);
    let token_file = setup.directory().join("token");
    let setup = setup.admin_as(&format!("token_file = \"{}\"", token_file.display()));
    let proxy = setup.start();
    assert_eq!(proxy.admin, None);
    proxy.says("starting without an admin address");
    proxy.says("admin.address: 127.0.0.1:9925 can't be had");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert!(!token_file.exists());
}

#[test]
fn what_was_written_must_be_had() {
    let upstream = Upstream::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let _held = TcpListener::bind(taken);
    let setup = Setup::new(upstream.address);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for (lines, says) in [
        (format!("address = \"{address}\""), format!("admin.address: {address} can't be had")),
        (
            "address = \"127.0.0.1:0\"\ntoken_file = \"/proc/nowhere/token\"".to_owned(),
            "admin.token_file: /proc/nowhere/token: can't be made".to_owned(),
        ),
    ] {
        let mut command = mailonce(&["serve", "--config"]);
        command.arg(setup.clone().admin_as(&lines).write());
        let output = bounded(command);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains(&says), "{complaint}");
    }
}

#[test]
fn every_metric_of_the_interface_is_there_and_moves() {
    let upstream = Upstream::start();
    let proxy = start(&upstream);
    let _connected = proxy.client();
    proxy.send(&Mail::keyed("k"));
    proxy.send(&Mail::keyed("k"));
    let text = http::ask(proxy.admin.unwrap(), "GET /metrics", &[], "").body;
    for name in [
        "mailonce_messages_total{outcome=\"relayed\",strategy=\"header\",rule=\"\"} 1",
        "mailonce_messages_total{outcome=\"duplicate\",strategy=\"header\",rule=\"\"} 1",
        "mailonce_claims{state=\"accepted\"} 1",
        "mailonce_sessions ",
        "mailonce_upstream_connections{state=\"idle\"} 1",
        "mailonce_upstream_seconds_count{phase=\"envelope\"} 1",
        "mailonce_upstream_seconds_count{phase=\"body\"} 1",
        "mailonce_upstream_seconds_count{phase=\"completion\"} 1",
        "mailonce_upstream_seconds_bucket{le=\"+Inf\",phase=\"completion\"} 1",
        "mailonce_store_seconds_count{operation=\"claim\"} 2",
        "mailonce_store_seconds_count{operation=\"commit\"} 1",
        "mailonce_message_bytes_count 2",
        "mailonce_auth_total{result=\"accepted\"} 0",
        "mailonce_tls_handshakes_total{result=\"failed\"} 0",
        "mailonce_build_info{version=\"",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn readiness_follows_the_upstream() {
    let mut upstream = Upstream::asleep();
    let proxy = start(&upstream);
    let ready = |proxy: &Proxy| http::ask(proxy.admin.unwrap(), "GET /readyz", &[], "");
    let out =
        until("the upstream is found out", || Some(ready(&proxy)).filter(|answer| answer.status == 503));
    assert!(out.body.starts_with(&format!("upstream: {}: ", upstream.address)), "{out:?}");
    proxy.says("the upstream can't be reached");
    assert_eq!(http::ask(proxy.admin.unwrap(), "GET /livez", &[], "").body, "ok\n");
    upstream.listen();
    // Mail tells before the next probe does.
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    assert_eq!(ready(&proxy).body, "ready\n");
}

#[test]
fn a_proxy_that_drains_is_not_ready_and_still_answers() {
    let upstream = Upstream::start();
    let mut proxy = start(&upstream);
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    client.start(&Mail::keyed("k"));
    gate.reached();
    proxy.process.signal(Signal::TERM);
    proxy.says("ending");
    let closing = http::ask(proxy.admin.unwrap(), "GET /readyz", &[], "");
    assert_eq!((closing.status, &*closing.body), (503, "closing\n"));
    assert_eq!(proxy.ask("GET /v1/claims", &[], "").status, 200);
    gate.open();
    client.expect("250 2.0.0 queued as 1");
    assert_eq!(proxy.process.wait().code(), Some(0));
}

#[test]
fn another_admin_address_needs_a_restart() {
    let upstream = Upstream::start();
    let proxy = start(&upstream);
    let moved = proxy.setup.clone().admin_as("address = \"\"");
    moved.write();
    proxy.process.signal(Signal::HUP);
    proxy.says("the admin address or its token file changes only with a restart");
    assert_eq!(proxy.ask("GET /", &[], "").status, 200);
}
