//! Values from the environment.

use super::*;

#[test]
fn the_environment_overrides_every_kind_of_value() {
    let config = parse_env(
        "[[listener]]\nname = \"a\"\n",
        &[
            ("MAILONCE_UPSTREAM__ADDRESS", "one:25, two:25"),
            ("MAILONCE_LISTENER__0__ADDRESS", "127.0.0.1:26"),
            ("MAILONCE_LISTENER__1__ADDRESS", "127.0.0.1:27"),
            ("MAILONCE_LISTENER__1__NAME", "b"),
            ("MAILONCE_Dedup__Window", "1h"),
            ("MAILONCE_DEDUP__HEADERS", "[\"X-A\", \"X-B\"]"),
            ("MAILONCE_DEDUP__CHAIN", "header,message-id"),
            ("MAILONCE_UPSTREAM__RECEIVED_HEADER", "false"),
            ("MAILONCE_UPSTREAM__TIMEOUTS__CONNECT", "500ms"),
            ("MAILONCE_LIMITS__MAX_ERRORS", "3"),
            ("MAILONCE_LIMITS__MAX_MESSAGE_SIZE", "1 MiB"),
            ("MAILONCE_HOSTNAME", "relay.example.com"),
            ("MAILONCE_CRASH_AT", "committed"),
            ("MAILONCE_SERVICE_HOST", "10.0.0.1"),
            ("MAILONCE_PORT_2525_TCP_ADDR", "10.0.0.1"),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(config.upstream.addresses, ["one:25", "two:25"]);
    let listeners: Vec<_> = config.listeners.iter().map(|l| format!("{} {}", l.name, l.address)).collect();
    assert_eq!(listeners, ["a 127.0.0.1:26", "b 127.0.0.1:27"]);
    assert_eq!(config.dedup.window, Duration::from_secs(3600));
    assert_eq!(config.dedup.headers, ["X-A", "X-B"]);
    assert_eq!(config.dedup.chain, [Strategy::Header, Strategy::MessageId]);
    assert!(!config.upstream.received_header);
    assert_eq!(config.upstream.timeouts.connect, Duration::from_millis(500));
    assert_eq!((config.limits.max_errors, config.limits.max_message_size), (3, 1 << 20));
    assert_eq!(config.hostname, "relay.example.com");
}

#[test]
fn a_fault_in_the_environment_names_the_variable() {
    let cases = [
        (
            "MAILONCE_DEDUP__WINDOW",
            "7 parsecs",
            "dedup.window: \"7 parsecs\" is not a duration; write 90s, 30m, 24h or 7d",
        ),
        ("MAILONCE_DEDUP__WINDOWS", "1h", "dedup.windows: there is no such key; did you mean dedup.window?"),
        ("MAILONCE_UPSTREAM__ADDRESS__PORT", "25", "upstream.address.port: has no keys inside"),
        (
            "MAILONCE_LISTENER__1__NAME",
            "b",
            "listener.name: there are 0 before this one; number them from 0 without a gap",
        ),
        (
            "MAILONCE_LIMITS__MAX_ERRORS",
            "many",
            "limits.max_errors: \"many\" is not a usable number; write a whole number from 1 up",
        ),
    ];
    for (name, value, what) in cases {
        assert_eq!(env_fault(name, value), format!("{name}: {what}"));
    }
    assert!(
        env_fault("MAILONCE_COLOUR__DARK", "red")
            .starts_with("MAILONCE_COLOUR__DARK: colour: there is no such key; known here: hostname, drain")
    );
    assert!(env_fault("MAILONCE_DEDUP__HEADERS", "[\"X\"").contains("is not a list: not valid TOML"));
}

#[test]
fn the_values_at_the_top_are_known_to_the_environment() {
    let reader = Reader::new("m.toml");
    load::parse_with(UPSTREAM, &reader, std::iter::empty()).unwrap();
    let example = include_str!("../../../config/mailonce.toml");
    let top = example.split("\n[").next().unwrap();
    let has_value = |key: &&String| {
        top.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")))
    };
    let known = reader.known();
    let values: Vec<_> = known.iter().filter(|key| !key.contains('.')).filter(has_value).collect();
    assert_eq!(values, super::tree::TOP_VALUES);
}
