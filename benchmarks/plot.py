"""The picture: time of one command, for each client, on a logarithmic scale."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from clients import CLIENTS
from results import Results

_OURS, _OTHERS = "#1f6f8b", "#b9bec4"
_PANELS = ((0, "same machine"), (50, "50 ms away"))


def write_plot(results: Results, path: Path) -> None:
    """:param path: ends in .svg, or whatever else matplotlib writes."""
    # The text stays text, and the file is the same for the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "holdfast", "font.size": 10})
    panels = [(words, _bars(results, rtt)) for rtt, words in _PANELS]
    heights = [len(bars) for _, bars in panels]
    every = [value for _, bars in panels for _, value in bars]
    low, high = 10 ** math.floor(math.log10(min(every))), 2 * max(every)
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(7.5, 0.31 * sum(heights) + 1.6),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for axis, (words, bars) in zip(axes, panels):
        names = [name for name, _ in bars]
        values = [value for _, value in bars]
        colours = [_OURS if name.startswith("holdfast") else _OTHERS for name in names]
        drawn = axis.barh(names, values, color=colours, height=0.72)
        labels = [f"{_short(value)} ms" for value in values]
        axis.bar_label(drawn, labels, padding=4, fontsize=9)
        axis.set_xscale("log")
        axis.set_xlim(low, high)
        axis.invert_yaxis()
        axis.set_title(f"time of one command, {words}", loc="left", fontsize=10.5)
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(axis="x", color="#e6e8ea", linewidth=0.7)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[-1].set_xlabel("ms, logarithmic; shorter is better")
    figure.savefig(
        path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None
    )
    plt.close(figure)
    if path.suffix == ".svg":  # matplotlib leaves blanks at the ends of lines
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def _bars(results: Results, rtt: int) -> list[tuple[str, float]]:
    """(title, ms), the fastest first."""
    found = []
    for name, client in CLIENTS.items():
        value = results.median(f"latency.{rtt}", name)
        if value is not None:
            title = "holdfast run()" if name == "holdfast" else client.title
            found.append((title, value * 1000))
    shell = results.median(f"shell.builtin.{rtt}", "holdfast")
    if shell is not None:
        found.append(("holdfast shell()", shell * 1000))
    return sorted(found, key=lambda bar: bar[1])


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
