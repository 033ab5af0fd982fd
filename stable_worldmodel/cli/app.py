"""The `swm` application: its options and the table of its commands."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getdoc
from typing import Annotated

import typer

from stable_worldmodel.cli.bench import loading, planning, rollout
from stable_worldmodel.cli.catalog import checkpoints, delete, list_cmd, show
from stable_worldmodel.cli.data import convert, datasets, inspect, merge, preview, verify
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
    "bench": ["swm bench rollout PushT-v1", "swm bench loading rooms.h5", "swm bench planning runs/lewm"],
    "bench rollout": ["swm bench rollout PushT-v1 --num-envs 32 --image-size 224 --json"],
    "bench loading": ["swm bench loading rooms.h5 --num-steps 4 --frameskip 5 --columns pixels,action"],
    "bench planning": [
        "swm bench planning",
        "swm bench planning runs/lewm --solver num_samples=100 --plan horizon=6 --device cuda",
    ],
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
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

# Panel of the help -> its commands, by name.
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Work": {"quickstart": quickstart, "collect": collect, "train": train, "eval": eval_, "plan": plan},
    "Results": {"report": report, "view": view},
    "Datasets": {
        "datasets": datasets,
        "inspect": inspect,
        "verify": verify,
        "convert": convert,
        "merge": merge,
        "preview": preview,
    },
    "What there is": {
        "envs": envs,
        "fovs": fovs,
        "checkpoints": checkpoints,
        "list": list_cmd,
        "show": show,
        "delete": delete,
    },
    "This machine": {"doctor": doctor},
}
# Groups of commands, by the panel they stand in: name -> help and commands.
_GROUPS: dict[str, dict[str, tuple[str, dict[str, Callable[..., None]]]]] = {
    "This machine": {
        "bench": (
            "Measure how fast environments, datasets and planners are here.",
            {"rollout": rollout, "loading": loading, "planning": planning},
        ),
    },
    "Elsewhere": {"lerobot": ("What this library has, for LeRobot's tools.", {"export-env": export_env})},
}


def _help(function: Callable[..., None]) -> str:
    """The docstring, one line per paragraph, for a terminal has a width of its own."""
    paragraphs = (getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _add_group(name: str, panel: str, text: str, commands: dict[str, Callable[..., None]]) -> None:
    group = typer.Typer(help=text, epilog=_epilog(name), no_args_is_help=True)
    group.callback()(lambda: None)  # keeps the name of an only command
    for command, function in commands.items():
        group.command(command, help=_help(function), epilog=_epilog(f"{name} {command}"))(function)
    app.add_typer(group, name=name, rich_help_panel=panel)


for _panel, _commands in _COMMANDS.items():
    for _name, _function in _commands.items():
        app.command(_name, help=_help(_function), epilog=_epilog(_name), rich_help_panel=_panel)(_function)
for _panel, _groups in _GROUPS.items():
    for _name, (_text, _commands) in _groups.items():
        _add_group(_name, _panel, _text, _commands)


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
