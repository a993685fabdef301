//! The file with the users of a listener: a name and a hash a line.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use toml::de::{DeTable, DeValue};

use crate::config::NamedFile;
use crate::files::{FileFault, FileStamp, stamp};

use super::hash::{Cost, Hash, USUAL};

/// The most octets of the file: some 60,000 users.
const MAX_SIZE: u64 = 8 << 20;

/// The longest name, in octets: clients can't say a longer one.
const MAX_NAME: usize = 255;

/// Faults that are told of one file; the rest are counted.
const TOLD: usize = 10;

/// The users of a listener, and what their passwords are checked against.
#[derive(Debug)]
pub struct Users {
    file: NamedFile,
    /// Replaced as a whole.
    current: ArcSwap<Roll>,
    seen: Mutex<Option<FileStamp>>,
    warnings: Vec<String>,
}

/// What was in the file.
#[derive(Debug)]
struct Roll {
    users: HashMap<String, Arc<Hash>>,
    /// What checking the password of most of them costs.
    usual: Cost,
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// [`FileFault`] where it can't be read or holds something else.
    pub fn load(file: &NamedFile) -> Result<Self, FileFault> {
        // What changes from here on is seen at the next look.
        let seen = stamp(file);
        let (roll, warnings) = read(file)?;
        Ok(Self {
            file: file.clone(),
            current: ArcSwap::from_pointee(roll),
            seen: Mutex::new(seen),
            warnings,
        })
    }

    /// What is hardly meant, such as a file that others can read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Reads the file again where it has changed. A faulty one changes
    /// nothing, and the log says so, once.
    pub fn refresh(&self) {
        let looks = stamp(&self.file);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == looks {
                return;
            }
            *seen = looks;
        }
        match read(&self.file) {
            Ok((roll, warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!(users = roll.users.len(), "a changed users file was read again");
                self.current.store(Arc::new(roll));
            }
            Err(fault) => {
                tracing::warn!(%fault, "a changed users file can't be used; the users read before stay");
            }
        }
    }

    /// The hash of a user's password, or for a stranger what it costs to check
    /// most passwords: as much must be spent, or time would tell who there is.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Hash>, Cost> {
        let roll = self.current.load();
        roll.users.get(name).cloned().ok_or(roll.usual)
    }
}

fn read(file: &NamedFile) -> Result<(Roll, Vec<String>), FileFault> {
    let (text, metadata) = content(file)?;
    let mut warnings = Vec::new();
    let mut warn = |what: &str| warnings.push(FileFault::of(file, what).to_string());
    if metadata.permissions().mode() & 0o077 != 0 {
        warn(
            "others can read or write it, and with it guess passwords as fast as they can; chmod 600 keeps it to one user",
        );
    }
    let users = parse(&text).map_err(|faults| {
        let told = faults.iter().take(TOLD);
        let mut lines: Vec<_> = told.map(|(line, what)| at(file, *line, what)).collect();
        if faults.len() > TOLD {
            lines.push(
                FileFault::of(file, &format!("{} more faults like these", faults.len() - TOLD)).to_string(),
            );
        }
        FileFault::new(lines.join("\n"))
    })?;
    if users.is_empty() {
        warn("there is no user in it, so nobody can log in");
    }
    let mut weak = users.iter().filter(|user| user.hash.is_weak());
    if let Some(first) = weak.next() {
        let more = match weak.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let what = format!(
            "the hash of {:?}{more} is faster to guess than is thought acceptable today; make it anew with \
             `mailonce hash-password`",
            first.name
        );
        warnings.push(at(file, first.line, &what));
    }
    let usual = usual(&users);
    let users = users.into_iter().map(|user| (user.name, Arc::new(user.hash))).collect();
    Ok((Roll { users, usual }, warnings))
}

fn at(file: &NamedFile, line: usize, what: &str) -> String {
    format!("{}: {}:{line}: {what}", file.named_by, file.path.display())
}

fn content(file: &NamedFile) -> Result<(String, Metadata), FileFault> {
    let unreadable = |error: std::io::Error| {
        FileFault::of(
            file,
            &format!(
                "can't be read: {error}; it has a line for each user, \"name\" = \"hash\", with what `mailonce \
                 hash-password` prints"
            ),
        )
    };
    // Asked before it is opened, which would wait for the other end of a pipe.
    let metadata = std::fs::metadata(&file.path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileFault::of(file, "is no file"));
    }
    let mut octets = Vec::new();
    File::open(&file.path)
        .and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut octets))
        .map_err(unreadable)?;
    if octets.len() as u64 > MAX_SIZE {
        return Err(FileFault::of(file, &format!("is too large; at most {MAX_SIZE} octets are read")));
    }
    let text = String::from_utf8(octets).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        FileFault::new(at(file, line_after(valid), "not valid TOML: this line is not UTF-8"))
    })?;
    Ok((text, metadata))
}

/// The line that follows these octets, counted from 1.
fn line_after(octets: &[u8]) -> usize {
    1 + octets.iter().filter(|&&octet| octet == b'\n').count()
}

/// A user as the file has it.
struct User {
    line: usize,
    name: String,
    hash: Hash,
}

/// The users in the order of their lines, or all that is wrong, by line.
fn parse(text: &str) -> Result<Vec<User>, Vec<(usize, String)>> {
    let table = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let what = format!(
            "not valid TOML: {}; write \"name\" = \"hash\", both between quotes, and each name once",
            error.message().replace('\n', ", ")
        );
        vec![(line_after(&text.as_bytes()[..start]), what)]
    })?;
    let mut entries: Vec<_> = table.into_inner().into_iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let (mut users, mut faults) = (Vec::new(), Vec::new());
    let (mut line, mut counted) = (1, 0);
    for (name, value) in entries {
        let start = name.span().start.clamp(counted, text.len());
        line += line_after(&text.as_bytes()[counted..start]) - 1;
        counted = start;
        match user(&name.into_inner(), value.into_inner()) {
            Ok((name, hash)) => users.push(User { line, name, hash }),
            Err(what) => faults.push((line, what)),
        }
    }
    if faults.is_empty() { Ok(users) } else { Err(faults) }
}

fn user(name: &str, value: DeValue<'_>) -> Result<(String, Hash), String> {
    // What is no name may be anything, and is not quoted.
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("a user's name has 1 to 255 octets".to_owned());
    }
    if name.contains(char::is_control) {
        return Err("a user's name has no control characters".to_owned());
    }
    match value {
        DeValue::String(text) => match Hash::parse(&text) {
            Ok(hash) => Ok((name.to_owned(), hash)),
            Err(what) => Err(format!("{name:?}: {what}")),
        },
        DeValue::Table(_) => Err(format!(
            "{name:?}: is a table; a name with a dot in it goes between quotes: \"ann.smith\" = …"
        )),
        _ => Err(format!("{name:?}: is not a text; write \"name\" = \"hash\"")),
    }
}

/// What most of them cost; of several, the most.
fn usual(users: &[User]) -> Cost {
    let mut counts: HashMap<Cost, usize> = HashMap::new();
    for user in users {
        *counts.entry(user.hash.cost()).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(cost, count)| (*count, *cost)).map_or(USUAL, |(cost, _)| cost)
}

#[cfg(test)]
mod tests;
