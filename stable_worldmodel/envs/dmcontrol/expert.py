"""The expert of the DM Control environments: a trained actor, or a scripted controller where there is one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.envs.dmcontrol.actor import Actor, load_actor
from stable_worldmodel.envs.dmcontrol.controllers import CONTROLLERS, Catcher, Controller
from stable_worldmodel.envs.scripted import ScriptedPolicy
from stable_worldmodel.errors import ContractError

SCRIPTED = (*CONTROLLERS, "ball_in_cup")  # domains with a scripted controller


class ExpertPolicy(ScriptedPolicy):
    """Acts with a trained SAC actor; without one, with the scripted controller of the domain.

    Args:
        ckpt_path: the actor, see `actor.load_actor`; None for the scripted controllers of Reacher, Pendulum, Cartpole
            and Ball-in-cup.
        vec_normalize_path: running statistics of the observations, an .npz with `mean` and `var`.
        noise_std: standard deviation of Gaussian noise added to every action before clipping to [-1, 1].
        seed: see ScriptedPolicy.
        device: accepted for compatibility; such an actor is small, and NumPy runs it on the CPU.

    Raises:
        ContractError: `noise_std` is negative, a file is not what was expected, or there is neither a checkpoint nor a
            scripted controller.
    """

    def __init__(
        self,
        ckpt_path: str | Path | None = None,
        vec_normalize_path: str | Path | None = None,
        noise_std: float = 0.0,
        seed: int | None = None,
        device: str = "cpu",
    ):
        super().__init__(seed)
        if noise_std < 0:
            raise ContractError(f"noise_std={noise_std}: expected >= 0")
        if ckpt_path is None and vec_normalize_path is not None:
            raise ContractError("vec_normalize_path needs ckpt_path: scripted controllers read the state itself")
        self.noise_std = noise_std
        self.ckpt_path, self.vec_normalize_path = ckpt_path, vec_normalize_path
        self._actor: Actor | None = None if ckpt_path is None else load_actor(ckpt_path, vec_normalize_path)

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        self._domains = self._call_envs("domain")
        unknown = sorted(set(self._domains) - set(SCRIPTED))
        if self._actor is None and unknown:
            raise ContractError(
                f"no scripted expert for {', '.join(unknown)}: give ckpt_path; there is one for {', '.join(SCRIPTED)}"
            )
        self._controllers: list[Controller | None] = [None] * self.num_envs

    def _start_episodes(self, indices: np.ndarray) -> None:
        for i in indices.tolist() if self._actor is None else ():
            if self._domains[i] == "ball_in_cup":
                self._controllers[i] = Catcher(functools.partial(self._run_ahead, i), self._streams[i])
            else:
                self._controllers[i] = CONTROLLERS[self._domains[i]]

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        actions = self._scripted(obs) if self._actor is None else self._trained(obs, self._actor)
        if self.noise_std:
            noise = [stream.standard_normal(actions.shape[1]) for stream in self._streams]
            actions = actions + self.noise_std * np.stack(noise)
        actions = np.clip(actions, -1, 1).astype(np.float32)
        return actions if np.ndim(obs["qpos"]) > 1 else actions[0]

    def _scripted(self, obs: Mapping[str, Any]) -> np.ndarray:
        wanted = ["qpos", "qvel", *(key for key in ("target_qpos", "target_pos") if key in obs)]
        columns = {key: self._latest(obs, key) for key in wanted}
        states = [{key: column[i] for key, column in columns.items()} for i in range(self.num_envs)]
        return np.stack([control(state) for control, state in zip(self._controllers, states, strict=True)])  # type: ignore[misc]

    def _trained(self, obs: Mapping[str, Any], actor: Actor) -> np.ndarray:
        observations = self._latest(obs, "observation")
        size = actor.layers[-1][0].shape[0] // 2
        draws = np.stack([stream.standard_normal(size) for stream in self._streams])
        return actor.act(observations, draws)

    def _run_ahead(self, index: int, actions: np.ndarray) -> np.ndarray:
        """States that env `index` would pass through; the env itself stays where it is."""
        if hasattr(self.env, "call_each"):
            arguments = [None] * self.num_envs
            arguments[index] = {"actions": actions}  # type: ignore[call-overload]
            return self.env.call_each("run_ahead", arguments)[index]
        return getattr(self.env, "envs", [self.env])[index].unwrapped.run_ahead(actions)
