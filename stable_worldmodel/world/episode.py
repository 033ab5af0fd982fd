"""One finished episode, and the recorder that turns a stream of infos into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stable_worldmodel.protocols import Info

SUCCESS_KEYS: tuple[str, ...] = ("is_success", "success")
# What the machine did, not what the episode is.
_NOT_RECORDED = frozenset({"render_time"})


@dataclass
class Episode:
    """A complete episode of L env steps, a pure function of (env, policy, options, seed).

    Attributes:
        index: its number k in the run.
        seed: base seed + k, or None when unseeded.
        length: L, env steps taken.
        total_reward: sum of the rewards received.
        success: see `succeeded`.
        terminated, truncated: flags of the last step. Both False if the step budget ended it.
        columns: recorded values, each (L + 1, ...): row t holds what was observed at t and the action taken at t, which
            is a filler (NaN, or int64 minimum) in the last row. Empty unless columns were asked for.
        final: info values of the last row, time axis removed.
    """

    index: int
    seed: int | None
    length: int
    total_reward: float
    success: bool
    terminated: bool
    truncated: bool
    columns: dict[str, Any] = field(default_factory=dict)
    final: dict[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """What it came to, and filmstrips of the images that were recorded."""
        from stable_worldmodel.data.notebook import episode_html

        outcome = "success" if self.success else "failure"
        title = f"Episode {self.index}, seed {self.seed}: {outcome}, return {self.total_reward:.4g}"
        rows = self.length + 1 if self.columns else 0
        return episode_html(title, rows, self._described(), lambda name, chosen: self.columns[name][chosen])

    def show(self, column: str | None = None, fps: int = 15) -> None:
        """Play the recorded images in a notebook; see `data.notebook.show_episode`."""
        from stable_worldmodel.data.notebook import show_episode

        show_episode(f"episode {self.index}", self._described(), self.columns.__getitem__, column, fps)

    def _described(self) -> dict[str, Any]:
        from stable_worldmodel.data.columns import Column

        return {name: Column.of(np.asarray(values)) for name, values in self.columns.items()}


def success_flag(info: Mapping[str, Any], terminated: bool) -> bool:
    """Whether `info` (of one env) says success: `is_success`, else `success`, else the terminated flag."""
    for key in SUCCESS_KEYS:
        if info.get(key) is not None:
            return bool(np.any(info[key]))
    return bool(terminated)


def newest(value: Any, env: int) -> Any:
    """The entry of one env in a stacked info value, the newest along the time axis, as a view."""
    if isinstance(value, list):
        entry = value[env]
        return entry[-1] if isinstance(entry, list) and entry else entry
    return value[env, -1]


def _told_once(values: list) -> list:
    """What only the reset of an episode told counts for all of it."""
    once = values[0] is not None and all(value is None for value in values[1:])
    return values[:1] * len(values) if once else values


class Recorder:
    """Grows the columns of one running episode, one row per call of `add`.

    Args:
        wanted: which info keys to keep; None keeps nothing.
    """

    def __init__(self, wanted: Callable[[str], bool] | None):
        self._wanted = wanted
        self._arrays: dict[str, np.ndarray] = {}
        self._lists: dict[str, list] = {}
        self._rows = 0

    def add(self, infos: Info, env: int) -> None:
        """Append the current values of `env`."""
        if self._wanted is None:
            return
        for key, value in infos.items():
            if key.startswith("_") or key in _NOT_RECORDED or not self._wanted(key):
                continue
            if isinstance(value, list):
                self._lists.setdefault(key, [None] * self._rows).append(newest(value, env))
            else:
                self._store(key, np.asarray(newest(value, env)))
        self._rows += 1

    def _store(self, key: str, value: np.ndarray) -> None:
        array = self._arrays.get(key)
        if array is None:
            array = self._arrays[key] = np.empty((max(32, self._rows + 1), *value.shape), value.dtype)
            array[: self._rows] = np.nan if value.dtype.kind == "f" else 0  # a key that appears late
        elif self._rows == len(array):
            array = self._arrays[key] = np.concatenate([array, np.empty_like(array)])
        if not np.can_cast(value.dtype, array.dtype, "safe"):
            array = self._arrays[key] = array.astype(np.promote_types(array.dtype, value.dtype))
        array[self._rows] = value

    def columns(self) -> dict[str, Any]:
        """The recorded columns with `action` moved to the row it was taken in."""
        columns: dict[str, Any] = {key: array[: self._rows] for key, array in self._arrays.items()}
        columns.update({key: _told_once(values) for key, values in self._lists.items()})
        if "action" in columns:
            # The stream holds the action that led to a row; its filler at reset becomes the last row's.
            columns["action"] = np.roll(columns["action"], -1, axis=0)
        return columns
