"""Draws the curves of a soak: soak_plot.py SAMPLES.json PICTURE.svg. A program
of its own, since matplotlib is a Debian package and belongs to Debian's Python."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["svg.hashsalt"] = "soak"

from matplotlib import pyplot

CURVES = [
    (("rss", "pss"), "memory, resident and proportional, MiB"),
    (("descriptors",), "file descriptors"),
    (("threads",), "threads"),
    (("disk",), "the store on disk, MiB"),
    (("claims",), "claims"),
]


def main(samples, picture):
    with open(samples, encoding="utf-8") as file:
        seen = json.load(file)
    figure, axes = pyplot.subplots(len(CURVES) + 1, 1, figsize=(9, 12), sharex=True)
    minutes = [sample["at"] / 60 for sample in seen["samples"]]
    for axis, (names, title) in zip(axes, CURVES):
        for name in names:
            values = [sample[name] for sample in seen["samples"]]
            axis.plot(minutes, [float("nan") if value is None else value for value in values], linewidth=0.8)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylim(bottom=0)
    last, figures = axes[-1], seen["figures"]
    for name in ("sent", "arrived"):
        pairs = list(zip(figures, figures[1:]))
        rates = [(after[name] - before[name]) / (after["at"] - before["at"]) for before, after in pairs]
        last.plot([after["at"] / 60 for _, after in pairs], rates, linewidth=0.6, label=name)
    last.set_title("a second: messages sent, recipients reached", fontsize=9, loc="left")
    last.set_ylim(bottom=0)
    last.legend(fontsize=7, loc="lower right")
    last.set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None})


main(*sys.argv[1:])
