//! A bounded slice of fuzzing: every input of the corpus, and a number of
//! changes to them that is the same each time. `tests/fuzz/run` goes on from
//! there, guided by coverage.
//!
//! `MAILONCE_FUZZ_CHANGES` sets the number for each target (3,000 or less),
//! `MAILONCE_FUZZ_SEED` begins somewhere else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a target panics where it fails")]

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;
use targets::{TARGETS, Target};

/// What one target may take; the corpus is always replayed whole.
const SLICE: Duration = Duration::from_secs(3);

fn here(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(part)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// The inputs of a target by name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = here("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

/// Runs one input; where it fails it is kept, and named.
fn run(target: &Target, origin: &str, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("finding-{}", target.name));
        std::fs::write(&file, input).unwrap();
        eprintln!(
            "{} fails on {origin}: \"{}\"\nit is in {}; with the fault fixed, move it to tests/fuzz/corpus/{}",
            target.name,
            input.escape_ascii(),
            file.display(),
            target.name
        );
        std::panic::resume_unwind(panic);
    }
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let inputs = corpus(target);
    assert!(inputs.len() >= 3, "{name} needs seeds");
    for (file, input) in &inputs {
        run(target, file, input);
    }
    let dictionary = here("dictionaries").join(format!("{name}.dict"));
    let dictionary = std::fs::read_to_string(dictionary).unwrap_or_default();
    let seed = number("MAILONCE_FUZZ_SEED", 1);
    let mut mutator = Mutator::new(seed, mutate::words(&dictionary));
    let end = Instant::now() + SLICE;
    // A number that is asked for is kept to, however long it takes.
    let (changes, bounded) = match std::env::var_os("MAILONCE_FUZZ_CHANGES") {
        Some(_) => (number("MAILONCE_FUZZ_CHANGES", 0), false),
        None => (3_000, true),
    };
    for change in 0..changes {
        if bounded && Instant::now() > end {
            break;
        }
        let (file, input) = &inputs[mutator.below(inputs.len())];
        let (_, other) = &inputs[mutator.below(inputs.len())];
        let data = mutator.changed(input, other, target.longest);
        run(target, &format!("change {change} (of {file}, seed {seed})"), &data);
    }
}

macro_rules! fuzzed {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { fuzz(stringify!($name)); })*
    };
}

fuzzed! { command config data decode fingerprint headers identity proxy records replies sasl session }

#[test]
fn every_target_is_fuzzed_and_nothing_lies_about() {
    let tested: BTreeSet<String> = TESTED.iter().map(ToString::to_string).collect();
    assert_eq!(TARGETS.iter().map(|target| target.name.to_owned()).collect::<BTreeSet<_>>(), tested);
    let names = |folder| {
        let entries = std::fs::read_dir(here(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names("corpus"), tested);
    for dictionary in names("dictionaries") {
        let target = dictionary.strip_suffix(".dict").unwrap_or_default();
        assert!(tested.contains(target), "{dictionary} belongs to no target");
    }
}
