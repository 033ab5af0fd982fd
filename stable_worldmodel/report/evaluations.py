"""Results of an evaluation as a report shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.report.cards import name_of
from stable_worldmodel.report.model import Comparison, Evaluation, Video
from stable_worldmodel.utils.statistics import Estimate
from stable_worldmodel.world.comparison import compare
from stable_worldmodel.world.results import Results

# Result keys that an evaluation with a planner may have.
PLAN_SECONDS = "plan_seconds"  # float (solves,)
PLAN_COSTS = "plan_costs"  # float (solves, iterations): best cost so far

_WORDS = {"episode_lengths": "env steps", "episode_returns": "return"}
_VIDEO = re.compile(r"(?:episode|env|rollout)_(\d+)\.mp4")


def evaluation_of(name: str, results: Results, videos: Path | None = None) -> Evaluation:
    """What the report shows of `results`.

    `videos` is the folder of its `episode_<k>.mp4`, `env_<k>.mp4` or `rollout_<k>.mp4`. Raises
    ContractError when planner times or costs have another shape than documented.
    """
    seconds, costs = (np.asarray(results.get(key, ()), np.float64) for key in (PLAN_SECONDS, PLAN_COSTS))
    if seconds.ndim != 1 or (costs.size and costs.ndim != 2):
        raise ContractError(
            f"{name}: {PLAN_SECONDS} {seconds.shape} and {PLAN_COSTS} {costs.shape}: expected (solves,) and "
            "(solves, iterations)"
        )
    seeds = results.get("seeds")
    return Evaluation(
        name=name,
        successes=np.asarray(results["episode_successes"], bool).tolist(),
        caption=_caption(results),
        metrics=[(*_label(results, key, e), _interval(e), str(e.n)) for key, e in results.summary().items()],
        seeds=None if seeds is None else np.asarray(seeds).tolist(),
        videos=[] if videos is None else _videos(results, videos),
        plan_seconds=seconds[np.isfinite(seconds)].tolist(),
        plan_costs=costs.tolist(),
    )


def check_results(name: str, results: Results) -> None:
    """ContractError unless there is a success per episode and what else is counted by episode fits to it."""
    successes = results.get("episode_successes")
    if not isinstance(successes, np.ndarray) or successes.ndim != 1 or not len(successes) or successes.dtype != bool:
        raise ContractError(f"{name}: expected episode_successes as bool (episodes,), found {_found(successes)}")
    for key in ("episode_lengths", "seeds"):
        values = results.get(key)
        if values is not None and (
            not isinstance(values, np.ndarray) or values.shape != successes.shape or values.dtype.kind not in "iu"
        ):
            raise ContractError(f"{name}: expected {key} as integers ({len(successes)},), found {_found(values)}")


def _found(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def comparison_of(name: str, results: Results) -> Comparison:
    """The success of an evaluation."""
    successes = results["episode_successes"]
    return Comparison.from_counts(name, int(np.sum(successes)), len(successes))


def contrasts_of(named: Sequence[tuple[str, Results]]) -> list[str]:
    """The first evaluation against each of the others, in words; or why it cannot be paired with one."""
    return [_contrast(*named[0], *other) for other in islice(named, 1, None)]


def _contrast(name: str, results: Results, other_name: str, other: Results) -> str:
    try:
        paired = compare(results, other)
    except ContractError as error:
        return f"{name} and {other_name} are not compared in pairs: {error}"
    return (
        f"{name} minus {other_name}: {paired.difference:+.1f} points, 95 % interval {paired.low:+.1f} to "
        f"{paired.high:+.1f} (Tango), on the same {paired.n} episodes: only {name} in {paired.only_a}, only "
        f"{other_name} in {paired.only_b}; McNemar's exact p = {paired.p_value:.3g}."
    )


def _caption(results: Results) -> str:
    protocol = results.protocol
    success = protocol.get("success")
    parts = [
        name_of(protocol.get("env"), "id"),
        name_of(protocol.get("policy"), "class", "type"),
        f"{len(results['episode_successes'])} episodes",
        None if protocol.get("seed") is None else f"seed {protocol['seed']}",
        f"success is {success}" if success else None,
    ]
    return " · ".join(part for part in parts if part)


def _label(results: Results, key: str, estimate: Estimate) -> tuple[str, str]:
    percent = key == "success_rate" or results[key].dtype.kind == "b"
    words = _WORDS.get(key, key.replace("_", " "))
    return f"{words} (%)" if percent else words, f"{estimate.mean:.4g}"


def _interval(estimate: Estimate) -> str:
    return "-" if math.isnan(estimate.low) else f"{estimate.low:.4g} to {estimate.high:.4g}"


def numbered_videos(folder: Path) -> dict[int, Path]:
    """The videos of complete episodes in a folder, by episode number; empty if it is none."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _VIDEO.fullmatch(path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _videos(results: Results, folder: Path) -> list[Video]:
    successes, lengths = results["episode_successes"], results.get("episode_lengths")
    return [
        Video(
            path=path,
            label=f"Episode {number}",
            success=bool(successes[number]),
            caption="" if lengths is None else f"{lengths[number]} env steps",
        )
        for number, path in numbered_videos(folder).items()
        if number < len(successes)
    ]
