"""The runs: a trial of each, then rounds in which all take turns."""

import json
import resource
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import dataclass

import measure
import plan
from peers import Fault, Seat, Sink
from plan import Cell

LONGEST = 180  # seconds; who takes longer has failed
TRIAL = 0.25  # seconds that say what a second gives


@dataclass(frozen=True)
class Run:
    """What one run gave."""

    rate: float
    cpu: float | None  # seconds for 1,000 messages, of what is in the middle
    client: float  # the same, of the client
    idle: float  # share of all cores
    dot50: float  # milliseconds from the dot to the reply
    dot99: float


class Bench:
    """The runs."""

    def __init__(self, options: Namespace, sink: Sink, started: dict[str, Seat], cells: list[Cell], results):
        self.options, self.sink, self.started, self.results = options, sink, started, results
        self.cells = [(cell, name) for cell in cells for name in started if plan.takes_part(name, cell)]
        results.cells = cells
        self.messages: dict = {}
        self.gone: set[str] = set()
        self.sent = dict.fromkeys(started, 0)
        self.turn = 0

    def go(self) -> None:
        """A trial of each, then the rounds."""
        for number, (cell, name) in enumerate(self.cells, 1):
            note(f"trial {number}/{len(self.cells)} {cell!s:16} {name}")
            self.attempt(cell, name, self.trial)
        note("")
        most = max((plan.rounds(cell, self.options.rounds) for cell, _ in self.cells), default=0)
        for turn in range(1, most + 1):
            print(f"compare: round {turn} of {most}", file=sys.stderr)
            for cell, name in self.cells:
                if turn <= plan.rounds(cell, self.options.rounds):
                    note(f"round {turn}/{most} {cell!s:16} {name}")
                    self.attempt(cell, name, self.counted)
        note("")

    def attempt(self, cell: Cell, name: str, what) -> None:
        """Does it, unless it has failed before."""
        if (name, cell) in self.results.failures:
            return
        try:
            if name in self.gone:
                raise Fault("it could not be started anew after a failure")
            what(cell, name)
        except Fault as fault:
            self.results.failures[name, cell] = str(fault)
            note("")
            print(f"compare: {name}, {cell}: {fault}", file=sys.stderr)
            if name not in self.gone:
                self.recover(name)

    def recover(self, name: str) -> None:
        """Whoever has failed once begins anew; nothing late may count for others."""
        try:
            self.started[name].renew()
        except Fault as fault:
            self.gone.add(name)
            print(f"compare: {name} does not take part any more: {fault}", file=sys.stderr)
        self.sink.settle()

    def trial(self, cell: Cell, name: str) -> None:
        """Finds how many messages take as long as wanted."""
        messages = max(cell.sessions, 20 if cell.octets < plan.MIB else 4)
        while True:
            run, took = self.run(cell, name, messages)
            if took >= TRIAL:
                break
            messages = max(messages * 2, int(messages * TRIAL * 1.2 / took))
        wanted = run.rate * plan.seconds(cell, self.options.seconds)
        self.messages[name, cell] = max(int(wanted), plan.least(name, cell))

    def counted(self, cell: Cell, name: str) -> None:
        if name == "mailonce" and cell.sessions == 1 and cell.size == "5K":
            # Disks have better and worse minutes: the pace of this one.
            self.results.syncs.append(measure.disk_pace(self.options.dir, 0.3)[1])
        run, _ = self.run(cell, name, self.messages[name, cell])
        self.results.runs.setdefault((name, cell), []).append(run)

    def run(self, cell: Cell, name: str, messages: int) -> tuple[Run, float]:
        """One run against one of them."""
        peer = self.started[name].peer
        time.sleep(0.1)
        if peer.root:
            measure.forget_peaks(peer.root)
        self.sink.begin()
        idle, machine = measure.machine_times()
        cpu = measure.cpu_seconds(peer.root) if peer.root else 0
        client = children_seconds()
        figures = self.send(cell, peer, messages)
        client = children_seconds() - client
        idle, machine = (after - before for after, before in zip(measure.machine_times(), (idle, machine)))
        arrived = self.sink.count(messages)
        # What is done after the last reply, or by processes that end, counts, too.
        cpu = measure.cpu_seconds(peer.root) - cpu if peer.root else None
        if arrived != messages:
            raise Fault(f"{messages} messages were sent, {arrived} arrived")
        self.sent[name] += messages
        if peer.root:
            self.results.note_memory(name, cell, measure.memory_mib(peer.root))
        thousand = 1000 / messages
        took = figures["seconds"]
        run = Run(
            rate=messages / took,
            cpu=cpu and cpu * thousand,
            client=client * thousand,
            idle=idle / max(machine, 1),
            dot50=figures["dot_p50_ms"],
            dot99=figures["dot_p99_ms"],
        )
        return run, took

    def send(self, cell: Cell, peer, messages: int) -> dict:
        """What the client says of its run."""
        self.turn += 1
        command = [self.options.load, "send", f"127.0.0.1:{peer.tls_port if cell.tls else peer.port}"]
        command += ["--sessions", str(cell.sessions), "--messages", str(messages), "--length", str(cell.octets)]
        command += ["--tag", f"run{self.turn}", *["--many"] * cell.many]
        if cell.tls:
            command += ["--tls", "implicit", "--ca", self.results.home / "certs/ca.pem"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
        except subprocess.TimeoutExpired:
            raise Fault(f"not done within {LONGEST} s") from None
        if done.returncode != 0:
            gone = "" if peer.running() else f"; {peer.name} has ended"
            raise Fault(f"{done.stderr.strip()[-300:]}{gone}")
        return json.loads(done.stdout)

    def check_outcomes(self) -> None:
        """Each message was claimed and relayed: it is in mailonce's log."""
        failed = {name for name, _ in self.results.failures}
        for name in set(plan.OURS) & set(self.started) - failed:
            self.check_outcome(name)

    def check_outcome(self, name: str) -> None:
        end = time.monotonic() + 5
        expected = {"relayed": self.sent[name]} if self.sent[name] else {}
        while (found := self.started[name].peer.outcomes()) != expected:
            if time.monotonic() > end:
                raise Fault(f"{name} got {self.sent[name]} messages, and its log says {found}")
            time.sleep(0.2)


def children_seconds() -> float:
    """User and system time of children that have ended: here, the client."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def note(text: str) -> None:
    """Progress, for whoever watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
