"""From samples to a verdict, a plot and a page."""

import datetime
import os
import platform
import re
from collections import namedtuple
from statistics import linear_regression, median

import measure
import report

# What must be level: its name, its unit, and by how much the last quarter's
# median may exceed the second's (a share, and at least so much: a pool's
# thread or a connection more is no growth).
LEVEL = [
    ("rss", "resident memory", "MiB", 0.10, 4),
    ("pss", "proportional memory", "MiB", 0.10, 4),
    ("descriptors", "file descriptors", "", 0.10, 8),
    ("threads", "threads", "", 0.10, 2),
    ("disk", "the store on disk", "MiB", 0.10, 4),
]

# What the scenario explains in the log, beside decisions.
EXPLAINED = [
    (r"error: the configuration .*", "faulty reloads"),
]

Curve = namedtuple("Curve", "name title unit quarters growth slope level")
Judged = namedtuple("Judged", "curves faults passed")


def judge(soak):
    """Holds the samples to being level, and all that was counted together."""
    curves = [curve(soak.samples, *what) for what in LEVEL]
    faults = soak.faults + books(soak) + log(soak)
    return Judged(curves, faults, not faults and all(one.level for one in curves))


def curve(samples, name, title, unit, share, least):
    values = [sample[name] for sample in samples]
    quarter = len(values) // 4
    quarters = [median(values[i * quarter : (i + 1) * quarter] or values) for i in range(4)]
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
        if not any(re.fullmatch(pattern, text) for pattern, _ in EXPLAINED):
            faults.append(f"in the log, {count} times: {text}")
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
        "Medians of each quarter of the time, and the slope of a straight line behind the first:",
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


def write(soak, judged, path):
    """The page, and its plot beside it."""
    picture = path.with_suffix(".svg")
    plot(soak, picture)
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


def plot(soak, path):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "soak"
    from matplotlib import pyplot

    minutes = [sample["at"] / 60 for sample in soak.samples]
    figure, axes = pyplot.subplots(6, 1, figsize=(9, 12), sharex=True)
    for axis, names, title in (
        (axes[0], ("rss", "pss"), "memory, MiB"),
        (axes[1], ("descriptors",), "file descriptors"),
        (axes[2], ("threads",), "threads"),
        (axes[3], ("disk",), "the store on disk, MiB"),
        (axes[4], ("claims",), "claims"),
    ):
        for name in names:
            axis.plot(minutes, [sample[name] for sample in soak.samples], linewidth=0.8, label=name)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=7, loc="lower right")
    for name in ("sent", "arrived"):
        pairs = list(zip(soak.figures, soak.figures[1:]))
        rates = [(b[name] - a[name]) / (b["at"] - a["at"]) for a, b in pairs]
        axes[5].plot([b["at"] / 60 for _, b in pairs], rates, linewidth=0.6, label=name)
    axes[5].set_title("a second: messages sent, recipients reached", fontsize=9, loc="left")
    axes[5].set_ylim(bottom=0)
    axes[5].legend(fontsize=7, loc="lower right")
    axes[5].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
