"""Episodic evaluation: scores exactly the episodes 0 … n - 1."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Info
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.utils.progress import Progress, open_progress
from stable_worldmodel.world.episode import SUCCESS_KEYS, Episode, newest
from stable_worldmodel.world.identity import describe
from stable_worldmodel.world.partial import PartialRun, partial_path
from stable_worldmodel.world.results import Results
from stable_worldmodel.world.rollout import Rollout
from stable_worldmodel.world.stepper import Stepper
from stable_worldmodel.world.video import EpisodeVideos, image_views, info_images, stack_views

logger = logging.getLogger(__name__)

VIDEO_FPS = 15
RESULT_KEYS = (
    "success_rate",
    "episode_successes",
    "seeds",
    "episode_count",
    "episode_lengths",
    "episode_returns",
)


@dataclass(frozen=True)
class EpisodicProtocol:
    """What is scored: the last rows of episodes 0 … episodes - 1."""

    episodes: int
    eval_keys: tuple[str, ...] = ()  # info keys returned per episode
    seed: int | None = None  # episode k has seed + k
    options: Any = None

    def __post_init__(self) -> None:
        check_count("episodes", self.episodes)
        taken = [key for key in self.eval_keys if key in RESULT_KEYS]
        if taken:
            raise ContractError(f"eval_keys {taken}: these names are fixed result keys {RESULT_KEYS}")

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {"episodes": int(self.episodes), "seed": self.seed, "options": describe(self.options or None)}


@dataclass(frozen=True)
class Output:
    """Where an evaluation shows itself while it runs."""

    progress: bool | Progress = False
    video: Path | None = None  # directory of `<stem>_<number>.mp4`
    stem: str = "episode"


def check_count(name: str, value: Any) -> int:
    """Return `value` as int if it is a whole number >= 1; else ContractError."""
    numeric = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not numeric or not float(value).is_integer() or value < 1:
        raise ContractError(f"{name}={value!r}: expected an integer >= 1")
    return int(value)


def key_list(eval_keys: Iterable[str] | None) -> tuple[str, ...]:
    """One key, several, or None, as a tuple."""
    return (eval_keys,) if isinstance(eval_keys, str) else tuple(eval_keys or ())


class KeyCheck:
    """Rollout observer that raises MissingKeyError when a key is absent after the first reset and the first step."""

    def __init__(self, keys: Sequence[str]):
        self._missing = set(keys)
        self._calls = 0

    def __call__(self, infos: Info, mask: np.ndarray) -> None:
        if not self._missing or self._calls > 1:
            return
        self._calls += 1
        self._missing -= infos.keys()
        if self._missing and self._calls == 2:
            raise MissingKeyError(f"eval_keys {sorted(self._missing)} are not in info; it has {sorted(infos)}")


def open_partial(protocol: EpisodicProtocol, every: int, *identity: Any) -> PartialRun:
    """What an earlier call finished of this run, and the place to keep what this one finishes.

    `identity` is what beside the protocol decides about episodes: env, policy. With `every` 0 nothing is kept.
    """
    if every and protocol.seed is None:
        logger.warning("dump_every=%d keeps nothing: a run without a seed cannot be resumed", every)
        every = 0
    path = partial_path(protocol, *identity) if every else None
    return PartialRun(protocol.eval_keys, protocol.seed, path, every)


def evaluate_episodes(
    stepper: Stepper,
    protocol: EpisodicProtocol,
    partial: PartialRun,
    output: Output,
    reset_mode: str = "auto",
) -> list[Episode]:
    """Run the episodes that `partial` does not hold yet; return all of them in order."""
    check_keys = KeyCheck(protocol.eval_keys)
    videos = EpisodeVideos(output.video, output.stem, draw_views, VIDEO_FPS)
    numbers = range(protocol.episodes)
    waiting = [e for e in numbers if e not in partial.episodes or videos.lacks(e)]
    rollout: Rollout

    def observe(infos: Info, mask: np.ndarray) -> None:
        guard.check()
        check_keys(infos, mask)
        videos.write(rollout, infos, mask)
        partial.keep(rollout.held_back)  # an older episode may keep them waiting for long

    with InterruptGuard() as guard, open_progress(output.progress) as display, videos:
        task = display.task("evaluate", total=len(numbers), done=len(numbers) - len(waiting))
        rollout = Rollout(
            stepper,
            waiting,
            seed=protocol.seed,
            options=protocol.options,
            mode=reset_mode,
            observers=[observe],
        )
        for episode in rollout if waiting else ():
            videos.settle()
            partial.keep([episode])
            task.advance(1, steps=episode.length)
    partial.remove()
    return [partial.episodes[e] for e in numbers]


def draw_views(infos: Info, env: int, episode: int, t: int) -> np.ndarray:
    """What an env shows now: `pixels`, or all `pixels.<view>` one below the other."""
    return stack_views([newest(infos[key], env) for key in image_views("pixels", info_images(infos))])


def success_source(final: Mapping[str, Any]) -> str:
    """Which value decided about the success of an episode, given its last info: see `episode.success_flag`."""
    return next((key for key in SUCCESS_KEYS if final.get(key) is not None), "terminated")


def summarise(episodes: Sequence[Episode], eval_keys: Sequence[str], protocol: dict[str, Any]) -> Results:
    """Results of finished episodes, in episode order. Adds to the protocol what `success` was read from."""
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
        values[key] = _stacked([np.asarray(e.final[key]) for e in episodes])
    sources = {success_source(episode.final) for episode in episodes}
    return Results(values, {**protocol, "success": ", ".join(sorted(sources))})


def _stacked(values: list[np.ndarray]) -> np.ndarray:
    """Values of all episodes as (episodes, ...); those of differing shapes as an array of objects (episodes,)."""
    if len({value.shape for value in values}) == 1:
        return np.stack(values)
    objects = np.empty(len(values), object)
    for i, value in enumerate(values):
        objects[i] = value
    return objects
