"""What decides the outcome of an online run, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.train.config import TrainConfig

MODELS = ("dreamer", "tdmpc2")  # those with rewards and an actor


@dataclass(frozen=True)
class OnlineConfig:
    """Rounds of collecting and learning.

    The first round plays `seed_episodes` with random actions; each further one plays `episodes_per_round` with the
    actor as it then is. After a round the model takes `updates_per_step` optimiser steps per env step it brought.
    """

    env: str
    train: TrainConfig  # model, optimiser and clips; `epochs` and `max_steps` have no meaning here
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the env
    env_steps: int = 20_000  # the last round is that which reaches them
    seed_episodes: int = 10
    episodes_per_round: int = 4
    updates_per_step: float = 1.0
    buffer_steps: int = 1_000_000  # rows of the replay buffer
    max_episode_steps: int = 200
    image_size: int = 64  # px; used only by models of pictures
    num_envs: int = 4  # played side by side; decides nothing but speed
    history: int = 1  # frames the actor sees; TD-MPC2 sees one, Dreamer filters as many as it is given
    eval_every: int = 10  # rounds
    eval_episodes: int = 10

    def __post_init__(self) -> None:
        for name in (
            *("env_steps", "seed_episodes", "episodes_per_round", "buffer_steps", "max_episode_steps", "image_size"),
            *("num_envs", "history", "eval_every", "eval_episodes"),
        ):
            if getattr(self, name) < 1:
                raise ContractError(f"{name}={getattr(self, name)}: expected an integer >= 1")
        if self.updates_per_step <= 0:
            raise ContractError(f"updates_per_step={self.updates_per_step}: expected a number > 0")
        kind = self.train.model.model_type
        if kind not in MODELS:
            raise ContractError(f"{kind} does not act for rewards: online training is for {' and '.join(MODELS)}")
        if getattr(self.train.model, "goals", False):
            raise ContractError("goals=True: drawn goals are for recorded episodes; online the env gives the rewards")
        if self.train.frameskip != 1:
            raise ContractError(f"frameskip={self.train.frameskip}: expected 1, the actor decides at every env step")
        if self.buffer_steps < self.max_episode_steps + 1:
            raise ContractError(
                f"buffer_steps={self.buffer_steps}: expected at least one episode, {self.max_episode_steps + 1} rows"
            )
        if kind == "tdmpc2" and self.history != 1:
            raise ContractError(f"history={self.history}: TD-MPC2 sees only the present, expected 1")

    @classmethod
    def of(cls, env: str, train: TrainConfig, **values: Any) -> OnlineConfig:
        """Online training by the preset of offline training: what keeps an actor near recorded data is left out.

        Dreamer sees 8 frames unless `history` says otherwise. ContractError for a value there is none of.
        """
        unknown = sorted(values.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise ContractError(f"no {', '.join(unknown)} in an online run: expected {[f.name for f in fields(cls)]}")
        free = {"bc_weight": 0.0, "uncertainty_weight": 0.0}
        model: Any = train.model
        model = replace(model, **{name: value for name, value in free.items() if hasattr(model, name)})
        values = {"history": 8 if model.model_type == "dreamer" else 1, **values}
        return cls(env, replace(train, model=model, frameskip=1), **values)

    @property
    def columns(self) -> tuple[str, ...]:
        """What the model observes."""
        model: Any = self.train.model
        return self.train.columns or (*model.images, *model.inputs)

    @property
    def reads_pixels(self) -> bool:
        """Whether pictures have to be drawn."""
        return any(name.startswith("pixels") for name in self.columns)
