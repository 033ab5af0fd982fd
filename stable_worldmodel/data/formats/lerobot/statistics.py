"""Statistics of features: of an episode, in its row, and of the whole set, in `meta/stats.json`.

Everything is accumulated in float64, quantiles of numbers are exact. Those of images are over a sample of frames, each
thinned out when it is large; over the whole set they are joined from the episodes', their quantiles as means.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stable_worldmodel.data.formats.lerobot.info import IMAGE_KINDS, STATS, Info, Json
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)
_LARGE, _SMALL = 300, 150  # pixels of the longer side: of images that are thinned out, and about what is left
_MOST_FRAMES = 10_000
_TOO_SMALL, _SPAN = 0.01, 0.1  # a standard deviation below the first is not of values that span the second

Stats = dict[str, np.ndarray]


def number_stats(values: np.ndarray) -> Stats:
    """Statistics over the first axis of (n, ...); NaN where a value is NaN. Scalars count as vectors of one."""
    values = values[:, None] if values.ndim == 1 else values
    exact = values.astype(np.float64)
    found = {"min": values.min(axis=0), "max": values.max(axis=0), "count": np.array([len(values)])}
    with np.errstate(all="ignore"):  # infinities, and values whose squares are
        found |= {"mean": exact.mean(axis=0), "std": exact.std(axis=0)}
        return found | dict(zip(QUANTILES, np.quantile(exact, [*QUANTILES.values()], axis=0), strict=True))


def image_stats(frames: np.ndarray) -> Stats:
    """Statistics (C, 1, 1) of each channel in [0, 1] over (n, H, W, C) uint8; `count` is the number of frames used."""
    n = len(frames)
    taken = max(min(100, n), min(int(n**0.75), _MOST_FRAMES))
    longer = max(frames.shape[1:3])
    stride = longer // _SMALL if longer > _LARGE else 1
    sample = frames[np.linspace(0, n - 1, taken).round().astype(int), ::stride, ::stride]
    counts = np.stack([np.bincount(sample[..., c].reshape(-1), minlength=256) for c in range(frames.shape[3])])
    level = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ level / total
    variance = (counts * (level - mean[:, None]) ** 2).sum(axis=1) / total
    there = counts > 0
    found = {"min": level[there.argmax(axis=1)], "max": level[255 - there[:, ::-1].argmax(axis=1)]}
    found |= {"mean": mean, "std": np.sqrt(variance)}
    below = counts.cumsum(axis=1)
    for name, q in QUANTILES.items():
        found[name] = level[(below < q * total[:, None]).sum(axis=1)]
    return {**{name: values[:, None, None] for name, values in found.items()}, "count": np.array([taken])}


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """Join statistics of images, weighted by their counts."""
    count = np.concatenate([part["count"] for part in parts]).astype(np.float64)
    weights = (count / count.sum())[:, None, None, None]
    stacked = {name: np.stack([part[name] for part in parts]).astype(np.float64) for name in NAMES if name != "count"}
    mean = (weights * stacked["mean"]).sum(axis=0)
    variance = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(axis=0)
    found = {"min": stacked["min"].min(axis=0), "max": stacked["max"].max(axis=0), "mean": mean}
    found |= {"std": np.sqrt(variance), "count": np.array([int(count.sum())])}
    return found | {name: (weights * stacked[name]).sum(axis=0) for name in QUANTILES}


def has_stats(feature: Json) -> bool:
    return feature["dtype"] not in ("string", "language")


def stats_columns(stats: Mapping[str, Stats]) -> dict[str, pa.Array]:
    """The columns of one row of the table of episodes."""
    pa = require("pyarrow", "data")
    columns = {}
    for feature, found in stats.items():
        for name in NAMES:
            values = found[name]
            kind = pa.float64() if values.dtype.kind == "f" else pa.from_numpy_dtype(_widest(values.dtype))
            for _ in range(values.ndim):
                kind = pa.list_(kind)
            columns[f"stats/{feature}/{name}"] = pa.array([values.tolist()], kind)
    return columns


def image_rows(table: pa.Table, feature: str) -> list[Stats]:
    """The statistics of an image feature in rows of the table of episodes."""
    columns = {name: table[f"stats/{feature}/{name}"].to_pylist() for name in NAMES}
    return [{name: np.array(columns[name][i]) for name in NAMES} for i in range(len(table))]


def _widest(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.kind == "b" or dtype == np.uint64 else np.dtype(np.int64)


def stats_json(stats: Mapping[str, Stats]) -> str:
    plain = {feature: {name: found[name].tolist() for name in NAMES} for feature, found in stats.items()}
    return json.dumps(plain, indent=4)


def read_stats(info: Info) -> Json:
    """Read `meta/stats.json`, empty when there is none. ContractError when it is damaged."""
    path = info.path / STATS
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: damaged: {error}") from error
    if not isinstance(found, dict):
        raise ContractError(f"{path}: damaged: expected an object")
    return found


def warn_of_wrong_images(info: Info) -> None:
    """Log a warning when the images' standard deviations cannot be: releases of LeRobot computed them in 8 bits."""
    try:
        stats = read_stats(info)
        wrong = [name for name in info.named(*IMAGE_KINDS) if name in stats and _is_wrong(stats[name])]
    except (ContractError, KeyError, TypeError, ValueError):
        return  # nothing else here reads them
    if wrong:
        logger.warning(
            "%s: the standard deviations of %s are far too small, a known defect of LeRobot 0.4; "
            "`recompute_statistics(path)` of stable_worldmodel.data.formats.lerobot.repair writes right ones",
            info.path, wrong,
        )  # fmt: skip


def _is_wrong(stats: Json) -> bool:
    std, low, high = (np.array(stats[name], dtype=np.float64).reshape(-1) for name in ("std", "min", "max"))
    return bool(((std < _TOO_SMALL) & (high - low >= _SPAN)).any())
