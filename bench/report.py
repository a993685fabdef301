"""From runs to Markdown."""

import datetime
import os
import platform
from dataclasses import dataclass
from statistics import median

import measure
import peers


@dataclass
class Results:
    """Everything that was measured."""

    options: object
    cells: list
    started: dict
    runs: dict  # (peer, cell) -> runs, one a round
    memory: dict  # peer -> MiB: peak resident, proportional
    pace: tuple  # of the disk: a second, ms p50, ms p99

    def rates(self, name, cell):
        return [run.rate for run in self.runs[name, cell]]

    def ratio(self, name, other, cell):
        """The median of each round's ratio: what slows a round slows both."""
        return median(a / b for a, b in zip(self.rates(name, cell), self.rates(other, cell)))


def tables(results):
    """The figures."""
    parts = [
        "Messages a second: median (lowest to highest)",
        table(results, results.started, lambda name, cell: spread(results.rates(name, cell))),
    ]
    others = [name for name in ("postfix", "haproxy", "direct") if name in results.started]
    if "mailonce" in results.started and others:
        cells = results.cells
        rows = [(f"mailonce : {other}", [f"{results.ratio('mailonce', other, c):.2f}" for c in cells]) for other in others]
        parts += ["Ratios: median over the rounds", markdown([""] + [str(c) for c in cells], rows)]
        parts += goals(results)
    ours = [name for name in ("mailonce", "rules", "content") if name in results.started]
    if "before" in results.started and ours:
        rows = [(f"{one} : before", [f"{results.ratio(one, 'before', c):.2f}" for c in results.cells]) for one in ours]
        parts += ["Beside an earlier build", markdown([""] + [str(c) for c in results.cells], rows)]
    middle = [name for name in results.started if name != "direct"]
    if middle:
        parts += [
            "CPU seconds for 1,000 messages, of what is in the middle",
            table(results, middle, lambda name, cell: f"{median(run.cpu for run in results.runs[name, cell]):.3f}"),
        ]
    parts += [
        "Share of the machine left idle",
        table(results, results.started, lambda name, cell: f"{median(run.idle for run in results.runs[name, cell]):.0%}"),
    ]
    if middle:
        rows = [(name, [f"{mib:.0f}" for mib in results.memory[name]]) for name in middle]
        parts += ["Memory, MiB", markdown(["", "peak resident", "proportional"], rows)]
    return "\n\n".join(parts) + "\n"


def goals(results):
    """What was to be reached, and whether it was."""
    lines = []
    for other, least, cells in (
        ("postfix", 2.0, results.cells),
        ("haproxy", 1.0, [cell for cell in results.cells if not cell.many]),
    ):
        if other in results.started:
            missed = [str(cell) for cell in cells if results.ratio("mailonce", other, cell) < least]
            where = "every cell" if other == "postfix" else "every cell with one message a connection"
            lines.append(f"- at least {least:g} times {other} in {where}: {'missed in ' + ', '.join(missed) if missed else 'reached'}")
    return ["\n".join(lines)] if lines else []


def page(results):
    """The figures with their conditions."""
    options = results.options
    kind, device = measure.file_system(options.dir)
    rate, half, most = results.pace
    versions = [
        ("mailonce", measure.output(options.binary, "--version") if "mailonce" in results.started else ""),
        ("haproxy", measure.output(peers.program("haproxy"), "-v").partition(" - ")[0]),
        ("Postfix", measure.output(peers.program("postconf"), "-d", "-h", "mail_version")),
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rows = [
        ("Date", [datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")]),
        ("Processor", [f"{measure.cpu_name()}, {os.cpu_count()} cores"]),
        ("Memory", [f"{memory:.0f} GiB"]),
        ("System", [f"{platform.freedesktop_os_release().get('PRETTY_NAME', '')}, Linux {platform.release()}"]),
        ("Disk", [f"{kind}; 4 KiB and fdatasync: {rate:.0f}/s, p50 {half:.2f} ms, p99 {most:.2f} ms"]),
        *((name, [version]) for name, version in versions if version),
        ("Load", [f"smtp-source, bodies of {options.length} octets, {options.rounds} rounds"]),
    ]
    return f"# The relay's figures\n\nMeasured with `bench/relay`; `bench/README.md` says how to read them.\n\n{markdown(['', ''], rows)}\n\n{tables(results)}"


def table(results, names, value):
    rows = [(name, [value(name, cell) for cell in results.cells]) for name in names]
    return markdown([""] + [str(cell) for cell in results.cells], rows)


def markdown(head, rows):
    """A table whose first column is text, as its source aligned too."""
    lines = [head] + [[name, *values] for name, values in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    align = [str.ljust] + [str.rjust if len(head) > 2 else str.ljust] * (len(head) - 1)
    rule = ["-" * max(widths[0], 3)] + [("-" * max(w - 1, 2) + ":") if len(head) > 2 else "-" * max(w, 3) for w in widths[1:]]
    shown = [[a(text, max(w, 3)) for a, text, w in zip(align, line, widths)] for line in lines]
    shown.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in shown)


def spread(rates):
    return f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
