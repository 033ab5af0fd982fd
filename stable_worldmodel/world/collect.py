"""Collection: complete episodes from the rollout engine into a writer, in episode order."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool import Pool
from stable_worldmodel.protocols import Writer
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.utils.progress import Progress, open_progress
from stable_worldmodel.utils.provenance import package_versions
from stable_worldmodel.world.episode import Episode
from stable_worldmodel.world.identity import describe, describe_policy
from stable_worldmodel.world.rollout import Rollout
from stable_worldmodel.world.stepper import Stepper

logger = logging.getLogger(__name__)

COLLECT_MODES = ("append", "overwrite", "error", "resume")


def episode_columns(episode: Episode, policy_type: str) -> dict[str, Any]:
    """The rows to store: what was recorded plus the constants `seed` (int64, -1 if unseeded) and `policy` (text)."""
    rows = episode.length + 1
    return {
        **episode.columns,
        "seed": np.full(rows, -1 if episode.seed is None else episode.seed, np.int64),
        "policy": [policy_type] * rows,
    }


def first_episode(stored: int, episodes: int, mode: str) -> range:
    """Numbers of the episodes to run when `stored` ones exist: `append` adds, `resume` fills up to `episodes`."""
    if mode == "resume":
        return range(min(stored, episodes), episodes)
    return range(stored, stored + episodes)


def record(
    stepper: Stepper,
    writer: Writer,
    indices: range,
    seed: int | None,
    options: Any,
    progress: bool | Progress,
    first: int = 0,
) -> None:
    """Run the episodes `indices` and write them. Of those that count, from `first` on, the others are done already."""
    if not indices:
        return
    policy = stepper.policy
    with InterruptGuard() as guard, open_progress(progress) as display:
        rollout = Rollout(
            stepper,
            indices,
            seed=seed,
            options=options,
            wanted=lambda key: True,
            observers=[guard.check],
            mode=getattr(policy, "reset_mode", "auto"),
        )
        task = display.task("collect", total=indices.stop - first, done=indices.start - first)
        for episode in write_rollout(rollout, writer, getattr(policy, "type", "custom")):
            task.advance(1, steps=episode.length)


def write_rollout(rollout: Rollout, writer: Writer, policy_type: str) -> Iterator[Episode]:
    """Write each episode as it completes, then yield it."""
    for episode in rollout:
        writer.write_episode(episode_columns(episode, policy_type))
        yield episode


@contextlib.contextmanager
def open_target(
    path: str | Path, format: str | None, mode: str, metadata: dict[str, Any], options: Mapping[str, Any]
) -> Iterator[Any]:
    """Open the writer for `path`. In resume mode, refuse to continue a dataset that another run recorded."""
    from stable_worldmodel.data import open_writer

    if mode not in COLLECT_MODES:
        raise ContractError(f"mode={mode!r}: expected one of {COLLECT_MODES}")
    with open_writer(path, format, "append" if mode == "resume" else mode, metadata, **options) as writer:
        if mode == "resume" and writer.num_episodes:
            check_same_run(str(path), writer.metadata, metadata)
        yield writer


def check_same_run(path: str, stored: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    """Raise ContractError when the metadata of a dataset says that another run recorded it."""
    if not stored:
        logger.warning("%s carries no record of how it was collected; resuming on trust", path)
        return
    differs = [key for key in ("env", "policy", "seed", "options") if stored.get(key) != wanted[key]]
    if differs:
        found = ", ".join(f"{key} {stored.get(key)!r} instead of {wanted[key]!r}" for key in differs)
        raise ContractError(
            f"cannot resume {path}: it was collected with {found}; use another path or mode='overwrite'"
        )


def run_metadata(stepper: Stepper, env: dict[str, Any], seed: int | None, options: Any) -> dict[str, Any]:
    """What the dataset records about its origin, JSON-able."""
    rate = frame_rate(stepper.pool)
    return {
        "env": env,
        "policy": describe_policy(stepper.policy),
        "seed": seed,
        "options": describe(options),
        **({} if rate is None else {"render_fps": rate}),
        **({} if (bounds := action_bounds(stepper.pool)) is None else {"action_space": bounds}),
        "versions": package_versions(),
    }


def action_bounds(pool: Pool) -> dict[str, list[float]] | None:
    """`low` and `high` of a bounded Box of actions, flattened; None for other spaces."""
    space = pool.single_action_space
    bounds = {name: np.asarray(getattr(space, name, np.nan), np.float64).reshape(-1) for name in ("low", "high")}
    if not all(np.isfinite(values).all() for values in bounds.values()):
        return None
    return {name: values.tolist() for name, values in bounds.items()}


def frame_rate(pool: Pool) -> float | None:
    """Frames per second according to the metadata of the envs; None where they do not say, or not the same."""
    try:
        found = pool.call("metadata")
    except (AttributeError, NotImplementedError):  # a vector env that is one program, not many envs
        found = [getattr(getattr(pool, "env", None), "metadata", None)]
    rates = {metadata.get("render_fps") if isinstance(metadata, Mapping) else None for metadata in found}
    rate = rates.pop() if len(rates) == 1 else None
    return rate if isinstance(rate, (int, float)) and rate > 0 else None
