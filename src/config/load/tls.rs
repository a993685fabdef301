//! What a `[[listener]]` says about TLS.

use super::super::convert::{boolean, choice, optional_path, paths};
use super::super::section::Section;
use super::super::{KeyPair, ListenerTls, NamedFile, TlsStart};

/// The words of `tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Off,
    StartTls,
    Implicit,
}

/// The keys of TLS. While it is off the files mean nothing, and may stay
/// written down.
pub(super) fn tls(section: &Section<'_>) -> Option<ListenerTls> {
    let certificates = section.get("certificate", Vec::new(), paths);
    let private_keys = section.get("private_key", Vec::new(), paths);
    let client_ca = section.get("client_ca", None, optional_path);
    // Whoever names a file for TLS wants TLS, and hears of those that lack.
    let wanted = !certificates.is_empty() || !private_keys.is_empty() || client_ca.is_some();
    let mode = section.get("tls", if wanted { Mode::StartTls } else { Mode::Off }, choice);
    let required = section.get("require_tls", false, boolean);
    let start = match (mode, required) {
        (Mode::Off, true) => {
            section.fault("require_tls", "there is no TLS to require: name a certificate and its private_key, and do not write tls = \"off\"");
            return None;
        }
        (Mode::Off, false) => return None,
        (Mode::StartTls, false) => TlsStart::Offered,
        (Mode::StartTls, true) => TlsStart::Required,
        (Mode::Implicit, _) => TlsStart::Implicit,
    };
    let file = |key| {
        let named_by = section.place(key);
        move |path| NamedFile { path, named_by: named_by.clone() }
    };
    for (key, files) in [("certificate", &certificates), ("private_key", &private_keys)] {
        if files.is_empty() {
            let what = "TLS needs it; name a PEM file, such as one that `mailonce dev-cert` makes";
            section.fault(key, what);
        }
    }
    if certificates.len() != private_keys.len() && !certificates.is_empty() && !private_keys.is_empty() {
        let (keys, certificates) = (private_keys.len(), certificates.len());
        let what =
            format!("{keys} for {certificates} of listener.certificate; name one for each, in its order");
        section.fault("private_key", &what);
    }
    let certificates = certificates.into_iter().map(file("certificate"));
    let private_keys = private_keys.into_iter().map(file("private_key"));
    let pair = |(certificate, private_key)| KeyPair { certificate, private_key };
    Some(ListenerTls {
        start,
        key_pairs: certificates.zip(private_keys).map(pair).collect(),
        client_ca: client_ca.map(file("client_ca")),
    })
}
