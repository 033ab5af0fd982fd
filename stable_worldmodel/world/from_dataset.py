"""Dataset-driven evaluation: every env starts at a recorded row and must reach what the dataset shows later."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import EpisodeReader, Info
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.utils.progress import open_progress
from stable_worldmodel.world.episode import Episode, newest
from stable_worldmodel.world.evaluation import VIDEO_FPS, Output, check_count
from stable_worldmodel.world.identity import describe
from stable_worldmodel.world.rollout import Rollout
from stable_worldmodel.world.stepper import Stepper
from stable_worldmodel.world.video import EpisodeVideos, image_views, info_images, panels, stack_views

logger = logging.getLogger(__name__)

# These say where a row stood in its recording, not what the world looks like.
_BOOKKEEPING = frozenset(
    {"action", "reward", "terminated", "truncated", "step_idx", "id", "seed", "episode_idx", "ep_idx"}
)
PANEL_LABELS = ("rollout", "dataset", "goal")


@dataclass(frozen=True)
class DatasetProtocol:
    """What is scored: from row `start_steps[i]` of episode `episodes_idx[i]`, env i must reach a later row's goal."""

    dataset: EpisodeReader
    episodes_idx: tuple[int, ...]
    start_steps: tuple[int, ...]
    goal_offset: int  # rows from the start to the goal
    eval_budget: int  # env steps
    seed: int | None = None  # item i has seed + i where the dataset has no seed
    callables: tuple[Mapping[str, Any], ...] = ()  # for envs without `reset_options_from_dataset`

    @classmethod
    def of(
        cls,
        dataset: Any,
        episodes_idx: Sequence[int],
        start_steps: Sequence[int],
        goal_offset: int,
        eval_budget: int,
        seed: int | None,
        callables: Iterable[Mapping[str, Any]] | None,
    ) -> DatasetProtocol:
        """Check everything that does not need the envs; a dataset given by name or path is opened."""
        if isinstance(dataset, (str, os.PathLike)):
            from stable_worldmodel.data import load_dataset

            dataset = load_dataset(dataset)
        protocol = cls(
            dataset,
            _integers("episodes_idx", episodes_idx),
            _integers("start_steps", start_steps),
            check_count("goal_offset", goal_offset),
            check_count("eval_budget", eval_budget),
            seed,
            tuple(callables or ()),
        )
        protocol._check_items()
        return protocol

    def _check_items(self) -> None:
        """ContractError names the first item that is not in the dataset."""
        if len(self.episodes_idx) != len(self.start_steps):
            raise ContractError(
                f"episodes_idx has {len(self.episodes_idx)} and start_steps {len(self.start_steps)} entries: "
                "expected one per env"
            )
        lengths = np.asarray(self.dataset.lengths)
        for item, (episode, start) in enumerate(zip(self.episodes_idx, self.start_steps, strict=True)):
            if not 0 <= episode < len(lengths):
                raise ContractError(f"item {item}: episode {episode} is not in the dataset (0..{len(lengths) - 1})")
            last = int(lengths[episode]) - 1
            if start < 0 or start + self.goal_offset > last:
                raise ContractError(
                    f"item {item}: start {start} + goal_offset {self.goal_offset} leaves episode {episode}, "
                    f"whose last row is {last}"
                )

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "dataset": str(getattr(self.dataset, "path", type(self.dataset).__name__)),
            "episodes_idx": list(self.episodes_idx),
            "start_steps": list(self.start_steps),
            "goal_offset": self.goal_offset,
            "eval_budget": self.eval_budget,
            "seed": self.seed,
            "callables": describe(self.callables),
        }


def _integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise ContractError(f"{name}={values!r}: expected a sequence of integers") from None


@dataclass(frozen=True)
class Segment:
    """One item: the rows from a start to its goal. Only those two are held; `views` reads any in between."""

    dataset: EpisodeReader
    episode: int
    start: int
    goal_offset: int
    first: Mapping[str, np.ndarray]  # number and image columns at the start, and constants of the episode
    last: Mapping[str, np.ndarray]  # at the goal

    @classmethod
    def read(cls, dataset: EpisodeReader, episode: int, start: int, goal_offset: int) -> Segment:
        """Read the two rows."""
        first, last = (_row(dataset, episode, row) for row in (start, start + goal_offset))
        return cls(dataset, episode, start, goal_offset, {**_constants(dataset, episode), **first}, last)

    @property
    def init_row(self) -> dict[str, Any]:
        """First value of every column except goals."""
        return {key: value for key, value in self.first.items() if not key.startswith("goal")}

    @property
    def goal_row(self) -> dict[str, Any]:
        """Last value of every column: `pixels` as `goal`, `pixels.<view>` as `goal_pixels.<view>`, x as `goal_x`."""
        return {"goal" if key == "pixels" else f"goal_{key}": value for key, value in self.last.items()}

    def views(self, keys: Sequence[str], t: int) -> list[np.ndarray]:
        """The images of row start + t, or of the goal once that is past."""
        row = self.start + min(t, self.goal_offset)
        rows = self.dataset.read_rows(self.episode, row, row + 1, keys)
        return [rows[key][0] for key in keys]


def _row(dataset: EpisodeReader, episode: int, row: int) -> dict[str, np.ndarray]:
    return {key: value[0] for key, value in _arrays(dataset.read_rows(episode, row, row + 1)).items()}


def _constants(dataset: EpisodeReader, episode: int) -> dict[str, np.ndarray]:
    stored = getattr(dataset, "get_episode_data", None)
    values = stored([episode]) if callable(stored) else {}
    return _arrays({key: value[0] for key, value in values.items()})


def _arrays(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {key: np.asarray(value) for key, value in values.items()}
    return {key: value for key, value in arrays.items() if value.dtype.kind in "biuf"}


def evaluate_items(
    stepper: Stepper, protocol: DatasetProtocol, output: Output, reset_mode: str = "wait"
) -> list[Episode]:
    """Run every item in the env of its number; an item succeeds if its env reports success at any step."""
    num_items, num_envs = len(protocol.episodes_idx), stepper.pool.num_envs
    if num_items != num_envs:
        raise ContractError(f"episodes_idx and start_steps have {num_items} entries: expected one per env ({num_envs})")
    segments = [
        Segment.read(protocol.dataset, episode, start, protocol.goal_offset)
        for episode, start in zip(protocol.episodes_idx, protocol.start_steps, strict=True)
    ]
    seeds = item_seeds(segments, protocol.seed)
    reset_to(stepper, segments, seeds, protocol.callables)
    views = [] if output.video is None else comparison_views(segments, stepper.infos)
    videos = EpisodeVideos(output.video, output.stem, ComparisonFrames(segments, views), VIDEO_FPS)
    inject = GoalInjector(segments)
    steps = -1  # the first call of the observer is about the reset

    def observe(infos: Info, mask: np.ndarray) -> None:
        nonlocal steps
        guard.check()
        inject(infos, mask)
        videos.write(rollout, infos, mask)
        steps += 1
        if steps > 0:
            task.advance(1, steps=int(mask.sum()))

    rollout = Rollout(
        stepper,
        range(num_items),
        max_steps=protocol.eval_budget,
        mode=reset_mode,
        any_step=True,
        observers=[observe],
        prepared_seeds=seeds,
    )
    with InterruptGuard() as guard, open_progress(output.progress) as display, videos:
        # Counted in steps of the pool, because most items end together at the end of the budget.
        task = display.task("evaluate", total=protocol.eval_budget)
        episodes = list(rollout)
        task.advance(protocol.eval_budget - steps)
    return episodes


def item_seeds(segments: Sequence[Segment], seed: int | None) -> list[int | None]:
    """The recorded seed of each item, else `seed + i`, else None."""
    recorded = [int(segment.first["seed"]) if "seed" in segment.first else -1 for segment in segments]
    fallback = [None if seed is None else seed + i for i in range(len(segments))]
    return [own if own >= 0 else other for own, other in zip(recorded, fallback, strict=True)]


def reset_to(
    stepper: Stepper, segments: Sequence[Segment], seeds: list[int | None], callables: Iterable[Mapping[str, Any]] = ()
) -> None:
    """One batched reset that restores recorded factors, state and goal of every item."""
    pool = stepper.pool
    options = [_variation_options(segment.init_row) for segment in segments]
    if pool.has("reset_options_from_dataset"):
        rows = [{"init_row": segment.init_row, "goal_row": segment.goal_row} for segment in segments]
        own = pool.call_each("reset_options_from_dataset", rows)
        options = [{**base, **(more or {})} for base, more in zip(options, own, strict=True)]
        stepper.reset(seeds, options)
        return
    stepper.reset(seeds, options)
    for call in callables:
        _apply_callable(pool, segments, call)


def _variation_options(row: dict[str, Any]) -> dict[str, Any]:
    values = {key.removeprefix("variation."): value for key, value in row.items() if key.startswith("variation.")}
    return {"variation": list(values), "variation_values": values} if values else {}


def _apply_callable(pool: Any, segments: Sequence[Segment], call: Mapping[str, Any]) -> None:
    """Run `{'method': m, 'args': {name: {'value': v, 'in_dataset': bool}}}` on every env; skip it when impossible."""
    method, arguments = call["method"], []
    for segment in segments:
        merged = {**segment.init_row, **segment.goal_row}
        kwargs = {}
        for name, source in call.get("args", {}).items():
            if not source.get("in_dataset", True):
                kwargs[name] = source["value"]
            elif source["value"] in merged:
                kwargs[name] = np.copy(merged[source["value"]])
            else:
                logger.warning("callable %s skipped: the dataset has no column %r", method, source["value"])
                return
        arguments.append(kwargs)
    if not pool.has(method):
        logger.warning("callable %s skipped: the envs have no such method", method)
        return
    pool.call_each(method, arguments)


class GoalInjector:
    """Rollout observer that keeps the dataset's goal in the infos, and puts its first row there after the reset.

    Goal values are written again after every step, since the env may write its own.
    """

    def __init__(self, segments: Sequence[Segment]):
        self._goals = _stackable([segment.goal_row for segment in segments])
        self._starts = _stackable([segment.init_row for segment in segments])
        self._first = True

    def __call__(self, infos: Info, mask: np.ndarray) -> None:
        for key, values in self._goals.items():
            _inject(infos, key, values, mask)
        if self._first:
            self._first = False
            for key, values in self._starts.items():
                if key in infos and key not in _BOOKKEEPING:
                    _inject(infos, key, values, mask)


def _stackable(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Columns whose value has one shape in every item, stacked to (N, ...)."""
    shared = set.intersection(*(set(row) for row in rows))
    return {
        key: np.stack([row[key] for row in rows])
        for key in sorted(shared)
        if len({np.shape(row[key]) for row in rows}) == 1
    }


def _inject(infos: Info, key: str, values: np.ndarray, mask: np.ndarray) -> None:
    present = infos.get(key)
    if not isinstance(present, np.ndarray):
        times = next(value.shape[1] for value in infos.values() if isinstance(value, np.ndarray))
        infos[key] = np.repeat(values[:, None], times, axis=1)  # (N, T, ...)
        return
    if present.shape[2:] != values.shape[1:]:
        raise ContractError(
            f"{key!r}: the dataset has shape {values.shape[1:]}, the env gives {present.shape[2:]}; "
            "use the image_shape the dataset was recorded with"
        )
    present[mask] = values[mask][:, None]


def comparison_views(segments: Sequence[Segment], infos: Info) -> list[str]:
    """Image keys to compare; MissingKeyError when the env or the dataset has none."""
    views = image_views("pixels", info_images(infos))
    missing = [key for key in views if any(key not in segment.last for segment in segments)]
    if missing:
        raise MissingKeyError(f"video needs the images {missing}, which the dataset does not have")
    return views


class ComparisonFrames:
    """Draws rollout, recorded segment (holding its last frame) and goal side by side."""

    def __init__(self, segments: Sequence[Segment], views: Sequence[str]):
        self._segments = segments
        self._views = views

    def __call__(self, infos: Info, env: int, episode: int, t: int) -> np.ndarray:
        segment = self._segments[episode]
        shown = [newest(infos[key], env) for key in self._views]
        goal = [segment.last[key] for key in self._views]
        columns = (shown, segment.views(self._views, t), goal)
        return panels([stack_views(images) for images in columns], PANEL_LABELS)
