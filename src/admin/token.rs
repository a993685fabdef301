//! The token: who knows it may ask for everything.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::AdminFault;
use crate::config::NamedFile;
use crate::files;
use crate::store::record::hex;

/// The most octets of a token file.
const MOST: u64 = 4096;

/// What requests must bring. Kept as its SHA-256: nothing that is printed or
/// compared is the token itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The token in a file; where there is none, a new one that only our user
    /// can read.
    pub(super) fn read_or_make(path: &Path) -> Result<Self, AdminFault> {
        let instead = "name another file, or write admin.address = \"\" to do without";
        let fault = |what: String| AdminFault(format!("admin.token_file: {}: {what}", path.display()));
        let unread = |error: io::Error| fault(format!("can't be read: {error}; {instead}"));
        match File::open(path) {
            Ok(file) => read(file, path).map_err(fault),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match make(path) {
                Ok(token) => Ok(token),
                // Another proxy was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    read(File::open(path).map_err(unread)?, path).map_err(fault)
                }
                Err(error) => Err(fault(format!("can't be made: {error}; {instead}"))),
            },
            Err(error) => Err(unread(error)),
        }
    }

    /// Whether this is it. Takes as long for a wrong one as for the right one.
    pub(super) fn is(&self, text: &str) -> bool {
        let given = Self::new(text);
        self.0.iter().zip(given.0).fold(0, |differing, (ours, theirs)| differing | (ours ^ theirs)) == 0
    }
}

fn read(file: File, path: &Path) -> Result<Token, String> {
    let metadata = file.metadata().map_err(|error| format!("can't be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is no file; name one that is".to_owned());
    }
    let mut text = String::new();
    file.take(MOST + 1).read_to_string(&mut text).map_err(|error| format!("can't be read: {error}"))?;
    if text.len() as u64 > MOST {
        return Err(format!("holds more than {MOST} octets; a token is a short text"));
    }
    let token = text.trim();
    if token.is_empty() {
        return Err("is empty; remove it, and a new one is made".to_owned());
    }
    if let Some(warning) = exposed(path) {
        tracing::warn!("{warning}");
    }
    Ok(Token::new(token))
}

/// A warning where everybody on this machine can read the token.
pub(super) fn exposed(path: &Path) -> Option<String> {
    files::exposed(&NamedFile { path: path.to_owned(), named_by: "admin.token_file".to_owned() })
}

/// The file appears whole or not at all.
fn make(path: &Path) -> io::Result<Token> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut octets = [0; 32];
    getrandom::fill(&mut octets).map_err(io::Error::other)?;
    let text = hex(&octets);
    // A temporary file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    tracing::info!(path = %path.display(), "an admin token was made");
    Ok(Token::new(&text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_for_our_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/admin.token");
        let made = Token::read_or_make(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (65, true), "{text:?}");
        assert!(text.trim().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::read_or_make(&path).unwrap(), made);
        assert!(made.is(text.trim()) && !made.is(&text) && !made.is(""));
        assert!(!format!("{made:?}").contains(&text[..8]));
    }

    #[test]
    fn one_that_is_there_is_trimmed_and_one_of_no_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        std::fs::write(&path, " secret \n").unwrap();
        assert!(Token::read_or_make(&path).unwrap().is("secret"));
        for (content, what) in [(" \n".to_owned(), "is empty"), ("x".repeat(5000), "more than 4096")] {
            std::fs::write(&path, content).unwrap();
            let fault = Token::read_or_make(&path).unwrap_err().to_string();
            assert!(fault.starts_with("admin.token_file: ") && fault.contains(what), "{fault}");
        }
        let fault = Token::read_or_make(directory.path()).unwrap_err().to_string();
        assert!(fault.contains("is no file"), "{fault}");
        let fault = Token::read_or_make(Path::new("/proc/nowhere/t")).unwrap_err().to_string();
        assert!(fault.contains("can't be made") && fault.contains("admin.address = \"\""), "{fault}");
    }
}
