"""An evaluation in contiguous parts, each scored by another worker, joined to the results of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_worldmodel.cluster.collect import executor_of
from stable_worldmodel.cluster.evaluate import split_evenly
from stable_worldmodel.evaluation.run import joined
from stable_worldmodel.pool.process import cpu_count
from stable_worldmodel.protocols import Executor
from stable_worldmodel.utils.progress import Progress, open_progress
from stable_worldmodel.world import Results

if TYPE_CHECKING:
    from stable_worldmodel.evaluation.evaluation import Evaluation


def run_in_parts(
    evaluation: Evaluation,
    cluster: str | Executor,
    shards: int | None,
    options: Mapping[str, Any] | None,
    folder: str | Path | None,
    video: str | Path | None,
    progress: bool | Progress,
) -> Results:
    """Score `shards` parts as jobs of an executor; see `Evaluation.run`."""
    execute = executor_of(cluster, options)
    count = evaluation.protocol.episodes
    parts = split_evenly(count, shards or getattr(execute, "workers", None) or cpu_count())
    places = {"folder": None if folder is None else str(folder), "video": None if video is None else str(video)}
    jobs = [{"evaluation": evaluation.to_dict(), "items": (p.start, p.stop), **places} for p in parts]
    if evaluation.recorder is not None:  # before the workers look for it
        evaluation.open_dataset(folder, progress)
    found: dict[int, Results] = {}
    with open_progress(progress) as display:
        task = display.task("evaluate", count)
        for first, results in execute(run_part, jobs):
            found[first] = results
            task.advance(results["episode_count"], steps=int(results["episode_lengths"].sum()))
    return joined([found[part.start] for part in parts])


def run_part(job: Mapping[str, Any]) -> tuple[int, Results]:
    """Score the items of one job; returns the number of the first, and their results."""
    from stable_worldmodel.evaluation.evaluation import from_dict

    items = range(*job["items"])
    return items.start, from_dict(job["evaluation"]).run_part(items, job["folder"], job["video"])
