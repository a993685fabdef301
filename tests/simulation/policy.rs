//! The policy, as the configuration has it, and what a reload changes of it.

use std::time::Duration;

use mailonce::config::Config;

use super::plan::TENANT_HEADER;
use super::random::Random;

#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub scope: &'static str,
    /// `header`, or `content` where no client sends a key.
    pub chain: &'static str,
    pub window: Duration,
    pub unheard_window: Duration,
    pub in_flight_wait: Duration,
    pub change: Change,
}

/// What a reload may change.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub in_doubt: &'static str,
    pub on_duplicate: &'static str,
    pub on_conflict: &'static str,
    pub on_partial: &'static str,
}

impl Change {
    pub fn draw(random: &mut Random) -> Self {
        Self {
            in_doubt: random.pick(&["suppress", "suppress", "resend", "hold"]),
            on_duplicate: random.pick(&["accept", "accept", "reject"]),
            on_conflict: random.pick(&["reject", "reject", "suppress", "relay"]),
            on_partial: random.pick(&["report", "report", "accept"]),
        }
    }
}

impl Policy {
    pub fn draw(random: &mut Random) -> Self {
        let day = Duration::from_secs(86_400);
        Self {
            scope: random.pick(&["recipient", "recipient", "message"]),
            change: Change::draw(random),
            chain: random.pick(&["header", "header", "header", "content"]),
            window: random.pick(&[day, day, day, Duration::from_secs(90)]),
            unheard_window: random.pick(&[Duration::from_secs(1), Duration::from_secs(600), day, day]),
            in_flight_wait: random.seconds(5, 90),
        }
    }

    /// The configuration of a proxy.
    pub fn parsed(&self) -> Config {
        Config::parse(&self.config(), "simulation", std::iter::empty()).unwrap()
    }

    fn config(&self) -> String {
        let Self { scope, chain, .. } = self;
        let Change { in_doubt, on_duplicate, on_conflict, on_partial } = self.change;
        let (window, wait) = (self.window.as_secs(), self.in_flight_wait.as_millis());
        let unheard = self.unheard_window.as_secs();
        format!(
            "hostname = \"proxy.test\"\n\
             [[listener]]\nname = \"t0\"\naddress = \"127.0.0.1:2525\"\ntenant_header = \"{TENANT_HEADER}\"\n\
             [[listener]]\nname = \"t1\"\naddress = \"127.0.0.1:2526\"\ntenant_header = \"{TENANT_HEADER}\"\n\
             [upstream]\naddress = \"127.0.0.1:25\"\nidle_timeout = \"20s\"\n\
             [upstream.timeouts]\nconnect = \"10s\"\ngreeting = \"20s\"\nenvelope = \"20s\"\ndata = \"20s\"\n\
             block = \"20s\"\ncompletion = \"30s\"\n\
             [store]\nengine = \"memory\"\n\
             [dedup]\nchain = [\"{chain}\"]\nscope = \"{scope}\"\nwindow = \"{window}s\"\nunheard_window = \"{unheard}s\"\n\
             content_window = \"{window}s\"\non_duplicate = \"{on_duplicate}\"\n\
             on_conflict = \"{on_conflict}\"\non_partial = \"{on_partial}\"\nin_doubt = \"{in_doubt}\"\n\
             in_flight_wait = \"{wait}ms\"\n"
        )
    }
}
