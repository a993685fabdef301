//! A CA of the test's own, and what it signs.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

/// A CA.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = called(CertificateParams::default(), name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for these DNS names and addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.sign(
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap(),
        )
    }

    /// One with a common name and nothing else.
    pub fn issue_to(&self, name: &str) -> Identity {
        self.sign(called(CertificateParams::default(), name))
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn called(mut params: CertificateParams, name: &str) -> CertificateParams {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Identity {
    /// Writes or replaces `NAME.pem` and `NAME.key`, each at once.
    pub fn write(&self, directory: &Path, name: &str) {
        replace(&directory.join(format!("{name}.key")), &self.key);
        replace(&directory.join(format!("{name}.pem")), &self.certificate);
    }
}

/// Puts a file where another one is, as tools that renew certificates do.
pub fn replace(path: &Path, content: &str) {
    let mut fresh = PathBuf::from(path);
    fresh.set_extension("fresh");
    std::fs::write(&fresh, content).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}
