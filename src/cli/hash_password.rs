//! `mailonce hash-password`: a line for the file of users.

use std::io::{BufRead, IsTerminal};

use super::CliFault;
use crate::auth::hash::Hash;

/// The longest password, in octets: what a client can say in one line of AUTH.
const MOST: u64 = 4096;

/// Arguments of `hash-password`.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce hash-password\n\n\
    Put what it prints into the file that `users` of a listener names:\n  \
    \"ann@example.com\" = \"$argon2id$v=19$m=19456,...\"")]
pub struct HashPasswordArgs {}

/// Asks for a password and prints its hash, and nothing else.
pub fn run(_: HashPasswordArgs) -> Result<(), CliFault> {
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() { ask()? } else { line(stdin.lock())? };
    let hash = Hash::make(&usable(password)?)
        .map_err(|error| CliFault::Failed(format!("the password can't be hashed: {error}")))?;
    super::print(format!("{hash}\n").as_bytes())
}

/// Twice, since nobody sees what is typed.
fn ask() -> Result<String, CliFault> {
    let prompt = |text| {
        rpassword::prompt_password(text)
            .map_err(|error| CliFault::Failed(format!("the terminal can't be read: {error}")))
    };
    let password = prompt("Password: ")?;
    if prompt("Once more: ")? == password {
        Ok(password)
    } else {
        Err(CliFault::Failed("these are not the same; try again".to_owned()))
    }
}

/// The first line, without its end.
fn line(input: impl BufRead) -> Result<String, CliFault> {
    let mut octets = Vec::new();
    // Room for the end of the longest, and to see that one is longer.
    input.take(MOST + 2).read_until(b'\n', &mut octets)?;
    let line = octets.strip_suffix(b"\n").unwrap_or(&octets);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8(line.to_vec()).map_err(|_| CliFault::Failed("the password is not UTF-8".to_owned()))
}

/// Refuses what no client could log in with.
fn usable(password: String) -> Result<String, CliFault> {
    let fault = if password.is_empty() {
        "there is no password; type one, or write it to standard input"
    } else if password.len() as u64 > MOST {
        "the password is too long; at most 4096 octets are taken"
    } else if password.contains('\0') {
        "the password has a NUL in it, which AUTH can't carry"
    } else {
        return Ok(password);
    };
    Err(CliFault::Failed(fault.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<String, String> {
        line(input).and_then(usable).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_first_line_is_the_password() {
        for (input, password) in [
            (&b"secret\n"[..], "secret"),
            (b"secret", "secret"),
            (b"secret\r\n", "secret"),
            (b" two words \nnext\n", " two words "),
            ("pässwörd\n".as_bytes(), "pässwörd"),
        ] {
            assert_eq!(read(input).unwrap(), password);
        }
        let longest = [b'a'; 4096];
        assert_eq!(read(&[&longest[..], b"\r\n"].concat()).unwrap().len(), 4096);
    }

    #[test]
    fn what_nobody_could_log_in_with_is_refused_and_not_repeated() {
        for (input, fault) in [
            (&b""[..], "there is no password"),
            (b"\n", "there is no password"),
            (b"\r\nsecret\n", "there is no password"),
            (b"sec\0ret\n", "the password has a NUL"),
            (b"sec\xffret\n", "the password is not UTF-8"),
            (&[b'a'; 4097], "the password is too long"),
        ] {
            let found = read(input).unwrap_err();
            assert!(found.starts_with(fault), "{found}");
            assert!(!found.contains("sec") && !found.contains("aaa"), "{found}");
        }
    }
}
