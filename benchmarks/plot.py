"""How each trigger grows with the number of waits, as one SVG; the same numbers give the same file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.contenders import OURS, contender
from benchmarks.report import Results, names, sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.verdict import Result

_COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b")
_PANELS: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("CPU seconds per minute", lambda found: found.cpu),
    ("requests per interval", lambda found: found.requests),
    ("longest stall of the event loop, ms", lambda found: found.stall * 1000),
    ("p95 seconds from end to event", lambda found: found.latency(95)),
)


def draw(results: Results, path: Path) -> None:
    """Draw all contenders; hollow marks are of overloaded loops."""
    mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    for axes, (title, value) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        _panel(axes, results, value)
        axes.set_title(title, fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _panel(axes: Axes, results: Results, value: Callable[[Result], float]) -> None:
    for name, color in zip(names(results), _COLORS, strict=False):
        found = [results[name, waits] for waits in sizes(results) if (name, waits) in results]
        waits, values = [one.waits for one in found], [value(one) for one in found]
        width, above = (2.5, 4) if name == OURS else (1.2, 3)
        axes.plot(waits, values, color=color, linewidth=width, zorder=above, label=contender(name).label)
        for one, at, height in zip(found, waits, values, strict=True):
            axes.plot(
                at, height, "o", color=color, markersize=5, markerfacecolor="white" if one.overloaded else color
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes(results), [f"{waits:,}" for waits in sizes(results)])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.set_xlabel("waits")
