"""`swm train`: a model on a dataset."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.output import JsonOption, print_json
from stable_worldmodel.cli.rollouts import parse_options
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from stable_worldmodel.train.compose import Run

_ONLINE = ("env=", "online.")  # how words about online training begin


def train(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help="lewm, pldm, prejepa, tdmpc2, dreamer, gcbc, gcivl, gciql, hilp ...",
        ),
    ],
    overrides: Annotated[
        list[str],
        typer.Argument(
            autocompletion=completion.training_words,
            metavar="data=DATASET|env=ENV|KEY=VALUE",
            help="Dataset or env, preset, and single values.",
        ),
    ],
    show_config: Annotated[bool, typer.Option("--cfg", help="Print the config of the run and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a world model. The same command continues what was interrupted.

    preset is debug, small or paper; model.KEY=VALUE changes a size of the model, out=FOLDER says where the run goes.
    With env=ENV in place of data, tdmpc2 and dreamer play the episodes they learn from; online.KEY=VALUE says how.
    """
    from dataclasses import asdict

    from stable_worldmodel.train.compose import compose_run

    online = [word for word in overrides if word.startswith(_ONLINE)]
    offline = [word for word in overrides if word not in online]
    if online:
        values = _online_values(online, offline)
        offline = [*offline, f"data={values['env'].replace('/', '-')}"]  # part of the run's name
    run = compose_run([f"model={model}", *offline])
    if show_config:
        print_json({"data": run.data, "out": str(run.out), **asdict(run.config)})
        return
    with contextlib.redirect_stdout(sys.stderr):  # what loggers say is no result
        found = _train_online(run, values) if online else _train(run)
    if os.environ.get("RANK", "0") != "0":  # one of several processes, of which the first one speaks
        return
    if as_json:
        print_json(found)
        return
    typer.echo("\n".join(f"{name}: {value}" for name, value in found.items()))


def _train(run: Run) -> dict[str, Any]:
    from stable_worldmodel.train.run import execute, summary

    return summary(run, execute(run))


def _train_online(run: Run, values: dict[str, Any]) -> dict[str, Any]:
    from stable_worldmodel.online import OnlineConfig, train_online

    config = OnlineConfig.of(values.pop("env"), run.config, **values)
    result = train_online(config, run.out, progress=True)
    last = result.history[-1]
    shown = ("step", "env_steps", "episodes", "return", "eval/return")
    numbers: dict[str, Any] = {name: last[name] for name in shown if name in last}
    return {"run": str(run.out), "checkpoint": str(result.checkpoint), "replay": str(result.replay), **numbers}


def _online_values(words: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
    """The env, and the values of OnlineConfig that were given."""
    from stable_worldmodel.envs import resolve_id

    if any(word.startswith("data=") for word in others):
        raise ContractError("data= and env= exclude each other: learn from a dataset, or play")
    values = parse_options([word.removeprefix("online.") for word in words])
    if not isinstance(values.get("env"), str):
        raise ContractError("online.KEY=VALUE is about playing: expected env=ENV, too")
    return {**values, "env": resolve_id(values["env"])}
