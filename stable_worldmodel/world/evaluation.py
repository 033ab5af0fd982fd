"""Episodic evaluation: scores exactly the episodes 0 … n - 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.world.episode import Episode
from stable_worldmodel.world.results import Results
from stable_worldmodel.world.video import write_video

VIDEO_FPS = 15
RESULT_KEYS = (
    "success_rate",
    "episode_successes",
    "seeds",
    "episode_count",
    "episode_lengths",
    "episode_returns",
)


def check_eval_keys(eval_keys: Iterable[str] | None) -> list[str]:
    """A list of keys, none of which is a fixed result key (ContractError)."""
    keys = [eval_keys] if isinstance(eval_keys, str) else list(eval_keys or ())
    taken = [key for key in keys if key in RESULT_KEYS]
    if taken:
        raise ContractError(f"eval_keys {taken}: these names are fixed result keys {RESULT_KEYS}")
    return keys


class KeyCheck:
    """Rollout observer that raises MissingKeyError when a key is absent after the first reset and the first step."""

    def __init__(self, keys: list[str]):
        self._missing = set(keys)
        self._calls = 0

    def __call__(self, infos: dict[str, Any], mask: np.ndarray) -> None:
        if not self._missing or self._calls > 1:
            return
        self._calls += 1
        self._missing -= infos.keys()
        if self._missing and self._calls == 2:
            raise MissingKeyError(f"eval_keys {sorted(self._missing)} are not in info; it has {sorted(infos)}")


def summarise(episodes: list[Episode], eval_keys: list[str], protocol: dict[str, Any]) -> Results:
    """Results of finished episodes, in episode order."""
    successes = np.array([episode.success for episode in episodes], bool)
    values: dict[str, Any] = {
        "success_rate": 100.0 * float(successes.mean()),
        "episode_successes": successes,
        "seeds": np.array([-1 if e.seed is None else e.seed for e in episodes], np.int64),
        "episode_count": len(episodes),
        "episode_lengths": np.array([e.length for e in episodes], np.int64),
        "episode_returns": np.array([e.total_reward for e in episodes], np.float64),
    }
    for key in eval_keys:
        absent = [e.index for e in episodes if key not in e.final]
        if absent:
            raise MissingKeyError(f"eval key {key!r} is missing in the last info of episodes {absent}")
        values[key] = np.stack([np.asarray(e.final[key]) for e in episodes])
    return Results(values, protocol)


def save_videos(
    episodes: Iterable[Episode], directory: Path, draw: Callable[[Episode], Iterable[np.ndarray]], stem: str
):
    """Pass episodes through, writing `<stem>_<index>.mp4` for each; its recorded columns are dropped afterwards."""
    for episode in episodes:
        write_video(directory / f"{stem}_{episode.index}.mp4", draw(episode), VIDEO_FPS)
        episode.columns.clear()
        yield episode
