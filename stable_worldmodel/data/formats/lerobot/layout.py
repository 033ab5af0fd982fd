"""The columns of a LeRobot dataset. See `info` for what lies where, `mapping` for which feature is which column."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import Column, decode_text
from stable_worldmodel.data.formats.directory.record import Recordings, find_losses
from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode
from stable_worldmodel.data.formats.hf_arrow.files import numpy_numbers
from stable_worldmodel.data.formats.lerobot import parquet
from stable_worldmodel.data.formats.lerobot.index import EpisodeIndex, Files, read_index
from stable_worldmodel.data.formats.lerobot.info import INFO, STATS, Info
from stable_worldmodel.data.formats.lerobot.mapping import ACTION, TASK, TERMINAL, Link, decode, links_of
from stable_worldmodel.data.formats.lerobot.statistics import read_stats, warn_of_wrong_images
from stable_worldmodel.data.formats.shared.frames import Directory, Frames, VideoFrames
from stable_worldmodel.data.formats.shared.stored import RowIndex
from stable_worldmodel.data.lock import is_locked
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_EPISODE, _TASK = "episode_index", "task_index"


@dataclass(frozen=True)
class Places:
    """Where the rows (n,) of a dataset are."""

    index: RowIndex
    files: Files
    constant: np.ndarray | None = None  # (E,) bool: all rows of the episode show its first frame

    def names(self, rows: np.ndarray) -> list[str]:
        episodes = self.index.locate(rows)[0]
        return [self.files.names[k] for k in self.files.of_episode[episodes].tolist()]

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """Rows or frames in these files."""
        episodes, steps = self.index.locate(rows)
        steps = steps if self.constant is None else np.where(self.constant[episodes], 0, steps)
        return self.files.first[episodes] + steps

    def both(self, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        return self.names(rows), self.numbers(rows)


class LeRobotLayout:
    """The content of a dataset at one moment. See `stored.Layout`.

    damage: takes what is wrong, episodes from there on are left out; default: ContractError.
    camera: the image feature that is read as `pixels`.
    """

    def __init__(self, path: Path, damage: list[str] | None = None, camera: str | None = None) -> None:
        self.path = path
        self._damage = damage
        self._directory = Directory(path)
        recordings = Recordings(path)  # before the dataset, which a writer may be adding to
        self.info = Info.read(path)
        self.dataset_id = self.info.dataset_id
        self.episodes: EpisodeIndex = read_index(self.info, damage)
        self.logged: list[LoggedEpisode] = []
        lengths = self.episodes.lengths
        if not len(lengths):
            raise ContractError(f"{path}: no episode is complete yet")
        self.index = RowIndex(lengths, np.cumsum(lengths) - lengths)
        self.metadata: Mapping[str, Any] = _metadata(self.info)
        self.links = links_of(self.info, camera)
        self.columns: dict[str, Column] = {}
        self.frames: dict[str, Frames] = {}
        for name, link in self.links.items():
            self._add_column(name, link)
        self.lost = find_losses(recordings.of(self.dataset_id), self.columns, len(lengths))
        self._held: dict[str, pa.ChunkedArray] | None = None
        self._whole = len(lengths)  # episodes whose numbers can be read
        self._check_sides()
        self._directory.check()

    def _check_sides(self) -> None:
        """What readers can do without."""
        if not self.info.ours:
            warn_of_wrong_images(self.info)
        if self._damage is None or not self.info.ours:
            return
        if not self.info.is_intact:
            self._damage.append(f"{self.path / INFO}: damaged, or changed by another program")
        try:
            frames = int(read_stats(self.info)["index"]["count"][0])
        except ContractError as error:
            self._damage.append(str(error))
        except (KeyError, IndexError, TypeError, ValueError):
            self._damage.append(f"{self.path / STATS}: missing or damaged")
        else:
            if frames != self.index.num_rows and not is_locked(self.path):
                self._damage.append(
                    f"its writer died; {self.path / STATS} describes {frames} of {self.index.num_rows} rows until it "
                    "is opened with mode 'append'"
                )

    # -- images -------------------------------------------------------------------------------------------------------

    def _add_column(self, name: str, link: Link) -> None:
        if link.column.kind != "image":
            self.columns[name] = link.column
            return
        feature = self.info.features[link.feature]
        about = feature.get("info") or {}
        if about.get("video.is_depth_map") or about.get("is_depth_map"):
            logger.warning("%s: feature %r is a depth map and is ignored", self.path, link.feature)
            return
        if feature["dtype"] == "video":
            constant = np.array([link.feature in names for names in self.episodes.constant], dtype=bool)
            places = Places(self.index, self.episodes.videos[link.feature], constant)
            sealed_from = 0 if self.info.is_ours else self.index.num_rows
            self.frames[name] = VideoFrames(
                self._directory, places.names, places.numbers, self.index.describe, 0, sealed_from
            )
        else:
            places = Places(self.index, self.episodes.data)
            self.frames[name] = parquet.ParquetFrames(self._directory, link.feature, places.both, self.index.describe)
        found = self.frames[name].column
        if self.info.ours and found != link.column:
            raise ContractError(f"{self.path}: column {name!r}: expected {link.column.shape}, found {found.shape}")
        self.columns[name] = found

    # -- numbers and texts --------------------------------------------------------------------------------------------

    @property
    def has_terminal_row(self) -> bool:
        """Whether episodes end with the observation after the last action."""
        return TERMINAL in self.info.features

    def load(self, name: str) -> np.ndarray:
        self._directory.check()
        link = self.links[name]
        if link.feature == TASK:
            return self._load_tasks()
        array = self._take(link.feature)
        if link.column.kind == "text":
            return decode_text("" if text is None else text for text in array.to_pylist())
        values = self._numbers(name, array, link.column)
        return decode(values, link, self.episodes.lengths[: self._whole], self._filled(link))

    def _load_tasks(self) -> np.ndarray:
        numbers = self._numbers(TASK, self._take(_TASK), Column(np.dtype(np.int64), (), "number"))
        tasks = self.episodes.tasks
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(tasks):
            if self._damage is not None:
                return decode_text(tasks[i] if 0 <= i < len(tasks) else "" for i in numbers.tolist())
            raise ContractError(f"{self.path}: task_index {numbers.max()}: there are {len(tasks)} tasks")
        return decode_text(tasks[i] for i in numbers.tolist())

    def _numbers(self, name: str, array: pa.ChunkedArray, column: Column) -> np.ndarray:
        try:
            values = numpy_numbers(array)
            return values.reshape(len(array), *column.shape).astype(column.dtype, copy=False)
        except ValueError as error:
            raise ContractError(f"{self.path}: column {name!r}: {error}") from error

    def _filled(self, link: Link) -> np.ndarray:
        """In which episodes a missing value of the column was replaced, (E,) bool."""
        if self.info.ours:
            return np.array([link.name in names for names in self.episodes.filled[: self._whole]], dtype=bool)
        if TERMINAL not in self.info.features or not (link.shift or link.name == ACTION):
            return np.zeros(self._whole, dtype=bool)
        last = np.cumsum(self.episodes.lengths[: self._whole]) - 1  # of a set of ours that another program has edited
        return self._numbers(TERMINAL, self._take(TERMINAL), Column(np.dtype(bool), (), "number"))[last]

    def _take(self, feature: str) -> pa.ChunkedArray:
        """Return a feature over all rows. The first time all of them are read, and kept until they are asked for."""
        if self._held is None:
            links = [link for link in self.links.values() if link.column.kind != "image"]
            features = [_TASK if link.feature == TASK else link.feature for link in links]
            self._held = self._read_rows(list(dict.fromkeys(features)))
        array = self._held.pop(feature, None)
        return self._read_rows([feature])[feature] if array is None else array

    def _read_rows(self, features: list[str]) -> dict[str, pa.ChunkedArray]:
        pa = require("pyarrow", "data")
        names = self.episodes.data.names
        tables = parquet.read_tables([self.path / name for name in names], [_EPISODE, *features])
        parts = []
        whole = 0
        for first, stop, file, start, rows in self._stretches():
            fault = self._fault(tables[file], names[file], first, stop, start, rows)
            if fault and self._damage is None:
                raise ContractError(fault)
            if fault:
                if fault not in self._damage:  # type: ignore[operator]
                    self._damage.append(fault)  # type: ignore[union-attr]
                break
            parts.append(tables[file].slice(start, rows))  # type: ignore[union-attr]
            whole = stop
        self._whole = min(self._whole, whole)
        if not parts:
            return {name: pa.chunked_array([], pa.int64()) for name in features}
        rows = int(self.episodes.lengths[: self._whole].sum())
        try:
            table = pa.concat_tables(parts, promote_options="permissive").slice(0, rows)
        except pa.ArrowException as error:
            raise ContractError(f"{self.path}/data: the files differ in their columns: {error}") from error
        return {name: table[name] for name in features}

    def _stretches(self) -> Iterator[tuple[int, int, int, int, int]]:
        """The first and end episode, the file, the first row in it and the number of rows of what lies together."""
        data, lengths = self.episodes.data, self.episodes.lengths
        follows = (data.of_episode[1:] == data.of_episode[:-1]) & (data.first[1:] == data.first[:-1] + lengths[:-1])
        starts = np.flatnonzero(np.r_[True, ~follows])
        for first, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(lengths)], strict=True):
            yield first, stop, int(data.of_episode[first]), int(data.first[first]), int(lengths[first:stop].sum())

    def _fault(self, table: Any, name: str, first: int, stop: int, start: int, rows: int) -> str | None:
        """What is wrong with the rows of some episodes in a file."""
        if isinstance(table, ContractError):
            return f"{table} (from episode {first} on)"
        if len(table) < start + rows:
            return f"{self.path / name}: {len(table)} rows are there, episode {stop - 1} needs {start + rows}"
        found = self._numbers(_EPISODE, table[_EPISODE].slice(start, rows), Column(np.dtype(np.int64), (), "number"))
        expected = np.repeat(np.arange(first, stop), self.episodes.lengths[first:stop])
        if not np.array_equal(found, expected):
            wrong = int(np.argmax(found != expected))
            return f"{self.path / name}: expected rows of episode {expected[wrong]}, found some of {found[wrong]}"
        return None

    def restore(self, table: Mapping[str, np.ndarray]) -> None:
        """Nothing: the writer that cuts the dataset writes everything that is not rows or frames anew."""


def _metadata(info: Info) -> dict[str, Any]:
    if info.ours:
        return dict(info.ours.get("metadata") or {})
    return {"codebase_version": info.version, "fps": info.fps, "robot_type": info.content.get("robot_type")}
