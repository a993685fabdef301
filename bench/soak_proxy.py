"""The mailonce that is soaked: its configurations, its log, what it takes."""

import json
import os
import re
import subprocess
import threading
import urllib.request
from collections import Counter

import measure

# Windows between which the reloads go to and fro, in seconds.
SHORTEST, LONGEST = 150, 210

CONFIG = """
hostname = "mailonce.example"
[[listener]]
name = "soak"
address = "127.0.0.1:{port}"
[upstream]
address = "127.0.0.1:{upstream}"
pool_size = {pool}
received_header = {received}
[store]
path = "{home}/data"
[dedup]
window = "{window}s"
content_window = "{window}s"
in_flight_wait = "{wait}s"
[[rule]]
name = "events"
match = {{ header = {{ "X-Event-Id" = "event-*" }} }}
window = "{rule}s"
[log]
format = "json"
[admin]
address = "127.0.0.1:{admin}"
token_file = "{home}/token"
"""

# Taken in turn, one a reload.
CHANGES = [
    {"window": LONGEST, "rule": SHORTEST, "pool": 20, "wait": 60, "received": "true"},
    {"window": SHORTEST, "rule": LONGEST, "pool": 30, "wait": 60, "received": "true"},
    {"window": LONGEST, "rule": LONGEST, "pool": 10, "wait": 30, "received": "false"},
    None,  # a faulty one, of which nothing may be taken
]

LEVEL = re.compile(rb'"level":"(\w+)"')
OUTCOME = re.compile(rb'"outcome":"(\w+)"')


class Fault(Exception):
    """mailonce does not start."""


class Log:
    """Counts what the log says, and keeps what is neither a decision nor
    information."""

    def __init__(self, stream):
        self.outcomes = Counter()
        self.lines = 0
        self.warnings = Counter()
        self.details = {}
        self.others = []  # not JSON: a panic
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self._stream:
            self.lines += 1
            level = LEVEL.search(line)
            if not level:
                self.others = [*self.others[-50:], line.decode(errors="replace").rstrip()]
            elif outcome := OUTCOME.search(line):
                self.outcomes[outcome.group(1).decode()] += 1
            elif level.group(1) in (b"warn", b"error"):
                self._warning(json.loads(line))

    def _warning(self, line):
        # Of faults that come again and again with other words, the first few.
        name = f"{line['level']}: {line.get('message')}"
        self.warnings[name] += 1
        told = self.details.setdefault(name, [])
        if len(told) < 3:
            told.append({name: value for name, value in line.items() if name not in ("level", "message")})

    def join(self):
        self._thread.join()


class Proxy:
    """mailonce on the disk, for as long as the `with` block lasts."""

    def __init__(self, binary, home, upstream):
        self.home = home
        home.mkdir()
        self._ports = dict(zip(("port", "admin"), measure.free_ports(2)))
        self._ports["upstream"] = upstream
        self.address = f"127.0.0.1:{self._ports['port']}"
        self.reloads = self.faulty_reloads = 0
        self._config = home / "mailonce.toml"
        self._configure(CHANGES[0])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILONCE_")}
        self._process = subprocess.Popen(
            [binary, "serve", "--config", self._config],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, bufsize=256 * 1024,
        )
        self.log = Log(self._process.stderr)

    def __enter__(self):
        if not measure.answers(self._ports["port"]):
            self.__exit__()
            raise Fault(f"mailonce does not answer: {self.log.others} {self.log.warnings}")
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.log.join()

    def _configure(self, change):
        self._config.write_text(CONFIG.format(home=self.home, **self._ports, **change))

    def reload(self):
        """SIGHUP with the next configuration."""
        self.reloads += 1
        change = CHANGES[self.reloads % len(CHANGES)]
        if change:
            self._configure(change)
        else:
            self.faulty_reloads += 1
            self._config.write_text("window = never\n")
        self._process.send_signal(1)

    def end(self):
        """SIGTERM; its exit code."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            return None
        self.log.join()
        return self._process.returncode

    def sample(self):
        """What it takes at this moment; None when it is gone."""
        try:
            return self._sample(self._process.pid)
        except (FileNotFoundError, ProcessLookupError, AttributeError):
            return None  # what is gone has no memory

    def _sample(self, process):
        status = open(f"/proc/{process}/status", encoding="ascii").read()
        of = lambda name: int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE).group(1))
        pss = re.search(r"^Pss:\s+(\d+)", open(f"/proc/{process}/smaps_rollup", encoding="ascii").read(), re.MULTILINE)
        return {
            "rss": of("VmRSS") / 1024,
            "pss": int(pss.group(1)) / 1024,
            "descriptors": len(os.listdir(f"/proc/{process}/fd")),
            "threads": of("Threads"),
            "disk": disk(self.home / "data"),
            "cpu": measure.cpu_seconds(process),
            "claims": self.claims(),
        }

    def claims(self):
        """How many claims it has, by its own count."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports['admin']}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        return sum(float(value) for value in re.findall(r"^mailonce_claims\{[^}]*\} (\S+)", text, re.MULTILINE))


def disk(directory):
    """MiB that the files of a directory take on the disk."""
    blocks = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                blocks += os.stat(os.path.join(place, name)).st_blocks
            except FileNotFoundError:
                pass  # sled has just removed it
    return blocks * 512 / 2**20
