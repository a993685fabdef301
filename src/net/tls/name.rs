//! Whose certificate it is.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::identity::{FieldFault, usable};

/// Why a certificate names no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// It can't be understood.
    Unreadable,
    /// It has neither a DNS name, nor an e-mail address, nor a common name.
    Nameless,
    /// Its name can't be a tenant.
    Unusable(FieldFault),
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameFault::Unreadable => f.write_str("it can't be understood"),
            NameFault::Nameless => {
                f.write_str("it has neither a DNS name, nor an e-mail address, nor a common name")
            }
            NameFault::Unusable(why) => write!(f, "its name {why}"),
        }
    }
}

/// The name of a certificate's owner: the first DNS name, else the first e-mail
/// address, else the common name. Only a verified certificate proves it.
///
/// # Errors
/// [`NameFault`] where there is no such name, or it is not 1 to 256 octets of
/// printable ASCII.
pub fn name_of(certificate: &CertificateDer<'_>) -> Result<String, NameFault> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| NameFault::Unreadable)?;
    let alternatives = certificate.subject_alternative_name().map_err(|_| NameFault::Unreadable)?;
    let alternatives = alternatives.map_or(&[][..], |extension| &extension.value.general_names);
    let dns = alternatives.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let email = alternatives.iter().find_map(|name| match name {
        GeneralName::RFC822Name(name) => Some(*name),
        _ => None,
    });
    let common = || certificate.subject().iter_common_name().next()?.as_str().ok();
    let name = dns.or(email).or_else(common).ok_or(NameFault::Nameless)?;
    usable(name.to_owned()).map_err(NameFault::Unusable)
}
