//! The configurations that we hand out are valid: those in `config/examples`,
//! and what the guides show.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

use std::path::{Path, PathBuf};

use mailonce::config::Config;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a directory with this ending, in order.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(directory)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn every_example_is_valid() {
    let examples = files("config/examples", "toml");
    let names: Vec<&str> = examples.iter().map(|path| name(path)).collect();
    assert_eq!(names, ["header-tagging.toml", "multi-tenant.toml", "no-code-changes.toml", "observe.toml"]);
    for path in &examples {
        match Config::load(path, std::iter::empty()) {
            Ok(config) => assert_eq!(config.warnings(), [""; 0], "{}", name(path)),
            Err(fault) => panic!("{fault}"),
        }
    }
}

#[test]
fn every_example_is_complete() {
    for path in files("config/examples", "toml") {
        let text = std::fs::read_to_string(&path).unwrap();
        for section in ["[[listener]]", "[upstream]", "[store]", "[dedup]", "[[rule]]"] {
            assert!(text.lines().any(|line| line == section), "{}: no {section}", name(&path));
        }
    }
}

/// The pieces of TOML in a guide, each with its line.
fn pieces(text: &str) -> Vec<(usize, String)> {
    let mut pieces = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        match &mut open {
            None if line == "```toml" => open = Some((number, String::new())),
            None => {}
            Some(_) if line == "```" => pieces.extend(open.take()),
            Some((_, piece)) => piece.push_str(&format!("{line}\n")),
        }
    }
    pieces
}

#[test]
fn what_the_guides_show_is_valid() {
    let mut seen = 0;
    for path in files("docs", "md") {
        for (number, piece) in pieces(&std::fs::read_to_string(&path).unwrap()) {
            seen += 1;
            let upstream = "[upstream]\naddress = \"smtp.example.com:25\"\n";
            let upstream = if piece.contains("[upstream]") { "" } else { upstream };
            let text = format!("{upstream}{piece}");
            if let Err(fault) = Config::parse(&text, name(&path), std::iter::empty()) {
                panic!("{}, the piece at line {number}: {fault}", name(&path));
            }
        }
    }
    assert!(seen > 0);
}

/// `MAILONCE_… = value` wherever it stands in a text.
fn variables(text: &str) -> Vec<(String, String)> {
    let variable = |word: &str| {
        let (name, value) = word.strip_prefix("Environment=").unwrap_or(word).split_once('=')?;
        name.starts_with("MAILONCE_").then(|| (name.to_owned(), value.to_owned()))
    };
    text.split_whitespace().filter_map(variable).collect()
}

#[test]
fn the_image_and_the_unit_set_what_there_is() {
    for (name, least) in [("Dockerfile", 5), ("config/mailonce.service", 2)] {
        let mut variables = variables(&std::fs::read_to_string(root().join(name)).unwrap());
        assert!(variables.len() >= least, "{name}: {variables:?}");
        for (variable, value) in [
            ("MAILONCE_UPSTREAM__ADDRESS", "smtp.example.com:587"),
            ("MAILONCE_UPSTREAM__USERNAME", "me"),
            ("MAILONCE_UPSTREAM__PASSWORD_FILE", "/run/password"),
            ("MAILONCE_LISTENER__0__CERTIFICATE", "/run/relay.pem"),
            ("MAILONCE_LISTENER__0__PRIVATE_KEY", "/run/relay.key"),
        ] {
            variables.push((variable.to_owned(), value.to_owned()));
        }
        let config = Config::load(&root().join("config/mailonce.toml"), variables.into_iter());
        let config = config.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!(config.warnings(), [""; 0], "{name}");
        assert!(config.upstream.tls.is_some_and(|tls| tls.manner.verifies()), "{name}");
        assert!(config.listeners[0].tls.is_some(), "{name}");
    }
}
