"""From samples to a verdict, a plot and a page."""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from statistics import linear_regression, median

import measure
import report

# What must be level: its name, its unit, what is taken of each quarter, and by
# how much the last may exceed the second (a share, and at least so much: a
# pool's thread or a connection more is no growth). The store's file grows until
# it is written anew, so a disk must hold the most that it ever has.
LEVEL = [
    ("rss", "resident memory", "MiB", median, 0.10, 4),
    ("pss", "proportional memory", "MiB", median, 0.10, 4),
    ("descriptors", "file descriptors", "", median, 0.10, 8),
    ("threads", "threads", "", median, 0.10, 2),
    ("disk", "the store on disk, at most", "MiB", max, 0.10, 4),
]

# What the scenario explains in the log, beside decisions: the upstream's
# spells, windows as short as these, and faulty files.
EXPLAINED = [
    r"warn: the upstream can't be reached",
    r"warn: the upstream did not take a message",
    r"warn: the answer to a message was lost",
    r"warn: (dedup|rule \"events\"): window = \d+s is shorter than the retries of most job queues take .*",
    r"error: the configuration is faulty; nothing was changed",
]

Curve = namedtuple("Curve", "name title unit quarters growth slope level")
Judged = namedtuple("Judged", "curves faults passed")


def judge(soak):
    """Holds the samples to being level, and all that was counted together."""
    curves = [curve(soak.samples, *what) for what in LEVEL]
    faults = soak.faults + books(soak) + log(soak)
    return Judged(curves, faults, not faults and all(one.level for one in curves))


def curve(samples, name, title, unit, of_quarter, share, least):
    values = [sample[name] for sample in samples]
    quarter = len(values) // 4
    quarters = [of_quarter(values[i * quarter : (i + 1) * quarter] or values) for i in range(4)]
    growth = quarters[3] - quarters[1]
    # A straight line through all but the first quarter, by the hour.
    hours = [sample["at"] / 3600 for sample in samples[quarter:]]
    slope = linear_regression(hours, values[quarter:]).slope if len(hours) > 1 else 0
    return Curve(name, title, unit, quarters, growth, slope, growth <= max(least, share * quarters[1]))


def books(soak):
    """What the upstream has, beside what the log says."""
    if not soak.totals:
        return []
    relayed, doubts = soak.log.outcomes["relayed"], soak.log.outcomes["in_doubt"]
    arrived = soak.totals["arrived"]
    if not relayed <= arrived <= relayed + doubts:
        return [f"{arrived} arrived; the log has {relayed} relayed and {doubts} in doubt"]
    return []


def log(soak):
    faults = [f"in the log: {line}" for line in soak.log.others]
    for text, count in soak.log.warnings.items():
        if not any(re.fullmatch(pattern, text) for pattern in EXPLAINED):
            faults.append(f"in the log, {count} times: {text} {soak.log.details[text]}")
    return faults


def summary(soak, judged):
    """All figures."""
    head = ["", "quarter 1", "2", "3", "4", "4 to 2", "an hour", "level"]
    rows = [
        (
            f"{one.title}{', ' + one.unit if one.unit else ''}",
            [*(f"{value:,.0f}" for value in one.quarters), f"{one.growth / one.quarters[1]:+.1%}", f"{one.slope:+,.1f}", "yes" if one.level else "NO"],
        )
        for one in judged.curves
    ]
    cpu = soak.samples[-1]["cpu"] - soak.samples[0]["cpu"] if soak.samples else 0
    counts = [
        ("letters", soak.totals.get("letters", 0)),
        ("sent, with all that was sent again", soak.totals.get("sent", 0)),
        ("arrived, counted by recipient", soak.totals.get("arrived", 0)),
        ("reloads", soak.reloads),
        ("of them with a faulty file", soak.faulty_reloads),
        ("CPU seconds of mailonce", round(cpu)),
    ]
    parts = [
        "Medians of each quarter of the time (of the disk, the most), and the slope of a straight line behind the first:",
        report.markdown(head, rows),
        "What happened:",
        table("", counts),
        "What the clients heard, and what the upstream suffered from:",
        table("", sorted((name, count) for name, count in soak.totals.items() if name not in ("letters", "sent", "arrived"))),
        "Decisions in the log, one for each recipient:",
        table("outcome", sorted(soak.log.outcomes.items(), key=lambda one: -one[1])),
        "Other lines of the log above information:",
        table("", sorted(soak.log.warnings.items())),
    ]
    parts.append("\n".join(f"- FAULT: {fault}" for fault in judged.faults) or "Nothing arrived twice, nothing that was acknowledged is missing, and the log has nothing that the scenario does not explain.")
    return "\n\n".join(parts) + "\n"


def table(head, rows):
    return report.markdown([head, "count"], [(name, [f"{count:,}"]) for name, count in rows]) if rows else "none"


def plotter():
    """A Python that has matplotlib; None where there is none."""
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import matplotlib"], capture_output=True, check=False).returncode == 0:
            return python
    return None


def write(soak, judged, path):
    """The page, and its plot beside it."""
    picture = path.with_suffix(".svg")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as samples:
        json.dump({"samples": soak.samples, "figures": soak.figures}, samples)
        samples.flush()
        program = Path(__file__).with_name("soak_plot.py")
        subprocess.run([plotter(), program, samples.name, picture], check=True)
    kind, _ = measure.file_system(soak.options.dir)
    rate, half, most = soak.pace
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rows = [
        ("Date", [datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")]),
        ("Processor", [f"{measure.cpu_name()}, {os.cpu_count()} cores"]),
        ("Memory", [f"{memory:.0f} GiB"]),
        ("System", [f"{platform.freedesktop_os_release().get('PRETTY_NAME', '')}, Linux {platform.release()}"]),
        ("Disk", [f"{kind}; 4 KiB and fdatasync: {rate:.0f}/s, p50 {half:.2f} ms, p99 {most:.2f} ms"]),
        ("mailonce", [measure.output(soak.options.binary, "--version")]),
        ("Time", [f"{soak.options.minutes:g} minutes"]),
        ("Full load", [f"{soak.full:,.0f} messages a second" + (" (told)" if soak.options.full else " (tried for ten seconds)")]),
        ("Load", [f"{soak.rate:,.0f} messages a second"]),
    ]
    verdict = "Passed." if judged.passed else "FAILED."
    path.write_text(
        f"# The soak\n\nMade by `bench/soak`; `bench/README.md` says what it does. {verdict}\n\n"
        f"{report.markdown(['', ''], rows)}\n\n![The curves]({picture.name})\n\n{summary(soak, judged)}"
    )
