"""The one shape all our wrappers have: let the env act, copy its info, amend the copy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

Info = dict[str, Any]


class InfoWrapper(gym.Wrapper):
    """A wrapper that only touches `info`. Subclasses override `amend_reset` and `amend_step`, which edit a copy."""

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        observation, info = self.env.reset(seed=seed, options=options)
        info = dict(info)
        self.amend_reset(info, observation, seed, options)
        return observation, info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = dict(info)
        self.amend_step(info, observation, action, reward, terminated, truncated)
        return observation, reward, terminated, truncated, info

    def amend_reset(self, info: Info, observation: Any, seed: int | None, options: dict | None) -> None:
        self.amend(info)

    def amend_step(self, info: Info, observation, action, reward, terminated, truncated) -> None:
        self.amend(info)

    def amend(self, info: Info) -> None:
        """Edit `info` in place; called after reset and after step unless those hooks are overridden."""
        raise NotImplementedError


def variation_space_of(env: gym.Env) -> Any:
    """The variation space of `env`, wherever in the chain of wrappers it lives, or None."""
    space = getattr(env.unwrapped, "variation_space", None)
    if space is not None:
        return space
    return env.get_wrapper_attr("variation_space") if env.has_wrapper_attr("variation_space") else None
