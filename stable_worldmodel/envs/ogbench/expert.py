"""The package's oracles for Cube and Scene as one policy over many environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.ogbench import package
from stable_worldmodel.envs.scripted import ScriptedPolicy
from stable_worldmodel.errors import ContractError

# Probability of stacking, drawn between these once per episode; 0.5 for every other variant.
STACKING = {
    "single": (0, 0),
    "double": (0, 0.25),
    "triple": (0.05, 0.35),
    "quadruple": (0.1, 0.5),
    "octuple": (0, 0.35),
}
SPREAD = np.array([1.0, 1.0, 1.0, 3.0, 10.0])  # of the Markov oracle's noise over the parts of an action
_KINDS = {"markov_oracle": "markov", "plan_oracle": "plan"}
_OF_SCENE = ("cube", "button", "drawer", "window")


class Facts:
    """What an oracle asks the env that it acts in; it stands in for the env, which may live in another process."""

    def __init__(self, arm_bounds: np.ndarray, control_timestep: float, action_limit: np.ndarray):
        self._arm_sampling_bounds = arm_bounds
        self._control_timestep = control_timestep
        self._limit = action_limit

    @property
    def unwrapped(self) -> Facts:
        """Itself."""
        return self

    def normalize_action(self, action: np.ndarray) -> np.ndarray:
        """An action in its units, in [-1, 1]."""
        return np.clip(action / self._limit, -1, 1)


class ExpertPolicy(ScriptedPolicy):
    """Acts with the package's oracles; envs must be in mode "data_collection".

    When an oracle is done, its env gets a new target, and the oracle of that target goes on.

    Args:
        policy_type: "markov_oracle", which reacts to what it sees, or "plan_oracle", which follows a noisy plan.
        action_noise: standard deviation; of the plan, or the most that an episode of the Markov oracle draws.
        p_random_action: probability of a random action instead.
        noise_smoothing: width in steps over which a plan's noise is smoothed.
        min_norm: shortest way that the Markov oracle goes in a step, m times its gain.
        seed: see ScriptedPolicy.

    Raises:
        ContractError: an argument is out of range, or an env is in mode "task".
    """

    def __init__(
        self,
        policy_type: str = "markov_oracle",
        action_noise: float = 0.1,
        p_random_action: float = 0.0,
        noise_smoothing: float = 0.5,
        min_norm: float = 0.4,
        seed: int | None = None,
    ):
        super().__init__(seed)
        if policy_type not in _KINDS:
            raise ContractError(f"policy_type={policy_type!r}: expected {' or '.join(_KINDS)}")
        if action_noise < 0 or noise_smoothing < 0 or min_norm < 0:
            raise ContractError("action_noise, noise_smoothing and min_norm: expected >= 0")
        if not 0 <= p_random_action <= 1:
            raise ContractError(f"p_random_action={p_random_action}: expected a probability")
        self.policy_type = policy_type
        self.action_noise, self.p_random_action = action_noise, p_random_action
        self.noise_smoothing, self.min_norm = noise_smoothing, min_norm

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        modes = self._call_envs("mode")
        if set(modes) != {"data_collection"}:
            raise ContractError(f"mode={modes}: oracles need envs made with mode='data_collection'")
        self._types = self._call_envs("env_type")
        self._oracles = [self._build(Facts(*facts)) for facts in self._call_envs("oracle_facts")]
        self._current: list[Any] = [None] * self.num_envs
        self._p_stack = np.zeros(self.num_envs)
        self._noise = np.zeros(self.num_envs)

    def _build(self, facts: Facts) -> dict[str, Any]:
        """An oracle per kind of target."""
        kind = _KINDS[self.policy_type]
        markov = {"min_norm": self.min_norm}
        plan = {"noise": self.action_noise, "noise_smoothing": self.noise_smoothing}
        oracles = {}
        for target in _OF_SCENE:
            module = package.load(f"manipspace.oracles.{kind}.{target}_{kind}")
            oracle = getattr(module, f"{target.capitalize()}{kind.capitalize()}Oracle")
            oracles[target] = oracle(env=facts, **(markov if kind == "markov" else plan))
        return oracles

    def _start_episodes(self, indices: np.ndarray) -> None:
        for i in indices.tolist():
            low, high = STACKING.get(self._types[i], (0.5, 0.5))
            self._p_stack[i] = self._streams[i].uniform(low, high)
            self._noise[i] = self._streams[i].uniform(0, self.action_noise)
            self._current[i] = None

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        infos = [self._info_of(obs, i) for i in range(self.num_envs)]
        done = [i for i, oracle in enumerate(self._current) if oracle is not None and oracle.done]
        for i, info in zip(done, self._new_targets(done), strict=True):
            infos[i] = info
            self._current[i] = None
        actions = np.stack([self._next(i, info) for i, info in enumerate(infos)])
        return actions if np.ndim(obs["qpos"]) > 1 else actions[0]

    def _next(self, index: int, info: Mapping[str, Any]) -> np.ndarray:
        stream = self._streams[index]
        if self._current[index] is None:
            self._current[index] = self._oracles[index][str(info["privileged/target_task"])]
            with package.seeded(stream):
                self._current[index].reset(None, info)
        action = self._current[index].select_action(None, info)
        if self.p_random_action and stream.random() < self.p_random_action:
            action = stream.uniform(-1, 1, 5)
        elif self.policy_type == "markov_oracle":
            action = action + stream.standard_normal(5) * self._noise[index] * SPREAD
        return np.clip(action, -1, 1).astype(np.float32)

    def _info_of(self, obs: Mapping[str, Any], index: int) -> dict[str, Any]:
        """The newest info of one env, as the package's envs give it."""
        wanted = [key for key in obs if key.startswith(("proprio/", "privileged/"))]
        info = {key: self._entry(obs[key], index) for key in (*wanted, "time")}
        if "privileged/target_task" not in info:
            raise ContractError("info has no 'privileged/target_task': expected an env in mode 'data_collection'")
        for key in ("block", "button"):
            if f"privileged/target_{key}" in info:
                info[f"privileged/target_{key}"] = int(np.reshape(info[f"privileged/target_{key}"], ()))
        return info

    def _entry(self, value: Any, index: int) -> Any:
        single = not hasattr(self.env, "envs") and getattr(self.env, "num_envs", None) is None
        if single:
            return value
        latest = np.asarray(value)[index]
        return latest[-1] if latest.ndim else latest

    def _new_targets(self, indices: list[int]) -> list[dict[str, Any]]:
        if not indices:
            return []
        arguments: list[dict[str, Any] | None] = [None] * self.num_envs
        for i in indices:
            arguments[i] = {"p_stack": float(self._p_stack[i])}
        if hasattr(self.env, "call_each"):
            results = self.env.call_each("set_new_target", arguments)
            return [results[i][1] for i in indices]
        envs = getattr(self.env, "envs", [self.env])
        return [envs[i].unwrapped.set_new_target(**(arguments[i] or {}))[1] for i in indices]
