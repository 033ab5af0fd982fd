"""Statistics of a whole LeRobot dataset, computed from its rows and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stable_worldmodel.data.formats.hf_arrow.files import numpy_numbers
from stable_worldmodel.data.formats.lerobot import parquet, statistics
from stable_worldmodel.data.formats.lerobot.index import EPISODES_FOLDER, numbered_files, read_index
from stable_worldmodel.data.formats.lerobot.info import IMAGE_KINDS, STATS, Info
from stable_worldmodel.data.formats.lerobot.layout import LeRobotLayout
from stable_worldmodel.data.lock import WriterLock
from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.utils.files import write_atomically

_FRAMES_AT_ONCE = 256


def recompute_statistics(path: str | Path) -> None:
    """Write `meta/stats.json` of a dataset anew, from all its rows and from its decoded frames.

    Mends the standard deviations of images that LeRobot 0.4 computed wrongly. Raises DatasetLockedError while a writer
    is at work.
    """
    root = Path(path).expanduser().resolve()
    with WriterLock(root):
        layout = LeRobotLayout(root)
        stats = _of_numbers(layout.info)
        for name, frames in layout.frames.items():
            rows = np.arange(layout.index.num_rows)
            parts = [
                statistics.image_stats(frames.read(rows[i : i + _FRAMES_AT_ONCE], None))
                for i in range(0, len(rows), _FRAMES_AT_ONCE)
            ]
            stats[layout.links[name].feature] = statistics.joined(parts)
        write_atomically(root / STATS, statistics.stats_json(stats).encode())


def set_statistics(root: Path) -> dict[str, statistics.Stats]:
    """Statistics of a set of this package: exact for numbers, joined from those of the episodes for images."""
    info = Info.read(root)
    stats = _of_numbers(info)
    pa = require("pyarrow", "data")
    images = info.named(*IMAGE_KINDS)
    if images:
        columns = [f"stats/{feature}/{name}" for feature in images for name in statistics.NAMES]
        paths = [path for _, path in numbered_files(root / EPISODES_FOLDER, ".parquet")]
        table = pa.concat_tables(parquet.read_table(path, columns) for path in paths).slice(0, info.episodes)
        for feature in images:
            stats[feature] = statistics.joined(statistics.image_rows(table, feature))
    return {name: stats[name] for name in info.features if name in stats}


def stats_rows(root: Path) -> int:
    """How many rows `stats.json` describes; -1 when it is missing or damaged."""
    try:
        return int(statistics.read_stats(Info.read(root))["index"]["count"][0])
    except (ContractError, KeyError, IndexError, TypeError, ValueError):
        return -1


def _of_numbers(info: Info) -> dict[str, statistics.Stats]:
    """Exact statistics of all features in the data files that are numbers."""
    names = [
        name
        for name, feature in info.features.items()
        if statistics.has_stats(feature) and feature["dtype"] not in IMAGE_KINDS
    ]
    index = read_index(info)
    tables = parquet.read_tables([info.path / name for name in index.data.names], names)
    parts = []
    for table in tables:
        if isinstance(table, ContractError):
            raise table
        parts.append(table)
    table = require("pyarrow", "data").concat_tables(parts, promote_options="permissive")
    return {name: statistics.number_stats(numpy_numbers(table[name])) for name in names}
