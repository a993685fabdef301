//! The text of every fault is fixed here: it is what an operator reads.

use std::path::Path;

mod environment;
mod rules;
mod upstream;

use proptest::{prop_assert_eq, proptest};

use super::section::Reader;
use super::values::*;
use super::*;

const UPSTREAM: &str = "[upstream]\naddress = \"smtp.example.com:25\"\n";

fn parse_env(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigFault> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(text, "m.toml", env)
}

fn parse(text: &str) -> Result<Config, ConfigFault> {
    parse_env(text, &[])
}

/// The faults of a text that has an upstream behind it.
fn faults(text: &str) -> String {
    parse(&format!("{text}\n{UPSTREAM}")).unwrap_err().to_string()
}

fn env_fault(name: &str, value: &str) -> String {
    parse_env(UPSTREAM, &[(name, value)]).unwrap_err().to_string()
}

#[test]
fn the_example_is_valid_and_holds_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mailonce.toml");
    let example = Config::load(&example, std::iter::empty()).unwrap();
    let bare = parse("[upstream]\naddress = \"127.0.0.1:1025\"").unwrap();
    assert_eq!(example, bare);
}

#[test]
fn the_example_shows_every_key_that_this_version_takes() {
    let example = include_str!("../../config/mailonce.toml");
    let reader = Reader::new("m.toml");
    load::parse_with(UPSTREAM, &reader, std::iter::empty()).unwrap();
    let later = ["store.url"];
    let known = reader.known();
    assert!(known.len() > 60, "{known:?}");
    for key in known.iter().filter(|key| !later.contains(&key.as_str())) {
        let last = key.rsplit('.').next().unwrap();
        let shown = example.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{last} = "))
                || line == format!("[{key}]")
                || line == format!("[[{key}]]")
        });
        assert!(shown, "{key} is not in config/mailonce.toml");
    }
}

#[test]
fn defaults_are_those_of_the_interface() {
    let config = parse(UPSTREAM).unwrap();
    assert_eq!(config.listeners[0].name, "submission");
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:2525");
    assert_eq!(config.store, Store::Sled { path: "data".into(), reserve: 16 * 1024 * 1024 });
    assert_eq!(config.dedup.headers[0], "X-Idempotency-Key");
    assert_eq!(config.dedup.max_window, Duration::from_secs(400 * 86_400));
    assert_eq!(config.dedup.unheard_window, Duration::from_secs(86_400));
    assert_eq!(config.limits.in_memory_total, 512 << 20);
    assert_eq!(config.limits.max_recipients, 1000);
    assert_eq!(config.drain, Duration::from_secs(30));
}

#[test]
fn a_fault_is_one_line_whatever_a_key_holds() {
    let fault = parse("\"a\\nb\\u001b\" = 1\n[upstream]\naddress = \"a.example:25\"").unwrap_err();
    assert_eq!(fault.lines().len(), 1);
    assert!(
        fault.lines()[0].starts_with("m.toml:1: a\\nb\\u{1b}: there is no such key; known here: "),
        "{fault}"
    );
    let fault = env_fault("MAILONCE_A\n__B", "1");
    assert!(fault.starts_with("MAILONCE_A\\n__B: a\\n: there is no such key"), "{fault}");
}

#[test]
fn a_wrong_value_names_file_line_key_and_what_to_write() {
    let cases = [
        (
            "[dedup]\nwindow = \"7 parsecs\"",
            "m.toml:2: dedup.window: \"7 parsecs\" is not a duration; write 90s, 30m, 24h or 7d",
        ),
        (
            "[dedup]\nwindow = true",
            "m.toml:2: dedup.window: true is not a duration; write 90s, 30m, 24h or 7d",
        ),
        ("[dedup]\nwindow = 1.5", "m.toml:2: dedup.window: 1.5 is not a duration; write 90s, 30m, 24h or 7d"),
        (
            "[dedup]\nwindow = 0",
            "m.toml:2: dedup.window: 0 is not long enough; write a duration above zero, such as 90s or 7d",
        ),
        (
            "[dedup]\non_duplicate = \"acept\"",
            "m.toml:2: dedup.on_duplicate: \"acept\" is not offered here; write accept or reject",
        ),
        (
            "[dedup]\nchain = [\n  \"header\",\n  \"magic\",\n]",
            "m.toml:4: dedup.chain: \"magic\" is not offered here; write header or event or content or message-id",
        ),
        (
            "[dedup]\nchain = []",
            "m.toml:2: dedup.chain: is empty; to deduplicate nothing, write mode = \"off\"",
        ),
        (
            "[dedup]\nchain = [\"content\", \"content\"]",
            "m.toml:2: dedup.chain: item 2 repeats an earlier one; write it once",
        ),
        (
            "[dedup]\nheaders = [\"X Key\"]",
            "m.toml:2: dedup.headers: \"X Key\" is not the name of a header field; write one such as X-Idempotency-Key",
        ),
        (
            "[dedup]\nheaders = [\"Message-ID\"]",
            "m.toml:2: dedup.headers: \"Message-ID\" is not a field of its own; write the name of one that the message \
             can be relayed without, such as X-Idempotency-Key",
        ),
        (
            "[dedup]\nheaders = []",
            "m.toml:2: dedup.headers: is empty, but dedup.chain asks for header; name a header field",
        ),
        (
            "[limits]\nmax_message_size = \"50 lots\"",
            "m.toml:2: limits.max_message_size: \"50 lots\" is not a size; write 50 MiB, 10 KB or a number of octets",
        ),
        (
            "[limits]\nmax_recipients = 0",
            "m.toml:2: limits.max_recipients: 0 is not a usable number; write a whole number from 1 up",
        ),
        (
            "[limits]\nmax_errors = -1",
            "m.toml:2: limits.max_errors: -1 is not a usable number; write a whole number from 1 up",
        ),
        (
            "[[listener]]\naddress = \"localhost\"",
            "m.toml:2: listener.address: \"localhost\" is not an address with a port; write 127.0.0.1:2525 or [::1]:2525",
        ),
        (
            "[[listener]]\nallow_from = [\"10.0.0.0/33\"]",
            "m.toml:2: listener.allow_from: \"10.0.0.0/33\" is not a network; write 192.0.2.0/24, 2001:db8::/32 or a \
             single address",
        ),
        (
            "[[listener]]\nallow_from = []",
            "m.toml:2: listener.allow_from: is empty; without AUTH nobody could relay",
        ),
        ("listener = 5", "m.toml:1: listener: 5 is not a list; write [[listener]]"),
        ("dedup = 5", "m.toml:1: dedup: 5 is not a table; write [dedup]"),
        (
            "hostname = \"my host\"",
            "m.toml:1: hostname: \"my host\" is not a domain name; write one such as relay.example.com",
        ),
        ("[store]\npath = \"\"", "m.toml:2: store.path: \"\" is not a path; write one such as \"data\""),
        (
            "[store]\nengine = \"redis\"",
            "m.toml:2: store.engine: \"redis\" is not offered here; write sled or memory",
        ),
        (
            "[log]\nlevel = 3",
            "m.toml:2: log.level: 3 is not offered here; write error or warn or info or debug or trace",
        ),
        (
            "[dedup]\nmax_window = \"36501d\"",
            "m.toml:2: dedup.max_window: \"36501d\" is not a usable duration; write at most 36500d",
        ),
        (
            "hostname = \"10.0.0.1\"",
            "m.toml:1: hostname: \"10.0.0.1\" is not a domain name; write one such as relay.example.com",
        ),
    ];
    for (text, fault) in cases {
        assert_eq!(faults(text), fault);
    }
}

#[test]
fn upstream_addresses_need_host_and_port() {
    for bad in [
        "smtp.example.com",
        "smtp.example.com:0",
        "::1:25",
        "[::1]",
        "host:70000",
        ":25",
        "a b:25",
        "10.0.0:25",
        "1.2.3.400:25",
    ] {
        let fault = parse(&format!("[upstream]\naddress = {bad:?}")).unwrap_err().to_string();
        let want = format!(
            "m.toml:2: upstream.address: {bad:?} is not a host and a port; write smtp.example.com:587, 192.0.2.1:25 or \
             [2001:db8::1]:25"
        );
        assert_eq!(fault, want);
    }
    let both = parse("[upstream]\naddress = [\"[::1]:25\", \"mail_sink:1025\"]").unwrap();
    assert_eq!(both.upstream.addresses, ["[::1]:25", "mail_sink:1025"]);
    let none = parse("[upstream]\naddress = []").unwrap_err().to_string();
    assert_eq!(none, "m.toml:2: upstream.address: is empty; name at least one host:port");
}

#[test]
fn what_must_be_written_and_is_not_is_named_with_its_table() {
    let what = "upstream.address: is missing; write where mail goes, such as \"smtp.example.com:587\"";
    assert_eq!(parse("").unwrap_err().to_string(), format!("m.toml:1: {what}"));
    assert_eq!(parse("\n\n[upstream]\n").unwrap_err().to_string(), format!("m.toml:3: {what}"));
}

#[test]
fn unknown_keys_name_the_nearest_or_all_known() {
    assert_eq!(
        faults("[dedup]\non-duplicates = 1"),
        "m.toml:2: dedup.on-duplicates: there is no such key; did you mean dedup.on_duplicate?"
    );
    assert_eq!(
        faults("[store]\nengine = \"sled\"\n\nzzz = 1"),
        "m.toml:4: store.zzz: there is no such key; known here: path, url, reserve, engine"
    );
    assert_eq!(
        faults("[[listener]]\nadress = \"x\""),
        "m.toml:2: listener.adress: there is no such key; did you mean listener.address?"
    );
    assert_eq!(faults("[limit]\nx = 1"), "m.toml:1: limit: there is no such key; did you mean limits?");
}

#[test]
fn broken_toml_names_its_line() {
    let fault = parse("[dedup]\nwindow = \n").unwrap_err().to_string();
    assert!(fault.starts_with("m.toml:2: not valid TOML: "), "{fault}");
    let fault = parse("[log]\nlevel = \"info\"\nlevel = \"warn\"\n").unwrap_err().to_string();
    assert_eq!(fault, "m.toml:3: not valid TOML: duplicate key level");
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let fault = faults("[log]\nlevel = 1\n[dedup]\nwindow = \"x\"");
    let lines: Vec<_> =
        fault.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["m.toml:2 log.level", "m.toml:4 dedup.window"]);
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let cases = [
        (
            "[dedup]\nunheard_window = \"500d\"",
            "m.toml:2: dedup.unheard_window: 500d is longer than dedup.max_window, 400d",
        ),
        ("[dedup]\nwindow = \"500d\"", "m.toml:2: dedup.window: 500d is longer than dedup.max_window, 400d"),
        ("[dedup]\nmax_window = \"1d\"", "m.toml:2: dedup.max_window: 1d is shorter than dedup.window, 7d"),
        (
            "[limits]\nmemory_per_message = \"1 GiB\"",
            "m.toml:2: limits.memory_per_message: 1073741824 octets are more than limits.in_memory_total, 536870912",
        ),
        (
            "[limits]\nin_memory_total = 1000",
            "m.toml:2: limits.in_memory_total: 1000 octets are fewer than limits.memory_per_message, 1048576",
        ),
        (
            "[[listener]]\n[[listener]]\naddress = \"127.0.0.1:26\"",
            "m.toml:2: listener.name: \"submission\" names an earlier listener too; give each a name of its own",
        ),
        (
            "[[listener]]\n[[listener]]\nname = \"b\"",
            "m.toml:2: listener.address: 127.0.0.1:2525 is taken by an earlier listener; give each an address of its own",
        ),
    ];
    for (text, fault) in cases {
        assert_eq!(faults(text), fault);
    }
}

#[test]
fn an_open_relay_does_not_start() {
    for world in
        ["\"0.0.0.0/0\"", "\"::/0\"", "\"0.0.0.0/1\", \"128.0.0.0/1\"", "\"::ffff:0:0/96\"", "\"2000::/3\""]
    {
        let fault = faults(&format!("[[listener]]\naddress = \"0.0.0.0:25\"\nallow_from = [{world}]"));
        assert_eq!(
            fault,
            "m.toml:3: listener.allow_from: an open relay: 0.0.0.0:25 is not loopback, there is no AUTH, and these \
             networks let the whole world in; list only those that may relay"
        );
        // On loopback nobody from outside gets in.
        parse(&format!("[[listener]]\nallow_from = [{world}]\n{UPSTREAM}")).unwrap();
    }
    // With the world among those who need no AUTH, it is as good as off.
    for (auth, world) in [("local", "\"0.0.0.0/0\""), ("passthrough", "\"0.0.0.0/1\", \"128.0.0.0/1\"")] {
        let listener = format!("[[listener]]\nauth = \"{auth}\"\nallow_from = [{world}]\n");
        assert_eq!(
            faults(&format!("{listener}address = \"0.0.0.0:25\"")),
            "m.toml:3: listener.allow_from: an open relay: 0.0.0.0:25 is not loopback, and these networks let the whole \
             world relay without AUTH; write [] to let in nobody but who is authenticated"
        );
        parse(&format!("{listener}{UPSTREAM}")).unwrap();
    }
    parse(&format!(
        "[[listener]]\naddress = \"0.0.0.0:25\"\nallow_from = [\"10.0.0.0/8\", \"192.0.2.7\"]\n{UPSTREAM}"
    ))
    .unwrap();
}

#[test]
fn the_admin_address_is_taken_by_default_and_insisted_on_when_written() {
    let admin = |text: &str| parse(&format!("{UPSTREAM}{text}")).unwrap().admin;
    let address = SocketAddr::from(([127, 0, 0, 1], 9925));
    let token_file = PathBuf::from("data/admin.token");
    let default = Admin { address, address_from: AddressFrom::Default, token_file };
    assert_eq!(admin(""), Some(default.clone()));
    assert_eq!(admin("[admin]"), Some(default.clone()));
    let written = Admin { address_from: AddressFrom::Operator, ..default };
    assert_eq!(admin("[admin]\naddress = \"127.0.0.1:9925\""), Some(written.clone()));
    let by_variable = parse_env(UPSTREAM, &[("MAILONCE_ADMIN__ADDRESS", "127.0.0.1:9925")]).unwrap();
    assert_eq!(by_variable.admin, Some(written));
    assert_eq!(admin("[admin]\naddress = \"\""), None);
    assert_eq!(
        faults("[admin]\naddress = \"localhost\""),
        "m.toml:2: admin.address: \"localhost\" is not an address with a port; write 127.0.0.1:9925 or [::1]:9925, or \
         \"\" for none"
    );
    assert_eq!(
        faults("[admin]\naddress = \"127.0.0.1:2525\""),
        "m.toml:2: admin.address: 127.0.0.1:2525 is taken by the listener \"submission\"; give each an address of its own"
    );
    assert_eq!(
        admin("[[listener]]\naddress = \"127.0.0.1:9925\"").unwrap().address_from,
        AddressFrom::Default
    );
}

#[test]
fn tls_wants_a_key_for_each_certificate() {
    let listener =
        |lines: &str| parse(&format!("[[listener]]\n{lines}\n{UPSTREAM}")).unwrap().listeners.remove(0);
    let files =
        "certificate = [\"a.pem\", \"b.pem\"]\nprivate_key = [\"a.key\", \"b.key\"]\nclient_ca = \"ca.pem\"";
    let tls = listener(&format!("tls = \"starttls\"\n{files}\nrequire_tls = true")).tls.unwrap();
    assert_eq!(tls.start, TlsStart::Required);
    assert_eq!(tls.key_pairs[1].certificate.path, Path::new("b.pem"));
    assert_eq!(tls.key_pairs[1].private_key.named_by, "m.toml:4: listener.private_key");
    assert_eq!(tls.client_ca.unwrap().named_by, "m.toml:5: listener.client_ca");
    let by_default = listener(files).tls.unwrap();
    assert_eq!(by_default.start, TlsStart::Offered, "whoever names certificates wants TLS");
    assert_eq!(listener(&format!("tls = \"off\"\n{files}")).tls, None);
    assert_eq!(listener("certificate = \"\"\nprivate_key = \"\"\nclient_ca = \"\"").tls, None);
    let one = "certificate = \"a.pem\"\nprivate_key = \"a.key\"\nclient_ca = \"\"";
    let tls = listener(&format!("tls = \"implicit\"\n{one}")).tls.unwrap();
    assert_eq!((tls.start, tls.client_ca), (TlsStart::Implicit, None));
    assert_eq!(listener(&format!("tls = \"starttls\"\n{one}")).tls.unwrap().start, TlsStart::Offered);
    // Nobody by address, but whoever has a certificate.
    assert_eq!(listener(&format!("allow_from = []\ntls = \"starttls\"\n{files}")).allow_from, []);

    let fault = |lines: &str| faults(&format!("[[listener]]\n{lines}"));
    assert_eq!(
        fault("require_tls = true"),
        "m.toml:2: listener.require_tls: there is no TLS to require: name a certificate and its private_key, and do not \
         write tls = \"off\""
    );
    assert!(fault("client_ca = \"ca.pem\"").contains("listener.certificate: TLS needs it"));
    assert_eq!(
        fault("tls = \"implicit\""),
        "m.toml:1: listener.certificate: TLS needs it; name a PEM file, such as one that `mailonce dev-cert` makes\n\
         m.toml:1: listener.private_key: TLS needs it; name a PEM file, such as one that `mailonce dev-cert` makes"
    );
    assert_eq!(
        fault("tls = \"implicit\"\ncertificate = [\"a\", \"b\"]\nprivate_key = \"k\""),
        "m.toml:4: listener.private_key: 1 for 2 of listener.certificate; name one for each, in its order"
    );
    assert_eq!(
        fault("tls = \"maybe\""),
        "m.toml:2: listener.tls: \"maybe\" is not offered here; write off or starttls or implicit"
    );
    // A certificate lets its owner in; networks still must not be the world.
    let world = "address = \"0.0.0.0:25\"\nallow_from = [\"0.0.0.0/0\"]\ntls = \"starttls\"\n";
    assert!(fault(&format!("{world}{files}")).contains("listener.allow_from: an open relay"));
}

#[test]
fn whose_proxy_header_is_believed_must_be_said() {
    let on = |lines: &str| format!("[[listener]]\nproxy_protocol = true\n{lines}");
    let hint = "list the balancers whose PROXY header is believed, such as [\"192.0.2.7\"]";
    assert_eq!(faults(&on("")), format!("m.toml:1: listener.proxy_from: is missing; {hint}"));
    assert_eq!(faults(&on("proxy_from = []")), format!("m.toml:3: listener.proxy_from: is empty; {hint}"));
    let network = faults(&on("proxy_from = [\"balancer\"]"));
    assert!(network.starts_with("m.toml:3: listener.proxy_from: \"balancer\" is not a network"), "{network}");
    let from = |text: &str| parse(&format!("{text}\n{UPSTREAM}")).unwrap().listeners[0].proxy_from.clone();
    let network = |text: &str| values::parse_network(text).unwrap();
    let mapped = "proxy_from = [\"192.0.2.7\", \"::ffff:10.0.0.0/104\"]";
    assert_eq!(from(&on(mapped)), [network("192.0.2.7"), network("10.0.0.0/8")]);
    assert_eq!(from("[[listener]]\nproxy_protocol = false\nproxy_from = [\"10.0.0.0/8\"]"), []);
    // Whoever could say what it likes could let itself in.
    let world = "proxy_from = [\"0.0.0.0/0\"]";
    let open = faults(&on(&format!("address = \"0.0.0.0:25\"\n{world}")));
    assert!(open.starts_with("m.toml:4: listener.proxy_from: an open relay: 0.0.0.0:25"), "{open}");
    assert_eq!(from(&on(world)), [network("0.0.0.0/0")]);
}

#[test]
fn passwords_of_clients_do_not_travel_in_clear() {
    let through = |upstream: &str| {
        let text = format!("[upstream]\n{upstream}\n[[listener]]\nauth = \"passthrough\"");
        Config::parse(&text, "m.toml", std::iter::empty()).map(|_| ()).map_err(|fault| fault.to_string())
    };
    for open in [
        "address = [\"127.0.0.1:25\", \"b.test:25\"]\ntls = \"off\"",
        "address = \"b.test:25\"\ntls = \"opportunistic\"",
    ] {
        assert_eq!(
            through(open).unwrap_err(),
            "m.toml:5: listener.auth: the passwords of clients could be read on their way to b.test:25; write \
             upstream.tls = \"starttls\" or \"implicit\""
        );
    }
    for safe in ["address = \"b.test:25\"", "address = [\"127.0.0.1:25\", \"[::1]:25\", \"LOCALHOST:25\"]"] {
        assert_eq!(through(safe), Ok(()));
    }
}

#[test]
fn auth_is_off_or_ours_or_the_upstreams() {
    let listener =
        |lines: &str| parse(&format!("[[listener]]\n{lines}\n{UPSTREAM}")).unwrap().listeners.remove(0);
    assert_eq!(listener("users = \"u.toml\"").auth, Auth::Off, "it is off unless it is turned on");
    let through = |lines: &str| listener(&format!("auth = \"passthrough\"\n{lines}")).auth;
    assert_eq!(through(""), Auth::Passthrough { tenant_from: TenantFrom::Account });
    assert_eq!(through("tenant_from = \"account\""), Auth::Passthrough { tenant_from: TenantFrom::Account });
    assert_eq!(through("tenant_from = \"user\""), Auth::Passthrough { tenant_from: TenantFrom::User });
    assert_eq!(listener("tenant_from = \"user\"").auth, Auth::Off, "it means nothing then");
    let users = |path: &str, named_by: &str| Auth::Local {
        users: NamedFile { path: path.into(), named_by: format!("m.toml:{named_by}: listener.users") },
    };
    assert_eq!(listener("auth = \"local\"").auth, users("config/users.toml", "1"));
    assert_eq!(listener("auth = \"local\"\nusers = \"u.toml\"").auth, users("u.toml", "3"));
    for auth in ["local", "passthrough"] {
        let nobody = listener(&format!("auth = \"{auth}\"\nallow_from = []"));
        assert_eq!(nobody.allow_from, [], "nobody without AUTH");
        let here = listener(&format!("auth = \"{auth}\"\naddress = \"0.0.0.0:25\""));
        assert_eq!(here.allow_from, listener("").allow_from, "the default does not change");
    }
    assert_eq!(
        faults("[[listener]]\nauth = \"on\""),
        "m.toml:2: listener.auth: \"on\" is not offered here; write off or local or passthrough"
    );
    assert_eq!(
        faults("[[listener]]\nauth = \"local\"\nusers = \"\""),
        "m.toml:3: listener.users: \"\" is not a path; write one such as \"data\""
    );
}

#[test]
fn keys_of_later_versions_are_taken_only_while_they_are_off() {
    let off = "[[listener]]\ntls = \"off\"\nrequire_tls = false\nauth = \"off\"\nproxy_protocol = false\n\
               proxy_from = []\ncertificate = \"certs/server.pem\"\nprivate_key = \"k\"\nclient_ca = \"\"\nusers = \"u\"\n\
               [upstream]\naddress = \"a:1\"\ntls = \"off\"\nca_file = \"\"\nusername = \"\"\npassword = \"\"\n\
               password_file = \"\"\n[store]\nurl = \"\"\n\
               [admin]\naddress = \"\"\ntoken_file = \"data/admin.token\"\n";
    assert_eq!(parse(off).unwrap().admin, None);
    let cases = [("[store]\nurl = \"postgres://\"", "m.toml:2: store.url", "\"\"")];
    for (text, place, instead) in cases {
        let want = format!("{place}: this version does not offer it yet; leave it out or write {instead}");
        assert_eq!(faults(text), want);
    }
    assert_eq!(
        faults("[store]\nengine = \"postgres\""),
        "m.toml:2: store.engine: this version does not offer postgres yet; write sled or memory"
    );
}

#[test]
fn a_missing_file_says_how_to_name_one() {
    let fault = Config::load(Path::new("/nowhere/m.toml"), std::iter::empty()).unwrap_err().to_string();
    assert!(fault.starts_with("/nowhere/m.toml: can't be read: No such file"), "{fault}");
    assert!(fault.ends_with("name the file with --config FILE"));
}

#[test]
fn durations_and_lifetimes_have_few_forms() {
    assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(parse_duration("0"), Some(Duration::ZERO));
    for bad in
        ["", "s", "-1s", "+1s", "1.5h", "1 h", " 1h", "1h ", "1w", "1H", "18446744073709551615d", "٣s", "1hé"]
    {
        assert_eq!(parse_duration(bad), None, "{bad}");
    }
    assert_eq!(parse_ttl("90"), Some(Duration::from_secs(90)));
    assert_eq!(parse_ttl("7d"), Some(Duration::from_secs(7 * 86_400)));
    for bad in ["0", "0d", "500ms", "", "1e3"] {
        assert_eq!(parse_ttl(bad), None, "{bad}");
    }
    assert_eq!(parse_size("10 KB"), Some(10_000));
    for bad in ["", "MiB", "-1", "1.5 MiB", "1 TiB", "18446744073709551615 GiB"] {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn a_formatted_duration_reads_back(millis in 0u64..u64::MAX / 1000) {
        let span = Duration::from_millis(millis);
        prop_assert_eq!(parse_duration(&format_duration(span)), Some(span));
    }

    #[test]
    fn a_size_is_its_number_times_its_unit(number in 0u64..1 << 30, unit in 0usize..7, blank in "[ ]{0,2}") {
        let (name, factor) = [("", 1), ("B", 1), ("KB", 1000), ("MB", 1_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)][unit];
        prop_assert_eq!(parse_size(&format!("{number}{blank}{name}")), Some(number * factor));
    }

    #[test]
    fn no_text_makes_the_readers_fall_over(text in "\\PC*") {
        let _ = (parse_duration(&text), parse_ttl(&text), parse_size(&text), parse_network(&text));
        let _ = parse_env(&text, &[("MAILONCE_DEDUP__HEADERS", &text), ("MAILONCE_LISTENER__0__NAME", &text)]);
    }
}
