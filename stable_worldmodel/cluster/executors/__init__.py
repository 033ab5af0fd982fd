"""Where jobs run: in this process, in others, on a Ray cluster, through SLURM."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Executor

# Name -> module and class; the modules import Ray and submitit.
EXECUTORS = {
    "local": ("stable_worldmodel.cluster.executors.local", "LocalExecutor"),
    "ray": ("stable_worldmodel.cluster.executors.ray", "RayExecutor"),
    "slurm": ("stable_worldmodel.cluster.executors.slurm", "SlurmExecutor"),
}


def open_executor(name: str, **options: Any) -> Executor:
    """The executor of that name: `local`, `ray` or `slurm`.

    `options` are the fields of `LocalExecutor`, `RayExecutor` or `SlurmExecutor`; all have `workers` and `retries`.
    Raises ContractError for unknown names and options, MissingDependencyError if its package is not installed.
    """
    if name not in EXECUTORS:
        raise ContractError(f"cluster={name!r}: expected one of {', '.join(EXECUTORS)}")
    module, attribute = EXECUTORS[name]
    cls = getattr(importlib.import_module(module), attribute)
    known = [field.name for field in fields(cls)]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ContractError(f"cluster={name!r} has no options {', '.join(unknown)}: expected {', '.join(known)}")
    return cls(**options)
