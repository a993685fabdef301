//! From the files of a listener to what rustls works with.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Timestamp;
use crate::config::{KeyPair, ListenerTls, NamedFile};
use crate::files::{FileFault, FileStamp, certificates, exposed, private_key, roots, stamp};

/// What the files make together.
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) warnings: Vec<String>,
}

/// Reads all files of a listener.
pub(super) fn load(settings: &ListenerTls, now: Timestamp) -> Result<Loaded, FileFault> {
    let provider = Arc::new(default_provider());
    let mut warnings = Vec::new();
    let mut keys = Vec::new();
    for pair in &settings.key_pairs {
        keys.push(Arc::new(certified_key(pair, &provider, now, &mut warnings)?));
    }
    let other = |error: Error| FileFault::new(format!("TLS can't be set up: {error}"));
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(other)?;
    let builder = match &settings.client_ca {
        Some(file) => builder.with_client_cert_verifier(verifier(file, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    // The strongest suite that both know, whatever the client would rather have.
    config.ignore_client_order = true;
    // For clients that take no tickets, rustls remembers sessions by itself.
    config.ticketer = Ticketer::new().map_err(other)?;
    Ok(Loaded { config: Arc::new(config), warnings })
}

fn certified_key(
    pair: &KeyPair,
    provider: &CryptoProvider,
    now: Timestamp,
    warnings: &mut Vec<String>,
) -> Result<CertifiedKey, FileFault> {
    let chain = certificates(&pair.certificate)?;
    if let Some(first) = chain.first() {
        let validity = validity(first, now).ok_or_else(|| {
            FileFault::of(&pair.certificate, "the first certificate in it can't be understood")
        })?;
        warnings.extend(validity.warning().map(|what| FileFault::of(&pair.certificate, what).to_string()));
    }
    let key = private_key(&pair.private_key)?;
    warnings.extend(exposed(&pair.private_key));
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let certificate = pair.certificate.path.display();
            FileFault::of(
                &pair.private_key,
                &format!("this key does not belong to the certificate in {certificate}"),
            )
        }
        error => FileFault::of(&pair.private_key, &format!("this key can't be used: {error}")),
    })
}

fn verifier(
    file: &NamedFile,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, FileFault> {
    // Whoever has no certificate may still relay from where anybody may.
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| FileFault::of(file, &format!("can't be used to check clients: {error}")))
}

/// When a certificate may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    Now,
    Over,
    NotYet,
}

impl Validity {
    fn warning(self) -> Option<&'static str> {
        match self {
            Validity::Now => None,
            Validity::Over => Some("this certificate has expired: clients that check it will not go on"),
            Validity::NotYet => {
                Some("this certificate is not valid yet: clients that check it will not go on")
            }
        }
    }
}

fn validity(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let now = i64::try_from(now.as_millis() / 1000).unwrap_or(i64::MAX);
    Some(if validity.not_after.timestamp() < now {
        Validity::Over
    } else if validity.not_before.timestamp() > now {
        Validity::NotYet
    } else {
        Validity::Now
    })
}

/// Shows each client the certificate that has the name it asks for, else the
/// first; of several, one whose kind of key the client can check.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = name.and_then(|name| self.0.iter().filter(fits).find(|key| has_name(key, &name)));
        named.or_else(|| self.0.iter().find(fits)).or(self.0.first()).cloned()
    }
}

fn has_name(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

/// How the files looked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<FileStamp>>);

impl Stamps {
    pub(super) fn of(settings: &ListenerTls) -> Self {
        let pairs = settings.key_pairs.iter().flat_map(|pair| [&pair.certificate, &pair.private_key]);
        Self(pairs.chain(&settings.client_ca).map(stamp).collect())
    }
}
