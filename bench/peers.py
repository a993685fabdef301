"""The sink, and what stands in front of it: haproxy, Postfix and mailonce."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure

CLEAN_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


class Fault(Exception):
    """The benchmark can't go on; the text says why."""


def program(name):
    """Where a program is. /usr/sbin is not on everybody's path."""
    found = shutil.which(name, path=CLEAN_PATH)
    if not found:
        raise Fault(f"{name} is not installed")
    return found


def certify(binary, home):
    """A CA and a certificate for everybody who speaks TLS."""
    certs = home / "certs"
    done = subprocess.run([binary, "dev-cert", "--dir", certs], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Fault(f"no certificate was made: {done.stderr.strip()}")
    both = (certs / "server.pem").read_text() + (certs / "server.key").read_text()
    (certs / "both.pem").write_text(both)


class Closing:
    """Ends something, and lets a second interrupt wait until it has."""

    def __init__(self, thing):
        self.thing = thing

    def __enter__(self):
        return self.thing

    def __exit__(self, *_):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.thing.close()
        finally:
            signal.signal(signal.SIGINT, before)


class Seat:
    """Who is measured under a name; it may have to be started anew."""

    def __init__(self, make: Callable):
        self.make, self.peer = make, make()

    def renew(self):
        self.peer.close()
        self.peer = self.make()

    def close(self):
        self.peer.close()


class Daemon:
    """A program in the foreground, in a session of its own, ended at the end."""

    tls_port: int | None = None

    def __init__(self, name, command, port, log, stdout=None, **options):
        self.name, self.port, self.log = name, port, Path(log)
        with open(log, "wb") as errors:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors if stdout is None else stdout,
                stderr=errors,
                start_new_session=True,
                **options,
            )
        self.root = self.child.pid
        try:
            if not measure.answers(port):
                raise Fault(f"{name} does not answer on port {port}: {self.last_words()}")
        except BaseException:
            self.close()
            raise

    def last_words(self):
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-2000:].strip() or "it wrote nothing"

    def running(self):
        """Whether it still is."""
        return self.child.poll() is None

    def close(self):
        """Ends it, politely first."""
        if self.running():
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()


class Sink(Daemon):
    """smtp-sink. It writes its counters to a file in memory after each
    message: nobody is woken by that, and it is one short system call."""

    def __init__(self, home):
        (port,) = measure.free_ports(1)
        self.counters = os.memfd_create("counters")
        os.set_inheritable(self.counters, True)
        appending = os.open(f"/proc/self/fd/{self.counters}", os.O_WRONLY | os.O_APPEND)
        command = [program("smtp-sink"), "-c", "-m", "4000"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        try:
            super().__init__("smtp-sink", [*command, f"127.0.0.1:{port}", "4096"], port, home / "sink.log", appending)
        finally:
            os.close(appending)
        self.before = 0

    def begin(self):
        """The next count is from here."""
        self.before = self._total()
        os.truncate(self.counters, 0)

    def count(self, expected):
        """Messages that arrived since; waits a moment for those expected, and
        then for any that should not come."""
        end = time.monotonic() + 2
        while self._total() - self.before < expected and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.1)
        return self._total() - self.before

    def settle(self):
        """Waits until nothing comes any more."""
        seen = -1
        while seen != (seen := self._total()):
            time.sleep(0.5)

    def _total(self):
        size = os.fstat(self.counters).st_size
        found = re.findall(rb"mesg=(\d+)", os.pread(self.counters, 200, max(0, size - 200)))
        return int(found[-1]) if found else self.before


class Direct:
    """Nothing in the middle."""

    name, root, tls_port = "direct", None, None

    def __init__(self, sink):
        self.port = sink.port

    def running(self):
        return True

    def close(self):
        pass


HAPROXY = """
global
    maxconn 8192
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen relay
    bind 127.0.0.1:{port} backlog 4096
    server sink 127.0.0.1:{sink}
listen secret
    bind 127.0.0.1:{tls_port} backlog 4096 ssl crt {certs}/both.pem
    server sink 127.0.0.1:{sink}
"""


def haproxy(sink, home, _options):
    """haproxy, passing bytes on; over TLS, deciphered."""
    port, tls_port = measure.free_ports(2)
    config = home / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, tls_port=tls_port, sink=sink.port, certs=home / "certs"))
    daemon = Daemon("haproxy", [program("haproxy"), "-db", "-f", config], port, home / "haproxy.log")
    daemon.tls_port = tls_port
    return daemon


MAIN_CF = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/mail.log
maillog_file_prefixes = {home}
multi_instance_enable = no
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
default_process_limit = 250
message_size_limit = 52428800
"""

MASTER_CF = """
127.0.0.1:{port} inet n - n - - smtpd
    -o smtpd_proxy_filter=inet:127.0.0.1:{sink}
127.0.0.1:{tls_port} inet n - n - - smtpd
    -o smtpd_proxy_filter=inet:127.0.0.1:{sink}
    -o smtpd_tls_wrappermode=yes
    -o smtpd_tls_cert_file={certs}/server.pem
    -o smtpd_tls_key_file={certs}/server.key
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A Postfix of our own: it shares nothing with the system's but the
    programs and the user `postfix`."""

    name = "postfix"

    def __init__(self, sink, home, _options):
        if os.geteuid() != 0:
            raise Fault("Postfix can only be started by root; use --peers to leave it out")
        self.port, self.tls_port = measure.free_ports(2)
        self.home = home / "postfix"
        shutil.rmtree(self.home, ignore_errors=True)
        self.config = self.home / "config"
        self.config.mkdir(parents=True)
        for name in ("queue", "data"):
            (self.home / name).mkdir()
        os.chown(self.home / "data", pwd.getpwnam("postfix").pw_uid, -1)
        (self.config / "main.cf").write_text(MAIN_CF.format(home=self.home))
        ports = {"port": self.port, "tls_port": self.tls_port, "sink": sink.port}
        (self.config / "master.cf").write_text(MASTER_CF.format(certs=home / "certs", **ports))
        try:
            started = self._postfix("start")
            if started.returncode != 0 or not measure.answers(self.port):
                raise Fault(f"Postfix does not start: {started.stderr.strip()}\n{self.last_words()}")
            self.root = int((self.home / "queue/pid/master.pid").read_text())
        except BaseException:
            self.close()
            raise

    def _postfix(self, what):
        command = [program("postfix"), "-c", self.config, what]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True)

    def last_words(self):
        """The end of its log."""
        log = self.home / "mail.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else "it wrote nothing"

    def running(self):
        """Whether it still is."""
        return measure.alive(self.root)

    def close(self):
        """Ends it; a second time does no harm."""
        self._postfix("stop")
        pid = self.home / "queue/pid/master.pid"
        if pid.exists() and measure.alive(master := int(pid.read_text())):
            for process in reversed(measure.tree(master)):
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass


MAILONCE = """
hostname = "mailonce.example"

[[listener]]
name = "bench"
address = "127.0.0.1:{port}"

[[listener]]
name = "secret"
address = "127.0.0.1:{tls_port}"
tls = "implicit"
certificate = "{certs}/server.pem"
private_key = "{certs}/server.key"

[upstream]
address = "{upstream}"
{upstream_tls}
pool_size = 256

[store]
engine = "sled"
path = "{data}/store"

[dedup]
chain = ["{strategy}"]

[limits]
max_connections = 2000
max_connections_per_ip = 2000

[admin]
address = ""

{rules}

[log]
format = "json"
file = "{data}/mailonce.log"
"""


# Rules of every kind, of which the last matches.
RULES = "\n".join(
    f'[[rule]]\nname = "rule {number}"\nmatch = {{ {conditions} }}\nwindow = "2h"\n'
    for number, conditions in enumerate(
        [
            'tenant = "other"',
            'sender = "*@other.example"',
            'recipient = ["*@a.example", "*@b.example"]',
            'subject = "*password*"',
            'header = { "X-Template-Id" = "otp*" }',
            'key = "invoice:*"',
            'key = "*", sender = "*@client.example"',
        ]
    )
)
EXCLUDE = r"fingerprint_exclude = ['\d\d:\d\d:\d\d', 'tracking=[0-9a-f]+']"


class Mailonce(Daemon):
    """mailonce with its store on the disk. Beside the plain one: one with rules
    and patterns, one that goes by content, and an earlier build of it."""

    def __init__(self, name, upstream, home, options, upstream_tls=""):
        port, tls_port = measure.free_ports(2)
        self.data = Path(tempfile.mkdtemp(prefix="mail-bench-", dir=options.dir))
        config = home / f"{name}.toml"
        settings = {
            "port": port,
            "tls_port": tls_port,
            "certs": home / "certs",
            "upstream": upstream,
            "upstream_tls": upstream_tls,
            "data": self.data,
            "strategy": "content" if name == "content" else "message-id",
            "rules": RULES + EXCLUDE if name == "rules" else "",
        }
        config.write_text(MAILONCE.format(**settings))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILONCE_")}
        binary = options.before if name == "before" else options.binary
        try:
            super().__init__(name, [binary, "serve", "--config", config], port, home / f"{name}.out", env=environment)
        except BaseException:
            shutil.rmtree(self.data, ignore_errors=True)
            raise
        self.tls_port = tls_port

    def outcomes(self):
        """How often its log says what."""
        found = {}
        with open(self.data / "mailonce.log", encoding="utf-8") as log:
            for line in log:
                if word := re.search(r'"outcome":"(\w+)"', line):
                    found[word.group(1)] = found.get(word.group(1), 0) + 1
        return found

    def close(self):
        """Ends it and removes its store."""
        super().close()
        shutil.rmtree(self.data, ignore_errors=True)
