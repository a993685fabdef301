//! `mailonce sink`: a receiving SMTP server for trying things out.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;

use super::{CliFault, runtime};
use crate::sink::fault::{Fault, HELP};
use crate::sink::{self, Keep, Received};

/// Arguments of `sink`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("Example:\n  mailonce sink --listen 127.0.0.1:1025 --dir mail\n\nFaults:\n{HELP}"))]
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
pub fn run(args: &SinkArgs) -> Result<(), CliFault> {
    let faults = args.fault.iter().map(|text| text.parse().map_err(CliFault::Failed));
    let faults: Vec<Fault> = faults.collect::<Result<_, _>>()?;
    if let Some(directory) = &args.dir {
        std::fs::create_dir_all(directory)?;
    }
    runtime()?.block_on(async {
        let listener = TcpListener::bind(args.listen).await?;
        super::print(format!("listening on {}\n", listener.local_addr()?).as_bytes())?;
        let keep = Keeper { directory: args.dir.clone() };
        tokio::select! {
            served = sink::serve(listener, faults, Arc::new(keep)) => Ok(served?),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    })
}

/// Keeps messages as files and prints a line for each.
struct Keeper {
    directory: Option<PathBuf>,
}

impl Keep for Keeper {
    fn keep(&self, message: Received) -> std::io::Result<()> {
        let mut line = format!("{} {}", message.number, message.route());
        if let Some(directory) = &self.directory {
            let path = unused(directory, message.number);
            std::fs::write(&path, message.content)?;
            line.push_str(&format!(", {}", path.display()));
        }
        line.push('\n');
        std::io::stdout().write_all(line.as_bytes())
    }
}

/// A file name that no earlier run of the sink has taken.
fn unused(directory: &Path, number: u64) -> PathBuf {
    let name = |number| directory.join(format!("{number:06}.eml"));
    (number..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(number))
}
