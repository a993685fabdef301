//! What a `[[listener]]` says about AUTH.

use super::super::convert::{choice, path};
use super::super::section::Section;
use super::super::{Auth, NamedFile, TenantFrom};

/// The words of `auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Off,
    Local,
    Passthrough,
}

/// The keys of AUTH. Where we do not check passwords the file means nothing,
/// and where the upstream does not, nor does `tenant_from`; both may stay written
/// down.
pub(super) fn auth(section: &Section<'_>) -> Auth {
    let mode = section.get("auth", Mode::Off, choice);
    let path = section.get("users", "config/users.toml".into(), path);
    let tenant_from = section.get("tenant_from", TenantFrom::default(), choice);
    match mode {
        Mode::Off => Auth::Off,
        Mode::Local => Auth::Local { users: NamedFile { path, named_by: section.place("users") } },
        Mode::Passthrough => Auth::Passthrough { tenant_from },
    }
}
