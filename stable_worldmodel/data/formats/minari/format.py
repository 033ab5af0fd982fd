"""The `minari` format, for reading only: datasets of the Minari library, in this package's rows.

An episode of L steps has L + 1 rows: row t holds observation t, the action taken there, and the reward and flags of the
step that led to it. The last row has no action: NaN, or `INTEGER_ACTION_FILLER` where actions are integers. The first
row has reward NaN and flags False.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.data.columns import Column, decode_text
from stable_worldmodel.data.formats.minari.files import Episodes, Leaf, data_folder, open_episodes, read_metadata
from stable_worldmodel.data.formats.shared.frames import Frames
from stable_worldmodel.data.formats.shared.images import decode_image, image_shape
from stable_worldmodel.data.formats.shared.stored import RowIndex, StoredDataset
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.data.registry import Format, PathLike
from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)

SCHEME = "minari://"
_ROOT_VARIABLE, _ROOT = "MINARI_DATASETS_PATH", "~/.minari/datasets"
_FRAMES_PER_BLOCK = 8
_RENAMED = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "terminations": "terminated",
    "truncations": "truncated",
}
_ARRIVAL = ("rewards", "terminations", "truncations")  # known one row later than what led to them


class MinariFormat(Format):
    """A directory `<namespace>/<name>-v<k>` of a Minari root, its `data` directory, its main file, or `minari://<id>`."""

    name = "minari"

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        if "://" in str(path):
            return str(path).startswith(SCHEME)
        return data_folder(Path(path)) is not None

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> MinariDataset:
        if str(path).startswith(SCHEME):
            return MinariDataset(str(path).removeprefix(SCHEME), **kwargs)
        return MinariDataset(path=path, **kwargs)


class MinariDataset(StoredDataset):
    """A dataset of the Minari library.

    Columns are `observation` or `observation.<key>`, `action` or `action.<key>`, `reward`, `terminated`, `truncated`,
    `step_idx`, `seed` (-1 where unknown), and the infos by their keys. `metadata` is Minari's own.

    name: looked up in MINARI_DATASETS_PATH (default: ~/.minari/datasets), then as `cache.dataset_path` says.
    path: the directory.
    The other arguments are those of `StoredDataset`. TypeError without `name` and `path`.
    """

    def __init__(
        self,
        name: str | None = None,
        *args: Any,
        cache_dir: PathLike | None = None,
        path: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        if name is None and path is None:
            raise TypeError("MinariDataset needs `name` or `path`")
        self.path = (_find(name or "", cache_dir) if path is None else Path(path)).expanduser().resolve()
        super().__init__(MinariLayout(self.path), *args, **kwargs)


def _find(name: str, cache_dir: PathLike | None) -> Path:
    root = Path(os.environ.get(_ROOT_VARIABLE) or _ROOT).expanduser()
    plain = Path(name).parts and not Path(name).is_absolute() and ".." not in Path(name).parts
    return root / name if plain and (root / name).exists() else dataset_path(name, cache_dir)


class MinariLayout:
    """The columns of a Minari dataset. See `stored.Layout`."""

    def __init__(self, path: Path) -> None:
        folder = data_folder(path)
        if folder is None:
            raise ContractError(f"{path}: expected a Minari dataset with main_data.hdf5 or Arrow files, found neither")
        self.path = path
        self.metadata: Mapping[str, Any] = read_metadata(folder)
        self._episodes = open_episodes(folder, self.metadata)
        if not len(self._episodes):
            raise ContractError(f"{path}: holds no episode")
        lengths = np.array([self._episodes.steps(i) + 1 for i in range(len(self._episodes))], dtype=np.int64)
        self.index = RowIndex(lengths, np.cumsum(lengths) - lengths)
        self.columns = {"step_idx": Column(np.dtype(np.int64), (), "number")}
        self.columns["seed"] = self.columns["step_idx"]
        self.frames: dict[str, Frames] = {}
        self._leaves: dict[str, Leaf] = {}
        for leaf in self._episodes.leaves():
            self._add_column(leaf)
        self.columns = dict(sorted(self.columns.items()))

    def _add_column(self, leaf: Leaf) -> None:
        if leaf[0] not in (*_RENAMED, "infos"):
            return
        name = ".".join(leaf[1:] if leaf[0] == "infos" else (_RENAMED[leaf[0]], *leaf[1:]))
        name = f"info.{name}" if name in self.columns else name.replace("/", "_")
        rows = self._episodes.read(0, leaf)
        if leaf[0] == "infos" and len(rows) != self.index.lengths[0]:
            logger.warning("%s: info %r has %d rows and is ignored", self.path, name, len(rows))
            return
        frames = leaf[0] == "observations" and _frames_of(self._episodes, leaf, rows, self.index)
        if frames:
            self.frames[name] = frames
            self.columns[name] = frames.column
        elif rows.dtype == object and not all(isinstance(value, (str, bytes)) for value in rows):
            logger.warning("%s: %r holds neither numbers, images nor text and is ignored", self.path, name)
            return
        elif rows.dtype == object:
            self.columns[name] = Column(np.dtype(object), (), "text")
        else:
            self.columns[name] = Column.numeric(_dtype(leaf, rows.dtype), rows.shape[1:])
        self._leaves[name] = leaf

    def load(self, name: str) -> np.ndarray:
        if name not in self._leaves:
            return self._generate(name)
        leaf, column = self._leaves[name], self.columns[name]
        parts = [self._rows(leaf, i, name, column) for i in range(len(self._episodes))]
        return decode_text(np.concatenate(parts)) if column.kind == "text" else np.concatenate(parts)

    def _rows(self, leaf: Leaf, i: int, name: str, column: Column) -> np.ndarray:
        """One episode of a column, as long as its observations."""
        length = int(self.index.lengths[i])
        stored = self._episodes.read(i, leaf)
        if leaf[0] in ("observations", "infos"):
            stored = stored[:length]
        else:
            stored = stored[: length - 1]  # Arrow files have a row of padding
            filler = np.full((1, *column.shape), _filler(leaf, column), dtype=column.dtype)
            stored = np.concatenate([filler, stored] if leaf[0] in _ARRIVAL else [stored, filler])
        if len(stored) != length or stored.shape[1:] != column.shape:
            raise ContractError(
                f"{self.path}: episode {i}, {name!r}: expected {(length, *column.shape)}, found {stored.shape}"
            )
        return stored.astype(column.dtype, copy=False)

    def _generate(self, name: str) -> np.ndarray:
        """The columns that Minari has no arrays for."""
        if name == "step_idx":
            return np.arange(self.index.num_rows) - np.repeat(self.index.offsets, self.index.lengths)
        seeds = [self._episodes.seed(i) for i in range(len(self._episodes))]
        return np.repeat(np.array([-1 if seed is None else seed for seed in seeds]), self.index.lengths)


class MinariFrames:
    """Images in the observations of a Minari dataset, raw or as JPEG."""

    block = 32  # they are compressed in chunks of unknown size

    def __init__(self, episodes: Episodes, leaf: Leaf, index: RowIndex, column: Column) -> None:
        self._episodes, self._leaf, self._index = episodes, leaf, index
        self.column = column

    def files(self, rows: np.ndarray) -> list[Path]:
        return []

    def read(self, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if out is None:
            out = np.empty((len(rows), *self.column.shape), dtype=np.uint8)
        episodes, steps = self._index.locate(rows)
        for episode in np.unique(episodes).tolist():
            here = np.flatnonzero(episodes == episode)
            wanted, place = np.unique(steps[here], return_inverse=True)
            stored = self._episodes.read(episode, self._leaf, wanted)
            out[here] = (self._decoded(stored, episode) if stored.dtype == object else stored)[place]
        return out

    def _decoded(self, stored: np.ndarray, episode: int) -> np.ndarray:
        images = np.empty((len(stored), *self.column.shape), dtype=np.uint8)
        gray = self.column.shape if len(self.column.shape) == 3 else (*self.column.shape, 1)

        def decode(start: int, stop: int) -> None:
            for i in range(start, stop):
                try:
                    decode_image(stored[i], images[i].reshape(gray))
                except ContractError as error:
                    raise ContractError(f"episode {episode}, {'/'.join(self._leaf)}: {error}") from error

        in_threads(decode, len(stored), _FRAMES_PER_BLOCK)
        return images


def _frames_of(episodes: Episodes, leaf: Leaf, rows: np.ndarray, index: RowIndex) -> MinariFrames | None:
    """Return the images of a column, None when it holds something else. `rows`: those of the first episode."""
    if rows.dtype == object and isinstance(rows[0], bytes) and rows[0][:3] == b"\xff\xd8\xff":
        shape: tuple[int, ...] = image_shape(rows[0])
        shape = shape[:2] if shape[2] == 1 else shape  # what was encoded had two axes
        return MinariFrames(episodes, leaf, index, Column.numeric(np.dtype(np.uint8), shape))
    if rows.dtype == np.uint8 and Column.of(rows).kind == "image":
        return MinariFrames(episodes, leaf, index, Column.of(rows))
    return None


def _dtype(leaf: Leaf, stored: np.dtype) -> np.dtype:
    """Integer actions have 64 bits, because their filler has."""
    return np.dtype(np.int64) if leaf[0] == "actions" and stored.kind in "biu" else stored.newbyteorder("=")


def _filler(leaf: Leaf, column: Column) -> Any:
    """What stands in the row without an action, or without a step that led to it."""
    if column.kind == "text":
        return ""
    if leaf[0] == "actions" and column.dtype.kind == "i":
        from stable_worldmodel.wrappers.info import INTEGER_ACTION_FILLER  # its package imports gymnasium

        return INTEGER_ACTION_FILLER
    return np.nan if column.dtype.kind in "fc" else 0
