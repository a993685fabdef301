"""The plot: messages a second by peer, a panel for each size.

Run as a program it draws what it reads, in JSON: matplotlib may be there for
another Python than the one that measures.
"""

import json
import subprocess
import sys
from pathlib import Path

import obtain


def draw(results, path: Path) -> bool:
    """Draws it, where there is a matplotlib."""
    python = obtain.python_with("matplotlib")
    if not python:
        return False
    panels = []
    for size in results.options.sizes:
        for many in results.options.connections:
            cells = [cell for cell in results.cells if (cell.size, cell.many, cell.tls) == (size, many, False)]
            lines = {}
            for name in results.names:
                points = [
                    [cell.sessions, results.middle(name, cell, "rate"), *spread(results.values(name, cell, "rate"))]
                    for cell in cells
                    if (name, cell) in results.runs
                ]
                if points:
                    lines[name] = points
            panels.append({"title": f"{size[:-1]} {size[-1]}iB, {'kept connections' if many else 'a connection each'}", "lines": lines})
    data = json.dumps({"panels": panels, "columns": len(results.options.connections)})
    done = subprocess.run([python, __file__, path], input=data, text=True, check=False)
    return done.returncode == 0


def spread(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def paint(data: dict, path: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "mailonce"
    from matplotlib import pyplot
    from matplotlib.ticker import ScalarFormatter

    columns = data["columns"]
    rows = -(-len(data["panels"]) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3 * rows), squeeze=False)
    names = list(dict.fromkeys(name for panel in data["panels"] for name in panel["lines"]))
    shown = {}
    for panel, axis in zip(data["panels"], axes.flat):
        for name, points in panel["lines"].items():
            sessions, rate, least, most = zip(*points)
            errors = [[r - low for r, low in zip(rate, least)], [high - r for r, high in zip(rate, most)]]
            own = name == "mailonce"
            shown[name] = axis.errorbar(
                sessions, rate, errors, marker="o", markersize=3, capsize=2, color=f"C{names.index(name)}",
                linewidth=2.5 if own else 1.2, zorder=3 if own else 2, label=name,
            )
        axis.set(title=panel["title"], xscale="log", yscale="log", xlabel="sessions", ylabel="messages a second")
        axis.set_xticks(sorted({point[0] for points in panel["lines"].values() for point in points}))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(shown.values(), shown.keys(), loc="lower center", ncols=len(names))
    figure.tight_layout(rect=(0, 0.04 if rows > 2 else 0.1, 1, 1))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    paint(json.load(sys.stdin), sys.argv[1])
