"""Options of the commands that can work on several machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stable_worldmodel.cli.rollouts import parse_options
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from stable_worldmodel.protocols import Executor

ClusterOption = Annotated[
    str | None, typer.Option(metavar="KIND", help="local, ray or slurm.", show_default="this process")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Jobs of the cluster at a time.", show_default="what there is room for")
]
MoreOption = Annotated[
    list[str] | None,
    typer.Option("--cluster-option", metavar="KEY=VALUE", help="address=auto, num_cpus=2, partition=gpu, time=120 ..."),
]


def open_chosen(
    cluster: str | None, workers: int | None, more: list[str] | None, others: Mapping[str, Any] | None = None
) -> Executor | None:
    """The executor that the options name; None for this process.

    `others` are further options that make sense with --cluster only. Raises ContractError.
    """
    if cluster is None:
        given = {"--workers": workers, "--cluster-option": more, **(others or {})}
        useless = [name for name, value in given.items() if value]
        if useless:
            raise ContractError(f"{', '.join(useless)}: only with --cluster")
        return None
    from stable_worldmodel.cluster.executors import open_executor

    options = parse_options(more or [])
    return open_executor(cluster, **({} if workers is None else {"workers": workers}), **options)
