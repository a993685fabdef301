//! `mailonce demo`: the proxy at work, in one process.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{CliFault, runtime};
use crate::config;
use crate::demo::Demo;
use crate::server;
use crate::store::Store;

/// Arguments of `demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce demo --once && echo one e-mail arrived")]
pub struct DemoArgs {
    /// End after the show; exit code 1 if anything but one e-mail arrived
    #[arg(long)]
    pub once: bool,
}

/// Shows, then runs until it is interrupted.
pub fn run(args: &DemoArgs) -> Result<(), CliFault> {
    let directory = tempfile::tempdir()?;
    let opened =
        server::open_store(&config::Store::Sled { path: directory.path().join("claims"), reserve: 0 })?;
    show(opened.store, args.once)
}

/// The demonstration over a given store.
///
/// # Errors
/// When anything but one e-mail arrived.
pub fn show(store: Arc<dyn Store>, once: bool) -> Result<(), CliFault> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| CliFault::Failed(error.to_string());
    runtime()?.block_on(async {
        let mut out = std::io::stdout();
        let mut demo = Demo::start(store).await.map_err(failed)?;
        let shown = demo.show().await.map_err(failed)?;
        demo.tell(&shown, &mut out)?;
        if !once && shown.is_once() {
            let stop = CancellationToken::new();
            let stopped = stop.clone();
            tokio::spawn(async move {
                let _ = tokio::signal::ctrl_c().await;
                stopped.cancel();
            });
            demo.keep_running(&stop, &mut out).await?;
        }
        demo.stop().await;
        match shown.is_once() {
            true => Ok(()),
            false => Err(CliFault::Failed(format!("{} arrived instead of one", shown.delivered))),
        }
    })
}
