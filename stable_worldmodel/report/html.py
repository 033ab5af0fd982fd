"""Write a `RunReport` as one HTML file: no script, no network, videos and plots inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import require
from stable_worldmodel.report.model import RunReport
from stable_worldmodel.report.plots import draw_curves, draw_plan_costs, draw_plan_times, group_history
from stable_worldmodel.report.videos import build_galleries
from stable_worldmodel.utils.files import format_bytes, write_atomically
from stable_worldmodel.utils.mappings import flatten_dict

_TEMPLATE = "report.html.j2"


def render_report(report: RunReport) -> str:
    """The report as HTML text. Every value is escaped.

    Raises:
        NotFoundError: a video file does not exist.
        ContractError: a video cannot be decoded.
        MissingDependencyError: jinja2, matplotlib, or av for videos, is not installed.
    """
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = format_bytes
    environment.filters["duration"] = _format_duration
    galleries = build_galleries(report.evaluations, report.video_limit)
    return environment.get_template(_TEMPLATE).render(
        report=report,
        plots=[(_safe(draw_curves(curves)), curves.metric) for curves in group_history(report.history)],
        planner_plots=_planner_plots(report),
        evaluations=list(zip(report.evaluations, galleries, strict=True)),
        embedded=sum(len(gallery.clips) for gallery in galleries),
        config=flatten_dict(report.config),
    )


def write_report(report: RunReport, path: str | Path) -> Path:
    """Render `report` into the file `path` and return it. The file is complete or not there at all.

    Parent folders are created. Raises what `render_report` raises, and OSError when `path` cannot be written.
    """
    return write_atomically(path, render_report(report).encode())


def _planner_plots(report: RunReport) -> list[tuple[Any, str]]:
    """What the evaluations know of their planner, as plots with captions."""
    seconds = {e.name: e.plan_seconds for e in report.evaluations if len(e.plan_seconds)}
    costs = {e.name: e.plan_costs for e in report.evaluations if len(e.plan_costs)}
    plots = []
    if seconds:
        plots.append((_safe(draw_plan_times(seconds)), f"Time per solve: {_medians(seconds)}"))
    if costs:
        plots.append((_safe(draw_plan_costs(costs)), "Best cost by iteration: median of the solves, and middle 80 %"))
    return plots


def _medians(seconds: Mapping[str, Any]) -> str:
    import numpy as np

    return ", ".join(f"{name} {np.median(values):.3g} s in the median" for name, values in seconds.items())


def _safe(svg: str) -> Any:
    """Matplotlib has escaped what it wrote; anything else goes through autoescape."""
    return require("markupsafe", "report").Markup(svg)


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
