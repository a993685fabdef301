//! The real program: a configuration, the process, what it prints and logs.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Answer, Events};
use super::{Client, DEADLINE, Mail, Watched};

/// The program with these arguments and without our environment's overrides.
pub fn mailonce(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailonce"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAILONCE_") {
            command.env_remove(name);
        }
    }
    command
}

/// A configuration in a directory of its own, and the claims beside it. Lines
/// can be added to each section.
#[derive(Clone, Debug)]
pub struct Setup {
    directory: Arc<TempDir>,
    upstream_address: SocketAddr,
    top: String,
    listener: String,
    upstream: String,
    dedup: String,
    limits: String,
    rules: String,
    admin: String,
}

impl Setup {
    pub fn new(upstream: SocketAddr) -> Self {
        Self {
            directory: Arc::new(tempfile::tempdir().unwrap()),
            upstream_address: upstream,
            top: String::new(),
            listener: String::new(),
            upstream: String::new(),
            dedup: String::new(),
            limits: String::new(),
            rules: String::new(),
            // Proxies run side by side: none takes the default address.
            admin: "address = \"\"\n".to_owned(),
        }
    }

    pub fn top(mut self, lines: &str) -> Self {
        self.top += &format!("{lines}\n");
        self
    }

    pub fn listener(mut self, lines: &str) -> Self {
        self.listener += &format!("{lines}\n");
        self
    }

    pub fn upstream(mut self, lines: &str) -> Self {
        self.upstream += &format!("{lines}\n");
        self
    }

    pub fn dedup(mut self, lines: &str) -> Self {
        self.dedup += &format!("{lines}\n");
        self
    }

    pub fn limits(mut self, lines: &str) -> Self {
        self.limits += &format!("{lines}\n");
        self
    }

    /// One more `[[rule]]`, named, with these conditions and lines.
    pub fn rule(mut self, name: &str, conditions: &str, lines: &str) -> Self {
        self.rules += &format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {conditions} }}\n{lines}\n");
        self
    }

    /// Turns the admin address on, on a free port.
    pub fn admin(self) -> Self {
        let token_file = self.token_file();
        self.admin_as(&format!("address = \"127.0.0.1:0\"\ntoken_file = \"{}\"", token_file.display()))
    }

    /// Writes these lines into the section of the admin address.
    pub fn admin_as(mut self, lines: &str) -> Self {
        self.admin = format!("{lines}\n");
        self
    }

    /// Where the admin token is.
    pub fn token_file(&self) -> PathBuf {
        self.directory.path().join("secrets/admin.token")
    }

    /// The configuration.
    pub fn text(&self) -> String {
        let Self { upstream_address, top, listener, upstream, dedup, limits, rules, admin, .. } = self;
        let store = self.directory.path().join("claims");
        format!(
            "hostname = \"relay.test\"\n{top}\
             [[listener]]\nname = \"in\"\naddress = \"127.0.0.1:0\"\n{listener}\
             [upstream]\naddress = \"{upstream_address}\"\n{upstream}\
             [store]\nengine = \"sled\"\npath = \"{}\"\n\
             [dedup]\n{dedup}[limits]\n{limits}{rules}[log]\nformat = \"json\"\n\
             [admin]\n{admin}",
            store.display()
        )
    }

    /// Writes the configuration and tells where it is.
    pub fn write(&self) -> PathBuf {
        let path = self.directory.path().join("mailonce.toml");
        std::fs::write(&path, self.text()).unwrap();
        path
    }

    /// Runs another command on the same configuration, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let path = self.write();
        mailonce(arguments).arg("--config").arg(path).output().unwrap()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the proxy and waits until it is ready.
    pub fn start(&self) -> Proxy {
        self.start_with(|_| {})
    }

    /// The same after a change to the command.
    pub fn start_with(&self, change: impl FnOnce(&mut Command)) -> Proxy {
        let path = self.write();
        let mut command = mailonce(&["serve", "--config"]);
        command.arg(&path);
        change(&mut command);
        let process = Process::start(command);
        let listening = process.stdout_line(|line| line.starts_with("listening on "));
        let address =
            listening.trim_start_matches("listening on ").trim_end_matches(" (in)").parse().unwrap();
        process.stdout_line(|line| line == "ready");
        let admin = process
            .stdout()
            .iter()
            .find_map(|line| line.strip_prefix("listening on ")?.strip_suffix(" (admin)")?.parse().ok());
        Proxy { address, admin, process, setup: self.clone() }
    }
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// A process whose output is collected; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Arc<Watched<Lines>>,
    stderr: Arc<Watched<Lines>>,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Waits for such a line on standard output.
    pub fn stdout_line(&self, is: impl Fn(&str) -> bool) -> String {
        find(&self.stdout, |line| is(line).then(|| line.to_owned()))
            .unwrap_or_else(|| panic!("not printed: {:?}\nlog: {:?}", self.stdout.lock(), self.stderr.lock()))
    }

    /// All lines of the log, or of the complaint, so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().lines.clone()
    }

    /// All lines on standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().lines.clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its number among the processes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A field of `/proc/PID/status` in octets, such as `VmRSS` (resident now)
    /// or `VmHWM` (resident at most, ever).
    pub fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// Waits for the end, and for the last of its output.
    pub fn wait(&mut self) -> ExitStatus {
        for stream in [&self.stdout, &self.stderr] {
            stream.wait(|lines| lines.ended.then_some(())).expect("the process does not end");
        }
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl Read + Send + 'static) -> Arc<Watched<Lines>> {
    let lines: Arc<Watched<Lines>> = Arc::default();
    let kept = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            kept.change(|kept| kept.lines.push(line));
        }
        kept.change(|kept| kept.ended = true);
    });
    lines
}

/// The first line that yields something, as soon as it is there.
fn find<T>(lines: &Watched<Lines>, look: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut seen = 0;
    let found = lines.wait(|lines| {
        let found = lines.lines[seen..].iter().find_map(|line| look(line));
        seen = lines.lines.len();
        (found.is_some() || lines.ended).then_some(found)
    });
    found.flatten()
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    /// The admin address, where it is turned on.
    pub admin: Option<SocketAddr>,
    pub process: Process,
    pub setup: Setup,
}

impl Proxy {
    /// One in front of `upstream`, everything at its default.
    pub fn before(upstream: &super::Upstream) -> Self {
        Setup::new(upstream.address).start()
    }

    pub fn client(&self) -> Client {
        Client::hello(self.address)
    }

    /// Sends a message over a connection of its own and gives the reply to it.
    #[track_caller]
    pub fn send(&self, mail: &Mail) -> String {
        let mut client = self.client();
        let reply = client.deliver(mail);
        client.send("QUIT\r\n");
        reply
    }

    /// The header line that the admin address wants.
    pub fn bearer(&self) -> String {
        let token = std::fs::read_to_string(self.setup.token_file()).unwrap();
        format!("Authorization: Bearer {}", token.trim())
    }

    /// Asks the admin address, with the token.
    #[track_caller]
    pub fn ask(&self, request: &str, headers: &[&str], body: &str) -> Answer {
        let bearer = self.bearer();
        let headers: Vec<&str> = headers.iter().copied().chain([&*bearer]).collect();
        http::ask(self.admin.expect("the admin address is off"), request, &headers, body)
    }

    /// Follows the decisions that the admin address tells.
    pub fn events(&self, query: &str) -> Events {
        let request = format!("GET /v1/events{query}");
        Events::open(self.admin.expect("the admin address is off"), &request, &[&self.bearer()])
    }

    /// Waits for a log line with these values.
    #[track_caller]
    pub fn log(&self, wanted: &[(&str, &str)]) -> Value {
        let is = |line: &Value| wanted.iter().all(|(field, value)| line[field].as_str() == Some(value));
        let look = |line: &str| serde_json::from_str(line).ok().filter(|line| is(line));
        find(&self.process.stderr, look)
            .unwrap_or_else(|| panic!("not logged: {wanted:?} in {:#?}", self.process.stderr()))
    }

    /// Waits for a log line that says this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let look = |line: &str| line.contains(text).then_some(());
        find(&self.process.stderr, look)
            .unwrap_or_else(|| panic!("not said: {text:?} in {:#?}", self.process.stderr()));
    }

    /// Every decision so far.
    pub fn decisions(&self) -> Vec<Value> {
        let lines = self.process.stderr().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        lines.filter(|line: &Value| line["event"] == "message").collect()
    }

    /// Ends it politely; gives its exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }
}

/// How long a process may take is bounded by the same deadline.
pub fn bounded(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    receiver.recv_timeout(DEADLINE).expect("the command does not end").unwrap()
}
