"""`swm quickstart`: one complete run."""

from __future__ import annotations

import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from stable_worldmodel.cli.output import JsonOption, print_json, print_table


class Preset(str, Enum):
    """Sizes of the run."""

    tiny = "tiny"
    small = "small"


def quickstart(
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the dataset, checkpoints and the report.")
    ] = Path("runs/quickstart"),
    preset: Annotated[Preset, typer.Option(help="Size of the run.")] = Preset.small,
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes to collect.", show_default="preset")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the dataset.", show_default="preset")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the whole run.")] = 0,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.", show_default="preset")] = None,
    as_json: JsonOption = False,
) -> None:
    """Collect expert episodes, train a world model, plan with it, and report.

    The same command continues a run that was interrupted.
    """
    _require_writable(out)
    from stable_worldmodel.quickstart import QuickstartConfig, run
    from stable_worldmodel.utils.progress import TerminalProgress

    given: dict[str, Any] = {"episodes": episodes, "epochs": epochs, "device": device}
    overrides = {name: value for name, value in given.items() if value is not None}
    config = QuickstartConfig.preset(preset.value, out=out, seed=seed, **overrides)
    with TerminalProgress() as progress:
        result = run(config, progress)
    if as_json:
        paths = {"report": str(result.report_path), "results": str(result.results_path)}
        print_json({"table": [dict(row) for row in result.table], **paths})
        return
    print_table(result.table)
    typer.echo(f"report:  {result.report_path}\nresults: {result.results_path}")


def _require_writable(folder: Path) -> None:
    """Create `folder` and a file in it, so that a wrong path fails before the work and not after."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
