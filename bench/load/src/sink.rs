//! A server that takes every message and keeps none. It offers STARTTLS and
//! PIPELINING, as an upstream at a distance does.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::wire::{Stream, Wire};
use crate::{Failure, tls};

/// How a session went on.
enum Next {
    Ended,
    StartTls,
}

/// Serves for ever.
pub(crate) async fn serve(listen: SocketAddr, certificate: &Path, key: &Path) -> Result<(), Failure> {
    let acceptor = tls::acceptor(certificate, key)?;
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that has gone is nothing to report.
        tokio::spawn(talk(stream, acceptor.clone()));
    }
}

async fn talk(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut clear = Wire::new(stream);
    clear.write(b"220 sink.example ESMTP\r\n").await?;
    if let Next::StartTls = session(&mut clear, "STARTTLS\r\n250-").await? {
        let mut secret = Wire::new(acceptor.accept(clear.stream).await?);
        session(&mut secret, "").await?;
    }
    Ok(())
}

async fn session<S: Stream>(wire: &mut Wire<S>, offered: &str) -> io::Result<Next> {
    while let Some(line) = wire.line().await? {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let reply = format!("250-sink.example\r\n250-{offered}PIPELINING\r\n250 8BITMIME\r\n");
                wire.write(reply.as_bytes()).await?;
            }
            "STAR" => {
                wire.write(b"220 Go ahead\r\n").await?;
                return Ok(Next::StartTls);
            }
            "DATA" => {
                wire.write(b"354 Go ahead\r\n").await?;
                if !content(wire).await? {
                    break;
                }
                wire.write(b"250 Taken\r\n").await?;
            }
            "QUIT" => {
                wire.write(b"221 Bye\r\n").await?;
                break;
            }
            _ => wire.write(b"250 Fine\r\n").await?,
        }
    }
    Ok(Next::Ended)
}

/// Reads to the dot; false where the client has gone before it.
async fn content<S: Stream>(wire: &mut Wire<S>) -> io::Result<bool> {
    while let Some(line) = wire.line().await? {
        if line == ".\r\n" {
            return Ok(true);
        }
    }
    Ok(false)
}
