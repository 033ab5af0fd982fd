"""Write a `RunReport` as one HTML file: no script, no network, videos and plots inside."""

from __future__ import annotations

import base64
from pathlib import Path

from stable_worldmodel.errors import NotFoundError, require
from stable_worldmodel.report.model import RunReport, Video
from stable_worldmodel.report.plots import draw_curves, group_history
from stable_worldmodel.utils.files import write_atomically
from stable_worldmodel.utils.mappings import flatten_dict

_TEMPLATE = "report.html.j2"


def render_report(report: RunReport) -> str:
    """The report as HTML text. Every value is escaped.

    Raises:
        NotFoundError: a video file does not exist.
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    jinja2 = require("jinja2", "report")
    markupsafe = require("markupsafe", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = _format_bytes
    environment.filters["duration"] = _format_duration
    return environment.get_template(_TEMPLATE).render(
        report=report,
        # Matplotlib has escaped what it wrote; anything else goes through autoescape.
        plots=[(curves, markupsafe.Markup(draw_curves(curves))) for curves in group_history(report.history)],
        videos=[(video, _data_uri(video)) for video in report.videos],
        config=flatten_dict(report.config),
    )


def write_report(report: RunReport, path: str | Path) -> Path:
    """Render `report` into the file `path` and return it. The file is complete or not there at all.

    Parent folders are created. Raises what `render_report` raises, and OSError when `path` cannot be written.
    """
    return write_atomically(path, render_report(report).encode())


def _data_uri(video: Video) -> str:
    if not Path(video.path).is_file():
        raise NotFoundError(f"video {str(video.path)!r} of {video.label!r} does not exist")
    return f"data:video/mp4;base64,{base64.b64encode(Path(video.path).read_bytes()).decode('ascii')}"


def _format_bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
