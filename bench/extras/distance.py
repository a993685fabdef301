"""An app that connects for each mail, and an upstream at a distance: straight
to it over TLS, and through mailonce, which keeps its connections."""

from __future__ import annotations

import json
import subprocess
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import measure
from peers import Closing, Daemon, Fault, Mailonce

ROUND_TRIP = 50  # milliseconds
MESSAGES = 20
ROUNDS = 3


@dataclass(frozen=True)
class Distance:
    """Seconds for each mail, a round each."""

    direct: list[float]
    mailonce: list[float]

    @property
    def ratio(self) -> float:
        return median(far / near for far, near in zip(self.direct, self.mailonce))


def measured(options: Namespace, home: Path) -> Distance:
    certs = home / "certs"
    sink_port, far = measure.free_ports(2)
    with ExitStack() as stack:
        command = [options.load, "sink", f"127.0.0.1:{sink_port}"]
        command += ["--certificate", certs / "server.pem", "--key", certs / "server.key"]
        stack.enter_context(Closing(Daemon("sink", command, sink_port, home / "far.log")))
        command = [options.load, "link", f"127.0.0.1:{far}", f"127.0.0.1:{sink_port}", "--delay", str(ROUND_TRIP // 2)]
        stack.enter_context(Closing(Daemon("link", command, far, home / "link.log")))
        tls = f'tls = "starttls"\nca_file = "{certs}/ca.pem"'
        one = stack.enter_context(Closing(Mailonce("distance", f"localhost:{far}", home, options, tls)))
        secure = ["--tls", "starttls", "--ca", certs / "ca.pem"]
        send(options, one.port, [], "first")  # opens the connection that is kept
        rounds = range(ROUNDS)
        pairs = [(send(options, far, secure, f"far{n}"), send(options, one.port, [], f"near{n}")) for n in rounds]
    return Distance(*map(list, zip(*pairs)))


def send(options: Namespace, port: int, more: list, tag: str) -> float:
    """Seconds for each mail of a client that connects for each."""
    command = [options.load, "send", f"127.0.0.1:{port}", "--messages", str(MESSAGES), "--tag", tag, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Fault(f"distance: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)["seconds"] / MESSAGES
