//! What it takes to be let in: what handshakes are made with, and our account,
//! out of the files that the configuration names.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::auth::{self, Account};
use super::open::Dial;
use crate::config::{self, KeyPair, Password, TlsManner, UpstreamTls};
use crate::files::{self, FileFault};

/// What the files of `[upstream]` hold. The default goes in clear, and is
/// nobody.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub(super) tls: Option<Tls>,
    pub(super) account: Option<Account>,
    /// What makes the connections, where it is not TCP.
    pub(super) dial: Option<Arc<dyn Dial>>,
    warnings: Vec<String>,
}

/// TLS towards the upstream.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) manner: TlsManner,
    /// Each handshake gets this very one, so that sessions are resumed.
    pub(super) client: Arc<ClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("manner", &self.manner).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads roots, certificate, key and password, so that a file that won't
    /// do is found now and not with the first e-mail.
    ///
    /// # Errors
    /// [`FileFault`] with a line for every file that can't be used.
    pub fn load(settings: &config::Upstream) -> Result<Self, FileFault> {
        let tls = settings.tls.as_ref().map(Tls::load).transpose();
        let account = settings.credentials.as_ref().map(own_account).transpose();
        match (tls, account) {
            (Ok(tls), Ok(account)) => Ok(Self { tls, account, dial: None, warnings: warnings(settings) }),
            (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => Err(fault),
            (Err(tls), Err(account)) => Err(tls.and(account)),
        }
    }

    /// In clear, as nobody, over the connections that `dial` makes.
    pub fn over(dial: Arc<dyn Dial>) -> Self {
        Self { dial: Some(dial), ..Self::default() }
    }

    /// What is hardly meant: secrets that everybody can read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn warnings(settings: &config::Upstream) -> Vec<String> {
    let key = settings.tls.as_ref().and_then(|tls| tls.key_pair.as_ref()).map(|pair| &pair.private_key);
    let password = settings.credentials.as_ref().and_then(|account| match &account.password {
        Password::Written { place, .. } => place.as_ref(),
        Password::File(file) => Some(file),
    });
    key.into_iter().chain(password).filter_map(files::exposed).collect()
}

fn own_account(credentials: &config::Credentials) -> Result<Account, FileFault> {
    let password = match &credentials.password {
        Password::Written { secret, .. } => secret.clone(),
        Password::File(file) => files::password(file)?,
    };
    Ok(auth::own(&credentials.username, password))
}

impl Tls {
    fn load(settings: &UpstreamTls) -> Result<Self, FileFault> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                FileFault::new(format!("{}: TLS can't be set up: {error}", settings.named_by))
            })?;
        let builder = if settings.manner.verifies() {
            builder.with_root_certificates(match &settings.ca_file {
                Some(file) => files::roots(file)?,
                None => system_roots(&settings.named_by)?,
            })
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        };
        let client = match &settings.key_pair {
            None => builder.with_no_client_auth(),
            Some(KeyPair { certificate, private_key }) => {
                let (chain, key) = (files::certificates(certificate)?, files::private_key(private_key)?);
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let what = format!("does not go with its client_key: {error}; name the two of one pair");
                    FileFault::of(certificate, &what)
                })?
            }
        };
        Ok(Self { manner: settings.manner, client: Arc::new(client) })
    }
}

fn system_roots(named_by: &str) -> Result<RootCertStore, FileFault> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(store);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(FileFault::new(format!(
        "{named_by}: the system has no root certificates{why} to verify the upstream with; install its \
         ca-certificates, or name a ca_file"
    )))
}

/// Takes any certificate, so that whoever only listens learns nothing. That
/// the other end has the key of what it shows is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
