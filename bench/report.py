"""From runs to Markdown."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import measure
import obtain
import peers
import plan
import plot
import targets
from plan import Cell


@dataclass
class Results:
    """Everything that was measured."""

    options: Namespace
    home: Path
    names: list[str]
    pace: tuple[float, float, float]  # of the disk: a second, ms p50, ms p99
    pace_after: tuple[float, float, float] | None = None
    cells: list[Cell] = field(default_factory=list)
    runs: dict = field(default_factory=dict)  # (peer, cell) -> runs, one a round
    failures: dict = field(default_factory=dict)  # (peer, cell) -> why
    peaks: dict = field(default_factory=dict)  # (peer, cell) -> MiB: resident, proportional
    syncs: list[float] = field(default_factory=list)  # ms, beside each run with one session
    memory: object = None
    distance: object = None

    def note_memory(self, name: str, cell: Cell, mib: tuple[float, float]) -> None:
        self.peaks[name, cell] = tuple(map(max, self.peaks.get((name, cell), (0.0, 0.0)), mib))

    def values(self, name: str, cell: Cell, what: str) -> list[float]:
        return [getattr(run, what) for run in self.runs[name, cell]]

    def middle(self, name: str, cell: Cell, what: str) -> float:
        return median(self.values(name, cell, what))

    def both(self, name: str, other: str, cell: Cell) -> bool:
        return all((one, cell) in self.runs and (one, cell) not in self.failures for one in (name, other))

    def ratio(self, name: str, other: str, cell: Cell, what: str = "rate") -> float:
        """The median of each round's ratio: what slows a round slows both."""
        return median(a / b for a, b in zip(self.values(name, cell, what), self.values(other, cell, what)))

    def cpu_ratio(self, name: str, other: str, cell: Cell) -> float:
        """Of medians: CPU is counted in ticks, too coarse for single runs."""
        return self.middle(name, cell, "cpu") / max(self.middle(other, cell, "cpu"), 1e-9)

    def sync_ms(self) -> float:
        """The median fdatasync while one session was measured."""
        return median(self.syncs or [self.pace[1]])


def tables(results: Results) -> str:
    """The figures."""
    return "\n\n".join([*reached(results), *figures(results)]) + "\n"


def reached(results: Results) -> list[str]:
    """What was to be reached, and whether it was."""
    lines = targets.lines(results)
    return ["## Targets", markdown(["target", "measured", "reached"], [line.row() for line in lines])] if lines else []


def figures(results: Results) -> list[str]:
    parts = []
    if "before" in results.names:
        parts += before(results)
    for title, names, show in (
        ("Messages a second: median (lowest to highest)", results.names, rate),
        ("From the dot to the 250, milliseconds: p50 / p99", results.names, latency),
        ("CPU seconds for 1,000 messages, of the relay", middle_names(results), cpu),
        ("Peak memory of the relay, MiB: resident / proportional", middle_names(results), memory),
        ("Share of the machine left idle", results.names, idle),
    ):
        parts += [f"## {title}", *by_size(results, names, show)]
    parts += extras(results)
    if results.failures:
        told = [f"- {name}, {cell}: {why}" for (name, cell), why in results.failures.items()]
        parts += ["## Not measured, since it failed", "\n".join(told)]
    return parts


def middle_names(results: Results) -> list[str]:
    return [name for name in results.names if name != "direct"]


def by_size(results: Results, names: list[str], show: Callable) -> list[str]:
    """A table for each size, and one for TLS."""
    parts = []
    for size, tls in [(size, False) for size in results.options.sizes] + [("5K", True)]:
        cells = [cell for cell in results.cells if cell.size == size and cell.tls == tls]
        rows = [
            (name, [show(results, name, cell) if (name, cell) in results.runs else "-" for cell in cells])
            for name in names
            if any((name, cell) in results.runs for cell in cells)
        ]
        if cells and rows:
            head = f"{size[:-1]} {size[-1]}iB{', TLS' if tls else ''}"
            parts.append(markdown([head, *(cell.load for cell in cells)], rows))
    return parts


def rate(results: Results, name: str, cell: Cell) -> str:
    values = results.values(name, cell, "rate")
    digits = 0 if median(values) >= 100 else 1
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def latency(results: Results, name: str, cell: Cell) -> str:
    return " / ".join(f"{results.middle(name, cell, what):.2f}" for what in ("dot50", "dot99"))


def cpu(results: Results, name: str, cell: Cell) -> str:
    return f"{results.middle(name, cell, 'cpu'):.3f}"


def memory(results: Results, name: str, cell: Cell) -> str:
    return " / ".join(f"{mib:.0f}" for mib in results.peaks[name, cell])


def idle(results: Results, name: str, cell: Cell) -> str:
    return f"{results.middle(name, cell, 'idle'):.0%}"


def before(results: Results) -> list[str]:
    ours = [name for name in ("mailonce", "rules", "content") if name in results.names]
    cells = [cell for cell in results.cells if all(results.both(one, "before", cell) for one in ours)]
    rows = [(one, [f"{results.ratio(one, 'before', cell):.2f}" for cell in cells]) for one in ours]
    return ["## Rates beside an earlier build", markdown(["", *map(str, cells)], rows)] if ours and cells else []


def extras(results: Results) -> list[str]:
    parts = []
    if held := results.memory:
        rows = [
            ("after the start", [f"{held.base:.1f}"]),
            ("with 1,000 idle sessions", [f"{held.idle:.1f} ({held.kib_idle:.0f} KiB more for each)"]),
            ("with 200 busy ones, at most", [f"{held.busy:.1f} ({held.kib_busy:.0f} KiB more for each)"]),
        ]
        parts += ["## mailonce's memory, MiB resident", markdown(["a mailonce just started", "MiB"], rows)]
    if far := results.distance:
        rows = [
            (name, [f"{median(took) * 1000:.0f} ({min(took) * 1000:.0f} to {max(took) * 1000:.0f})"])
            for name, took in (("straight, STARTTLS", far.direct), ("through mailonce", far.mailonce))
        ]
        parts += ["## An upstream 50 ms away, milliseconds for each mail", markdown(["an app that connects for each mail", "ms"], rows)]
    return parts


def conditions(results: Results) -> list[tuple[str, list[str]]]:
    """Where, with what and when."""
    options = results.options
    kind, _ = measure.file_system(options.dir)
    paces = [results.pace, results.pace_after or results.pace]
    disk = "; afterwards ".join(f"p50 {half:.2f} ms, p99 {most:.2f} ms" for _, half, most in paces)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rows = [
        ("Date", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")),
        ("Processor", f"{measure.cpu_name()}, {os.cpu_count()} cores"),
        ("Memory", f"{memory:.0f} GiB"),
        ("System", f"{platform.freedesktop_os_release().get('PRETTY_NAME', '')}, Linux {platform.release()}"),
        ("Disk", f"{kind}; 4 KiB and fdatasync: {disk}"),
        *((name, version) for name, version in obtain.versions(options, results.names) if version),
        *((name, f"absent: {why}") for name, why in options.absent.items()),
        ("Rounds", f"{options.rounds} of {options.seconds:g} s; 5 KiB with 10 sessions and more: {options.rounds + 2} of {2 * options.seconds:g} s"),
    ]
    return [(name, [value]) for name, value in rows]


def write(results: Results, path: Path) -> None:
    """The page, and its plot beside it."""
    head = (
        "# Benchmarks\n\n`bench/compare --write` has measured this and written this page; `bench/README.md` says what"
        " is measured and\nhow to read it. s10: ten sessions; 1/conn: a connection for each message; many: kept connections."
    )
    parts = [head, *reached(results)]
    picture = path.with_suffix(".svg")
    if plot.draw(results, picture):
        parts.append(f"![Messages a second by peer]({picture.name})")
    else:
        print("compare: no plot, for python3-matplotlib is not installed", file=sys.stderr)
    parts += ["## Conditions", markdown(["", ""], conditions(results)), *figures(results)]
    path.write_text("\n\n".join(parts) + "\n")


def markdown(head: list[str], rows: list) -> str:
    """A table whose first column is text, as its source aligned too."""
    lines = [head] + [[name, *values] for name, values in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    numbers = all(value[:1].isdigit() or value[:1] == "-" for line in lines[1:] for value in line[1:]) and len(rows) > 0
    align = [str.ljust] + [str.rjust if numbers else str.ljust] * (len(head) - 1)
    rule = ["-" * max(widths[0], 3)] + [("-" * max(w - 1, 2) + ":") if numbers else "-" * max(w, 3) for w in widths[1:]]
    shown = [[a(text, max(w, 3)) for a, text, w in zip(align, line, widths)] for line in lines]
    shown.insert(1, rule)
    return "\n".join("| " + " | ".join(line).rstrip() + " |" for line in shown)
