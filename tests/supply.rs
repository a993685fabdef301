//! What the program is built from: licences, sources, versions that stand
//! twice, and what must not be in it, as `config/deny.toml` says. Needs nothing
//! but cargo; for advisories there is `cargo deny`, which reads the same file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use spdx::{Expression, ParseMode};
use toml::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A TOML file of the repository.
fn read(name: &str) -> Value {
    toml::from_str(&std::fs::read_to_string(root().join(name)).unwrap()).unwrap()
}

/// The values of a list.
fn list<'v>(toml: &'v Value, section: &str, key: &str) -> &'v [Value] {
    toml[section][key].as_array().unwrap_or_else(|| panic!("{section}.{key} is no list"))
}

/// A package that the program, its build or its tests are made with here.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// All of them but our own.
fn packages() -> BTreeSet<Package> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--offline", "--edges", "normal,build,dev", "--prefix", "none"]);
    // Without features there is what a release has; ours adds no package.
    tree.args(["--format", "{p}|{l}"]).current_dir(root());
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|').unwrap();
        let mut words = package.split(' ');
        let name = words.next().unwrap().to_owned();
        let version = words.next().unwrap().strip_prefix('v').unwrap().to_owned();
        Package { name, version, licence: licence.to_owned() }
    };
    let lines = String::from_utf8(output.stdout).unwrap();
    let found: BTreeSet<_> = lines.lines().filter(|line| !line.is_empty()).map(line).collect();
    assert!(found.len() > 100, "only {} packages were found", found.len());
    found.into_iter().filter(|package| package.name != "mailonce").collect()
}

#[test]
fn every_licence_is_one_that_is_allowed() {
    let deny = read("config/deny.toml");
    let allowed: BTreeSet<&str> =
        list(&deny, "licenses", "allow").iter().map(|licence| licence.as_str().unwrap()).collect();
    let mut used = BTreeSet::new();
    for package in packages() {
        let licence = Expression::parse_mode(&package.licence, ParseMode::LAX);
        let licence = licence.unwrap_or_else(|error| panic!("{package:?}: {error}"));
        let is_allowed = licence.evaluate(|needed| allowed.contains(needed.to_string().as_str()));
        assert!(is_allowed, "{package:?} has a licence that config/deny.toml does not allow");
        used.extend(licence.requirements().map(|needed| needed.req.to_string()));
    }
    let unused: Vec<_> = allowed.iter().filter(|licence| !used.contains(**licence)).collect();
    assert!(unused.is_empty(), "nobody uses {unused:?} any more: take it out of config/deny.toml");
}

#[test]
fn everything_comes_from_crates_io() {
    let deny = read("config/deny.toml");
    let registries: Vec<String> = list(&deny, "sources", "allow-registry")
        .iter()
        .map(|address| format!("registry+{}", address.as_str().unwrap()))
        .collect();
    let lock = read("Cargo.lock");
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        match package.get("source").and_then(Value::as_str) {
            None => assert_eq!(name, "mailonce", "comes from a directory"),
            Some(source) => {
                assert!(registries.iter().any(|registry| registry == source), "{name} comes from {source}");
                assert!(package.get("checksum").is_some(), "{name} has no checksum");
            }
        }
    }
}

/// Whether `version` is one of `wanted`, such as 0.2.17 of 0.2.
fn is_of(version: &str, wanted: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[test]
fn only_versions_that_are_listed_stand_beside_a_newer_one() {
    let deny = read("config/deny.toml");
    let mut listed: BTreeSet<(&str, &str)> = list(&deny, "bans", "skip")
        .iter()
        .map(|skip| {
            assert!(skip["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{skip} has no reason");
            skip["crate"].as_str().unwrap().split_once('@').unwrap()
        })
        .collect();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(package.name).or_default().push(package.version);
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let spared =
            |version: &&String| listed.iter().any(|(other, wanted)| other == name && is_of(version, wanted));
        let others = versions.iter().filter(|version| !spared(version)).count();
        assert_eq!(others, 1, "{name} stands more than once, {versions:?}: give config/deny.toml a reason");
        listed.retain(|(other, _)| other != name);
    }
    assert!(listed.is_empty(), "{listed:?} stand beside nothing any more: take them out of config/deny.toml");
}

#[test]
fn nothing_brings_another_tls_along() {
    let deny = read("config/deny.toml");
    let banned: Vec<&str> =
        list(&deny, "bans", "deny").iter().map(|entry| entry["crate"].as_str().unwrap()).collect();
    for name in ["openssl", "openssl-sys", "native-tls"] {
        assert!(banned.contains(&name), "config/deny.toml lets {name} in");
    }
    // Cargo.lock holds what other systems and features would need, too.
    let lock = read("Cargo.lock");
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(&name), "{name} is not to be used");
    }
}

#[test]
fn our_own_code_is_without_unsafe() {
    let manifest = read("Cargo.toml");
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}
