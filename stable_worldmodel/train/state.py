"""The state of an unfinished run: what it takes to go on as if nothing had happened.

Batches and noise are functions of the seed and the step, so weights, their average, optimiser, step and history are all
of it.

    <run>/state/step_00000200/weights.safetensors, optimizer.safetensors, state.json, and average.safetensors if kept
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stable_worldmodel.train.average import WeightAverage
from stable_worldmodel.train.logging import Row

_FOLDER = "state"


@dataclass(frozen=True)
class RunState:
    """How far a run is."""

    step: int
    history: list[Row]


def save_state(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    average: WeightAverage | None = None,
) -> None:
    """Write the state after `state.step` steps and remove older ones. It is complete or not there."""
    folder = run / _FOLDER / f"step_{state.step:08d}"
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_contiguous(model.state_dict()), partial / "weights.safetensors")
    if average is not None:
        save_file(_contiguous(average.tensors), partial / "average.safetensors")
    save_file(_optimizer_tensors(optimizer), partial / "optimizer.safetensors")
    (partial / "state.json").write_text(json.dumps({"step": state.step, "history": state.history}))
    partial.replace(folder)
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)


def has_state(run: Path) -> bool:
    """Whether the run got as far as saving a state."""
    return bool(_states(run))


def load_state(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None
) -> RunState:
    """Restore the newest state into model, optimiser and average; step 0 and no history if there is none."""
    folders = _states(run)
    if not folders:
        return RunState(0, [])
    model.load_state_dict(load_file(folders[-1] / "weights.safetensors"))
    _load_optimizer(optimizer, load_file(folders[-1] / "optimizer.safetensors"))
    if average is not None:
        average.load(load_file(folders[-1] / "average.safetensors"))
    values: dict[str, Any] = json.loads((folders[-1] / "state.json").read_text())
    return RunState(values["step"], values["history"])


def _states(run: Path) -> list[Path]:
    """Folders of complete states, the newest last."""
    return sorted((run / _FOLDER).glob("step_*"))


def _contiguous(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Per-parameter tensors of the optimiser as `<parameter index>.<name>`."""
    states = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, values in states.items()
        for name, value in values.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".")
        states.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
