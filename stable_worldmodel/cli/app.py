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
from stable_worldmodel.cli.rollouts import collect

# Shown below the help of a command, or of `swm` itself.
_EXAMPLES = {
    "swm": [
        "swm quickstart --preset tiny --out runs/tiny",
        "swm fovs TwoRoom-v1",
        "swm inspect runs/tiny/dataset.h5 --json",
    ],
    "quickstart": ["swm quickstart --preset tiny --out runs/tiny"],
    "collect": [
        "swm collect TwoRoom-v1 --policy expert --episodes 1000 --out rooms.h5",
        "swm collect PushT-v1 --policy expert -p action_noise=0.1 --variation agent.color,block.color -o push.lance",
        "swm collect PushT-v1 bounded=true --episodes 100 --out random.h5",
    ],
    "fovs": ["swm fovs TwoRoom-v1"],
    "inspect": ["swm inspect runs/tiny/dataset.h5 --json"],
    "verify": ["swm verify rooms.h5 --deep"],
    "convert": ["swm convert rooms.h5 rooms.lance -f lance", "swm convert rooms.h5 -f video"],
    "merge": ["swm merge rooms.h5 more-rooms.h5 -o all-rooms.h5"],
    "preview": ["swm preview rooms.h5 --episodes 0,3 --key pixels,goal"],
    "bench": ["swm bench rooms.h5 --num-steps 4 --frameskip 5"],
    "show": ["swm show dataset rooms", "swm show world TwoRoom-v1 --json"],
    "delete": ["swm delete dataset rooms --yes"],
    "checkpoints": ["swm checkpoints '^lewm'"],
}


def _epilog(command: str) -> str | None:
    lines = _EXAMPLES.get(command)
    return "\n\n".join(["Examples", *lines]) if lines else None


app = typer.Typer(
    name="swm",
    cls=ErrorReportingGroup,
    help="The workbench of world-model research: collect, train, plan, evaluate.",
    epilog=_epilog("swm"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

_COMMANDS: tuple[tuple[Callable[..., None], ...], ...] = (
    (quickstart, collect),
    (envs, fovs),
    (datasets, inspect, verify, convert, merge, preview, bench),
    (show, delete, checkpoints),
)
app.command("list")(list_cmd)
for _command in chain(*_COMMANDS):
    app.command(epilog=_epilog(_command.__name__))(_command)


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
