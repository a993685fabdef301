//! Reading the files that the configuration names: certificates, keys,
//! passwords. A fault says who names the file, which it is and what is wrong
//! with it, and never what is in it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{NamedFile, Secret};

/// The most octets of a file with a password.
const MAX_PASSWORD: u64 = 4096;

/// Why files can't be used; a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault(String);

impl FileFault {
    /// A fault that lies with no single file.
    pub fn new(what: String) -> Self {
        Self(what)
    }

    /// Something is wrong with this file.
    pub fn of(file: &NamedFile, what: &str) -> Self {
        Self(format!("{}: {}: {what}", file.named_by, file.path.display()))
    }

    /// Both, each with lines of its own.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(format!("{self}\n{other}"))
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileFault {}

fn read(file: &NamedFile) -> Result<Vec<u8>, FileFault> {
    std::fs::read(&file.path).map_err(|error| FileFault::of(file, &format!("can't be read: {error}")))
}

/// Every certificate of a PEM file.
///
/// # Errors
/// Where it can't be read, is no PEM or holds none.
pub fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let pem = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            let what = "there is no certificate in it; one begins with -----BEGIN CERTIFICATE-----";
            Err(FileFault::of(file, what))
        }
        Ok(certificates) => Ok(certificates),
        // The library's own words may quote what is in the file.
        Err(_) => Err(FileFault::of(file, "not valid PEM")),
    }
}

/// The private key in a PEM file.
///
/// # Errors
/// Where it can't be read or holds none that is not encrypted.
pub fn private_key(file: &NamedFile) -> Result<PrivateKeyDer<'static>, FileFault> {
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        FileFault::of(
            file,
            "there is no private key in it that can be used; it is PEM, and must not be encrypted",
        )
    })
}

/// The CAs in a PEM file.
///
/// # Errors
/// As [`certificates`], and where one can't be a CA.
pub fn roots(file: &NamedFile) -> Result<RootCertStore, FileFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| FileFault::of(file, &format!("holds one that can't be a CA: {error}")))?;
    }
    Ok(roots)
}

/// The first octets of a file, without the end of its last line.
///
/// # Errors
/// Where it can't be read, holds nothing, or what AUTH can't carry.
pub fn password(file: &NamedFile) -> Result<Secret, FileFault> {
    let mut text = String::new();
    File::open(&file.path)
        .and_then(|file| file.take(MAX_PASSWORD).read_to_string(&mut text))
        .map_err(|error| FileFault::of(file, &format!("can't be read: {error}")))?;
    let password = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() {
        return Err(FileFault::of(file, "is empty; write the password into it"));
    }
    if password.contains('\0') {
        return Err(FileFault::of(file, "holds a NUL, which AUTH can't carry"));
    }
    Ok(Secret::new(password.to_owned()))
}

/// How a file looked: whatever replaces or writes it changes its stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

/// How a file looks now; `None` where that can't be seen.
pub fn stamp(file: &NamedFile) -> Option<FileStamp> {
    let seen = std::fs::metadata(&file.path).ok()?;
    Some(FileStamp { modified: (seen.mtime(), seen.mtime_nsec()), size: seen.size(), inode: seen.ino() })
}

/// A warning where everybody on this machine can read a file with a secret.
/// That its group can is how systems hand keys out (Debian's `ssl-cert`,
/// credentials of systemd).
pub fn exposed(file: &NamedFile) -> Option<String> {
    let mode = std::fs::metadata(&file.path).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        let what = "everybody on this machine can read the secret in it; chmod o-rwx keeps it from them";
        FileFault::of(file, what).0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, NamedFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let named = NamedFile { path: file.path().into(), named_by: "m.toml:1: upstream.x".to_owned() };
        (file, named)
    }

    /// The fault without its place.
    fn what<T>(result: Result<T, FileFault>, file: &NamedFile) -> String {
        let Err(fault) = result else { panic!("{file:?} can be used") };
        let place = format!("m.toml:1: upstream.x: {}: ", file.path.display());
        fault.to_string().strip_prefix(&place).unwrap().to_owned()
    }

    #[test]
    fn a_password_is_the_file_without_its_last_line_end() {
        for (content, password) in
            [("p\n", "p"), ("p\r\n", "p"), ("p", "p"), ("p\n\n", "p\n"), (" p ", " p ")]
        {
            let (_keep, file) = file(content.as_bytes());
            assert_eq!(super::password(&file).unwrap().reveal(), password, "{content:?}");
        }
    }

    #[test]
    fn what_is_of_no_use_is_told_without_what_is_in_it() {
        let cases: [(&[u8], &str); 4] = [
            (b"", "is empty; write the password into it"),
            (b"\n", "is empty; write the password into it"),
            (b"hunter2\0", "holds a NUL, which AUTH can't carry"),
            (b"hunter2\xff", "can't be read: stream did not contain valid UTF-8"),
        ];
        for (content, want) in cases {
            let (_keep, file) = file(content);
            assert_eq!(what(password(&file), &file), want, "{content:?}");
        }
        for content in
            ["-----BEGIN CERTIFICATE-----\nhunter2!!\n-----END CERTIFICATE-----\n", "-----BEGIN hunter2"]
        {
            let (_keep, file) = file(content.as_bytes());
            assert_eq!(what(certificates(&file), &file), "not valid PEM");
            assert!(what(private_key(&file), &file).starts_with("there is no private key in it"));
        }
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (_keep, key) = file(made.signing_key.serialize_pem().as_bytes());
        assert!(what(roots(&key), &key).starts_with("there is no certificate in it"));
        private_key(&key).unwrap();
        let nowhere = NamedFile { path: "/nowhere/p".into(), ..key };
        assert_eq!(
            what(password(&nowhere), &nowhere),
            "can't be read: No such file or directory (os error 2)"
        );
        assert_eq!(exposed(&nowhere), None);
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_told() {
        let (keep, file) = file(b"p");
        for (mode, told) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            keep.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            let said = exposed(&file);
            assert_eq!(said.is_some(), told, "{mode:o}");
            assert!(said.is_none_or(|said| said.starts_with("m.toml:1: upstream.x: ")));
        }
    }
}
