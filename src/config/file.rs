//! A file that the configuration names.

use std::path::PathBuf;

/// A file that the configuration names. It is read where it is used, not here:
/// a command that only looks something up need not be allowed to read keys and
/// passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    /// Who names it, for faults: `mailonce.toml:7: listener.certificate`.
    pub named_by: String,
}
