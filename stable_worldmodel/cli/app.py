"""The `swm` application: its options and the table of its commands."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Annotated

import typer

from stable_worldmodel.cli.catalog import checkpoints, delete, list_cmd, show
from stable_worldmodel.cli.data import bench, convert, datasets, inspect, merge, preview, verify
from stable_worldmodel.cli.doctor import doctor
from stable_worldmodel.cli.errors import ErrorReportingGroup
from stable_worldmodel.cli.evaluation import eval_
from stable_worldmodel.cli.lerobot import export_env
from stable_worldmodel.cli.listing import envs, fovs
from stable_worldmodel.cli.planning import plan
from stable_worldmodel.cli.quickstart import quickstart
from stable_worldmodel.cli.report import report
from stable_worldmodel.cli.rollouts import collect
from stable_worldmodel.cli.training import train
from stable_worldmodel.cli.viewer import view

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
    "train": [
        "swm train lewm data=rooms.h5",
        "swm train lewm data=rooms.h5 preset=paper batch_size=256 lr=1e-4 model.latent_dim=128 out=runs/wide",
        "swm train tdmpc2 data=rooms.h5 preset=debug ema=0.999 scalers.action=percentile save_every=500",
    ],
    "eval": [
        "swm eval runs/lewm --episodes 200 --floors --video",
        "swm eval runs/lewm --record expert --variation agent.color",
        "swm eval runs/lewm runs/pldm --record expert --grid --seeds 0,1,2",
        "swm eval expert random --env PushT-v1 --own-goals",
    ],
    "plan": [
        "swm plan runs/lewm --pairs 4 --out plans/lewm",
        "swm plan oracle --env TwoRoom-v1 --dataset rooms.h5 --pair 3:10 --json",
        "swm plan runs/lewm --solver icem --samples 100 --iterations 10 --horizon 6",
    ],
    "fovs": ["swm fovs TwoRoom-v1"],
    "inspect": ["swm inspect runs/tiny/dataset.h5 --json"],
    "verify": ["swm verify rooms.h5 --deep"],
    "convert": ["swm convert rooms.h5 rooms.lance -f lance", "swm convert rooms.h5 -f video"],
    "merge": ["swm merge rooms.h5 more-rooms.h5 -o all-rooms.h5"],
    "preview": ["swm preview rooms.h5 --episodes 0,3 --key pixels,goal"],
    "bench": ["swm bench rooms.h5 --num-steps 4 --frameskip 5"],
    "report": [
        "swm report runs/quickstart",
        "swm report lewm.json pldm.json random.json --title 'TwoRoom, 100 episodes' -o comparison.html",
        "swm report grid.jsonl -o grid.html",
    ],
    "view": [
        "swm view rooms",
        "swm view runs/quickstart --port 8000 --no-browser",
        "swm view rooms.h5 --rerun --episode 3 --save episode.rrd",
    ],
    "show": ["swm show dataset rooms", "swm show world TwoRoom-v1 --json"],
    "delete": ["swm delete dataset rooms --yes"],
    "lerobot export-env": [
        "swm lerobot export-env two_room --out two-room",
        "swm lerobot export-env PushT-v1 obs_type=pixels observation_height=96 observation_width=96 --out pusht",
    ],
    "doctor": ["swm doctor", "swm doctor --quick --json"],
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
    (quickstart, collect, train, plan),
    (envs, fovs),
    (datasets, inspect, verify, convert, merge, preview, bench),
    (report, view),
    (show, delete, checkpoints),
    (doctor,),
)
app.command("list")(list_cmd)
app.command("eval", epilog=_epilog("eval"))(eval_)
for _command in chain(*_COMMANDS):
    app.command(epilog=_epilog(_command.__name__))(_command)

_lerobot = typer.Typer(help="What this library has, for LeRobot's tools.", no_args_is_help=True)
_lerobot.callback()(lambda: None)  # keeps the name of its one command
_lerobot.command("export-env", epilog=_epilog("lerobot export-env"))(export_env)
app.add_typer(_lerobot, name="lerobot")


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
