//! The exposition, read back by a parser as strict as a scraper.

use std::collections::BTreeMap;

use super::*;

/// Each sample with its labels as they stand, and the type of each family.
struct Exposition {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Reads OpenMetrics text; panics where a scraper would give up.
fn read(text: &str) -> Exposition {
    let body = text.strip_suffix("# EOF\n").expect("the text ends with # EOF");
    let (mut types, mut helped, mut samples) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty(), "{line}");
            helped.push(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let family = types.keys().find(|family| name.starts_with(family.as_str()));
            assert!(family.is_some(), "a sample of no family: {line}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    assert!(types.keys().all(|name| helped.contains(name)), "each family has a help text");
    Exposition { types, samples }
}

fn reading() -> Reading {
    Reading { claims: Some(vec![("accepted", 3), ("in_doubt", 0)]), sessions: 2, idle: 1, in_use: 4 }
}

#[test]
fn every_name_of_the_interface_is_there_before_anything_happened() {
    let metrics = Metrics::new();
    metrics.expect_outcome("relayed");
    let Exposition { types, samples } = read(&metrics.render(&reading()));
    for (name, kind) in [
        ("mailonce_messages", "counter"),
        ("mailonce_claims", "gauge"),
        ("mailonce_sessions", "gauge"),
        ("mailonce_upstream_connections", "gauge"),
        ("mailonce_upstream_seconds", "histogram"),
        ("mailonce_store_seconds", "histogram"),
        ("mailonce_message_bytes", "histogram"),
        ("mailonce_auth", "counter"),
        ("mailonce_tls_handshakes", "counter"),
        ("mailonce_build", "info"),
    ] {
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    for (series, value) in [
        ("mailonce_messages_total{outcome=\"relayed\",strategy=\"\",rule=\"\"}", 0.0),
        ("mailonce_claims{state=\"accepted\"}", 3.0),
        ("mailonce_sessions", 2.0),
        ("mailonce_upstream_connections{state=\"idle\"}", 1.0),
        ("mailonce_upstream_connections{state=\"in_use\"}", 4.0),
        ("mailonce_upstream_seconds_count{phase=\"completion\"}", 0.0),
        ("mailonce_store_seconds_count{operation=\"commit\"}", 0.0),
        ("mailonce_auth_total{result=\"refused\"}", 0.0),
        ("mailonce_tls_handshakes_total{result=\"failed\"}", 0.0),
        (concat!("mailonce_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn decisions_are_counted_by_what_they_were() {
    let metrics = Metrics::new();
    for _ in 0..3 {
        metrics.decided("relayed", "header", "one \"time\"\ncodes\\");
    }
    metrics.decided("unkeyed", "", "");
    let samples = read(&metrics.render(&reading())).samples;
    let series = "mailonce_messages_total{outcome=\"relayed\",strategy=\"header\",rule=\"one \\\"time\\\"\\ncodes\\\\\"}";
    assert_eq!(samples.get(series), Some(&3.0), "{samples:?}");
    assert_eq!(
        samples.get("mailonce_messages_total{outcome=\"unkeyed\",strategy=\"\",rule=\"\"}"),
        Some(&1.0)
    );
}

#[test]
fn a_histogram_holds_each_observation_in_every_bucket_that_is_wide_enough() {
    let metrics = Metrics::new();
    metrics.upstream_took(UpstreamPhase::Connect, Duration::from_millis(25));
    metrics.upstream_took(UpstreamPhase::Connect, Duration::from_millis(26));
    metrics.upstream_took(UpstreamPhase::Connect, Duration::from_secs(3600));
    metrics.received(1024);
    metrics.received(100 << 20);
    let samples = read(&metrics.render(&reading())).samples;
    for (bound, count) in [("0.01", 0.0), ("0.025", 1.0), ("0.05", 2.0), ("600.0", 2.0), ("+Inf", 3.0)] {
        let series = format!("mailonce_upstream_seconds_bucket{{le=\"{bound}\",phase=\"connect\"}}");
        assert_eq!(samples.get(&series), Some(&count), "{series} in {:?}", samples.keys());
    }
    assert_eq!(samples.get("mailonce_upstream_seconds_count{phase=\"connect\"}"), Some(&3.0));
    assert_eq!(samples.get("mailonce_upstream_seconds_sum{phase=\"connect\"}"), Some(&3600.051));
    assert_eq!(samples.get("mailonce_message_bytes_bucket{le=\"1024.0\"}"), Some(&1.0));
    assert_eq!(samples.get("mailonce_message_bytes_count"), Some(&2.0));
}

#[test]
fn what_the_store_does_not_say_is_not_shown() {
    let metrics = Metrics::new();
    metrics.render(&reading());
    let silent = Reading { claims: None, ..reading() };
    assert!(!metrics.render(&silent).contains("mailonce_claims{"));
}
