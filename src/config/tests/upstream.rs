//! TLS and credentials of `[upstream]`.

use super::*;

/// The faults of an upstream with these lines, which start at line 3.
fn fault_of(lines: &str) -> String {
    parse(&format!("{UPSTREAM}{lines}")).unwrap_err().to_string()
}

fn upstream(lines: &str) -> Upstream {
    parse(&format!("{UPSTREAM}{lines}")).unwrap().upstream
}

/// A file of this text.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A certificate and its key, as PEM.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["mx.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn tls_is_off_unless_it_is_asked_for() {
    assert_eq!(upstream("").tls, None);
    // What it would need is not even read.
    assert_eq!(upstream("tls = \"off\"\nca_file = \"/nowhere\"\nclient_key = \"/nowhere\"").tls, None);
    assert_eq!(
        fault_of("tls = \"yes\""),
        "m.toml:3: upstream.tls: \"yes\" is not offered here; write off or opportunistic or starttls or implicit"
    );
    let (ca, _) = pair();
    let ca = file(&ca);
    for (word, manner) in [("starttls", TlsManner::StartTls), ("implicit", TlsManner::Implicit)] {
        let tls = upstream(&format!("tls = \"{word}\"\nca_file = {:?}", ca.path())).tls.unwrap();
        assert_eq!(tls.manner, manner);
    }
    assert_eq!(upstream("tls = \"opportunistic\"").tls.unwrap().manner, TlsManner::Opportunistic);
}

#[test]
fn files_that_will_not_do_are_found_at_once() {
    let (certificate, key) = pair();
    let (certificate, key, other) = (file(&certificate), file(&key), file(&pair().1));
    let broken = file("-----BEGIN CERTIFICATE-----\nhunter2!!\n-----END CERTIFICATE-----\n");
    let shown = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    let starttls = |lines: &str| {
        fault_of(&format!("tls = \"starttls\"\n{lines}\n"))
            .trim_start_matches("m.toml:4: upstream.")
            .to_owned()
    };
    assert_eq!(
        starttls("ca_file = \"/nowhere/ca.pem\""),
        "ca_file: /nowhere/ca.pem can't be read: No such file or directory (os error 2)"
    );
    assert_eq!(
        starttls(&format!("ca_file = {:?}", key.path())),
        format!("ca_file: {} holds no certificate; it takes PEM, with a line \"-----BEGIN\"", shown(&key))
    );
    assert_eq!(
        starttls(&format!("ca_file = {:?}", broken.path())),
        format!("ca_file: {} is not valid PEM", shown(&broken))
    );
    let ca = format!("\nca_file = {:?}", certificate.path());
    assert_eq!(starttls(&format!("client_key = \"k\"{ca}")), "client_key: its client_certificate is missing");
    assert_eq!(
        starttls(&format!("client_certificate = \"c\"{ca}")),
        "client_certificate: its client_key is missing"
    );
    let pair = |key: &tempfile::NamedTempFile| {
        format!("client_certificate = {:?}\nclient_key = {:?}{ca}", certificate.path(), key.path())
    };
    let fault = starttls(&pair(&other));
    assert!(fault.starts_with("client_certificate: does not go with its client_key: "), "{fault}");
    assert!(fault.ends_with("; name the two of one pair"), "{fault}");
    upstream(&format!("tls = \"starttls\"\n{}", pair(&key)));
    assert_eq!(
        fault_of(&format!("tls = \"opportunistic\"{ca}")),
        "m.toml:4: upstream.ca_file: is of no use: \"opportunistic\" verifies nothing; leave it out, or write \
         tls = \"starttls\""
    );
}

#[test]
fn a_password_comes_from_one_place() {
    let (ca, _) = pair();
    let ca = file(&ca);
    let tls = format!("tls = \"starttls\"\nca_file = {:?}\n", ca.path());
    let with = |lines: &str| upstream(&format!("{tls}{lines}")).credentials;
    let expected = |password: &str| {
        Some(Credentials { username: "me".to_owned(), password: Secret::new(password.to_owned()) })
    };
    assert_eq!(with("username = \"\"\npassword = \"\"\npassword_file = \"\""), None);
    assert_eq!(with("username = \"me\"\npassword = \" pass \""), expected(" pass "));
    for (text, password) in [("p\n", "p"), ("p\r\n", "p"), ("p", "p"), ("p\n\n", "p\n"), (" p ", " p ")] {
        let file = file(text);
        let credentials = with(&format!("username = \"me\"\npassword_file = {:?}", file.path()));
        assert_eq!(credentials, expected(password), "{text:?}");
    }
    let fault = |lines: &str| fault_of(&format!("{tls}{lines}"));
    let empty = file("\n");
    let cases = [
        (
            "username = \"me\"\npassword = \"hunter2\"\npassword_file = \"/x\"".to_owned(),
            "7: upstream.password_file: password is written too; leave one of them out".to_owned(),
        ),
        (
            "username = \"me\"".to_owned(),
            "5: upstream.username: has no password; write password or password_file".to_owned(),
        ),
        (
            "password = \"hunter2\"".to_owned(),
            "5: upstream.password: there is no username that it belongs to; write one, or leave this out"
                .to_owned(),
        ),
        (
            "username = \"me\"\npassword_file = \"/nowhere/p\"".to_owned(),
            "6: upstream.password_file: /nowhere/p can't be read: No such file or directory (os error 2)"
                .to_owned(),
        ),
        (
            format!("username = \"me\"\npassword_file = {:?}", empty.path()),
            format!(
                "6: upstream.password_file: {} is empty; write the password into it",
                empty.path().display()
            ),
        ),
    ];
    for (lines, want) in cases {
        assert_eq!(fault(&lines), format!("m.toml:{want}"));
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
    let here = "[upstream]\naddress = \"localhost:25\"\nusername = \"me\"\npassword = \"hunter2\"";
    let config = parse(here).unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("password: ***") && !shown.contains("hunter2"), "{shown}");
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
