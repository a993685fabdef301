"""mailonce's memory: after its start, with idle sessions and with busy ones."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import measure
from peers import Closing, Fault, Mailonce, Sink

IDLE = 1000
BUSY = 200
MESSAGES = 20_000


@dataclass(frozen=True)
class Memory:
    """Resident MiB."""

    base: float
    idle: float  # with IDLE sessions more
    busy: float  # the peak while BUSY sessions send

    @property
    def kib_idle(self) -> float:
        return (self.idle - self.base) * 1024 / IDLE

    @property
    def kib_busy(self) -> float:
        return (self.busy - self.base) * 1024 / BUSY


def measured(options: Namespace, sink: Sink, home: Path) -> Memory:
    """Of a mailonce of its own, which has done nothing before."""
    with Closing(Mailonce("memory", f"127.0.0.1:{sink.port}", home, options)) as one:
        time.sleep(1)
        base = measure.resident_mib(one.root)
        with ExitStack() as sessions:
            for _ in range(IDLE):
                greet(sessions.enter_context(socket.create_connection(("127.0.0.1", one.port), 10)))
            idle = measure.resident_mib(one.root)
    # And of another one, that no idle sessions have widened.
    with Closing(Mailonce("memory", f"127.0.0.1:{sink.port}", home, options)) as one:
        sink.begin()
        command = [options.load, "send", f"127.0.0.1:{one.port}", "--tag", "memory", "--many"]
        command += ["--sessions", str(BUSY), "--messages", str(MESSAGES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or json.loads(done.stdout)["messages"] != sink.count(MESSAGES):
            raise Fault(f"memory: not all messages arrived: {done.stderr.strip()}")
        busy, _ = measure.memory_mib(one.root)
    return Memory(base, idle, busy)


def greet(one: socket.socket) -> None:
    """A session as far as it goes without a message."""
    reply(one)
    one.sendall(b"EHLO client.example\r\n")
    reply(one)


def reply(one: socket.socket) -> None:
    text = b""
    while not (text.endswith(b"\r\n") and text.rsplit(b"\r\n", 2)[-2][3:4] == b" "):
        more = one.recv(4096)
        if not more:
            raise Fault(f"memory: a session ended after {text!r}")
        text += more
