//! An upstream that wants STARTTLS and AUTH, and one that repeats what it was
//! told when it refuses.

#![allow(unreachable_pub, reason = "the test file beside it uses it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::pki::{Authority, Identity};

/// What it says to AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// 235.
    Welcome,
    /// 535, with all that the client has said.
    Echo,
}

/// Listens with this certificate, offers this mechanism, and takes whoever has
/// a certificate of the CA.
pub fn start(authority: &Authority, identity: &Identity, mechanism: &str, manner: Manner) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let (config, mechanism) = (Arc::new(config), mechanism.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, mechanism) = (config.clone(), mechanism.clone());
            // A connection that ends early is the other side's right.
            std::thread::spawn(move || talk(stream, config, &mechanism, manner));
        }
    });
    address
}

fn talk(mut stream: TcpStream, config: Arc<ServerConfig>, mechanism: &str, manner: Manner) -> io::Result<()> {
    stream.write_all(b"220 upstream.test\r\n")?;
    let mut clear = BufReader::new(&stream);
    line(&mut clear)?;
    (&stream).write_all(b"250-upstream.test\r\n250 STARTTLS\r\n")?;
    line(&mut clear)?;
    (&stream).write_all(b"220 go\r\n")?;
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut secure = BufReader::new(StreamOwned::new(session, stream));
    let mut said = Vec::new();
    loop {
        let line = line(&mut secure)?;
        let reply = match line.split(' ').next().unwrap_or_default() {
            "EHLO" => format!("250-upstream.test\r\n250 AUTH {mechanism}"),
            "AUTH" => {
                said.push(line.clone());
                if mechanism == "LOGIN" {
                    for question in ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"] {
                        say(&mut secure, &format!("334 {question}"))?;
                        said.push(self::line(&mut secure)?);
                    }
                }
                match manner {
                    Manner::Welcome => "235 2.7.0 welcome".to_owned(),
                    Manner::Echo => format!("535 5.7.8 I do not know {}", said.join(" ")),
                }
            }
            "DATA" => {
                say(&mut secure, "354 go")?;
                while self::line(&mut secure)? != "." {}
                "250 2.0.0 taken".to_owned()
            }
            "QUIT" => return say(&mut secure, "221 bye"),
            _ => "250 ok".to_owned(),
        };
        say(&mut secure, &reply)?;
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn say<S: Read + Write>(stream: &mut BufReader<S>, reply: &str) -> io::Result<()> {
    stream.get_mut().write_all(format!("{reply}\r\n").as_bytes())?;
    stream.get_mut().flush()
}
