"""`swm view`: episodes in the browser."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.errors import ContractError


def view(
    place: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.datasets_and_runs,
            metavar="DATASET|RUN",
            help="Path or name of a dataset, or folder of a run with videos.",
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    rerun: Annotated[bool, typer.Option("--rerun", help="Show one episode in Rerun instead.")] = False,
    episode: Annotated[int | None, typer.Option(min=0, help="Episode for --rerun.", show_default="0")] = None,
    save: Annotated[Path | None, typer.Option(help="With --rerun: write this .rrd file, open nothing.")] = None,
) -> None:
    """Look at episodes on a local page: filmstrip, frames, plots, filters, two episodes side by side.

    The page is served to this machine only, and nothing can be changed by it. Ctrl-C ends it.
    """
    from stable_worldmodel.viewer import open_sources, open_viewer

    if rerun:
        from stable_worldmodel.viewer.rerun import require_rerun, stream_episode

        require_rerun()  # before the dataset is opened
        stream_episode(next(iter(open_sources(place).values())), episode or 0, save)
        return
    if episode is not None or save is not None:
        raise ContractError("--episode and --save belong to --rerun")
    with open_viewer(place, port) as server:
        typer.echo(server.url)
        if browser:
            typer.launch(server.url)
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            server.serve_forever()
