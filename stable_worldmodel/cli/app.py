"""The `swm` application: its options and the table of its commands."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Annotated

import typer

from stable_worldmodel.cli.catalog import checkpoints, delete, list_cmd, show
from stable_worldmodel.cli.data import bench, convert, datasets, inspect, merge, preview, verify
from stable_worldmodel.cli.errors import ErrorReportingGroup
from stable_worldmodel.cli.listing import envs, fovs
from stable_worldmodel.cli.quickstart import quickstart

_EXAMPLES = """
Examples

swm quickstart --preset tiny --out runs/tiny

swm fovs TwoRoom-v1

swm inspect runs/tiny/dataset.h5 --json
"""

app = typer.Typer(
    name="swm",
    cls=ErrorReportingGroup,
    help="The workbench of world-model research: collect, train, plan, evaluate.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

_COMMANDS: tuple[tuple[Callable[..., None], ...], ...] = (
    (quickstart,),
    (envs, fovs),
    (datasets, inspect, verify, convert, merge, preview, bench),
    (show, delete, checkpoints),
)
app.command("list")(list_cmd)
for _command in chain(*_COMMANDS):
    app.command()(_command)


def _print_version(requested: bool) -> None:
    if requested:
        from stable_worldmodel import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool | None,
        typer.Option("--version", "-v", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """The options that stand before a command."""


def main() -> None:
    """Entry point of `swm` and `stable-worldmodel`."""
    app(prog_name="swm")
