//! The servers of the matrix. Postfix is the one of `tests/peers`; Exim and
//! OpenSMTPD are unpacked by `tests/matrix/install.sh`; aiosmtpd and
//! smtp-server are libraries, with a few lines around them.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::common::program::{Process, bounded};
use super::common::until;
use super::servers::{Postfix, Server, directory, files, free_port, program};
use super::{here, installed};

/// A server of the matrix, running.
pub(crate) struct Upstream {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) server: Box<dyn Server + Send>,
}

/// How to start each of them.
pub(crate) const UPSTREAMS: [fn() -> Upstream; 5] = [postfix, exim, opensmtpd, aiosmtpd, smtp_server];

fn postfix() -> Upstream {
    let server = Postfix::start();
    let mut command = Command::new(program("postconf", "postfix"));
    command.args(["-d", "-h", "mail_version"]);
    let version = String::from_utf8(bounded(command).stdout).unwrap().trim().to_owned();
    Upstream { name: "Postfix", version, server: Box::new(server) }
}

/// A server that keeps its processes and files in namespaces of its own.
struct Apart {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Apart {
    /// Writes the configuration for a place and an address, and starts it.
    fn start(name: &str, config: &str, configure: fn(&Path, SocketAddr) -> String, args: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "{name} can only be started by root: run this as root");
        assert!(here("target/servers/stamp").exists(), "{name} is missing: run tests/matrix/install.sh");
        let (directory, address) = (directory(), free_port());
        let path = directory.path();
        for name in ["mail", "spool"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        chown(path.join("mail"), Some(65534), Some(65534)).unwrap();
        std::fs::write(path.join(config), configure(path, address)).unwrap();
        let mut command = Command::new(here("tests/matrix/apart.sh"));
        command.arg(path).arg(name).args(args).current_dir(path);
        let server = Self { process: Process::start(command), address, directory };
        until(&format!("{name} listens"), || TcpStream::connect(address).ok());
        server
    }

    /// What it greets with.
    fn greeting(&self) -> String {
        let mut line = String::new();
        BufReader::new(TcpStream::connect(self.address).unwrap()).read_line(&mut line).unwrap();
        line
    }
}

impl Server for Apart {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        files(&self.directory.path().join("mail/new"))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.stderr().join("\n"));
        }
        // Its directory goes when nobody is left who writes there.
        self.process.signal(Signal::KILL);
        until("the server ends", || TcpStream::connect(self.address).is_err().then_some(()));
    }
}

fn exim() -> Upstream {
    let configure = |path: &Path, address: SocketAddr| {
        let (root, port) = (path.display(), address.port());
        chown(path.join("spool"), Some(65533), Some(65533)).unwrap();
        format!(
            "primary_hostname = upstream.test\nexim_path = /run/exim4\nkeep_environment =\n\
             spool_directory = {root}/spool\nlog_file_path = {root}/spool/%s.log\n\
             pid_file_path = {root}/spool/exim.pid\n\
             local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\n\
             tls_advertise_hosts =\nrfc1413_query_timeout = 0s\nacl_smtp_rcpt = accept\n\
             smtp_accept_max = 0\nsmtp_accept_queue_per_connection = 0\n\
             begin routers\nall:\n  driver = accept\n  transport = keep\n\
             begin transports\nkeep:\n  driver = appendfile\n  directory = {root}/mail\n  maildir_format\n  \
             user = nobody\n  group = nogroup\n"
        )
    };
    let server = Apart::start("exim4", "exim.conf", configure, &["-bdf"]);
    // 220 upstream.test ESMTP Exim 4.96 Sat, 28 Nov 2026 15:49:19 +0000
    let version = server.greeting().split(' ').nth(4).unwrap().to_owned();
    Upstream { name: "Exim", version, server: Box::new(server) }
}

fn opensmtpd() -> Upstream {
    let configure = |path: &Path, address: SocketAddr| {
        format!(
            "listen on {} port {} hostname upstream.test\ntable everybody {{ \"@\" = nobody }}\n\
             action keep maildir \"{}/mail\" virtual <everybody>\nmatch from any for any action keep\n",
            address.ip(),
            address.port(),
            path.display()
        )
    };
    let server = Apart::start("smtpd", "smtpd.conf", configure, &["-d", "-f", "smtpd.conf"]);
    let starting = |line: &String| Some(line.split_once("OpenSMTPD ")?.1.split(' ').next()?.to_owned());
    let version = until("it tells its version", || server.process.stderr().iter().find_map(starting));
    Upstream { name: "OpenSMTPD", version, server: Box::new(server) }
}

/// A library with a script around it, which keeps a file for each message and
/// puts nothing in front.
struct Scripted {
    _process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Scripted {
    /// Starts it; gives its version, too.
    fn start(mut command: Command, script: &str) -> (Self, String) {
        let directory = directory();
        command.arg(here("tests/matrix").join(script)).arg(directory.path());
        let process = Process::start(command);
        let line = process.stdout_line(|line| line.contains("127.0.0.1:"));
        let (version, address) = line.split_once(' ').unwrap();
        let version = version.to_owned();
        (Self { _process: process, address: address.parse().unwrap(), directory }, version)
    }
}

impl Server for Scripted {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        let paths = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let whole = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "eml");
        paths.filter(whole).map(|path| with_lf(&std::fs::read(path).unwrap())).collect()
    }
}

/// With LF at the end of lines; they must have had CRLF.
fn with_lf(message: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = message.split(|&byte| byte == b'\n').collect();
    let (last, lines) = lines.split_last().unwrap();
    assert!(last.is_empty(), "the last line has no end");
    let line = |line: &&[u8]| [line.strip_suffix(b"\r").expect("a bare LF"), b"\n"].concat();
    lines.iter().flat_map(line).collect()
}

fn aiosmtpd() -> Upstream {
    let python = Command::new(installed("python/bin/python"));
    let (server, version) = Scripted::start(python, "aiosmtpd_server.py");
    Upstream { name: "aiosmtpd", version, server: Box::new(server) }
}

fn smtp_server() -> Upstream {
    let mut node = Command::new(program("node", "nodejs"));
    node.env("NODE_PATH", installed("node/node_modules"));
    let (server, version) = Scripted::start(node, "smtp_server.js");
    Upstream { name: "smtp-server", version, server: Box::new(server) }
}
