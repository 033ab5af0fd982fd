"""Dataset-driven evaluation: every env starts at a recorded row and must reach what the dataset shows later."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import EpisodeReader, Info
from stable_worldmodel.world.episode import Episode
from stable_worldmodel.world.stepper import Stepper
from stable_worldmodel.world.video import panels

logger = logging.getLogger(__name__)

# These say where a row stood in its recording, not what the world looks like.
_BOOKKEEPING = frozenset(
    {"action", "reward", "terminated", "truncated", "step_idx", "id", "seed", "episode_idx", "ep_idx"}
)
PANEL_LABELS = ("rollout", "dataset", "goal")


@dataclass
class Segment:
    """One evaluation item: rows `start … start + goal_offset` of an episode, each column (rows, ...)."""

    rows: dict[str, np.ndarray]

    @property
    def init_row(self) -> dict[str, Any]:
        """First value of every column except goals."""
        return {key: values[0] for key, values in self.rows.items() if not key.startswith("goal")}

    @property
    def goal_row(self) -> dict[str, Any]:
        """Last value of every column: `pixels` as `goal`, `pixels.<view>` as `goal_pixels.<view>`, x as `goal_x`."""
        return {"goal" if key == "pixels" else f"goal_{key}": values[-1] for key, values in self.rows.items()}


def load_segments(
    dataset: EpisodeReader,
    episodes_idx: Sequence[int],
    start_steps: Sequence[int],
    goal_offset: int,
    eval_budget: int,
    num_envs: int,
) -> list[Segment]:
    """Check the items, then read them. ContractError names the first item that is wrong."""
    for name, value in (("goal_offset", goal_offset), ("eval_budget", eval_budget)):
        if value < 1:
            raise ContractError(f"{name}={value}: expected an integer >= 1")
    if not len(episodes_idx) == len(start_steps) == num_envs:
        raise ContractError(
            f"episodes_idx has {len(episodes_idx)} and start_steps {len(start_steps)} entries: "
            f"expected one per env ({num_envs})"
        )
    lengths = np.asarray(dataset.lengths)
    for item, (episode, start) in enumerate(zip(episodes_idx, start_steps, strict=True)):
        if not 0 <= episode < len(lengths):
            raise ContractError(f"item {item}: episode {episode} is not in the dataset (0..{len(lengths) - 1})")
        last = int(lengths[episode]) - 1
        if start < 0 or start + goal_offset > last:
            raise ContractError(
                f"item {item}: start {start} + goal_offset {goal_offset} leaves episode {episode}, "
                f"whose last row is {last}"
            )
    return [
        Segment(_arrays(dataset.read_rows(int(episode), int(start), int(start) + goal_offset + 1)))
        for episode, start in zip(episodes_idx, start_steps, strict=True)
    ]


def _arrays(rows: dict[str, Any]) -> dict[str, np.ndarray]:
    arrays = {key: np.asarray(value) for key, value in rows.items()}
    return {key: value for key, value in arrays.items() if value.dtype.kind in "biuf"}


def item_seeds(segments: list[Segment], seed: int | None) -> list[int | None]:
    """The recorded seed of each item, else `seed + i`, else None."""
    recorded = [int(segment.rows["seed"][0]) if "seed" in segment.rows else -1 for segment in segments]
    fallback = [None if seed is None else seed + i for i in range(len(segments))]
    return [own if own >= 0 else other for own, other in zip(recorded, fallback, strict=True)]


def reset_to(
    stepper: Stepper, segments: list[Segment], seeds: list[int | None], callables: Iterable[dict] | None
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
    for call in callables or ():
        _apply_callable(pool, segments, call)


def _variation_options(row: dict[str, Any]) -> dict[str, Any]:
    values = {key.removeprefix("variation."): value for key, value in row.items() if key.startswith("variation.")}
    return {"variation": list(values), "variation_values": values} if values else {}


def _apply_callable(pool: Any, segments: list[Segment], call: dict[str, Any]) -> None:
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

    def __init__(self, segments: list[Segment]):
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
        infos[key] = values[:, None].copy()
        return
    if present.shape[2:] != values.shape[1:]:
        raise ContractError(
            f"{key!r}: the dataset has shape {values.shape[1:]}, the env gives {present.shape[2:]}; "
            "use the image_shape the dataset was recorded with"
        )
    present[mask] = values[mask][:, None]


def comparison_frames(episode: Episode, segment: Segment) -> Iterable[np.ndarray]:
    """Rollout, recorded segment (holding its last frame) and goal, side by side."""
    recorded = segment.rows["pixels"]
    for t, frame in enumerate(episode.columns["pixels"]):
        yield panels([frame, recorded[min(t, len(recorded) - 1)], recorded[-1]], PANEL_LABELS)
