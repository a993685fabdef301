//! How connections to the upstream are secured, and who we are to it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::secret::Secret;

/// TLS towards the upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// When, and what follows where it can't be had.
    pub manner: TlsManner,
    /// What handshakes are made with.
    pub client: TlsClient,
}

/// When TLS starts, and whether it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsManner {
    /// By STARTTLS where that is offered, unverified; else in clear.
    Opportunistic,
    /// By STARTTLS (RFC 3207), or nothing is sent.
    StartTls,
    /// From the first octet on (RFC 8314 §3).
    Implicit,
}

impl TlsManner {
    /// Whether the certificate is verified, and nothing sent where it fails.
    pub fn verifies(self) -> bool {
        self != TlsManner::Opportunistic
    }
}

/// What handshakes are made with: roots, our certificate, and the sessions
/// that can be resumed. Clones share all of it.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Verifies against `roots`; without roots, any certificate will do. Shows
    /// `identity` where the upstream asks for a certificate.
    ///
    /// # Errors
    /// When certificate and key of `identity` can't be used together.
    pub(super) fn new(roots: Option<RootCertStore>, identity: Option<Identity>) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match roots {
            Some(roots) => builder.with_root_certificates(roots),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        let config = match identity {
            Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// The same as rustls takes it; each handshake gets this very one, so that
    /// sessions are resumed.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient")
    }
}

impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A certificate of our own, with those that lead to its root, and its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
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

/// The proxy's own account at the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Who we are.
    pub username: String,
    /// What proves it.
    pub password: Secret,
}
