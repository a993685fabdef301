//! The machine's clock is set, back and forth (libfaketime). Timers are not
//! touched, for no setting of a clock does that.

use std::path::PathBuf;

use crate::proc::client::{Client, Letter};
use crate::proc::upstream::Upstream;
use crate::proc::{Home, Proxy, within};
use crate::trial::look;

/// A home whose proxies look at a clock that the test sets.
struct Clocked {
    home: Home,
    upstream: Upstream,
}

impl Clocked {
    async fn new() -> Self {
        let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
            .map(|machine| PathBuf::from(format!("/usr/lib/{machine}/faketime/libfaketime.so.1")))
            .into_iter()
            .find(|path| path.exists())
            .expect("libfaketime is needed: install faketime");
        let upstream = Upstream::start().await;
        let home = Home::new(upstream.address, "");
        let file = home.directory().join("clock");
        let home = home
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let clocked = Self { home, upstream };
        clocked.set("+0");
        clocked
    }

    /// Sets the clock, relative to the right time.
    fn set(&self, to: &str) {
        let (new, file) = (self.home.directory().join("clock.new"), self.home.directory().join("clock"));
        std::fs::write(&new, to).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    async fn send(&self, proxy: &Proxy, letter: &Letter) -> String {
        let mut client = within("a connection", Client::connect(proxy.address)).await.unwrap();
        within("a reply", client.send(letter)).await.unwrap()
    }

    /// Waits until the proxy has seen that the clock was set so often.
    async fn noticed(&self, times: usize) {
        let seen = || self.home.log_text().matches("the machine's clock was set").count() >= times;
        look("the proxy sees the clock", || seen().then_some(())).await;
    }

    fn arrived(&self, key: &str) -> usize {
        self.upstream.mails_of(key).len()
    }
}

/// While it runs: what was sent before, between and after is known, and a new
/// e-mail is sent, whatever the clock says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_makes_nothing_new_and_nothing_known() {
    let clocked = Clocked::new().await;
    let proxy = clocked.home.start(None).await;
    let clocks = ["+0", "-400d", "+800d", "-3d", "+0"];
    for (step, clock) in clocks.iter().enumerate() {
        clocked.set(clock);
        clocked.noticed(step).await;
        for earlier in 0..=step {
            let letter = Letter::new(&format!("step-{earlier}"));
            let heard = clocked.send(&proxy, &letter).await;
            assert_eq!(heard, format!("250 2.0.0 took step-{earlier}"), "at {clock}");
        }
    }
    proxy.stop().await;
    for (step, clock) in clocks.iter().enumerate() {
        assert_eq!(clocked.arrived(&format!("step-{step}")), 1, "sent at {clock}");
    }
}

/// It was wrong until a restart: what was sent under a clock that ran ahead is
/// known for one window, and not for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_ran_ahead_suppresses_for_a_window_and_no_longer() {
    let clocked = Clocked::new().await;
    let letter = Letter::new("ahead");
    for (clock, arrived) in [("+1000d", 1), ("+0", 1), ("+6d", 1), ("+8d", 2)] {
        clocked.set(clock);
        let proxy = clocked.home.start(None).await;
        assert_eq!(clocked.send(&proxy, &letter).await, "250 2.0.0 took ahead", "at {clock}");
        assert_eq!(clocked.arrived("ahead"), arrived, "at {clock}");
        proxy.stop().await;
    }
}
