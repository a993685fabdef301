//! `mailonce sink`: a receiving SMTP server for trying things out.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::CliFault;

/// Arguments of `sink`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce sink --listen 127.0.0.1:1025 --dir /tmp/mail")]
pub struct SinkArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1025")]
    pub listen: SocketAddr,
    /// Where to keep messages; without it they are counted and dropped
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Something to do wrong on purpose; may be given several times
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<String>,
}

/// Receives until it is interrupted.
pub fn run(_args: SinkArgs) -> Result<(), CliFault> {
    Err(CliFault::Failed("sink is not part of this build".to_owned()))
}
