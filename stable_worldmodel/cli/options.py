"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from stable_worldmodel.cli import completion

EnvArgument = Annotated[
    str,
    typer.Argument(
        metavar="ENV", help="Environment id; 'TwoRoom-v1' means 'swm/TwoRoom-v1'.", autocompletion=completion.envs
    ),
]
EnvArgumentsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Arguments of the environment.")
]
DatasetArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="Path of a dataset, or its name in the data folder.",
        autocompletion=completion.datasets,
    ),
]
EnvOption = Annotated[
    str | None,
    typer.Option(help="Environment id.", show_default="the checkpoint's", autocompletion=completion.envs),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        help="Recorded episodes to start from.", show_default="the checkpoint's", autocompletion=completion.datasets
    ),
]
GoalOffsetOption = Annotated[int | None, typer.Option(min=1, help="Steps from start to goal in the recording.")]
BudgetOption = Annotated[int | None, typer.Option(min=1, help="Steps allowed to reach it.")]
DeviceOption = Annotated[str, typer.Option(help="Of the model: cpu, cuda ...")]
