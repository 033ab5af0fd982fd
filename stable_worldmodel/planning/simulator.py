"""Planning with the env itself as the model: an upper bound for every world model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.pool.choice import make_pool
from stable_worldmodel.pool.process import cpu_count
from stable_worldmodel.protocols import Info, Transformable

Row = dict[str, Any]
Begin = Callable[[gym.Env, Row], None]
Score = Callable[[gym.Env, list[Info], Row], float]


def restore(env: gym.Env, row: Row) -> None:
    """Reset an env of this library to the state and the goal that an info row shows, with the same factors.

    The row has what `reset_options_from_dataset` of the env asks for, usually `state` and `goal_state`.
    """
    unwrapped: Any = env.unwrapped
    if not hasattr(unwrapped, "reset_options_from_dataset"):
        raise ContractError(f"{type(unwrapped).__name__} has no reset_options_from_dataset: pass begin=")
    init = {key: value for key, value in row.items() if not key.startswith("goal")}
    goal = {key: value for key, value in row.items() if key.startswith("goal")}
    env.reset(options=unwrapped.reset_options_from_dataset(init, goal))


def rewind(env: gym.Env, row: Row) -> None:
    """Put an env back to the state of the row, which may be far cheaper than to reset it."""
    env.unwrapped._set_state(row["state"])  # type: ignore[attr-defined]


def goal_distance(env: gym.Env, infos: list[Info], row: Row) -> float:
    """Squared distance of the last state from the goal state, all numbers alike."""
    return float(np.square(np.asarray(infos[-1]["state"], np.float64) - row["goal_state"]).sum())


class SimulatorCost:
    """The cost of an action sequence is what happens if the real env executes it.

    Every worker process has an env of its own, which it restores to a row's state and goal, and executes one candidate
    after the other in. A candidate ends early when its episode does. Nothing is rendered, and only costs
    leave the worker.

    Args:
        make_env: a Gymnasium id, or a factory of one env without rendering.
        score: (env, infos, row), the cost of one candidate from the infos after each of its steps; lower is better.
        begin: (env, row), once per row, makes the env the row's.
        rewind: (env, row), before every further candidate, takes the env back; None calls `begin` again.
        keys: info entries that a row consists of, the newest of each; None takes all numbers that are not images.
        action_block: env steps K per macro step.
        scaler: what the planned actions are scaled by, `process["action"]` of the policy; None for env units.
        workers: processes; None is one per CPU core. With 1 and backend "sync" the env lives in this process.
        backend: see `pool.make_pool`.
    """

    def __init__(
        self,
        make_env: str | Callable[[], gym.Env],
        score: Score = goal_distance,
        *,
        begin: Begin = restore,
        rewind: Begin | None = rewind,
        keys: tuple[str, ...] | None = None,
        action_block: int = 1,
        scaler: Transformable | None = None,
        workers: int | None = None,
        backend: str = "process",
    ):
        if action_block < 1:
            raise ContractError(f"action_block={action_block}: expected >= 1")
        self.keys = keys
        self.action_block = action_block
        self.scaler = scaler
        factory = make_env if callable(make_env) else env_factory(make_env)
        count = workers or cpu_count()
        self._pool = make_pool([lambda: Sandbox(factory, score, begin, rewind)] * count, backend=backend)

    def prepare(self, info: Info) -> list[Row]:
        """One row per env: the newest entry of every column that counts."""
        chosen = {key: _newest(info[key]) for key in self._chosen(info)}
        lengths = {len(value) for value in chosen.values()}
        if len(lengths) != 1:
            raise MissingKeyError(f"info has no numbers to restore an env from among {sorted(info)}")
        return [{key: value[i] for key, value in chosen.items()} for i in range(lengths.pop())]

    def cost(self, context: list[Row], candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of candidates (n, S, H, K * a)."""
        n, samples = candidates.shape[:2]
        plans = self._env_actions(candidates).reshape(n * samples, -1, candidates.shape[3] // self.action_block)
        shares = np.array_split(np.arange(n * samples), self._pool.num_envs)
        jobs = [
            {"jobs": [(context[i], plans[share[share // samples == i]]) for i in np.unique(share // samples)]}
            if len(share)
            else None
            for share in shares
        ]
        costs = [part for part in self._pool.call_each("score_plans", jobs) if part is not None]
        return torch.from_numpy(np.concatenate(costs).reshape(n, samples)).to(candidates)

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of candidates (n, S, H, K * a)."""
        return self.cost(self.prepare(info), candidates)

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def _chosen(self, info: Info) -> list[str]:
        if self.keys is not None:
            missing = [key for key in self.keys if key not in info]
            if missing:
                raise MissingKeyError(f"info has no {missing}; it has {sorted(info)}")
            return list(self.keys)
        images = ("pixels", "goal_pixels")
        arrays = (np.ndarray, torch.Tensor)
        return [
            key
            for key, value in info.items()
            if isinstance(value, arrays) and value.ndim < 4 and key != "goal" and not key.startswith(images)
        ]

    def _env_actions(self, candidates: torch.Tensor) -> np.ndarray:
        """Candidates (n, S, H, K * a) in the env's units."""
        actions = candidates.detach().cpu().double().numpy()
        if self.scaler is None:
            return actions
        flat = actions.reshape(-1, actions.shape[-1] // self.action_block)
        return np.asarray(self.scaler.inverse_transform(flat), np.float64).reshape(actions.shape)


class Sandbox(gym.Env):
    """An env that scores plans for the envs of others. It has no episodes of its own."""

    def __init__(self, factory: Callable[[], gym.Env], score: Score, begin: Begin, rewind: Begin | None):
        self._env = factory()
        if hasattr(self._env.unwrapped, "render_shape"):
            self._env.unwrapped.render_shape = (8, 8)  # envs of this library draw their goal on every reset
        self._score, self._begin, self._rewind = score, begin, rewind
        self.action_space, self.observation_space = self._env.action_space, gym.spaces.Box(0.0, 0.0, (1,))
        space = self._env.action_space
        self._dtype = space.dtype
        self._bounds = (space.low, space.high) if isinstance(space, gym.spaces.Box) else None

    def score_plans(self, jobs: list[tuple[Row, np.ndarray]]) -> np.ndarray:
        """Costs of the plans (S, steps, a) of every row, in order, float64."""
        return np.array([cost for row, plans in jobs for cost in self._costs(row, plans)])

    def _costs(self, row: Row, plans: np.ndarray) -> list[float]:
        if self._bounds is not None:  # as the policy does before it executes a plan
            plans = np.clip(plans, self._bounds[0].reshape(-1), self._bounds[1].reshape(-1))
        costs = []
        for i, plan in enumerate(plans.astype(self._dtype)):
            (self._begin if i == 0 or self._rewind is None else self._rewind)(self._env, row)
            infos = []
            for action in plan.reshape(len(plan), *self.action_space.shape):  # type: ignore[misc]
                observation, _, terminated, truncated, info = self._env.step(action)
                infos.append({**observation, **info} if isinstance(observation, dict) else info)
                if terminated or truncated:
                    break
            costs.append(float(self._score(self._env, infos, row)))
        return costs

    def close(self) -> None:
        """Close the env inside."""
        self._env.close()


def env_factory(env_id: str, arguments: Mapping[str, Any] | None = None) -> Callable[[], gym.Env]:
    """A function that makes one env without rendering and with its own time limit, in whatever process it runs."""
    given = {key: value for key, value in (arguments or {}).items() if key not in ("render_mode", "max_episode_steps")}

    def make() -> gym.Env:
        import stable_worldmodel.envs  # noqa: F401  registers the ids, also in a worker

        return gym.make(env_id, render_mode=None, disable_env_checker=True, **given)

    return make


def _newest(value: Any) -> np.ndarray:
    """Entry (n, T, ...) or (n,) at the last time, as float64 or integers."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array[:, -1] if array.ndim > 1 else array
