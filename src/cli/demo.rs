//! `mailonce demo`: the proxy at work, in one process.

use super::CliFault;

/// Arguments of `demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce demo --once && echo one e-mail arrived")]
pub struct DemoArgs {
    /// End after the show; exit code 1 if anything but one e-mail arrived
    #[arg(long)]
    pub once: bool,
}

/// Shows, then runs until it is interrupted.
pub fn run(_args: DemoArgs) -> Result<(), CliFault> {
    Err(CliFault::Failed("demo is not part of this build".to_owned()))
}
