"""Scoring a subject: blocks of items as wide as there are envs, joined to one result."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.evaluation.curves import planning_values, thinned
from stable_worldmodel.evaluation.pairs import Pairs
from stable_worldmodel.evaluation.subjects import Subject
from stable_worldmodel.utils.progress import Progress
from stable_worldmodel.world import Results

if TYPE_CHECKING:
    from stable_worldmodel.evaluation.evaluation import Evaluation


def run_episodes(
    evaluation: Evaluation,
    subject: Subject,
    items: range,
    options: Any,
    video: str | Path | None,
    progress: bool | Progress,
) -> Results:
    """Episodes whose start and goal the env chooses, those with the numbers `items`."""
    seed = evaluation.protocol.seed + items.start
    with evaluation.world(min(evaluation.num_envs, len(items))) as world, _Videos(video, items.start) as videos:
        policy = subject.policy(None)
        world.set_policy(policy)
        results = world.evaluate(len(items), seed=seed, options=options, video=videos.folder, progress=progress)
    results.update(planning_values(policy))
    return results


def run_pairs(
    evaluation: Evaluation,
    subject: Subject,
    dataset: Any,
    pairs: Pairs,
    number: int,
    video: str | Path | None,
    progress: bool | Progress,
) -> Results:
    """Recorded starts and goals of the items from `number` on.

    Noise and seeds are those of the item, so that blocks of any width score the same.
    """
    protocol, parts = evaluation.protocol, []
    for start in range(0, len(pairs), evaluation.num_envs):
        block, first = pairs[start : start + evaluation.num_envs], number + start
        # Twice the budget, so that the time limit never ends an episode before the budget does.
        with (
            evaluation.world(len(block), 2 * protocol.eval_budget) as world,
            _Videos(video, first) as videos,
        ):
            policy = subject.policy(recorded_actions(dataset, block, protocol.eval_budget))
            world.set_policy(policy)
            part = world.evaluate(
                dataset=dataset,
                episodes_idx=block.episodes,
                start_steps=block.starts,
                goal_offset=protocol.goal_offset,
                eval_budget=protocol.eval_budget,
                seed=protocol.seed + first,
                video=videos.folder,
                progress=progress,
            )
        part.update(planning_values(policy))
        parts.append(part)
    return joined(parts)


def recorded_actions(dataset: Any, pairs: Pairs, budget: int) -> list[np.ndarray]:
    """Per item the recorded actions from its start on, at most `budget`, up to the first that is not finite."""
    actions = []
    for episode, start in zip(pairs.episodes, pairs.starts, strict=True):
        stop = min(start + budget, int(dataset.lengths[episode]))
        rows = np.asarray(dataset.read_rows(episode, start, stop, ["action"])["action"])
        given = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
        actions.append(rows[: len(rows) if given.all() else int(given.argmin())])
    return actions


def joined(parts: Sequence[Results]) -> Results:
    """The results of consecutive items as one."""
    if len(parts) == 1:
        return parts[0]
    count = sum(part["episode_count"] for part in parts)
    values: dict[str, Any] = {}
    for key, value in parts[0].items():
        values[key] = np.concatenate([part[key] for part in parts]) if isinstance(value, np.ndarray) else value
    values |= {key: thinned(values[key]) for key in ("plan_costs",) if key in values}
    values["episode_count"] = count
    values["success_rate"] = 100.0 * float(np.mean(values["episode_successes"]))
    protocol = dict(parts[0].protocol)
    if "episodes" in protocol:
        protocol["episodes"] = count
    for key in ("episodes_idx", "start_steps"):
        if key in protocol:
            protocol[key] = [item for part in parts for item in part.protocol[key]]
    protocol["success"] = ", ".join(sorted({rule for part in parts for rule in part.protocol["success"].split(", ")}))
    return Results(values, protocol)


class _Videos:
    """A folder for the videos of a block of items, which then get the numbers of the items."""

    def __init__(self, video: str | Path | None, first: int):
        self._target = None if video is None else Path(video)
        self._first = first

    def __enter__(self) -> _Videos:
        self.folder: Path | None = None
        if self._target is not None:
            self._target.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=".block-", dir=self._target))
        return self

    def __exit__(self, *exc: object) -> None:
        if self.folder is None or self._target is None:
            return
        for file in self.folder.iterdir():
            stem, _, number = file.stem.rpartition("_")
            file.replace(self._target / f"{stem}_{int(number) + self._first}{file.suffix}")
        self.folder.rmdir()
