//! The real binary as a process of its own, an upstream and clients around it.
#![allow(dead_code, reason = "each test uses a part of this")]

pub(crate) mod client;
pub(crate) mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long anything that must happen may take before the test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What `event` becomes, or a panic that says what did not happen in time.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("did not happen in time: {what}"))
}

/// SplitMix64: small, and the same on every machine for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From the environment, else a new one; printed either way, so that a
    /// failing run can be tried again.
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("MAILONCE_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| getrandom::u64().expect("a random number"));
        println!("MAILONCE_CRASH_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `often` times.
    pub(crate) fn once_in(&mut self, often: u64) -> bool {
        self.below(often) == 0
    }

    /// An independent stream of numbers.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// A directory with a configuration, a store and a log, in which one proxy
/// after the other lives.
pub(crate) struct Home {
    directory: tempfile::TempDir,
    /// A program and its arguments that is to start the proxy.
    within: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Home {
    /// `extra` is TOML appended to the configuration: whole tables.
    pub(crate) fn new(upstream: SocketAddr, extra: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = directory.path().join("store");
        let config = format!(
            "hostname = \"relay.test\"\n\n[[listener]]\nname = \"test\"\naddress = \"127.0.0.1:0\"\n\n\
             [upstream]\naddress = \"{upstream}\"\n\n\
             [store]\npath = '{}'\n\n[log]\nformat = \"json\"\n\n[admin]\naddress = \"\"\n\n{extra}\n",
            store.display()
        );
        std::fs::write(directory.path().join("mailonce.toml"), config).expect("a configuration file");
        Self { directory, within: Vec::new(), environment: Vec::new() }
    }

    /// The same with an environment variable: every key of the configuration
    /// has one.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::path::Path>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().display().to_string()));
        self
    }

    /// Takes all variables of that name back.
    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// The same with proxies that another program starts.
    pub(crate) fn started_by(mut self, program: &[&str]) -> Self {
        self.within = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The same with an admin address.
    pub(crate) fn with_admin(self) -> Self {
        let token = self.directory.path().join("admin.token");
        self.env("MAILONCE_ADMIN__ADDRESS", "127.0.0.1:0").env("MAILONCE_ADMIN__TOKEN_FILE", token)
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let words = self.within.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_mailonce")]);
        let words: Vec<&str> = words.collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAILONCE_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(arguments).arg("--config").arg(self.directory.path().join("mailonce.toml"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Starts a proxy; `crash_at` names a step at which it is to die.
    pub(crate) fn spawn(&self, crash_at: Option<&str>) -> Starting {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file());
        let mut command = self.command(&["serve"]);
        command.stdout(Stdio::piped()).stderr(log.expect("a log file"));
        if let Some(step) = crash_at {
            command.env("MAILONCE_CRASH_AT", step);
        }
        let mut child = command.spawn().expect("the proxy starts");
        let output = child.stdout.take().expect("a pipe");
        Starting { child, output: BufReader::new(output).lines() }
    }

    /// Starts a proxy that is to become ready.
    pub(crate) async fn start(&self, crash_at: Option<&str>) -> Proxy {
        let ready = within("the proxy is ready", self.spawn(crash_at).ready()).await;
        ready.unwrap_or_else(|status| panic!("the proxy ended at once ({status}): {}", self.log_text()))
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The lines about messages. A line that a killed process did not finish
    /// is left out.
    pub(crate) fn decisions(&self) -> Vec<Value> {
        let lines = self.log_text();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == "message").collect()
    }

    /// Every claim by key, as `keys list` shows it. Only while no proxy runs.
    pub(crate) async fn claims(&self) -> BTreeMap<String, Value> {
        let mut command = self.command(&["keys", "list", "--json", "--limit", "0"]);
        let output = within("keys list ends", command.output()).await.expect("keys list runs");
        assert!(output.status.success(), "keys list: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON object"));
        records.map(|record| (record["key"].as_str().expect("a key").to_owned(), record)).collect()
    }
}

/// A proxy that has not said `ready` yet.
pub(crate) struct Starting {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Starting {
    /// Waits for `ready`; how it ended where it does not come to that.
    pub(crate) async fn ready(mut self) -> Result<Proxy, ExitStatus> {
        let (mut address, mut admin) = (None, None);
        while let Some(line) = self.output.next_line().await.expect("its output") {
            if let Some(rest) = line.strip_prefix("listening on ") {
                let (text, name) = rest.split_once(' ').expect("an address and a name");
                let place = if name == "(admin)" { &mut admin } else { &mut address };
                *place = Some(text.parse().expect("an address"));
            } else if line == "ready" {
                let address = address.expect("a listener is announced before ready");
                return Ok(Proxy { child: self.child, address, admin, _output: self.output });
            }
        }
        Err(self.child.wait().await.expect("an exit status"))
    }

    /// SIGKILL, at whatever it is doing.
    pub(crate) async fn kill(mut self) {
        within("a killed process ends", self.child.kill()).await.expect("SIGKILL");
    }
}

/// A proxy that is ready.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Proxy {
    /// SIGKILL, and the end of the process.
    pub(crate) async fn kill(mut self) {
        within("a killed process ends", self.child.kill()).await.expect("SIGKILL");
    }

    /// Waits for a process that kills itself.
    pub(crate) async fn crashed(mut self) {
        use std::os::unix::process::ExitStatusExt;
        let status = within("the process kills itself", self.child.wait()).await.expect("an exit status");
        assert_eq!(status.signal(), Some(9), "it ended otherwise: {status}");
    }

    /// SIGTERM; it must end with 0.
    pub(crate) async fn stop(mut self) {
        kill_process(self.pid(), Signal::TERM).expect("SIGTERM");
        let status = within("the proxy ends politely", self.child.wait()).await.expect("an exit status");
        assert!(status.success(), "{status}");
    }

    /// Any other signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(id.cast_signed()).expect("a process id")
    }

    /// A field of `/proc/PID/status` in octets, such as `VmRSS` (resident now)
    /// or `VmHWM` (resident at most, ever).
    pub(crate) fn memory(&self, field: &str) -> u64 {
        let file = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(file).expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("a size");
        kibibytes.trim().parse::<u64>().expect("a number") * 1024
    }
}

/// As many open files as the system lets this process, and those it starts,
/// have; answers how many.
pub(crate) fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
    limit.current.unwrap_or(u64::MAX)
}
