//! `mailonce serve`: runs the proxy.

use super::{CliFault, ConfigArgs};

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce serve --config /etc/mailonce.toml")]
pub struct ServeArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs until a signal ends it.
pub fn run(args: ServeArgs) -> Result<(), CliFault> {
    let _config = args.config.load()?;
    Err(CliFault::Failed("serve is not part of this build".to_owned()))
}
