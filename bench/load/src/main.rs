//! What `bench/compare` needs at both ends of a relay: a client that sends and
//! measures, a sink that speaks TLS, and a link that delays.

mod link;
mod send;
mod sink;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// What ends the program.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The ends of a relay, for benchmarks.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Sends messages and prints what it measured, as JSON
    Send(send::Plan),
    /// Takes messages, over TLS after STARTTLS
    Sink {
        /// Where to listen
        listen: SocketAddr,
        /// PEM of the certificate
        #[arg(long)]
        certificate: PathBuf,
        /// PEM of its key
        #[arg(long)]
        key: PathBuf,
    },
    /// Passes bytes on, a while later
    Link {
        /// Where to listen
        listen: SocketAddr,
        /// Where to connect
        to: SocketAddr,
        /// Milliseconds that each direction takes
        #[arg(long)]
        delay: u64,
    },
}

// One thread: a client or sink that took both cores would leave the relay none.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    match Arguments::parse().role {
        Role::Send(plan) => println!("{}", send::send(plan).await?),
        Role::Sink { listen, certificate, key } => sink::serve(listen, &certificate, &key).await?,
        Role::Link { listen, to, delay } => link::serve(listen, to, Duration::from_millis(delay)).await?,
    }
    Ok(())
}
