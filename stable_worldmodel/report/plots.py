"""Plots as inline SVG whose colours are the page's own CSS variables, so they follow light and dark."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, require

# Matplotlib writes colours into the SVG as hex; these stand-ins are then replaced by the variables.
_INK, _GRID = "#010203", "#010204"
_SERIES = ("#010205", "#010206", "#010207", "#010208")
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)"} | {
    color: f"var(--series-{i})" for i, color in enumerate(_SERIES, start=1)
}
_SIZE = (4.4, 2.7)  # inches; small, so that its text stays readable at the width of a phone
_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "report",  # the same curves give the same bytes
    "text.parse_math": False,  # a metric's name may hold a dollar sign
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass
class Curves:
    """One plot: the lines of all splits of one metric."""

    metric: str
    x_label: str
    lines: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)  # split -> (x, y)


def group_history(history: Sequence[Mapping[str, float]]) -> list[Curves]:
    """Sort logged rows into plots, in order of appearance. `train/loss` is the line `train` of the plot `loss`.

    Names without a split (learning rate, speed) are not about learning and left out, and so are values that are not
    finite numbers.

    Raises:
        ContractError: a row has neither `step` nor `epoch`.
    """
    plots: dict[str, Curves] = {}
    x_label = "step" if all("step" in row for row in history) else "epoch"
    for index, row in enumerate(history):
        if x_label not in row:
            raise ContractError(f"history row {index}: expected the key 'step' or 'epoch', found {sorted(row)}")
        for name, value in row.items():
            split, slash, metric = name.partition("/")
            if not slash or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            plot = plots.setdefault(metric, Curves(metric, x_label))
            xs, ys = plot.lines.setdefault(split, ([], []))
            xs.append(row[x_label])
            ys.append(value)
    return list(plots.values())


def draw_curves(curves: Curves) -> str:
    """The plot as an `<svg>` element. The vertical axis is logarithmic when the values span two decades or more."""

    def draw(axes: Any) -> None:
        values = [y for _, ys in curves.lines.values() for y in ys]
        for i, (split, (xs, ys)) in enumerate(curves.lines.items()):
            marker = "o" if len(xs) == 1 else None  # a line of one point would be invisible
            axes.plot(xs, ys, label=split, color=_SERIES[i % len(_SERIES)], linewidth=1.6, marker=marker)
        _scale(axes, min(values), max(values))
        axes.set_xlabel(curves.x_label)
        if len(curves.lines) > 1:
            axes.legend(frameon=False)

    return _svg(draw, f"{curves.metric} by {curves.x_label}")


def draw_plan_times(runs: Mapping[str, Sequence[float]]) -> str:
    """Seconds per solve, sorted: the share of solves that took no longer. `runs`: by name, none empty."""

    def draw(axes: Any) -> None:
        for i, (name, seconds) in enumerate(runs.items()):
            # It rises from 0 at the fastest one, so that a single solve is a line, too.
            share = 100 * np.arange(len(seconds) + 1) / len(seconds)
            times = np.sort(seconds)
            axes.step(
                np.r_[times[:1], times], share, where="post", label=name, color=_SERIES[i % len(_SERIES)], linewidth=1.6
            )
        axes.set_xlim(left=0)
        axes.set_ylim(0, 103)
        axes.set_xlabel("seconds per solve")
        axes.set_ylabel("% of solves")
        if len(runs) > 1:
            axes.legend(frameon=False)

    return _svg(draw, "share of solves by seconds")


def draw_plan_costs(runs: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Best cost by iteration: the median over solves, and the range of the middle 80 %. `runs`: none empty."""

    def draw(axes: Any) -> None:
        quantiles = [np.nanquantile(np.asarray(costs, float), (0.1, 0.5, 0.9), axis=0) for costs in runs.values()]
        for i, (name, (low, middle, high)) in enumerate(zip(runs, quantiles, strict=True)):
            iterations, color = np.arange(1, len(middle) + 1), _SERIES[i % len(_SERIES)]
            axes.fill_between(iterations, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(iterations, middle, label=name, color=color, linewidth=1.6, marker="o", markersize=3)
        _scale(axes, min(float(q.min()) for q in quantiles), max(float(q.max()) for q in quantiles))
        axes.set_xlabel("iteration")
        if len(runs) > 1:
            axes.legend(frameon=False)

    return _svg(draw, "best cost by iteration")


def _scale(axes: Any, low: float, high: float) -> None:
    if low > 0 and high >= 100 * low:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter("{x:g}")


def _svg(draw: Callable[[Any], None], label: str) -> str:
    matplotlib = require("matplotlib", "report")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.grid(color=_GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _embed(buffer.getvalue(), label)


def _embed(svg: str, label: str) -> str:
    """Drop the XML prolog, name the picture for screen readers, and hand the colours to the page."""
    body = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, variable)
    return body
