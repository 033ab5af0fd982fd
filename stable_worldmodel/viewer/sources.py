"""What the viewer shows: episodes with frames and numbers, read when they are asked for.

Opening reads the index of the episodes only. Numbers per episode (return, success, seed, factors) need whole columns,
and come with `summary`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from stable_worldmodel.data.columns import DERIVED_COLUMNS
from stable_worldmodel.data.formats.shared.mp4 import VideoIndex, decode_frames, index_video
from stable_worldmodel.data.registry import load_dataset, locate_dataset
from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError
from stable_worldmodel.report.evaluations import numbered_videos
from stable_worldmodel.report.sources import find_run, scan_folder
from stable_worldmodel.world.results import Results

VARIATION_PREFIX = "variation."
SUCCESS_COLUMNS = ("is_success", "success")
_MOST_COMPONENTS = 16  # of a factor, each of which can be filtered by
_MOST_VALUES = 64  # of one row of a column that is plotted
_OPEN_VIDEOS = 8


class Source(Protocol):
    """Episodes to look at. Methods may be called from several threads.

    Attributes:
        title: for people.
        lengths: rows of each episode (E,).
        numbers: positions of the episodes in the recording or evaluation (E,).
        images: names of image columns.
        columns: names of numeric columns that can be plotted.
    """

    title: str
    lengths: np.ndarray
    numbers: np.ndarray
    images: list[str]
    columns: list[str]

    def summary(self) -> dict[str, np.ndarray]:
        """One number per episode (E,) by name; NaN where there is none. Booleans are 0 and 1."""
        ...

    def read_images(self, column: str, episode: int, rows: Sequence[int]) -> np.ndarray:
        """Return frames (n, H, W, C) uint8 of an episode."""
        ...

    def read_columns(self, episode: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return all rows of numeric columns, (rows, values) float64 each."""
        ...


def open_sources(place: str | Path) -> dict[str, Source]:
    """The sources of a dataset or a run by name: `dataset`, and one per evaluation with videos.

    Raises NotFoundError when there is neither, and ContractError when there is nothing to look at.
    """
    try:
        folder = find_run(place)
    except NotFoundError:
        return {"dataset": DatasetSource(place)}
    run = scan_folder(folder) if folder.is_dir() else None
    if run is None or run.is_empty:
        return {"dataset": DatasetSource(place)}
    sources: dict[str, Source] = {} if run.dataset is None else {"dataset": DatasetSource(run.dataset)}
    for name, videos in run.videos.items():
        sources[name] = VideoSource(name, run.results[name], videos)
    if not sources:
        raise ContractError(f"{folder} has neither a dataset nor videos of an evaluation: nothing to look at")
    return sources


def check_episode(source: Source, episode: int) -> int:
    """Return the episode if there is one of this number; else MissingKeyError."""
    if not 0 <= episode < len(source.lengths):
        raise MissingKeyError(f"no episode {episode}: there are 0..{len(source.lengths) - 1}")
    return episode


def check_names(names: Sequence[str], known: Sequence[str]) -> None:
    """MissingKeyError unless all `names` are known."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MissingKeyError(f"no column {', '.join(map(repr, unknown))}; there are {', '.join(known) or 'none'}")


class DatasetSource:
    """A dataset of any format, see `Source`."""

    def __init__(self, name: str | Path):
        location = locate_dataset(name)
        # Opened without numbers and text, which some formats would read into memory at once.
        self._dataset = load_dataset(location, keys_to_load=[])
        stored = self._dataset.columns
        self.images = sorted((n for n, c in stored.items() if c.kind == "image"), key=lambda n: (n != "pixels", n))
        if self.images:
            self._dataset = load_dataset(location, keys_to_load=self.images)
        self.columns = [
            name
            for name, column in stored.items()
            if column.kind == "number"
            and column.dtype.kind in "biuf"
            and self._dataset.get_dim(name) <= _MOST_VALUES
            and name not in DERIVED_COLUMNS
        ]
        self.title = str(location)
        self.lengths = self._dataset.lengths
        self.numbers = np.arange(len(self.lengths))
        self._lock = threading.Lock()
        self._summary_lock = threading.Lock()  # held for longer; frames need not wait for it
        self._summary: dict[str, np.ndarray] | None = None

    def summary(self) -> dict[str, np.ndarray]:
        """Return, success, seed and the factors of variation, as far as they are recorded."""
        with self._summary_lock:
            if self._summary is None:
                self._summary = self._summarise()
            return self._summary

    def _summarise(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        if "reward" in self.columns and self._dataset.get_dim("reward") == 1:
            found["return"] = self._sums(np.nan_to_num(self._column("reward")[:, 0]))
        success = next((name for name in SUCCESS_COLUMNS if name in self.columns), None)
        if success is not None:
            found["success"] = self._sums(self._column(success).max(axis=1) > 0) > 0
        for name in self.columns:
            if name != "seed" and not name.startswith(VARIATION_PREFIX):
                continue
            if self._dataset.get_dim(name) > _MOST_COMPONENTS:
                continue
            values = self._column(name)[self._dataset.offsets]
            labels = [name] if values.shape[1] == 1 else [f"{name}[{k}]" for k in range(values.shape[1])]
            found.update(zip(labels, values.T, strict=True))
        return {name: np.asarray(values, np.float64) for name, values in found.items()}

    def _sums(self, rows: np.ndarray) -> np.ndarray:
        """The sum over each episode, wherever its rows are."""
        totals = np.r_[0.0, np.cumsum(rows, dtype=np.float64)]
        return totals[self._dataset.offsets + self.lengths] - totals[self._dataset.offsets]

    def _column(self, name: str) -> np.ndarray:
        """All rows of a numeric column in the order of the file, (rows, values) float64."""
        with self._lock:
            values = self._dataset.get_col_data(name)
        return _table(values)

    def read_images(self, column: str, episode: int, rows: Sequence[int]) -> np.ndarray:
        """Return frames (n, H, W, C); rows are consecutive or far apart."""
        check_names([column], self.images)
        with self._lock:
            first, last = rows[0], rows[-1]
            if last - first + 1 == len(rows):
                return self._dataset.read_rows(episode, first, last + 1, [column])[column]
            return np.concatenate([self._dataset.read_rows(episode, t, t + 1, [column])[column] for t in rows])

    def read_columns(self, episode: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return all rows of numeric columns, (rows, values) float64 each."""
        check_names(names, self.columns)
        with self._lock:
            found = self._dataset.read_rows(episode, 0, int(self.lengths[episode]), names)
        return {name: _table(values) for name, values in found.items()}


class VideoSource:
    """The videos of an evaluation, see `Source`. Lengths are what the results say, not what the files hold."""

    images = ["video"]  # noqa: RUF012
    columns: list[str] = []  # noqa: RUF012

    def __init__(self, name: str, results: Results, folder: Path):
        count = len(results["episode_successes"])
        self._paths = [(k, path) for k, path in numbered_videos(folder).items() if k < count]
        if not self._paths:
            raise ContractError(f"{folder} has no video of the {count} episodes of {name!r}")
        self.title = f"{name}: videos in {folder}"
        self.numbers = np.array([k for k, _ in self._paths])
        lengths = results.get("episode_lengths")
        steps = np.zeros(count, np.int64) if lengths is None else np.asarray(lengths)
        self.lengths = steps[self.numbers] + 1
        self._results = results
        self._lock = threading.Lock()
        self._open: dict[int, tuple[bytes, VideoIndex]] = {}  # those used last

    def summary(self) -> dict[str, np.ndarray]:
        """Everything that the results know per episode."""
        found = {}
        total = len(self._results["episode_successes"])
        names = {"episode_returns": "return", "episode_successes": "success", "seeds": "seed"}
        for key, value in self._results.items():
            if key == "episode_lengths" or not isinstance(value, np.ndarray) or value.shape != (total,):
                continue
            if value.dtype.kind in "biuf":
                found[names.get(key, key)] = value.astype(np.float64)[self.numbers]
        return found

    def read_images(self, column: str, episode: int, rows: Sequence[int]) -> np.ndarray:
        """Return frames (n, H, W, 3); beyond the end of the file its last one."""
        check_names([column], self.images)
        with self._lock:
            if episode not in self._open:
                data = self._paths[episode][1].read_bytes()
                self._open[episode] = data, index_video(data)
                if len(self._open) > _OPEN_VIDEOS:
                    del self._open[next(iter(self._open))]
            return _decode(*self._open[episode], rows)

    def read_columns(self, episode: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Videos have none."""
        check_names(names, self.columns)
        return {}


def _decode(data: bytes, index: VideoIndex, rows: Sequence[int]) -> np.ndarray:
    frames = np.minimum(np.asarray(rows), len(index) - 1)
    out: dict[int, np.ndarray] = {}

    def keep(frame: int, image: np.ndarray) -> None:
        out[frame] = image.copy()

    decode_frames(index, lambda offset, size: data[offset : offset + size], np.unique(frames), keep)
    return np.stack([out[frame] for frame in frames.tolist()])


def _table(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(len(values), -1)


def described(sources: Mapping[str, Source]) -> list[dict[str, object]]:
    """What the page needs to know of the sources, as JSON values."""
    return [
        {
            "name": name,
            "title": source.title,
            "episodes": len(source.lengths),
            "images": source.images,
            "columns": source.columns,
        }
        for name, source in sources.items()
    ]
