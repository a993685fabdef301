//! What counts as the same e-mail: keys, windows, fingerprints, tenants; and
//! what becomes of the fields that say so.

mod common;

use common::{At, Do, Mail, Proxy, Setup, Upstream, until};

#[test]
fn a_key_that_is_present_but_unusable_is_refused_by_name() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let bad = |mail: Mail, due: &str| {
        let reply = proxy.send(&mail);
        let named = reply.to_lowercase().contains(&due.to_lowercase());
        assert!(reply.starts_with("554 5.5.0 [BAD-KEY] ") && named, "{due:?}: {reply}");
    };
    bad(Mail::keyed(""), "X-Idempotency-Key");
    bad(Mail::keyed(""), "empty");
    bad(Mail::keyed(&"k".repeat(257)), "256");
    bad(Mail::keyed("caf\u{e9}"), "ASCII");
    bad(Mail::keyed("tab\tinside"), "ASCII");
    bad(Mail::keyed("a").header("X-Idempotency-Key", "b"), "more than once");
    bad(Mail::plain("x").header("Idempotency-Key", ""), "] Idempotency-Key is empty");
    for ttl in ["0", "0s", "soon", "-1s", "1h30m", "1.5h", "", "1 h x"] {
        bad(Mail::keyed("k").header("X-Idempotency-TTL", ttl), "TTL");
    }
    bad(Mail::keyed("k").header("X-Idempotency-TTL", "1h").header("X-Idempotency-TTL", "2h"), "TTL");
    assert_eq!(upstream.connections(), 0);
    assert_eq!(proxy.log(&[("outcome", "bad_key")])["level"], "info");
}

#[test]
fn a_key_is_unfolded_and_trimmed_and_otherwise_as_given() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let long = "k".repeat(256);
    let key = |value: &str| Mail::keyed(value);
    assert_eq!(proxy.send(&key("two words")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&key("   two\r\n words  ")), "250 2.0.0 queued as 1");
    assert_eq!(
        proxy.send(&key("two words").header("x-idempotency-KEY", "two words")),
        "250 2.0.0 queued as 1"
    );
    assert_eq!(proxy.send(&key("\"two words\"")), "250 2.0.0 queued as 2", "quotes are part of it");
    assert_eq!(proxy.send(&key("Two words")), "250 2.0.0 queued as 3", "so is the case");
    assert_eq!(proxy.send(&key(&long)), "250 2.0.0 queued as 4");
    proxy.log(&[("key", "two words"), ("outcome", "relayed")]);
}

#[test]
fn the_first_configured_field_that_is_present_counts() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let both = Mail::plain("x").header("Resend-Idempotency-Key", "third").header("Idempotency-Key", "second");
    assert_eq!(proxy.send(&both), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::plain("x").header("Idempotency-Key", "second")), "250 2.0.0 queued as 1");
    assert_eq!(
        proxy.send(&Mail::plain("x").header("Resend-Idempotency-Key", "third")),
        "250 2.0.0 queued as 2"
    );
    for message in upstream.messages() {
        assert!(!message.text().contains("Idempotency"), "{}", message.text());
    }
}

#[test]
fn a_key_far_down_the_header_section_is_found() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).limits("memory_per_message = \"4 KB\"").start();
    let mut mail = Mail::plain("x");
    for number in 0..200 {
        mail = mail.header(&format!("X-Filler-{number}"), &"y".repeat(900));
    }
    let mail = mail.header("X-Idempotency-Key", "deep");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    proxy.log(&[("key", "deep"), ("outcome", "relayed")]);
    assert!(!upstream.only().has("X-Idempotency-Key"));
    assert!(upstream.only().has("X-Filler-199"));
}

#[test]
fn a_message_s_own_window_ends_and_it_is_sent_again() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mail = Mail::keyed("k").header("X-Idempotency-TTL", "1s");
    let asked = std::time::Instant::now();
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    let mut duplicates = 0;
    until("the window ends", || {
        let reply = proxy.send(&mail);
        let earliest = asked.elapsed();
        duplicates += usize::from(reply == "250 2.0.0 queued as 1");
        (reply == "250 2.0.0 queued as 2")
            .then(|| assert!(earliest.as_millis() >= 1000, "after {earliest:?}"))
    });
    assert!(duplicates > 0, "it was remembered for a while");
    assert_eq!(upstream.messages().len(), 2);
}

#[test]
fn a_window_has_a_cap_and_its_own_units() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("window = \"1h\"\nmax_window = \"2h\"");
    let proxy = setup.start();
    let ttls = [("s", "90s", 90), ("m", "30m", 1800), ("h", "1h", 3600), ("d", "7d", 7200), ("n", "45", 45)];
    for (key, ttl, _) in ttls {
        assert!(proxy.send(&Mail::keyed(key).header("X-Idempotency-TTL", ttl)).starts_with("250 "), "{ttl}");
    }
    proxy.send(&Mail::keyed("none"));
    proxy.stop();
    for (key, _, seconds) in ttls.into_iter().chain([("none", "", 3600)]) {
        let shown = setup.run(&["keys", "show", "--json", key]);
        let record: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        let at = |field: &str| record[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let window = at("expires").duration_since(at("first_seen")).as_secs();
        assert!((seconds..seconds + 30).contains(&window), "{key}: {record}");
    }
}

#[test]
fn without_a_key_the_message_is_relayed_each_time_or_refused() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("chain = [\"header\"]").start();
    assert_eq!(proxy.send(&Mail::plain("x")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&Mail::plain("x")), "250 2.0.0 queued as 2");
    proxy.log(&[("outcome", "unkeyed")]);
    let proxy = Setup::new(upstream.address).dedup("chain = [\"header\"]\nunkeyed = \"reject\"").start();
    let reply = proxy.send(&Mail::plain("x"));
    assert!(reply.starts_with("550 5.7.0 [UNKEYED] "), "{reply}");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 3");
    proxy.log(&[("outcome", "rejected")]);
}

#[test]
fn a_message_id_can_be_the_key() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("chain = [\"message-id\"]").start();
    let mail = |id: &str, body: &str| Mail::plain("x").header("Message-ID", id).body(body);
    assert_eq!(proxy.send(&mail("<1@a.test>", "one\r\n")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail("<1@a.test>", "one\r\n")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail("<2@a.test>", "one\r\n")), "250 2.0.0 queued as 2");
    assert!(proxy.send(&mail("<1@a.test>", "two\r\n")).contains("[CONFLICT]"));
    assert_eq!(proxy.log(&[("outcome", "relayed")])["strategy"], "message-id");
    assert_eq!(upstream.messages()[0].value("Message-ID").as_deref(), Some("<1@a.test>"));
}

#[test]
fn an_event_field_is_a_key_and_a_template_alone_is_not() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).dedup("chain = [\"event\"]").start();
    let mail = |template: &str, event: &str| {
        Mail::plain("x").header("X-Template-Id", template).header("X-Event-Id", event)
    };
    assert_eq!(proxy.send(&mail("reset", "e1")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail("reset", "e1")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail("reset", "e2")), "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&mail("other", "e1")), "250 2.0.0 queued as 3");
    for number in [4, 5] {
        let template_alone = Mail::plain("x").header("X-Template-Id", "reset");
        assert_eq!(proxy.send(&template_alone), format!("250 2.0.0 queued as {number}"));
    }
    assert!(upstream.messages()[0].has("X-Event-Id"), "only key fields are taken out");
}

#[test]
fn the_content_is_a_key_without_any_change_to_the_application() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let first =
        Mail::plain("x").header("Message-ID", "<1@a.test>").header("Date", "Sat, 21 Nov 2026 08:15:00 +0000");
    let again =
        Mail::plain("x").header("Message-ID", "<2@a.test>").header("Date", "Sat, 21 Nov 2026 08:15:07 +0000");
    assert_eq!(proxy.send(&first), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&again.clone().header("X-Worker", "7")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&again.clone().body("Hello, Bob.\r\n")), "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&again.to(&["bob@b.test"])), "250 2.0.0 queued as 3");
    assert_eq!(proxy.send(&Mail::plain("another subject")), "250 2.0.0 queued as 4");
    assert_eq!(proxy.log(&[("outcome", "relayed")])["strategy"], "content");
}

#[test]
fn two_tenants_never_share_a_claim() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).listener("tenant_header = \"X-Tenant\"").start();
    let of = |tenant: &str| Mail::keyed("k").header("X-Tenant", tenant);
    assert_eq!(proxy.send(&of("red")), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&of("blue").body("other\r\n")), "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 3");
    assert_eq!(proxy.send(&of("red")), "250 2.0.0 queued as 1");
    assert!(upstream.messages().iter().all(|message| !message.has("X-Tenant")));
    for (tenant, outcome) in
        [("red", "relayed"), ("blue", "relayed"), ("in", "relayed"), ("red", "duplicate")]
    {
        proxy.log(&[("tenant", tenant), ("outcome", outcome)]);
    }
    for bad in [of("red").header("X-Tenant", "red"), of(""), of("caf\u{e9}")] {
        let reply = proxy.send(&bad);
        assert!(reply.starts_with("554 5.5.0 [BAD-TENANT] "), "{reply}");
    }
    assert_eq!(upstream.messages().len(), 3);
}

#[test]
fn the_key_can_go_upstream_under_another_name() {
    let upstream = Upstream::start();
    let proxy =
        Setup::new(upstream.address).upstream("idempotency_header = \"Resend-Idempotency-Key\"").start();
    proxy.send(&Mail::keyed("order-7").header("Resend-Idempotency-Key", "forged"));
    let got = upstream.only();
    let key = got.value("Resend-Idempotency-Key").unwrap();
    assert!(key.len() == 64 && key.bytes().all(|octet| octet.is_ascii_hexdigit()), "{key}");
    assert_eq!(got.text().matches("Idempotency-Key").count(), 1, "{}", got.text());
}

/// The keys that the upstream got, one for each message that it has or may have.
fn keys_upstream(upstream: &Upstream) -> Vec<String> {
    upstream.messages().iter().map(|got| got.value("X-Provider-Key").unwrap_or_default()).collect()
}

/// A provider that honours keys swallows what has the key of another message.
#[test]
fn a_provider_gets_the_same_key_only_for_the_same_mail_to_the_same_recipients() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address)
        .listener("tenant_header = \"X-Tenant\"")
        .upstream("idempotency_header = \"X-Provider-Key\"")
        .dedup("on_conflict = \"relay\"\nin_doubt = \"resend\"")
        .admin();
    let proxy = setup.start();
    let mail = || Mail::keyed("k").to(&["a@b.test", "b@b.test"]);
    upstream.say(At::Rcpt("b@b.test".into()), "450 4.2.1 busy");
    proxy.send(&mail());
    proxy.send(&mail());
    proxy.send(&Mail::keyed("k").to(&["cc@b.test"]));
    proxy.send(&mail().header("X-Tenant", "another"));
    proxy.send(&mail().body("Another text.\r\n"));
    proxy.send(&Mail::keyed("other").to(&["a@b.test", "b@b.test"]));
    let claims = proxy.ask("GET /v1/claims?key=other", &[], "").json();
    for claim in claims.as_array().unwrap() {
        let id = claim["id"].as_str().unwrap();
        proxy.ask(&format!("POST /v1/claims/{id}/release"), &[], "");
    }
    proxy.send(&Mail::keyed("other").to(&["a@b.test", "b@b.test"]));
    let keys = keys_upstream(&upstream);
    assert_eq!(keys.len(), 7, "{keys:?}");
    let distinct: std::collections::HashSet<&String> = keys.iter().collect();
    assert_eq!(distinct.len(), 7, "{keys:?}");
}

#[test]
fn a_provider_gets_the_same_key_for_a_resend() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .upstream("idempotency_header = \"X-Provider-Key\"")
        .dedup("in_doubt = \"resend\"")
        .start();
    let mail = Mail::keyed("k").to(&["a@b.test", "b@b.test"]);
    upstream.once(At::Dot, Do::AcceptDrop);
    proxy.send(&mail);
    upstream.say(At::Dot, "451 4.3.0 later");
    assert_eq!(proxy.send(&mail), "451 4.3.0 later");
    assert_eq!(proxy.send(&Mail::keyed("k").to(&["b@b.test", "a@b.test"])), "250 2.0.0 queued as 2");
    let keys = keys_upstream(&upstream);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0].len(), 64);
}

/// Recipients whose doubts come of different attempts go in transactions of their own:
/// the key of both together is another, and the provider would send it to both again.
#[test]
fn a_provider_gets_the_same_key_for_each_resend() {
    for names in [&[][..], &[("Message-ID", "<1@a.test>"), ("Date", "Sat, 21 Nov 2026 08:15:00 +0000")]] {
        let upstream = Upstream::start();
        let proxy = Setup::new(upstream.address)
            .upstream("idempotency_header = \"X-Provider-Key\"")
            .dedup("in_doubt = \"resend\"")
            .start();
        let mail = |to: &[&str]| {
            names.iter().fold(Mail::keyed("k").to(to), |mail, (name, value)| mail.header(name, value))
        };
        for to in ["a@b.test", "b@b.test"] {
            upstream.once(At::Dot, Do::AcceptDrop);
            proxy.send(&mail(&[to]));
        }
        let first = keys_upstream(&upstream);
        let reply = proxy.send(&mail(&["a@b.test", "b@b.test", "new@b.test"]));
        assert!(reply.starts_with("250 "), "{reply}");
        let again: Vec<_> = upstream
            .messages()
            .iter()
            .skip(2)
            .map(|got| (got.to(), got.value("X-Provider-Key").unwrap()))
            .collect();
        for (to, key) in ["a@b.test", "b@b.test"].iter().zip(&first) {
            assert!(
                again.contains(&(vec![to.to_string()], key.clone())),
                "{to} is sent to again: {first:?} {again:?}"
            );
        }
        assert_eq!(again.len(), 3);
    }
}

/// The provider may have the first copies. It knows a resend of one by its key
/// alone, so those whose first attempts had different keys go apart.
#[test]
fn a_provider_gets_the_same_key_for_a_resend_beside_other_recipients() {
    let (a, b) = ("a@b.test", "b@b.test");
    let named = |mail: Mail| {
        mail.header("Message-ID", "<1@a.test>").header("Date", "Sat, 21 Nov 2026 08:15:00 +0000")
    };
    let mails = [Mail::keyed("k"), named(Mail::keyed("k"))];
    // Two attempts of their own, and one whose second recipient was deferred.
    let attempts: [[&[&str]; 2]; 2] = [[&[a], &[b]], [&[a, b], &[]]];
    for (mail, firsts) in mails.iter().flat_map(|mail| attempts.map(|firsts| (mail, firsts))) {
        let upstream = Upstream::start();
        let proxy = Setup::new(upstream.address)
            .upstream("idempotency_header = \"X-Provider-Key\"")
            .dedup("in_doubt = \"resend\"")
            .start();
        upstream
            .say(At::Rcpt(b.into()), if firsts[1].is_empty() { "450 4.2.1 busy" } else { "250 2.1.5 ok" });
        for to in firsts.into_iter().filter(|to| !to.is_empty()) {
            upstream.once(At::Dot, Do::AcceptDrop);
            proxy.send(&mail.clone().to(to));
        }
        let first = upstream.messages();
        proxy.send(&mail.clone().to(&[a, b]));
        let all = upstream.messages();
        for got in first {
            let key = got.value("X-Provider-Key");
            let again =
                all.iter().filter(|other| other.to() == got.to() && other.value("X-Provider-Key") == key);
            assert_eq!(
                again.count(),
                2,
                "{:?} gets a copy that the provider does not know: {all:?}",
                got.to()
            );
        }
    }
}

#[test]
fn without_a_claim_the_clients_own_key_stays() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .upstream("idempotency_header = \"Idempotency-Key\"")
        .dedup("mode = \"off\"")
        .start();
    proxy.send(&Mail::plain("x").header("Idempotency-Key", "own"));
    assert_eq!(upstream.only().value("Idempotency-Key").as_deref(), Some("own"));
}

#[test]
fn fields_under_a_signature_stay() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let signature = "v=1; a=rsa-sha256; d=a.test;\r\n h=From:X-Idempotency-Key\r\n :Subject; b=abc";
    let mail = Mail::keyed("k").header("X-Idempotency-TTL", "1h").header("DKIM-Signature", signature);
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    let got = upstream.only();
    assert_eq!(got.value("X-Idempotency-Key").as_deref(), Some("k"));
    assert!(!got.has("X-Idempotency-TTL"));
    assert!(got.text().contains(&format!("DKIM-Signature: {signature}\r\n")));
}

#[test]
fn switched_off_it_only_relays() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).dedup("mode = \"off\"").listener("tenant_header = \"X-Tenant\"");
    let proxy = setup.start();
    let mail = Mail::keyed("k").header("X-Tenant", "red").header("X-Idempotency-TTL", "soon");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 1");
    assert_eq!(proxy.send(&mail), "250 2.0.0 queued as 2");
    assert_eq!(proxy.send(&Mail::keyed("")), "250 2.0.0 queued as 3", "no key is derived");
    for message in upstream.messages() {
        let text = message.text();
        assert!(!text.contains("Idempotency") && !text.contains("X-Tenant"), "{text}");
        assert!(message.has("Received"));
    }
    proxy.log(&[("outcome", "relayed")]);
    proxy.stop();
    let listed = setup.run(&["keys", "list", "--json"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "", "no claim is made");
}
