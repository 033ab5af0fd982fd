"""Where the rows and frames of each episode of a LeRobot dataset lie: version 3 has tables of it, version 2 lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.formats.hf_arrow.files import numpy_numbers
from stable_worldmodel.data.formats.lerobot import parquet
from stable_worldmodel.data.formats.lerobot.info import FILES_PER_CHUNK, Info
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

EPISODES_FOLDER = "meta/episodes"
FILLED = "swm_filled"  # names of the columns with a missing value, see `mapping`
CONSTANT = "swm_constant"  # names of the features whose frames are all equal, so that readers need the first only
DATA_PREFIX = "swm/"  # of per-episode constants
_INDEX = ["episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
_VIDEO = ("chunk_index", "file_index", "from_timestamp")
_LINES, _TASK_LINES = "meta/episodes.jsonl", "meta/tasks.jsonl"


@dataclass(frozen=True)
class Files:
    """In which file each episode is, (E,) indices into `names`, and where in it the episode begins: a row or frame."""

    names: list[str]
    of_episode: np.ndarray
    first: np.ndarray

    def cut(self, episodes: int) -> Files:
        return Files(self.names, self.of_episode[:episodes], self.first[:episodes])


@dataclass(frozen=True)
class EpisodeIndex:
    """The episodes of a dataset."""

    lengths: np.ndarray  # (E,) int64
    data: Files
    videos: dict[str, Files]  # by feature
    tasks: list[str]  # by number
    filled: list[list[str]]  # (E,), see FILLED
    constant: list[list[str]]  # (E,), see CONSTANT
    constants: dict[str, list[Any]] = field(default_factory=dict)  # per-episode data, (E,) each

    def __len__(self) -> int:
        return len(self.lengths)

    def cut(self, episodes: int) -> EpisodeIndex:
        """The first `episodes` episodes."""
        return EpisodeIndex(
            self.lengths[:episodes],
            self.data.cut(episodes),
            {name: files.cut(episodes) for name, files in self.videos.items()},
            self.tasks,
            self.filled[:episodes],
            self.constant[:episodes],
            {name: values[:episodes] for name, values in self.constants.items()},
        )


def read_index(info: Info, damage: list[str] | None = None) -> EpisodeIndex:
    """Read the episodes that are committed. `damage` takes what is wrong, episodes from there on are left out; default:
    ContractError.
    """
    index = _read_v3(info, damage) if info.is_v3 else _read_v2(info)
    if len(index) < info.episodes:
        fault = f"{info.path}: {info.episodes} episodes are announced, {len(index)} are described in meta/"
        if damage is None:
            raise ContractError(fault)
        damage.append(fault)
    index = index.cut(info.episodes)
    if (index.lengths < 1).any():
        raise ContractError(f"{info.path}: episode {int(np.argmax(index.lengths < 1))} has no rows")
    return index


def numbered_files(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    """The files `chunk-*/file-*` in a folder of version 3, sorted by their running number."""
    found = []
    for path in folder.glob(f"chunk-*/file-*{suffix}"):
        chunk, number = path.parent.name.removeprefix("chunk-"), path.stem.removeprefix("file-")
        if chunk.isdigit() and number.isdigit():
            found.append((int(chunk) * FILES_PER_CHUNK + int(number), path))
    return sorted(found)


# -- version 3 -------------------------------------------------------------------------------------------------------


def _read_v3(info: Info, damage: list[str] | None) -> EpisodeIndex:
    pa = require("pyarrow", "data")
    videos = info.named("video")
    wanted = [*_INDEX, *(f"videos/{key}/{part}" for key in videos for part in _VIDEO)]
    paths = [path for _, path in numbered_files(info.path / EPISODES_FOLDER, ".parquet")]
    tables: list[Any] = []
    try:
        rows = 0
        for path in paths:
            tables.append(_episode_table(path, wanted, info))
            rows += len(tables[-1])
            if rows >= info.episodes:
                break
        if not tables:
            raise ContractError(f"{info.path / EPISODES_FOLDER}: expected Parquet files, found none")
    except ContractError as error:
        if damage is None or not tables:
            raise
        damage.append(str(error))
    try:
        tasks = parquet.read_tasks(info.path)
        if len(tasks) < int(info.content.get("total_tasks", 0)):
            raise ContractError(
                f"{info.path}: {info.content['total_tasks']} tasks are announced, {len(tasks)} are there"
            )
    except ContractError as error:
        if damage is None or not info.ours:
            raise
        damage.append(str(error))
        tasks = _tasks_named(paths[: len(tables)])
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
        return _index_of(info, table, videos, tasks)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"{info.path / EPISODES_FOLDER}: damaged: {error}") from error


def _episode_table(path: Path, wanted: list[str], info: Info) -> pa.Table:
    """The columns of a file that say where episodes are, and ours, where it has them."""
    pq, pa = require("pyarrow.parquet", "data"), require("pyarrow", "data")
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ContractError(f"{path}: damaged: {error}") from error
    ours = [name for name in names if _is_ours(name)]
    return parquet.read_table(path, [*wanted, *ours])


def _index_of(info: Info, table: pa.Table, videos: list[str], tasks: list[str]) -> EpisodeIndex:
    table = table.slice(0, info.episodes)
    numbers = {name: numpy_numbers(table[name]) for name in table.column_names if not _is_ours(name)}
    episodes = len(table)
    if not np.array_equal(numbers["episode_index"], np.arange(episodes)):
        raise ContractError(f"{info.path / EPISODES_FOLDER}: expected episodes 0, 1, 2 ...")
    lengths = numbers["length"].astype(np.int64)
    starts, ends = numbers["dataset_from_index"], numbers["dataset_to_index"]
    if not np.array_equal(ends - starts, lengths):
        wrong = int(np.argmax(ends - starts != lengths))
        raise ContractError(
            f"{info.path / EPISODES_FOLDER}: episode {wrong}: {lengths[wrong]} rows, "
            f"from {starts[wrong]} to {ends[wrong]}"
        )
    names, of_episode = _distinct(info, "data_path", numbers["data/chunk_index"], numbers["data/file_index"])
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, of_episode, starts)
    data = Files(names, of_episode, starts - first[of_episode])
    placed = {}
    for key in videos:
        chunk, file, since = (numbers[f"videos/{key}/{part}"] for part in _VIDEO)
        names, of_episode = _distinct(info, "video_path", chunk, file, video_key=key)
        placed[key] = Files(names, of_episode, np.round(since * info.fps).astype(np.int64))
    filled, constant = (_names(table, column) for column in (FILLED, CONSTANT))
    return EpisodeIndex(lengths, data, placed, tasks, filled, constant, _constants(info, table))


def _tasks_named(paths: list[Path]) -> list[str]:
    """The sentences as our writer numbers them: in the order in which episodes name them."""
    named = [texts or [] for path in paths for texts in parquet.read_table(path, ["tasks"])["tasks"].to_pylist()]
    return list(dict.fromkeys(text for texts in named for text in texts))


def _is_ours(name: str) -> bool:
    return name in (FILLED, CONSTANT) or name.startswith(DATA_PREFIX)


def _names(table: pa.Table, column: str) -> list[list[str]]:
    if column not in table.column_names:
        return [[] for _ in range(len(table))]
    return [names or [] for names in table[column].to_pylist()]


def _distinct(info: Info, template: str, chunk: np.ndarray, file: np.ndarray, **values: Any) -> tuple[list[str], Any]:
    """The different files of all episodes, and the number among them of each episode's."""
    pairs, of_episode = np.unique(np.stack([chunk, file], axis=1).astype(np.int64), axis=0, return_inverse=True)
    names = [info.file(template, chunk_index=a, file_index=b, **values) for a, b in pairs.tolist()]
    return names, of_episode.reshape(-1)


def _constants(info: Info, table: pa.Table) -> dict[str, list[Any]]:
    """Per-episode data, arrays in the dtype and shape they were given with."""
    found = {}
    for key, about in info.ours.get("episode_data", {}).items():
        name = f"{DATA_PREFIX}{key}"
        values = table[name].to_pylist() if name in table.column_names else [None] * len(table)
        if about is not None:
            dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
            values = [None if value is None else np.array(value, dtype).reshape(shape) for value in values]
        found[key] = values
    return found


# -- version 2 -------------------------------------------------------------------------------------------------------


def _read_v2(info: Info) -> EpisodeIndex:
    """One data file and one video per episode."""
    try:
        lines = sorted(_json_lines(info.path / _LINES), key=lambda line: line["episode_index"])
        numbers = [int(line["episode_index"]) for line in lines]
        lengths = np.array([int(line["length"]) for line in lines], dtype=np.int64)
        pairs = [(int(line["task_index"]), line["task"]) for line in _json_lines(info.path / _TASK_LINES)]
        per_chunk = int(info.content.get("chunks_size", FILES_PER_CHUNK)) or FILES_PER_CHUNK
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"{info.path}/meta: damaged: {error!r}") from error
    if numbers != [*range(len(lines))]:
        raise ContractError(f"{info.path / _LINES}: expected episodes 0, 1, 2 ..., found {numbers[:10]} ...")
    tasks = parquet.by_number(info.path / _TASK_LINES, pairs)
    order, zeros = np.arange(len(lines)), np.zeros(len(lines), dtype=np.int64)

    def files(template: str, **values: str) -> Files:
        names = [info.file(template, episode_chunk=i // per_chunk, episode_index=i, **values) for i in numbers]
        return Files(names, order, zeros)

    videos = {key: files("video_path", video_key=key) for key in info.named("video")}
    return EpisodeIndex(lengths, files("data_path"), videos, tasks, [[] for _ in numbers], [[] for _ in numbers])


def _json_lines(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: {'is missing' if isinstance(error, OSError) else error}") from error
    for line in text.split("\n"):
        if line.strip():
            yield json.loads(line)
