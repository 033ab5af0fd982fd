"""Several 2-D environments of one class, stepped together as one NumPy program.

The envs stay what they are: they start episodes, answer questions and draw themselves. A batch owns their agents'
states as one array, of which every env holds its row, so whoever moves the agent, both know. Every number a batch
computes has the bits that the env alone would give.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array

from stable_worldmodel.errors import ContractError

Rows = slice | np.ndarray  # all envs, or the indices of some
ALL = slice(None)


class Moved(NamedTuple):
    """What a step led to: one entry per env of the batch, of which only those of the rows stepped count."""

    rewards: np.ndarray
    terminateds: np.ndarray
    truncateds: np.ndarray


class Batch:
    """The program. Subclasses define `_take_rules` and `_advance`.

    Args:
        envs: unwrapped envs of one class, made with the same arguments.

    Attributes:
        observations: what each env last observed, a batch of its observation space.
        infos: key -> array (N, ...), or a list of N for what is no number; what each env last informed of.
        changing: keys of `infos` that a step changes, and which it replaces; it writes nothing else.
    """

    changing: tuple[str, ...]

    def __init__(self, envs: Sequence[Any]):
        self.envs = list(envs)
        self.observations: Any = create_empty_array(envs[0].observation_space, len(self.envs))
        self.infos: dict[str, Any] = {}
        for env in self.envs:
            env._edited = True

    def refresh(self) -> list[int]:
        """Take in what happened to envs otherwise than by a step, such as a reset; return which they were."""
        edited = [i for i, env in enumerate(self.envs) if env._edited and env._started]
        for i in edited:
            env = self.envs[i]
            _write(self.observations, i, env._observation())
            for key, value in env._info().items():
                if key not in self.infos:
                    self.infos[key] = _column(value, len(self.envs))
                self.infos[key][i] = value
            self._take_rules(i, env)
            env._edited = False
        return edited

    def step(self, actions: np.ndarray, rows: Rows = ALL) -> Moved:
        """Step the envs of `rows`; `actions` has one entry per env. Raises ContractError for illegal ones of `rows`."""
        self.refresh()
        return self._advance(actions, rows)

    def draw(self, pictures: np.ndarray, rows: Rows = ALL) -> None:
        """Draw the envs of `rows` into their rows of `pictures`, uint8 (N, H, W, 3)."""
        for i in range(len(self.envs))[rows] if isinstance(rows, slice) else rows.tolist():
            self.envs[i]._picture(pictures[i])

    def _share_agents(self) -> np.ndarray:
        """One array of the states of all agents, of which every env has its row from now on."""
        agents = np.stack([env._agent for env in self.envs])
        for env, agent in zip(self.envs, agents, strict=True):
            env._agent = agent
        return agents

    def _take_rules(self, i: int, env: Any) -> None:
        """Note what is fixed during the episode that env i is in."""

    def _advance(self, actions: np.ndarray, rows: Rows) -> Moved:
        raise NotImplementedError


class PointBatch(Batch):
    """A batch of `PointEnv`s whose observations begin with the agent's position.

    Args:
        layouts: the rules of motion of N episodes: `put(i, layout)` sets those of one, `move(starts, actions)` says
            where all steps end, float64 (N, 2) from two such arrays.
    """

    def __init__(self, envs: Sequence[Any], layouts: Any):
        super().__init__(envs)
        first, count = envs[0], len(envs)
        self._agents = self._share_agents()
        self._layouts, self._limit = layouts, first.limit
        self._rewards = np.array([first._reward(False), first._reward(True)])
        self._targets, self._radii = np.zeros((count, 2)), np.zeros(count)
        self.changing = ("proprio", "state", "pos_agent", first.distance_key, "is_success")

    def _take_rules(self, i: int, env: Any) -> None:
        self._layouts.put(i, env.layout())
        self._targets[i], self._radii[i] = env._goal_position, env._success_radius

    def _advance(self, actions: np.ndarray, rows: Rows) -> Moved:
        agents, infos = self._agents, self.infos
        values = np.asarray(actions, np.float64)
        if values.shape != agents.shape:
            raise ContractError(f"actions have shape {values.shape}: expected {agents.shape}")
        if not np.isfinite(values[rows]).all():
            raise ContractError(f"actions={values[rows]}: expected finite numbers")
        ends = self._layouts.move(agents.astype(np.float64), np.clip(values, -self._limit, self._limit))
        agents[rows] = ends[rows]
        dx, dy = (agents - self._targets).T
        distance = np.sqrt(dx * dx + dy * dy)
        success = distance < self._radii
        self.observations[rows, :2] = agents[rows]
        for key in self.changing[:3]:
            infos[key] = agents.copy()
        infos[self.changing[3]], infos["is_success"] = distance, success
        return Moved(self._rewards[success.astype(int)], success, np.zeros(len(success), bool))


class VectorEnv2D(VectorEnv):
    """Several envs as a Gymnasium vector env; the same numbers and pictures as `SyncVectorEnv` of them.

    An env that has ended is reset as `autoreset_mode` says: by the next step, which ignores its action (NEXT_STEP); by
    the step that ends it, whose `final_obs` and `final_info` are then in the infos (SAME_STEP); or by the caller, with
    the option `reset_mask`, bool (N,) (DISABLED).

    Reset options: one mapping for all envs, or a sequence of one mapping or None per env. A mapping may have
    `reset_mask`. Infos have the keys of the envs' own, stacked, each with the mask `_<key>` of the envs that were reset
    or stepped. Arrays of infos that no step changes, such as `goal`, stay the same objects until a reset.

    Args:
        num_envs: N.
        max_episode_steps: a limit at which episodes are truncated, None for no limit.
        **kwargs: passed to the envs' constructor.
    """

    env_class: type[Any]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **kwargs: Any,
    ):
        if num_envs < 1:
            raise ContractError(f"num_envs={num_envs}: expected at least 1")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.envs = [self.env_class(**kwargs) for _ in range(num_envs)]
        first = self.envs[0]
        self.metadata = {**first.metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs, self.render_mode, self._limit = num_envs, first.render_mode, max_episode_steps
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)
        self._batch: Batch = first.batched(self.envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, bool)
        self._kept: dict[str, np.ndarray] = {}

    # ------------------------------------------------------------------ episodes
    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes. An integer s seeds env i with s + i; a sequence has one entry per env, None seeds none."""
        mask = np.ones(self.num_envs, bool)
        if isinstance(options, Mapping) and "reset_mask" in options:
            mask = options["reset_mask"]
            fits = isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == (self.num_envs,)
            if not fits or not mask.any():
                raise ContractError(f"reset_mask={mask!r}: expected a bool array ({self.num_envs},) with a True in it")
            options = {key: value for key, value in options.items() if key != "reset_mask"}
        seeds = [seed] * self.num_envs if seed is None else seed
        if isinstance(seeds, (int, np.integer)):
            seeds = [int(seeds) + i for i in range(self.num_envs)]
        per_env = [options] * self.num_envs if options is None or isinstance(options, Mapping) else options
        for name, values in (("seed", seeds), ("options", per_env)):
            if len(values) != self.num_envs:
                raise ContractError(f"{name} has {len(values)} entries: expected one per env ({self.num_envs})")
        for i in np.flatnonzero(mask).tolist():
            self._restart(i, seeds[i], per_env[i])
        return self._observed(), self._informed(mask)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all envs. Raises ContractError for illegal actions, ResetNeeded before the caller's own resets."""
        if len(actions) != self.num_envs:
            raise ContractError(f"actions has length {len(actions)}: expected one per env ({self.num_envs})")
        for env in self.envs:
            env._require_episode()
        resting = self._ended.copy()
        if resting.any():
            if self.autoreset_mode == AutoresetMode.DISABLED:
                raise gym.error.ResetNeeded(f"envs {np.flatnonzero(resting).tolist()} have ended; reset them first")
            for i in np.flatnonzero(resting).tolist():
                self._restart(i)
        running = ~resting
        rows = np.flatnonzero(running) if resting.any() else ALL
        self._refresh()
        moved = self._batch.step(np.asarray(actions), rows)
        self._lengths += running
        rewards, terminateds = np.where(running, moved.rewards, 0.0), moved.terminateds & running
        truncateds = moved.truncateds & running
        if self._limit is not None:
            truncateds |= running & (self._lengths >= self._limit)
        ended = terminateds | truncateds
        finals: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            for i in np.flatnonzero(ended).tolist():
                finals = self._add_info(finals, self._final(i), i)
                self._restart(i)
        else:
            self._ended = ended
        infos = self._informed(np.ones(self.num_envs, bool))
        return self._observed(), rewards, terminateds, truncateds, {**finals, **infos}

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The current pictures, new uint8 arrays (H, W, 3); None without a render mode."""
        if self.render_mode is None:
            return None
        pictures = np.empty((self.num_envs, *self.envs[0].render_shape, 3), np.uint8)
        self._batch.draw(pictures)
        return tuple(pictures)

    def _restart(self, i: int, seed: int | None = None, options: Any = None) -> None:
        self.envs[i].reset(seed=seed, options=options)
        self._lengths[i], self._ended[i] = 0, False

    def _observed(self) -> Any:
        self._refresh()
        return copy.deepcopy(self._batch.observations)

    def _informed(self, mask: np.ndarray) -> dict[str, Any]:
        """The infos, in arrays that are never written again."""
        self._refresh()
        infos = {}
        for key, value in self._batch.infos.items():
            infos[key] = value.copy() if key in self._batch.changing else self._kept[key]
            infos[f"_{key}"] = mask.copy()
        return infos

    def _refresh(self) -> None:
        if self._batch.refresh():
            steady = self._batch.infos.keys() - set(self._batch.changing)
            self._kept = {key: self._batch.infos[key].copy() for key in steady}

    def _final(self, i: int) -> dict[str, Any]:
        """What SAME_STEP says of an episode that has just ended."""
        values = {key: value[i] for key, value in self._batch.infos.items()}
        info = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
        return {"final_obs": _row(self._batch.observations, i), "final_info": info}

    # ------------------------------------------------------------------ envs
    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call the method `name` of every env, or read the attribute."""
        members = [getattr(env, name) for env in self.envs]
        return tuple(member(*args, **kwargs) if callable(member) else member for member in members)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute `name` of every env."""
        return tuple(getattr(env, name) for env in self.envs)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every env; a list or tuple holds one value per env."""
        values = values if isinstance(values, (list, tuple)) else [values] * self.num_envs
        for env, value in zip(self.envs, values, strict=True):
            setattr(env, name, value)


def _column(value: Any, count: int) -> np.ndarray:
    """Room for what `count` envs say under one key of their infos."""
    array = np.asarray(value)
    return np.zeros((count, *array.shape), array.dtype) if array.dtype.kind in "biuf" else np.empty(count, object)


def _write(batch: Any, i: int, value: Any) -> None:
    if isinstance(batch, dict):
        for key, child in batch.items():
            child[i] = value[key]
    else:
        batch[i] = value


def _row(batch: Any, i: int) -> Any:
    return {key: child[i].copy() for key, child in batch.items()} if isinstance(batch, dict) else batch[i].copy()
