//! Certificates made for one test, and servers that show them.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::{Access, Upstream};
use super::*;
use crate::config::Config;

/// A CA of the test's own.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate, for `ca_file`.
    pub(super) file: NamedTempFile,
}

/// A certificate with its key.
pub(super) struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // A name of its own: CAs that share one are told apart by signatures.
        let name = format!("CA {:02x?}", &key.public_key_raw()[..8]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let file = file(&issuer.pem());
        Self { issuer, file }
    }

    /// A certificate for this name or address.
    pub(super) fn issue(&self, name: &str) -> Pair {
        self.issue_with(name, |_| {})
    }

    pub(super) fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }
}

impl Pair {
    /// The certificate and its key in files.
    pub(super) fn files(&self) -> (NamedTempFile, NamedTempFile) {
        (file(&self.certificate.pem()), file(&self.key.serialize_pem()))
    }

    /// Handshakes with this certificate.
    pub(super) fn server(&self) -> Server {
        self.server_with(None, rustls::ALL_VERSIONS)
    }

    /// The same, with nothing newer than TLS 1.2.
    pub(super) fn old_server(&self) -> Server {
        self.server_with(None, &[&rustls::version::TLS12])
    }

    /// The same, where whoever connects needs a certificate of this CA.
    pub(super) fn server_for(&self, clients: &Authority) -> Server {
        self.server_with(Some(clients), rustls::ALL_VERSIONS)
    }

    fn server_with(
        &self,
        clients: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Server {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain: Vec<CertificateDer<'static>> = vec![self.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        Server(TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap())))
    }
}

pub(super) fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The far end of handshakes.
pub(super) struct Server(TlsAcceptor);

/// A peer behind a handshake.
pub(super) type SecurePeer = Peer<TlsStream<TcpStream>>;

impl Server {
    /// A connection over TLS from its first octet on.
    pub(super) async fn implicit(&self, far: &Far) -> std::io::Result<SecurePeer> {
        self.shake_hands(far.accept().await).await
    }

    /// A connection that greets, offers STARTTLS (and DSN) and grants it.
    pub(super) async fn starttls(&self, far: &Far) -> std::io::Result<SecurePeer> {
        let mut peer = far.greet(STARTTLS).await;
        peer.hear("STARTTLS\r\n").await;
        peer.say("220 go\r\n").await;
        self.shake_hands(peer).await
    }

    /// The same up to a finished EHLO.
    pub(super) async fn secured(&self, far: &Far, offered: &str) -> SecurePeer {
        let mut peer = self.starttls(far).await.unwrap();
        peer.hear("EHLO relay.example\r\n").await;
        peer.say(offered).await;
        peer
    }

    async fn shake_hands(&self, peer: Peer<TcpStream>) -> std::io::Result<SecurePeer> {
        Ok(Peer { stream: self.0.accept(peer.stream).await? })
    }
}

pub(super) const STARTTLS: &str = "250-hello\r\n250-STARTTLS\r\n250-DSN\r\n250 PIPELINING\r\n";

/// An upstream at this address, with these lines of configuration.
pub(super) fn upstream_at(address: &str, lines: &str) -> Upstream {
    let settings = configured(address, lines);
    let access = Access::load(&settings).unwrap();
    Upstream::new(settings, access, "relay.example".to_owned())
}

/// What these lines, from the third on, configure.
pub(super) fn configured(address: &str, lines: &str) -> config::Upstream {
    let text = format!("[upstream]\naddress = \"{address}\"\n{lines}");
    Config::parse(&text, "m.toml", std::iter::empty()).unwrap().upstream
}

/// The same with verified TLS.
pub(super) fn verified(far: &Far, tls: &str, authority: &Authority) -> Upstream {
    let ca = authority.file.path().display();
    upstream_at(&far.address, &format!("tls = \"{tls}\"\nca_file = \"{ca}\""))
}
