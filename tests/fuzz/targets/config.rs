//! The configuration: any text and any environment give a configuration, or
//! faults that say where, one a line, without a secret in them.

use mailonce::config::Config;
use mailonce::escape::for_terminal;

use super::choice;

/// Never to be seen.
const SECRET: &str = "pAsSw0rD-8c1f";

/// Stands between the file and the environment.
const ENVIRONMENT: &[u8] = b"\n%%%\n";

pub(super) fn run(data: &[u8]) {
    let (choice, data) = choice(data);
    // No file but this process's own is to be opened by a made-up name.
    let data: Vec<u8> = data.iter().map(|b| if matches!(b, b'\\' | b'~') { b'_' } else { *b }).collect();
    let cut = data.windows(ENVIRONMENT.len()).position(|window| window == ENVIRONMENT);
    let (text, variables) = match cut {
        Some(at) => (&data[..at], &data[at + ENVIRONMENT.len()..]),
        None => (&data[..], &[][..]),
    };
    let text = without_paths(&String::from_utf8_lossy(text));
    let mut variables: Vec<(String, String)> = without_paths(&String::from_utf8_lossy(variables))
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("MAILONCE_{name}"), value.to_owned()))
        .collect();
    let text = with_secret(choice, text, &mut variables);
    let parsed = Config::parse(&text, "m.toml", variables.iter().cloned());
    match parsed {
        Ok(config) => {
            assert!(!format!("{config:?}").contains(SECRET), "the password is shown");
            assert!(!config.listeners.is_empty() && !config.upstream.addresses.is_empty());
            for warning in config.warnings() {
                assert!(!warning.contains(SECRET) && !warning.contains('\n'), "{warning:?}");
            }
            let again = Config::parse(&text, "m.toml", variables.into_iter());
            assert!(again.is_ok(), "it is not the same twice");
        }
        Err(fault) => {
            assert!(!fault.lines().is_empty());
            for line in fault.lines() {
                assert!(!line.contains(SECRET), "the password is shown: {line}");
                assert!(!line.contains(char::is_control), "not one line: {line:?}");
                says_where(line, &text, &variables);
            }
        }
    }
}

/// Networks have a slash in front of digits; what could be a path has none.
fn without_paths(text: &str) -> String {
    let digit = |at: usize| text[at..].starts_with(|c: char| c.is_ascii_digit());
    text.char_indices().map(|(at, c)| if c == '/' && !digit(at + 1) { '_' } else { c }).collect()
}

/// Writes the password somewhere, rightly or not.
fn with_secret(choice: u8, text: String, variables: &mut Vec<(String, String)>) -> String {
    let mut set = |name: &str, value: &str| variables.push((name.to_owned(), value.to_owned()));
    match choice % 8 {
        0 => set("MAILONCE_UPSTREAM__PASSWORD", SECRET),
        1 => return format!("upstream.password = \"{SECRET}\"\n{text}"),
        2 => return format!("{text}\n[upstream]\npassword = \"{SECRET}\"\n"),
        3 => return format!("{text}\n[upstream]\npassword = {SECRET}\n"),
        4 => return format!("{text}\n[upstream]\npassword = [\"{SECRET}\"]\n"),
        5 => return format!("{text}\n[upstream]\npassword = \"{SECRET}\n"),
        6 => set("MAILONCE_UPSTREAM__PASSWORD__X", SECRET),
        _ => {}
    }
    text
}

fn says_where(line: &str, text: &str, variables: &[(String, String)]) {
    if let Some(rest) = line.strip_prefix("m.toml:") {
        let number: usize =
            rest.split(':').next().and_then(|number| number.parse().ok()).expect("a line number");
        assert!((1..=1 + text.matches('\n').count()).contains(&number), "there is no such line: {line}");
    } else {
        let named = |name: &str| line.starts_with(&format!("{}: ", for_terminal(name)));
        assert!(variables.iter().any(|(name, _)| named(name)), "{line:?}");
    }
}
