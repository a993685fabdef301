"""What was to be reached, and whether it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from extras.memory import BUSY, IDLE
from plan import Cell


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    target: str
    measured: str
    reached: bool

    def row(self) -> tuple[str, list[str]]:
        return self.target, [self.measured, "yes" if self.reached else "**no**"]


def lines(results) -> list[Line]:
    """Those that this run can tell."""
    return [line for make in MAKERS for line in make(results) if line]


def rates(results) -> list[Line | None]:
    def small(many: bool) -> Callable[[Cell], bool]:
        return lambda cell: cell.size == "5K" and cell.many == many

    def large(size: str) -> Callable[[Cell], bool]:
        return lambda cell: cell.size == size

    return [
        ratio(results, "3 times Postfix's rate, kept connections, 5 KiB", "postfix", 3.0, small(True)),
        ratio(results, "2 times Postfix's rate, a connection for each message, 5 KiB", "postfix", 2.0, small(False)),
        ratio(results, "haproxy's rate, a connection for each message, 5 KiB", "haproxy", 1.0, small(False)),
        ratio(results, "0.7 of haproxy's rate, kept connections, 5 KiB", "haproxy", 0.7, small(True)),
        ratio(results, "0.9 of the rate without a relay, 1 MiB", "direct", 0.9, large("1M")),
        ratio(results, "0.9 of the rate without a relay, 10 MiB", "direct", 0.9, large("10M")),
    ]


def ratio(results, what: str, other: str, least: float, fits: Callable[[Cell], bool]) -> Line | None:
    """mailonce's rate by another's: with ten sessions and more, in the worst of the cells."""
    values = {
        cell.load: results.ratio("mailonce", other, cell)
        for cell in results.cells
        if fits(cell) and cell.sessions >= 10 and not cell.tls and results.both("mailonce", other, cell)
    }
    if not values:
        return None
    shown = ", ".join(f"{load}: {value:.2f}" for load, value in values.items())
    return Line(f"at least {what}", shown, min(values.values()) >= least)


def cpu(results) -> list[Line | None]:
    def small(cell: Cell) -> bool:
        return cell.size == "5K" and not cell.tls and cell.sessions >= 10

    return [
        share(results, "a third of Postfix's CPU a message, 5 KiB", "postfix", 1 / 3, small),
        share(results, "haproxy's CPU a message over TLS, 5 KiB", "haproxy", 1.0, lambda cell: cell.tls),
    ]


def share(results, what: str, other: str, most: float, fits: Callable[[Cell], bool]) -> Line | None:
    values = {
        cell.load: results.cpu_ratio("mailonce", other, cell)
        for cell in results.cells
        if fits(cell) and results.both("mailonce", other, cell)
    }
    if not values:
        return None
    shown = ", ".join(f"{load}: {value:.2f}" for load, value in values.items())
    return Line(f"at most {what}", shown, max(values.values()) <= most)


def latency(results) -> list[Line | None]:
    """What a claim adds is one durable write."""
    found: list[Line | None] = []
    sync = results.sync_ms()
    for many in (False, True):
        cell = Cell("5K", 1, many)
        if results.both("mailonce", "haproxy", cell):
            ours, theirs = (results.middle(name, cell, "dot50") for name in ("mailonce", "haproxy"))
            shown = f"{ours:.2f} ms; {theirs:.2f} + {sync:.2f} = {theirs + sync:.2f} ms"
            what = f"from the dot to the 250, one session, {cell.load[3:]}, p50: at most haproxy's and one fdatasync"
            found.append(Line(what, shown, ours <= theirs + sync))
    return found


def memory(results) -> list[Line | None]:
    held = results.memory
    if not held:
        return []
    return [
        held_to("after the start", held.base, 0),
        held_to(f"{IDLE:,} idle sessions", held.idle, IDLE),
        held_to(f"{BUSY} busy sessions, 5 KiB", held.busy, BUSY),
    ]


def held_to(what: str, mib: float, sessions: int) -> Line:
    most = 30 + sessions * 64 / 1024
    return Line(f"resident, {what}: at most 30 MiB and 64 KiB a session", f"{mib:.1f} of {most:.1f} MiB", mib <= most)


def distance(results) -> list[Line | None]:
    far = results.distance
    if not far:
        return []
    return [Line("at least 4 times as fast as straight to an upstream 50 ms away", f"{far.ratio:.2f}", far.ratio >= 4)]


MAKERS = [rates, cpu, latency, memory, distance]
