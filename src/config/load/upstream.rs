//! `[upstream]`: where mail goes, how it is secured, and who we are there.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use super::super::convert::{
    boolean, choice, count, duration, host_and_port, one_or_more, optional_header, optional_path,
    positive_duration, secret, text,
};
use super::super::section::Section;
use super::super::secure::{Credentials, Identity, TlsClient, TlsManner, UpstreamTls};
use super::super::values::is_loopback;
use super::super::{Upstream, UpstreamTimeouts};
use super::MINUTE;
use crate::secret::Secret;

/// The most octets of a file with a password.
const MAX_PASSWORD_FILE: u64 = 4096;

/// `tls`, as it is written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Off,
    Opportunistic,
    StartTls,
    Implicit,
}

impl Written {
    fn manner(self) -> Option<TlsManner> {
        match self {
            Written::Off => None,
            Written::Opportunistic => Some(TlsManner::Opportunistic),
            Written::StartTls => Some(TlsManner::StartTls),
            Written::Implicit => Some(TlsManner::Implicit),
        }
    }
}

pub(super) fn upstream(section: Section<'_>) -> Upstream {
    let address = one_or_more(host_and_port, "name at least one host:port");
    let addresses =
        section.require("address", "write where mail goes, such as \"smtp.example.com:587\"", address);
    let manner = section.get("tls", Written::Off, choice).manner();
    let upstream = Upstream {
        tls: tls(&section, manner),
        credentials: credentials(&section, manner, &addresses),
        addresses,
        pool_size: section.get("pool_size", 20, count(0)),
        idle_timeout: section.get("idle_timeout", Duration::from_secs(30), duration),
        idempotency_header: section.get("idempotency_header", None, optional_header),
        received_header: section.get("received_header", true, boolean),
        timeouts: timeouts(section.table("timeouts")),
    };
    section.close();
    upstream
}

fn timeouts(section: Section<'_>) -> UpstreamTimeouts {
    let span = |key, seconds| section.get(key, Duration::from_secs(seconds), positive_duration);
    let timeouts = UpstreamTimeouts {
        connect: span("connect", 30),
        greeting: span("greeting", 5 * MINUTE),
        envelope: span("envelope", 5 * MINUTE),
        data: span("data", 2 * MINUTE),
        block: span("block", 3 * MINUTE),
        completion: span("completion", 10 * MINUTE),
    };
    section.close();
    timeouts
}

/// Reads roots, certificate and key, so that a file that won't do is found
/// here and not with the first e-mail. While TLS is off nothing is read.
fn tls(section: &Section<'_>, manner: Option<TlsManner>) -> Option<UpstreamTls> {
    let ca_file = section.get("ca_file", None, optional_path);
    let certificate = section.get("client_certificate", None, optional_path);
    let key = section.get("client_key", None, optional_path);
    let manner = manner?;
    if !manner.verifies() && ca_file.is_some() {
        let what =
            "is of no use: \"opportunistic\" verifies nothing; leave it out, or write tls = \"starttls\"";
        section.fault("ca_file", what);
        return None;
    }
    let roots = match ca_file {
        _ if !manner.verifies() => None,
        Some(file) => Some(told(section, "ca_file", roots_of(&file))?),
        None => Some(told(section, "tls", system_roots())?),
    };
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(identity(section, &certificate, &key)?),
        (Some(_), None) => return told(section, "client_certificate", Err("its client_key is missing")),
        (None, Some(_)) => return told(section, "client_key", Err("its client_certificate is missing")),
        (None, None) => None,
    };
    let client = TlsClient::new(roots, identity)
        .map_err(|error| format!("does not go with its client_key: {error}; name the two of one pair"));
    Some(UpstreamTls { manner, client: told(section, "client_certificate", client)? })
}

/// The value, or a fault at `key`.
fn told<T, E: AsRef<str>>(section: &Section<'_>, key: &'static str, result: Result<T, E>) -> Option<T> {
    result.map_err(|what| section.fault(key, what.as_ref())).ok()
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(store);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(format!("the system has no root certificates{why}; install its ca-certificates, or name a ca_file"))
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|error| {
            format!("{} holds a certificate that can't be a root: {error}", file.display())
        })?;
    }
    Ok(store)
}

fn identity(section: &Section<'_>, certificate: &Path, key: &Path) -> Option<Identity> {
    let chain = told(section, "client_certificate", certificates(certificate));
    let key_of = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, "private key", &error));
    let key = told(section, "client_key", key_of);
    Some(Identity { chain: chain?, key: key? })
}

/// Every certificate of a PEM file; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |error: pem::Error| unusable(file, "certificate", &error);
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(unusable)?.collect::<Result<_, _>>().map_err(unusable)?;
    if certificates.is_empty() { Err(unusable(pem::Error::NoItemsFound)) } else { Ok(certificates) }
}

fn unusable(file: &Path, what: &str, error: &pem::Error) -> String {
    let shown = file.display();
    match error {
        pem::Error::Io(error) => format!("{shown} can't be read: {error}"),
        pem::Error::NoItemsFound => {
            format!("{shown} holds no {what}; it takes PEM, with a line \"-----BEGIN\"")
        }
        // Other faults may quote what is in the file.
        _ => format!("{shown} is not valid PEM"),
    }
}

fn credentials(
    section: &Section<'_>,
    manner: Option<TlsManner>,
    addresses: &[String],
) -> Option<Credentials> {
    let username = section.get("username", String::new(), text);
    let password = section.get("password", Secret::default(), secret);
    let file = section.get("password_file", None, optional_path);
    let given = !password.reveal().is_empty();
    if given && file.is_some() {
        section.fault("password_file", "password is written too; leave one of them out");
        return None;
    }
    if username.is_empty() {
        let key = if given { "password" } else { "password_file" };
        if given || file.is_some() {
            section.fault(key, "there is no username that it belongs to; write one, or leave this out");
        }
        return None;
    }
    if username.contains('\0') {
        section.fault("username", "holds a NUL, which AUTH can't carry");
    }
    if !given && file.is_none() {
        section.fault("username", "has no password; write password or password_file");
        return None;
    }
    in_clear(section, manner, addresses);
    let password = match file {
        Some(file) => told(section, "password_file", read_password(&file))?,
        None => password,
    };
    Some(Credentials { username, password })
}

/// Credentials must not travel where anybody may read them.
fn in_clear(section: &Section<'_>, manner: Option<TlsManner>, addresses: &[String]) {
    let secured = manner.is_some_and(TlsManner::verifies);
    if let Some(address) = addresses.iter().find(|address| !secured && !is_loopback(address)) {
        let what = format!(
            "the password could be read on its way to {address}; write tls = \"starttls\" or \"implicit\""
        );
        section.fault("username", &what);
    }
}

/// The first octets of a file, without the end of its last line.
fn read_password(file: &PathBuf) -> Result<Secret, String> {
    let shown = file.display();
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_PASSWORD_FILE).read_to_string(&mut text))
        .map_err(|error| format!("{shown} can't be read: {error}"))?;
    let password = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() {
        return Err(format!("{shown} is empty; write the password into it"));
    }
    if password.contains('\0') {
        return Err(format!("{shown} holds a NUL, which AUTH can't carry"));
    }
    Ok(Secret::new(password.to_owned()))
}
