"""Acting with the actor of a model that learns from rewards: TD-MPC2, Dreamer."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy.base import BasePolicy
from stable_worldmodel.policy.config import ACTION_HISTORY_KEY
from stable_worldmodel.policy.prepare import Process, apply_scaler, live_envs, prepare_info
from stable_worldmodel.protocols import Info


class ActorPolicy(BasePolicy):
    """The actions of `model`, which sees the last frames and the actions between them, and no goal.

    What an episode does depends on the model, the policy's seed and the episode's alone: each env is inferred by
    itself, and exploration draws from a stream keyed by (seed, episode seed, step).

    Args:
        model: with `get_action(info)`, for `explore` also `explore(info, generator)`; both return (n, A) in the scaled
            action space.
        columns: what the model observes.
        process: scalers per info column, (rows, d) -> (rows, d). That of `action` maps the model's actions back.
        history: frames that the model sees.
        explore: draw actions, instead of taking the most likely ones.
        random_below: with `explore`, episodes of smaller seeds are played with uniformly random actions.
        seed: of exploration.
    """

    type = "actor"

    def __init__(
        self,
        model: Any,
        columns: Sequence[str],
        process: Process | None = None,
        *,
        history: int = 1,
        explore: bool = False,
        random_below: int = 0,
        seed: int = 0,
        **kwargs: Any,
    ):
        if history < 1:
            raise ContractError(f"history={history}: expected an integer >= 1")
        super().__init__(**kwargs)
        self._model = model  # private: what a recording says of its policy is the same while the model learns
        self.columns = tuple(columns)
        self.process = dict(process or {})
        self.history, self.explore = int(history), bool(explore)
        self.random_below, self.seed = int(random_below), int(seed)

    @property
    def model(self) -> Any:
        """Who acts."""
        return self._model

    def set_env(self, env: Any) -> None:
        """Attach a pool of envs with Box actions (ContractError) and put the model into eval mode."""
        if not hasattr(env.single_action_space, "low"):
            raise ContractError(
                f"{type(self).__name__} gives bounded numbers: expected a Box, {env.single_action_space}"
            )
        super().set_env(env)
        self._frames: list[deque[Info]] = [deque(maxlen=self.history) for _ in range(env.num_envs)]
        self._actions: list[deque[torch.Tensor]] = [deque(maxlen=self.history) for _ in range(env.num_envs)]
        self._episodes = -1 - np.arange(env.num_envs)  # negative: no seed, the slot instead
        self._steps = np.zeros(env.num_envs, np.int64)
        self._model.eval()

    def reset(self, env_indices: Sequence[int], episode_seeds: Sequence[int] | None) -> None:
        """Envs `env_indices` begin episodes with these seeds; None means that the episodes have none."""
        self._attached_env()
        for number, env in enumerate(env_indices):
            self._frames[env].clear()
            self._actions[env].clear()
            self._steps[env] = 0
            self._episodes[env] = -1 - env if episode_seeds is None else episode_seeds[number]

    @torch.no_grad()
    def get_action(self, info_dict: Info, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """Return actions (N, *action_shape) in the env's units; NaN for envs that ended.

        Raises MissingKeyError if info lacks one of the columns.
        """
        env = self._attached_env()
        missing = [name for name in self.columns if name not in info_dict]
        if missing:
            raise MissingKeyError(f"the model observes {missing}; info has {sorted(info_dict)}")
        observed = prepare_info({name: info_dict[name] for name in self.columns}, self.process, {})
        space = env.single_action_space
        actions = np.full(env.action_space.shape, np.nan, space.dtype)
        for row in np.flatnonzero(live_envs(info_dict, env.num_envs)):
            self._frames[row].append({name: value[row : row + 1, -1:] for name, value in observed.items()})
            drawn = self._infer(int(row))
            self._actions[row].append(drawn)
            self._steps[row] += 1
            actions[row] = self._in_env_units(drawn).reshape(space.shape)
        return np.clip(actions, space.low, space.high)

    def _infer(self, row: int) -> torch.Tensor:
        """The model's action (1, A) for one env."""
        device = next(self._model.parameters()).device
        frames = list(self._frames[row])
        info: Info = {name: torch.cat([frame[name] for frame in frames], dim=1).to(device) for name in self.columns}
        info = {name: value if value.dtype == torch.uint8 else value.float() for name, value in info.items()}
        if len(frames) > 1:
            between = list(self._actions[row])[-(len(frames) - 1) :]
            info[ACTION_HISTORY_KEY] = torch.stack(between, dim=1).to(device)  # (1, L - 1, A)
        if not self.explore:
            return self._model.get_action(info).cpu()
        episode = int(self._episodes[row])
        seed = int(np.random.SeedSequence([self.seed, episode % 2**64, int(self._steps[row])]).generate_state(1)[0])
        if 0 <= episode < self.random_below:
            size = int(np.prod(self._attached_env().single_action_space.shape))
            return torch.rand(1, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        return self._model.explore(info, torch.Generator(device).manual_seed(seed)).cpu()

    def _in_env_units(self, action: torch.Tensor) -> np.ndarray:
        scaler = self.process.get("action")
        values = action.float().clamp(-1.0, 1.0).numpy()
        return values if scaler is None else apply_scaler(scaler.inverse_transform, "action", values)
