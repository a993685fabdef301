//! House rules as tests: what may use what, what may not be called, what must
//! be documented, and how long a file may be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

use std::path::{Path, PathBuf};

/// The modules from the bottom up: each may use only those in lines above its
/// own. Modules of one line know nothing of each other.
///
/// `config` is above `smtp`, whose choices it reads, and above nothing else;
/// `store` is above `message`, for a claim carries the message's fingerprint.
/// `metrics` is above `store`, whose calls it measures.
/// The sink is a server of its own: it stands on `smtp` alone, and must not
/// use the proxy's `net` or `server`, lest it share their faults.
const LAYERS: [&[&str]; 15] = [
    &["clock", "crash", "duplex", "escape", "planted", "secret"],
    &["smtp"],
    &["message"],
    &["config"],
    &["files", "sink"],
    &["store"],
    &["metrics"],
    &["identity", "journal"],
    &["upstream"],
    &["dedup"],
    &["auth"],
    &["net", "admin"],
    &["server"],
    &["demo"],
    &["cli"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file with this ending, with its path from the root.
fn files(directory: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} files in {directory}");
    found
}

/// The lines of a file that run outside tests and are no remarks, numbered.
fn code(name: &str, text: &str) -> Vec<(usize, String)> {
    if is_test_file(name) {
        return Vec::new();
    }
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = (1..).zip(shipped.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"));
    lines.map(|(number, line)| (number, line.to_owned())).collect()
}

/// Files that hold nothing but tests.
fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs")
        || name.contains("/tests/") && name.starts_with("src/")
        || name.starts_with("src/store/contract/")
}

fn layer(module: &str) -> usize {
    let holds = |layer: &&[&str]| layer.contains(&module);
    LAYERS.iter().position(holds).unwrap_or_else(|| panic!("the module {module} has no layer; give it one"))
}

/// The top-level module that a file belongs to; none for `lib.rs` and `main.rs`.
fn module(name: &str) -> Option<&str> {
    let name = name.strip_prefix("src/").unwrap();
    let module = name.split('/').next().unwrap().trim_end_matches(".rs");
    (module != "lib" && module != "main").then_some(module)
}

/// Every module that a line names with `crate::`, in a list as well.
fn named(line: &str) -> Vec<String> {
    let word =
        |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned();
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(_) => panic!("name one module a line, not use crate::{{…}}: {line}"),
        }
    }
    names
}

#[test]
fn no_module_uses_one_above_it() {
    let mut seen = 0;
    for (name, text) in files("src", "rs") {
        let Some(module) = module(&name) else { continue };
        for (number, line) in code(&name, &text) {
            for used in named(&line).into_iter().filter(|used| used != module) {
                seen += 1;
                assert!(
                    layer(&used) < layer(module),
                    "{name}:{number}: {module} must not use {used}, which is not below it: {line}"
                );
            }
        }
    }
    assert!(seen > 50, "only {seen} uses were found");
}

#[test]
fn every_layer_is_a_module() {
    for module in LAYERS.concat() {
        let there = ["", "/mod"].iter().any(|end| root().join(format!("src/{module}{end}.rs")).exists());
        assert!(there, "{module} is gone; take it out of LAYERS");
    }
}

#[test]
fn what_deadlocks_or_panics_is_not_called() {
    let banned = [
        ("flush_async", "it deadlocks at seven or more concurrent calls; let the store's own thread flush"),
        (".transaction(", "it takes a global write lock; the writer thread needs none"),
        (".unwrap()", "return the error, or say what to do instead"),
        (".expect(\"", "return the error, or say what to do instead"),
        ("panic!(", "return the error"),
        ("unreachable!(", "make the case impossible by its type, or return an error"),
    ];
    for (name, text) in files("src", "rs") {
        for (number, line) in code(&name, &text) {
            for (call, instead) in banned {
                assert!(!line.contains(call), "{name}:{number}: {call}: {instead}");
            }
        }
    }
}

/// Every key of a TOML text, switched off ones (`# key = …`) included.
fn keys(text: &str) -> Vec<String> {
    let key = |line: &str| {
        let (key, _) = line.trim_start_matches("# ").split_once(" = ")?;
        let word = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        word.then(|| key.to_owned())
    };
    text.lines().filter_map(key).collect()
}

#[test]
fn every_configuration_key_is_explained() {
    let example = std::fs::read_to_string(root().join("config/mailonce.toml")).unwrap();
    let mut pages = Vec::new();
    for page in ["README.md", "ARCHITECTURE.md"] {
        pages.extend(std::fs::read_to_string(root().join(page)));
    }
    if root().join("docs").exists() {
        pages.extend(files("docs", "md").into_iter().map(|(_, text)| text));
    }
    let lines: Vec<&str> = example.lines().collect();
    let keys = keys(&example);
    assert!(keys.len() > 40, "only {} keys were found", keys.len());
    for key in keys {
        let at = lines
            .iter()
            .position(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")))
            .unwrap();
        // A remark above the group of lines that it stands in, or behind it.
        let group = lines[..at].iter().rev().take_while(|line| !line.is_empty());
        let remark = group.copied().chain([lines[at]]).any(|line| line.contains("# "));
        let page = pages
            .iter()
            .any(|page| page.contains(&format!("`{key}`")) || page.contains(&format!("{key} = ")));
        assert!(remark || page, "{key} is explained nowhere");
    }
}

#[test]
fn every_key_that_is_read_is_in_the_example() {
    let example = keys(&std::fs::read_to_string(root().join("config/mailonce.toml")).unwrap());
    let file = |name: &str| std::fs::read_to_string(root().join("src/config").join(name)).unwrap();
    let dedup = file("load/dedup.rs");
    // What a rule asks of a message stands in one line of the example.
    let (dedup, _conditions) = dedup.split_once("fn matches(").unwrap();
    let load =
        file("load.rs") + &file("load/auth.rs") + &file("load/tls.rs") + &file("load/upstream.rs") + dedup;
    let mut read = 0;
    // `later` keys belong to a later version, and what only these use with them.
    let unused: [&str; 0] = [];
    for call in ["get(\"", "require(\n            \"", "span(\""] {
        for rest in load.split(call).skip(1) {
            let key = rest.split('"').next().unwrap().to_owned();
            read += 1;
            assert!(
                example.contains(&key) || unused.contains(&key.as_str()),
                "{key} is not in config/mailonce.toml"
            );
        }
    }
    assert!(read > 40, "only {read} keys were found");
}

#[test]
fn no_file_is_long() {
    for (name, text) in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        // What is only tests may take a little more room.
        let most = if is_test_file(&name) { 600 } else { MOST_LINES };
        let lines = shipped.lines().count();
        assert!(
            lines <= most,
            "{name} has {lines} lines before its tests; more than {most} is more than one part"
        );
    }
}

const MOST_LINES: usize = 400;

#[test]
fn tests_neither_sleep_nor_ask_for_a_port() {
    for (name, text) in files("tests", "rs") {
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap();
            assert!(
                !code.contains(concat!("thread::", "sleep")),
                "{name}:{number}: wait for an event: {line}"
            );
            assert!(
                !code.contains(concat!("#[", "ignore")),
                "{name}:{number}: a test that can't run fails: {line}"
            );
        }
    }
}

#[test]
fn paths_in_documents_exist() {
    let mut checked = 0;
    for (name, text) in files("src", "rs") {
        for word in text.split(['`', ' ', '\n']).filter(|word| word.starts_with("tests/")) {
            let path = word.trim_end_matches(['.', ',', ';', ')', ':']);
            checked += 1;
            assert!(Path::new(&root().join(path)).exists(), "{name} speaks of {path}, which is not there");
        }
    }
    assert!(checked > 0);
}

/// What a page names as `file`: `function`, `function`.
fn named_tests(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut file = None;
    // What is between two backticks, and what follows it up to the next one.
    let words: Vec<&str> = page.split('`').collect();
    for pair in words[1..].chunks(2) {
        let (word, behind) = (pair[0], pair.get(1).map_or("", |behind| behind.trim()));
        match &file {
            _ if word.ends_with(".rs") => file = (behind == ":").then_some(word),
            Some(file) => found.push((file.to_string(), word.to_owned())),
            None => {}
        }
        if !matches!(behind, ":" | ",") {
            file = None;
        }
    }
    found
}

#[test]
fn tests_named_in_documents_exist() {
    for page in ["ARCHITECTURE.md", "docs/guarantees.md", "docs/security.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let named = named_tests(&text);
        assert!(named.len() > 40, "{page}: only {} tests were found", named.len());
        for (file, function) in named {
            let path = file.replacen("contract/", "src/store/contract/", usize::from(file.starts_with('c')));
            let code = std::fs::read_to_string(root().join(&path))
                .unwrap_or_else(|error| panic!("{page} names {path}: {error}"));
            assert!(code.contains(&format!("fn {function}(")), "{page}: {path} has no {function}");
        }
    }
}

#[test]
fn every_guarantee_has_a_test() {
    let text = std::fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what happens |"));
    let mut tested = 0;
    for row in rows {
        let columns: Vec<&str> = row.split(" | ").collect();
        assert!(columns.len() == 5, "not five columns: {row}");
        let test = columns[4];
        assert!(
            test.starts_with("none: ") || !named_tests(test).is_empty(),
            "no test, nor why there is none: {row}"
        );
        tested += usize::from(!test.starts_with("none: "));
    }
    assert!(tested > 25, "only {tested} guarantees with a test were found");
}

#[test]
fn every_threat_has_a_test() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat |"));
    let mut count = 0;
    for row in rows {
        let columns: Vec<&str> = row.split(" | ").collect();
        assert!(
            columns.len() == 3 && !named_tests(columns[2]).is_empty(),
            "no threat, answer and test: {row}"
        );
        count += 1;
    }
    assert!(count > 40, "only {count} threats were found");
}
