//! Servers that others wrote, each with a directory and a port of its own.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::common::program::{Process, bounded};
use super::common::until;

/// Where a program is; `package` is the one to install.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let found = places.map(|place| place.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// A directory that every user can enter.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// A port that is free now, for programs that can't be told to take one.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server with the messages that it took.
pub(crate) trait Server {
    fn address(&self) -> SocketAddr;
    /// Every message so far as it came in, without what the server itself put
    /// in front, and with LF at the end of lines.
    fn messages(&self) -> Vec<Vec<u8>>;
}

/// Every file of a directory that is whole, from behind the server's own
/// Received field.
pub(crate) fn files(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(|entry| std::fs::read(entry.unwrap().path()).ok())
        .filter_map(|file| without_front(&file))
        .collect()
}

/// What follows the server's own Received field, the first there is. `None`
/// while the file is being written.
fn without_front(file: &[u8]) -> Option<Vec<u8>> {
    let starts = |line: &[u8]| line.starts_with(b"Received:");
    let mut lines = file.split_inclusive(|&byte| byte == b'\n').skip_while(|line| !starts(line));
    lines.next()?;
    let rest: Vec<&[u8]> = lines.skip_while(|line| line.starts_with(b"\t")).collect();
    (!rest.is_empty()).then(|| rest.concat())
}

/// `smtp-sink`, which keeps each transaction in a file.
pub(crate) struct SmtpSink {
    _process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl SmtpSink {
    pub(crate) fn start() -> Self {
        let (address, directory) = (free_port(), directory());
        let mut command = Command::new(program("smtp-sink", "postfix"));
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        command.current_dir(&directory).args(["-d", "dump/", &address.to_string(), "128"]);
        let process = Process::start(command);
        until("smtp-sink listens", || TcpStream::connect(address).ok());
        Self { _process: process, address, directory }
    }
}

impl Server for SmtpSink {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = files(&self.directory.path().join("dump"));
        // It ends each file with an empty line.
        messages.retain_mut(|message| message.pop_if(|last| *last == b'\n').is_some());
        messages
    }
}

/// A Postfix of its own, delivering everything into one Maildir.
pub(crate) struct Postfix {
    postfix: PathBuf,
    address: SocketAddr,
    directory: TempDir,
}

const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
";

/// Writes a database of Cyrus SASL, and the file that names it where Debian's
/// Postfix looks.
fn tell_sasl(directory: &Path, user: &str, password: &str) {
    let database = directory.join("sasldb2");
    let mut command = Command::new(program("saslpasswd2", "sasl2-bin"));
    command.args(["-p", "-c", "-u", "upstream.test", "-f"]).arg(&database).arg(user);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    assert!(child.wait().unwrap().success(), "saslpasswd2 failed");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).unwrap();
    let lines = format!(
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\nmech_list: PLAIN LOGIN\n",
        database.display()
    );
    std::fs::write(directory.join("smtpd.conf"), lines).unwrap();
}

impl Postfix {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, which takes mail over TLS alone, with this certificate and
    /// key.
    pub(crate) fn with_tls(certificate: &Path, key: &Path) -> Self {
        Self::start_with(&[
            ("smtpd_tls_security_level", "encrypt".to_owned()),
            ("smtpd_tls_cert_file", certificate.display().to_string()),
            ("smtpd_tls_key_file", key.display().to_string()),
        ])
    }

    /// The same, which takes mail only from who knows this password; Cyrus
    /// SASL keeps it.
    pub(crate) fn with_sasl(certificate: &Path, key: &Path, user: &str, password: &str) -> Self {
        let only_known = "permit_sasl_authenticated, reject".to_owned();
        let more = [
            ("smtpd_tls_security_level", "encrypt".to_owned()),
            ("smtpd_tls_cert_file", certificate.display().to_string()),
            ("smtpd_tls_key_file", key.display().to_string()),
            ("smtpd_sasl_auth_enable", "yes".to_owned()),
            ("smtpd_sasl_local_domain", "upstream.test".to_owned()),
            ("smtpd_relay_restrictions", only_known.clone()),
            ("smtpd_recipient_restrictions", only_known),
        ];
        Self::start_as(&more, Some((user, password)))
    }

    fn start_with(more: &[(&str, String)]) -> Self {
        Self::start_as(more, None)
    }

    /// With these lines of `main.cf`, and a user that SASL knows.
    fn start_as(more: &[(&str, String)], user: Option<(&str, &str)>) -> Self {
        let postfix = program("postfix", "postfix");
        assert!(
            rustix::process::geteuid().is_root(),
            "Postfix can only be started by root: run this test as root"
        );
        let (address, directory) = (free_port(), directory());
        let root = directory.path().display();
        let mut main = String::new();
        for (name, value) in [
            ("compatibility_level", "3.6".to_owned()),
            ("queue_directory", format!("{root}/queue")),
            ("data_directory", format!("{root}/data")),
            ("maillog_file", format!("{root}/postfix.log")),
            ("maillog_file_prefixes", root.to_string()),
            ("inet_interfaces", "127.0.0.1".to_owned()),
            ("myhostname", "upstream.test".to_owned()),
            ("mydestination", String::new()),
            ("mynetworks", "127.0.0.0/8".to_owned()),
            ("alias_maps", String::new()),
            ("alias_database", String::new()),
            ("smtpd_client_connection_count_limit", "0".to_owned()),
            ("virtual_mailbox_domains", "b.test".to_owned()),
            ("virtual_mailbox_base", format!("{root}/mail")),
            ("virtual_mailbox_maps", "static:all/".to_owned()),
            ("virtual_uid_maps", "static:65534".to_owned()),
            ("virtual_gid_maps", "static:65534".to_owned()),
            ("virtual_minimum_uid", "1".to_owned()),
        ]
        .iter()
        .chain(more)
        {
            writeln!(main, "{name} = {value}").unwrap();
        }
        let path = directory.path();
        for name in ["etc", "etc/sasl", "queue", "data", "mail"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        std::fs::write(path.join("etc/main.cf"), main).unwrap();
        if let Some((user, password)) = user {
            tell_sasl(&path.join("etc/sasl"), user, password);
        }
        std::fs::write(path.join("etc/master.cf"), format!("{address} inet n - n - - smtpd\n{SERVICES}"))
            .unwrap();
        std::os::unix::fs::chown(path.join("mail"), Some(65534), Some(65534)).unwrap();
        let mut chown = Command::new("chown");
        chown.arg("postfix").arg(path.join("data"));
        assert!(bounded(chown).status.success(), "there is no user postfix: apt-get install postfix");
        let server = Self { postfix, address, directory };
        server.command("start");
        until("Postfix listens", || TcpStream::connect(address).ok());
        server
    }

    fn command(&self, what: &str) {
        // What it starts keeps its output open, so it goes to a file.
        let log = std::fs::File::create(self.directory.path().join(format!("{what}.log"))).unwrap();
        let mut command = Command::new(&self.postfix);
        command.arg("-c").arg(self.directory.path().join("etc")).arg(what);
        let status = command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
        assert!(status.success() || std::thread::panicking(), "postfix {what} failed:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        let logs = ["start.log", "stop.log", "postfix.log"];
        logs.iter()
            .filter_map(|name| std::fs::read_to_string(self.directory.path().join(name)).ok())
            .collect()
    }
}

impl Server for Postfix {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        files(&self.directory.path().join("mail/all/new"))
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.command("stop");
    }
}

/// haproxy, passing bytes on to a proxy of ours with a PROXY header in front.
pub(crate) struct Haproxy {
    _process: Process,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Haproxy {
    /// One that sends headers as this option of its `server` line says.
    pub(crate) fn before(proxy: SocketAddr, option: &str) -> Self {
        let (address, directory) = (free_port(), directory());
        let config = format!(
            "defaults\n    mode tcp\n    timeout connect 30s\n    timeout client 30s\n    timeout server 30s\n\
             listen relay\n    bind {address}\n    server proxy {proxy} {option}\n"
        );
        let path = directory.path().join("haproxy.cfg");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(program("haproxy", "haproxy"));
        command.arg("-db").arg("-f").arg(path);
        let process = Process::start(command);
        until("haproxy listens", || TcpStream::connect(address).ok());
        Self { _process: process, address, _directory: directory }
    }
}
