"""How a trained model is to be evaluated: what a checkpoint says about it, so that it can be repeated from it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.train.config import TrainConfig


@dataclass(frozen=True)
class EvalProtocol:
    """Start and goal pairs from recorded episodes, and how the model acts between them.

    The defaults are the published protocol: goals 25 env steps away, a budget of 50, 50 episodes. JSON values.
    """

    env: Mapping[str, Any] = field(default_factory=dict)  # id and arguments, as the dataset recorded them
    image_shape: tuple[int, int] | None = None  # of `pixels`
    dataset: str | None = None  # path of the recorded episodes; None: starts and goals are the env's own
    part: str = "val"  # of the split, whose episodes give the pairs
    episodes: int = 50
    goal_offset: int = 25  # env steps between start and goal in the recording
    eval_budget: int = 50  # env steps allowed
    seed: int = 42
    plan: Mapping[str, Any] | None = None  # arguments of PlanConfig; None: the model itself is the policy
    solver: Mapping[str, Any] | None = None  # `type` and arguments of the planner

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "image_shape": None if self.image_shape is None else [*self.image_shape]}


def recorded_protocol(dataset: Dataset) -> EvalProtocol:
    """The published protocol on the env that `dataset` was recorded in, with pairs from it."""
    recorded = dataset.metadata.get("env") or {}
    env = {key: recorded[key] for key in ("id", "arguments") if key in recorded}
    pixels = dataset.columns.get("pixels")
    shape = (int(pixels.shape[0]), int(pixels.shape[1])) if pixels is not None else None
    path = getattr(dataset, "path", None)
    return EvalProtocol(env, shape, None if path is None else str(Path(path).absolute()))


def published_protocol(config: TrainConfig, dataset: Dataset, *, plans: bool) -> EvalProtocol:
    """`recorded_protocol` for a model. `plans`: whether it can be planned with."""
    protocol = recorded_protocol(dataset)
    if not plans:
        return protocol
    plan = {"horizon": 5, "receding_horizon": 5, "action_block": config.frameskip}
    return replace(protocol, plan=plan, solver={"type": "cem", "num_samples": 300, "n_steps": 30, "topk": 30})
