//! A client that speaks TLS and says what it is told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::common::{Client, DEADLINE, Mail};
use super::pki::{Authority, Identity};

/// What a client trusts and shows; sessions are resumed within one.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts this CA and shows nothing.
    pub fn new(authority: &Authority) -> Self {
        Self::with(authority, None, rustls::ALL_VERSIONS)
    }

    /// Shows a certificate.
    pub fn showing(authority: &Authority, identity: &Identity) -> Self {
        Self::with(authority, Some(identity), rustls::ALL_VERSIONS)
    }

    pub fn with(
        authority: &Authority,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        Self::by(rustls::crypto::ring::default_provider(), authority, identity, versions)
    }

    fn by(
        provider: CryptoProvider,
        authority: &Authority,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Self(Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }))
    }

    /// One version, with the cipher suites in another order.
    pub fn preferring(
        authority: &Authority,
        version: &'static SupportedProtocolVersion,
        order: impl FnOnce(&mut Vec<rustls::SupportedCipherSuite>),
    ) -> Self {
        let mut provider = rustls::crypto::ring::default_provider();
        order(&mut provider.cipher_suites);
        Self::by(provider, authority, None, &[version])
    }

    fn over(&self, stream: TcpStream, name: &str) -> Secure {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(self.0.clone(), name).unwrap();
        Secure { stream: BufReader::new(StreamOwned::new(session, stream)) }
    }

    /// Connects to a listener that begins with TLS; reads nothing.
    pub fn implicit(&self, address: SocketAddr) -> Secure {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        self.over(stream, "relay.test")
    }

    /// The same with bytes that leave together with the end of the handshake.
    pub fn talking_early(&self, address: SocketAddr, bytes: &[u8]) -> Secure {
        let mut client = self.implicit(address);
        let StreamOwned { conn, sock } = client.stream.get_mut();
        conn.write_tls(sock).unwrap();
        while conn.is_handshaking() {
            conn.read_tls(sock).unwrap();
            conn.process_new_packets().unwrap();
        }
        conn.writer().write_all(bytes).unwrap();
        let mut flight = Vec::new();
        while conn.wants_write() {
            conn.write_tls(&mut flight).unwrap();
        }
        sock.write_all(&flight).unwrap();
        client
    }

    /// Connects and says STARTTLS; EHLO is due.
    pub fn starttls(&self, address: SocketAddr) -> Secure {
        self.starttls_as(address, "relay.test")
    }

    /// The same, asking for this name.
    pub fn starttls_as(&self, address: SocketAddr, name: &str) -> Secure {
        let mut client = Client::hello(address);
        assert_eq!(client.command("STARTTLS"), "220 2.0.0 go ahead");
        self.over(client.into_stream(), name)
    }

    /// Shakes hands where STARTTLS was said already.
    pub fn over_client(&self, client: Client) -> Secure {
        self.over(client.into_stream(), "relay.test")
    }

    /// The same with EHLO said.
    pub fn hello(&self, address: SocketAddr) -> Secure {
        let mut client = self.starttls(address);
        client.hello();
        client
    }
}

/// An encrypted connection.
pub struct Secure {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Secure {
    #[track_caller]
    pub fn hello(&mut self) -> String {
        let reply = self.command("EHLO client.test");
        assert!(reply.starts_with("250-relay.test"), "{reply}");
        reply
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the proxy takes nothing any more");
        self.stream.get_mut().flush().unwrap();
    }

    /// Sends a line, if anybody takes it.
    pub fn try_say(&mut self, line: &str) {
        let _ = write!(self.stream.get_mut(), "{line}\r\n");
    }

    /// One reply, or why there is none.
    pub fn try_reply(&mut self) -> std::io::Result<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("not a line: {line:?}"));
            lines.push(text.to_owned());
            if text.as_bytes().get(3) != Some(&b'-') {
                return Ok(lines.join("\n"));
            }
        }
    }

    #[track_caller]
    pub fn reply(&mut self) -> String {
        self.try_reply().expect("no reply in time")
    }

    #[track_caller]
    pub fn expect(&mut self, start: &str) {
        let reply = self.reply();
        assert!(reply.starts_with(start), "{start:?} was due, not {reply:?}");
    }

    #[track_caller]
    pub fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// Sends a message up to the end of data, and reads nothing more.
    #[track_caller]
    pub fn start(&mut self, mail: &Mail) {
        assert!(self.command(&format!("MAIL FROM:<{}>", mail.from)).starts_with("250 "));
        for recipient in &mail.to {
            let reply = self.command(&format!("RCPT TO:<{recipient}>"));
            assert!(reply.starts_with("250 "), "{reply}");
        }
        assert!(self.command("DATA").starts_with("354 "));
        self.send(mail.stuffed());
    }

    /// Sends a message and gives the reply to it.
    #[track_caller]
    pub fn deliver(&mut self, mail: &Mail) -> String {
        self.start(mail);
        self.reply()
    }

    /// Says no more, but still listens.
    pub fn finish(&mut self) {
        let StreamOwned { conn, sock } = self.stream.get_mut();
        conn.send_close_notify();
        conn.write_tls(sock).unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
    }

    /// Whether the connection ends now, with the goodbye of TLS.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }

    /// The cipher suite that was agreed on.
    pub fn cipher(&self) -> String {
        format!("{:?}", self.stream.get_ref().conn.negotiated_cipher_suite().unwrap().suite())
    }

    /// The certificate that the proxy has shown, in PEM's base64.
    pub fn shown(&self) -> Vec<u8> {
        self.stream.get_ref().conn.peer_certificates().unwrap()[0].to_vec()
    }

    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// The certificate of an identity, as it is shown.
pub fn der(identity: &Identity) -> Vec<u8> {
    CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap().to_vec()
}
