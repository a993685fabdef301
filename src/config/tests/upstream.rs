//! TLS and credentials of `[upstream]`.

use super::*;

/// The faults of an upstream with these lines, which start at line 3.
fn fault_of(lines: &str) -> String {
    parse(&format!("{UPSTREAM}{lines}")).unwrap_err().to_string()
}

fn upstream(lines: &str) -> Upstream {
    parse(&format!("{UPSTREAM}{lines}")).unwrap().upstream
}

/// How TLS is to be had at these addresses.
fn manner(addresses: &str, lines: &str) -> Option<TlsManner> {
    let text = format!("[upstream]\naddress = {addresses}\n{lines}");
    parse(&text).unwrap().upstream.tls.map(|tls| tls.manner)
}

#[test]
fn mail_leaves_this_machine_under_verified_tls_unless_something_else_is_written() {
    for here in ["127.0.0.1:25", "127.9.9.9:25", "[::1]:25", "localhost:25", "LocalHost:25"] {
        assert_eq!(manner(&format!("{here:?}"), ""), None, "{here}");
    }
    let there = ["smtp.example.com:587", "192.0.2.1:25", "[2001:db8::1]:25", "localhost.example:25"];
    for there in there {
        assert_eq!(manner(&format!("{there:?}"), ""), Some(TlsManner::StartTls), "{there}");
        // One such address is enough.
        let both = format!("[\"127.0.0.1:25\", {there:?}]");
        assert_eq!(manner(&both, ""), Some(TlsManner::StartTls), "{there}");
        assert_eq!(manner(&both, "tls = \"off\""), None, "{there}");
    }
    assert_eq!(manner("\"127.0.0.1:25\"", "tls = \"implicit\""), Some(TlsManner::Implicit));
    let off = parse_env(UPSTREAM, &[("MAILONCE_UPSTREAM__TLS", "off")]).unwrap();
    assert_eq!(off.upstream.tls, None);
}

#[test]
fn what_is_written_of_tls_wins() {
    // What it would need may stay written down.
    assert_eq!(upstream("tls = \"off\"\nca_file = \"/nowhere\"\nclient_key = \"/nowhere\"").tls, None);
    assert_eq!(
        fault_of("tls = \"yes\""),
        "m.toml:3: upstream.tls: \"yes\" is not offered here; write off or opportunistic or starttls or implicit"
    );
    let cases = [
        ("starttls", TlsManner::StartTls),
        ("implicit", TlsManner::Implicit),
        ("opportunistic", TlsManner::Opportunistic),
    ];
    for (word, manner) in cases {
        assert_eq!(upstream(&format!("tls = \"{word}\"")).tls.unwrap().manner, manner);
    }
}

/// A file as it is named in this line.
fn named(path: &str, line: u32, key: &str) -> NamedFile {
    NamedFile { path: path.into(), named_by: format!("m.toml:{line}: upstream.{key}") }
}

#[test]
fn files_are_named_and_not_read() {
    let lines = "tls = \"implicit\"\nca_file = \"/nowhere/ca\"\nclient_certificate = \"/nowhere/c\"\n\
                 client_key = \"/nowhere/k\"\nusername = \"me\"\npassword_file = \"/nowhere/p\"";
    let Upstream { tls, credentials, .. } = upstream(lines);
    let tls = tls.unwrap();
    assert_eq!(tls.named_by, "m.toml:3: upstream.tls");
    assert_eq!(tls.ca_file, Some(named("/nowhere/ca", 4, "ca_file")));
    let pair = KeyPair {
        certificate: named("/nowhere/c", 5, "client_certificate"),
        private_key: named("/nowhere/k", 6, "client_key"),
    };
    assert_eq!(tls.key_pair, Some(pair));
    let password = Password::File(named("/nowhere/p", 8, "password_file"));
    assert_eq!(credentials, Some(Credentials { username: "me".to_owned(), password }));
}

#[test]
fn files_that_do_not_go_together_are_told() {
    let starttls = |lines: &str| fault_of(&format!("tls = \"starttls\"\n{lines}\n"));
    assert_eq!(
        starttls("client_key = \"k\""),
        "m.toml:4: upstream.client_key: its client_certificate is missing"
    );
    assert_eq!(
        starttls("client_certificate = \"c\""),
        "m.toml:4: upstream.client_certificate: its client_key is missing"
    );
    assert_eq!(
        fault_of("tls = \"opportunistic\"\nca_file = \"c\""),
        "m.toml:4: upstream.ca_file: is of no use: \"opportunistic\" verifies nothing; leave it out, or write \
         tls = \"starttls\""
    );
}

#[test]
fn a_password_comes_from_one_place() {
    let with = |lines: &str| upstream(lines).credentials;
    assert_eq!(with("username = \"\"\npassword = \"\"\npassword_file = \"\""), None);
    let written = |place| {
        let password = Password::Written { secret: Secret::new(" pass ".to_owned()), place };
        Some(Credentials { username: "me".to_owned(), password })
    };
    let place = named("m.toml", 4, "password");
    assert_eq!(with("username = \"me\"\npassword = \" pass \""), written(Some(place)));
    let text = format!("{UPSTREAM}username = \"me\"");
    let config = parse_env(&text, &[("MAILONCE_UPSTREAM__PASSWORD", " pass ")]).unwrap();
    assert_eq!(config.upstream.credentials, written(None));
    let cases = [
        (
            "username = \"me\"\npassword = \"hunter2\"\npassword_file = \"/x\"",
            "5: upstream.password_file: password is written too; leave one of them out",
        ),
        ("username = \"me\"", "3: upstream.username: has no password; write password or password_file"),
        (
            "password = \"hunter2\"",
            "3: upstream.password: there is no username that it belongs to; write one, or leave this out",
        ),
    ];
    for (lines, want) in cases {
        assert_eq!(fault_of(lines), format!("m.toml:{want}"));
    }
}

#[test]
fn a_password_is_never_shown() {
    let name = "MAILONCE_UPSTREAM__PASSWORD";
    let fault = parse_env(UPSTREAM, &[(name, "hunter2")]).unwrap_err().to_string();
    assert_eq!(
        fault,
        format!(
            "{name}: upstream.password: there is no username that it belongs to; write one, or leave this out"
        )
    );
    for value in ["31337", "[\"31337\"]", "\"31337\\u0000\""] {
        let fault = fault_of(&format!("password = {value}"));
        assert_eq!(fault, "m.toml:3: upstream.password: is not a text without NUL; write it between quotes");
    }
    // In places that it does not belong to, and in what is no TOML.
    let lines = [
        "passwrd = \"hunter2\"",
        "password = \"hunter2",
        "password = hunter2",
        "password = 'hunter2\\'x",
        "password = [\"hunter2\"",
        "password.file = \"hunter2\"",
        "password = \"a\"\npassword = \"hunter2\"",
        "password = \"\\hunter2\"",
        "[upstream.password]\nhunter = \"hunter2\"",
    ];
    for line in lines {
        let fault = fault_of(&format!("username = \"me\"\n{line}"));
        assert!(!fault.contains("hunter2"), "{line}: {fault}");
    }
    // An account in the address is a habit of other programs.
    for address in ["smtp://me:hunter2@mx.example:25", "me:hunter2@mx.example:25"] {
        let fault = parse(&format!("[upstream]\naddress = {address:?}")).unwrap_err().to_string();
        assert_eq!(
            fault,
            "m.toml:2: upstream.address: holds an @; write a host and a port alone, such as \
             smtp.example.com:587, and an account into username and password"
        );
    }
    let here = "[upstream]\naddress = \"localhost:25\"\nusername = \"me\"\npassword = \"hunter2\"";
    let config = parse(here).unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("secret: ***") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn credentials_do_not_travel_in_clear() {
    let with = |address: &str, tls: &str| {
        parse(&format!(
            "[upstream]\nusername = \"me\"\npassword = \"p\"\naddress = {address}\ntls = \"{tls}\""
        ))
    };
    for tls in ["off", "opportunistic"] {
        for here in ["\"127.0.0.1:25\"", "\"[::1]:25\"", "\"localhost:25\"", "[\"127.8.8.8:25\"]"] {
            with(here, tls).unwrap();
        }
        for there in ["smtp.example.com:587", "192.0.2.1:25", "[2001:db8::1]:25"] {
            let fault = with(&format!("[\"localhost:25\", \"{there}\"]"), tls).unwrap_err().to_string();
            assert_eq!(
                fault,
                format!(
                    "m.toml:2: upstream.username: the password could be read on its way to {there}; write \
                     tls = \"starttls\" or \"implicit\""
                )
            );
        }
    }
}
