"""What the sub-envs of a vector env offer, asked without harming it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from stable_worldmodel.pool.vector import call_envs, envs_have

_TASK_ATTRIBUTES = ("task_description", "task")


def sub_env_has_attr(env: Any, attr: str) -> bool:
    """Whether every sub-env, or the env itself, has the attribute `attr`.

    A lazy vector env starts no workers for it: a temporary env of the first factory answers. On an asynchronous one
    the question is whether there is such an attribute, as asking for one that is missing would end its workers.
    """
    return envs_have(env, attr)


def check_env_attributes_and_types(env: Any) -> None:
    """Warn once when `task_description` or `task` is missing, which policies that read text need. Never raises."""
    try:
        missing = [name for name in _TASK_ATTRIBUTES if not sub_env_has_attr(env, name)]
    except Exception as error:
        warnings.warn(f"whether the envs describe their task could not be found out: {error}", stacklevel=2)
        return
    if missing:
        warnings.warn(
            f"the envs have no {' and no '.join(missing)}: a policy that follows language gets "
            f"{'an empty text' if len(missing) == 2 else 'the other one'}",
            stacklevel=2,
        )


def task_texts(env: Any) -> list[str]:
    """The sentence each sub-env gives as `task_description`, else as `task`, else empty texts."""
    for name in _TASK_ATTRIBUTES:
        try:
            if sub_env_has_attr(env, name):
                return [str(text) for text in call_envs(env, name)]
        except (AttributeError, NotImplementedError):
            continue
    return [""] * int(getattr(env, "num_envs", 1))


def render_frame(env: Any, n_to_render: int | None = None) -> np.ndarray:
    """What the first `n_to_render` sub-envs (default: all) show now, uint8 (n, H, W, C)."""
    frames = list(call_envs(env, "render"))
    return np.stack([np.asarray(frame) for frame in frames[:n_to_render]])
