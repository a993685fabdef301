//! `mailonce serve`: runs the proxy.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CliFault, ConfigArgs, runtime};
use crate::admin;
use crate::clock::{Clock, SystemClock};
use crate::journal::log;
use crate::net::files;
use crate::server::{self, Bound, Files, Server};

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce serve --config /etc/mailonce.toml")]
pub struct ServeArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs until a signal ends it.
pub fn run(args: &ServeArgs) -> Result<(), CliFault> {
    let config = args.config.load()?;
    let _log = log::init(&config.log).map_err(|fault| CliFault::Failed(fault.to_string()))?;
    files::raise(&config.limits);
    let files = Files::read(&config, SystemClock.now())?;
    let opened = server::open_store(&config.store)?;
    runtime()?.block_on(async {
        let bound = server::bind(&config)?;
        let admin = server::bind_admin(&config).map_err(|fault| CliFault::Failed(fault.to_string()))?;
        let mut signals = Signals::listen()?;
        announce(&bound, admin.as_ref())?;
        let mut server = Server::start(config, bound, files, opened)
            .map_err(|error| CliFault::Failed(format!("no random number to be had: {error}")))?;
        if let Some(admin) = admin {
            server.serve_admin(admin);
        }
        super::print(b"ready\n")?;
        tell_manager(&[NotifyState::Ready]);
        attend(server, &mut signals, &args.config).await;
        Ok(())
    })
}

fn announce(bound: &[Bound], admin: Option<&admin::Bound>) -> Result<(), CliFault> {
    for (socket, name) in bound {
        super::print(format!("listening on {} ({name})\n", socket.local_addr()?).as_bytes())?;
    }
    if let Some(admin) = admin {
        super::print(format!("listening on {} (admin)\n", admin.local_addr()?).as_bytes())?;
    }
    Ok(())
}

/// The signals that we answer, caught from the moment they are listened for.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Wish {
    End,
    Reload,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::End,
            _ = self.terminate.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

/// How long it may take to close upstream connections and the store once the
/// sessions have ended.
const CLOSING: Duration = Duration::from_secs(15);

/// Tells whoever has started us how we are, where it wants to know (systemd,
/// by `NOTIFY_SOCKET`). Mail goes on whether it hears it or not.
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager can't be told how the proxy is");
    }
}

/// Obeys signals until one ends the proxy; a second one ends it at once.
async fn attend(mut server: Server, signals: &mut Signals, config: &ConfigArgs) {
    while let Wish::Reload = signals.next().await {
        let now = NotifyState::monotonic_usec_now().ok();
        tell_manager(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>());
        let reloaded = config.load().and_then(|new| Ok(server.reload(new)?));
        if let Err(fault) = reloaded {
            tracing::error!(%fault, "the configuration is faulty; nothing was changed");
        }
        tell_manager(&[NotifyState::Ready]);
    }
    tracing::info!("ending: attempts under way finish first");
    let patience = u32::try_from((server.drain() + CLOSING).as_micros()).unwrap_or(u32::MAX);
    tell_manager(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(patience)]);
    let at_once = CancellationToken::new();
    let stop = server.stop(at_once.clone());
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            wish = signals.next() => if let Wish::End = wish { at_once.cancel() },
        }
    }
}
