"""`swm report`: one HTML file about a run, or about several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.output import JsonOption, print_json


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            autocompletion=completion.runs, metavar="RUN|RESULTS", help="Folders of runs, files of results, grids."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write.", show_default="report.html, in the run")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Headline.", show_default="names of the runs")] = None,
    videos: Annotated[int, typer.Option(min=0, help="Megabytes of video to embed.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Write what runs found as one HTML file that needs no network: rates, episodes, curves, data, configuration."""
    from stable_worldmodel.report import read_report, write_report
    from stable_worldmodel.report.sources import find_run

    first = find_run(runs[0])
    target = out or (first if len(runs) == 1 and first.is_dir() else Path()) / "report.html"
    content = read_report(runs, title, video_limit=videos * 1_000_000)
    written = write_report(content, target)
    if as_json:
        rates = {c.policy: {"rate": c.rate, "low": c.low, "high": c.high} for c in content.comparisons}
        print_json({"report": str(written), "bytes": written.stat().st_size, "success": rates})
        return
    typer.echo(f"report: {written} ({written.stat().st_size / 1e6:.1f} MB)")
