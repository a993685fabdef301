//! Runs one fuzz target, named by `MAILONCE_FUZZ_TARGET`, under libFuzzer.

#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a target panics where it fails")]

#[path = "../targets/mod.rs"]
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("MAILONCE_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("MAILONCE_FUZZ_TARGET must be one of {}", names.join(", ")))
}

fuzz_target!(|data: &[u8]| {
    let target = CHOSEN.get_or_init(chosen);
    if data.len() <= target.longest {
        (target.run)(data);
    }
});
