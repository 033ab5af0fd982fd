"""Policies by name, for command lines and configs: `random`, and the scripted ones that come with an environment."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import gymnasium as gym

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy.base import Policy
from stable_worldmodel.policy.random import RandomPolicy

# name -> the class that an environment's package calls its policy of that kind
SCRIPTED = {"expert": "ExpertPolicy", "weak": "WeakPolicy"}


def policy_names(env_id: str) -> list[str]:
    """What `make_policy` accepts for an environment."""
    package = _package(env_id)
    return ["random", *(name for name, cls in SCRIPTED.items() if hasattr(package, cls))]


def make_policy(name: str, env_id: str, **options: Any) -> Policy:
    """The policy `name` for an environment, made with `options` such as `seed` and `action_noise`.

    Raises ContractError for a name that the environment does not have, and for options that the policy does not take.
    """
    known = policy_names(env_id)
    if name not in known:
        raise ContractError(f"no policy {name!r} for {env_id}: expected one of {', '.join(known)}")
    cls = RandomPolicy if name == "random" else getattr(_package(env_id), SCRIPTED[name])
    accepted = inspect.signature(cls).parameters
    unknown = sorted(options.keys() - accepted.keys())
    if unknown:
        raise ContractError(f"policy {name!r} of {env_id} takes {', '.join(accepted)}; found {', '.join(unknown)}")
    return cls(**options)


def _package(env_id: str) -> Any:
    """The package, or the module, that an environment's class lives in; None where there is no string to tell."""
    entry_point = gym.spec(env_id).entry_point
    if not isinstance(entry_point, str):
        return None
    module = importlib.import_module(entry_point.partition(":")[0])
    return module if hasattr(module, "__path__") else importlib.import_module(module.__package__ or module.__name__)
