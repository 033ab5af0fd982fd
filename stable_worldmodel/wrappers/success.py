"""`is_success` for envs whose info does not have it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from stable_worldmodel.envs.success import SuccessRule, success_rule
from stable_worldmodel.wrappers.base import Info, InfoWrapper


class SuccessWrapper(InfoWrapper):
    """Adds `is_success` to info, False until a step for which `rule` holds.

    An env that reports `is_success` or `success` itself is believed: from the first reset that has one of them nothing
    is added; where only its steps have `success`, `is_success` repeats it.
    """

    def __init__(self, env: gym.Env, rule: SuccessRule):
        super().__init__(env)
        self._rule = rule
        self._total_reward = 0.0
        self._reports_itself = False

    def amend_reset(self, info: Info, observation: Any, seed: int | None, options: dict | None) -> None:
        self._total_reward = 0.0
        self._reports_itself = "is_success" in info or "success" in info
        if not self._reports_itself:
            info["is_success"] = False

    def amend_step(self, info: Info, observation, action, reward, terminated, truncated) -> None:
        self._total_reward += float(reward)
        if self._reports_itself or "is_success" in info:
            return
        holds = self._rule(float(reward), terminated, truncated, self._total_reward)
        # A key that was there at reset must stay, or a recorder would fill it in with False.
        info["is_success"] = bool(info.get("success", holds))


def add_success(env: gym.Env, env_id: str | None = None) -> gym.Env:
    """Wrap `env` by the rule for `env_id` (default: its own id); unchanged where there is none.

    Goes around the time limit, for example as one of World's `pre_wrappers`.
    """
    if env_id is None:
        env_id = env.spec.id if env.spec is not None else ""
    rule = success_rule(env_id) if env_id else None
    return env if rule is None else SuccessWrapper(env, rule)
