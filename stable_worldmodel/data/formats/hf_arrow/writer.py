"""Writes `hf_arrow` datasets, which `datasets.load_from_disk` opens. See `hf_arrow.files` for what lies where."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns
from stable_worldmodel.data.formats.directory.record import DirectoryLayout, FileSums
from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode
from stable_worldmodel.data.formats.directory.stills import link_stills, still_encoder, write_stills
from stable_worldmodel.data.formats.directory.writer import DirectoryWriter
from stable_worldmodel.data.formats.hf_arrow import files
from stable_worldmodel.data.formats.hf_arrow.layout import EPISODE, STEP, ArrowLayout, image_path, part_folders
from stable_worldmodel.data.formats.shared.frames import STILL_SUFFIXES
from stable_worldmodel.data.formats.shared.images import JPEG_CHANNELS
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowWriter(DirectoryWriter):
    """Appends complete episodes to a directory of Arrow files and images.

    image_format: `jpeg` or `png`. Images with an alpha channel are PNG in any case. An existing column keeps the kind
        of file it has.
    quality: of JPEG, 1..100; colours lose half their resolution (4:2:0).
    The other arguments are those of `DirectoryWriter`.
    """

    format_name = "hf_arrow"
    fold_episodes = files.EPISODES_PER_SHARD

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "append",
        *,
        image_format: Literal["jpeg", "png"] = "jpeg",
        quality: int = 95,
        **options: Any,
    ) -> None:
        require("pyarrow", "data")
        self._still_suffix, self._encode = still_encoder(image_format, quality)
        self._suffixes: dict[str, str] = {}  # image column -> what its files end in
        self._generated: list[str] = []  # index columns that are not in the episodes
        self._sealed_from = 0  # the first episode whose images this package wrote
        self._adopted: ArrowLayout | None = None  # a dataset of another program that is to be written anew
        super().__init__(path, mode, **options)

    def _recognises(self, path: Path) -> bool:
        return part_folders(path) == [path]

    def _read_identity(self, path: Path) -> str | None:
        return files.read_state(path).dataset_id

    def _open_layout(self, path: Path, keep: int | None) -> DirectoryLayout:
        layout = ArrowLayout(path)
        videos = sorted(name for name, suffix in layout.suffixes.items() if suffix not in STILL_SUFFIXES)
        if videos:
            raise ContractError(f"{path}: columns {videos} are videos; copy its episodes into a new dataset")
        if layout.dataset_id is None and not layout.numbered:
            raise ContractError(f"{path}: cannot be appended to, its episodes are not numbered 0, 1, 2 ...; copy them")
        self._suffixes = dict(layout.suffixes)
        self._sealed_from = layout.sealed_from
        self._adopted = None if layout.dataset_id else layout
        self._generated = layout.generated if layout.dataset_id else _generated(layout.columns)
        return layout

    def _check(self, columns: Columns) -> None:
        super()._check(columns)
        pa = require("pyarrow", "data")
        owners: dict[str, str] = {}
        for name, values in columns.items():
            if Column.of(values).kind == "image" and owners.setdefault(name.replace(".", "_"), name) != name:
                raise ContractError(f"columns {owners[name.replace('.', '_')]!r} and {name!r} mean the same images")
            if Column.of(values).kind == "number":
                try:
                    pa.from_numpy_dtype(values.dtype)
                except pa.ArrowNotImplementedError as error:
                    raise ContractError(f"column {name!r}: Arrow has no {values.dtype} numbers") from error

    # -- frames -------------------------------------------------------------------------------------------------------

    def _suffix_of(self, name: str) -> str:
        if name not in self._suffixes:
            self._suffixes[name] = self._still_suffix if self._schema[name].shape[2] in JPEG_CHANNELS else ".png"
        return self._suffixes[name]

    def _write_frames(self, target: Path, i: int, name: str, values: np.ndarray) -> FileSums:
        suffix = self._suffix_of(name)
        ensure_dir_exists(target / files.IMAGES / str(i))
        paths = [str(path) for path in self._frame_files(target, i, name, len(values))]
        sums = write_stills(paths, values, self._encode[suffix])
        self._written(Path(path) for path in paths[: len(sums.crcs)])
        return sums

    def _frame_files(self, target: Path, i: int, name: str, rows: int) -> Iterable[Path]:
        return [target / image_path(i, step, name, self._suffix_of(name)) for step in range(rows)]

    def _remove_leftovers(self, target: Path) -> None:
        current = files.read_state(target).files
        for shard in target.glob(files.SHARD_PATTERN):
            if shard.name not in current:
                shard.unlink()
        for folder in (target / files.IMAGES).glob("*"):
            if folder.name.isdigit() and int(folder.name) >= self.num_episodes:
                shutil.rmtree(folder)

    # -- the table ----------------------------------------------------------------------------------------------------

    def _fold_into(self, target: Path, scratch: Path, logged: Sequence[LoggedEpisode], keep: int | None) -> list[Path]:
        old = self._stored_shards(target)
        known = len(self._adopted.index.lengths) if self._adopted else max((stop for _, stop in old), default=0)
        total = max([known, *(episode.i + 1 for episode in logged)])
        bounds = files.shard_bounds(total if keep is None else min(keep, total))
        if self._adopted is None and not old:
            self._generated = _generated(self._schema)
        taken = {entry.name for entry in target.iterdir()} if self._adopted else set()
        names, written = [], []
        for k, (start, stop) in enumerate(bounds):
            # The files of another program stay whole until `state.json` changes.
            name = files.shard_name(k, len(bounds))
            names.append(files.shard_name(k, len(bounds), digits=6) if name in taken else name)
            if (start, stop) not in old:
                self._write_shard(scratch / names[-1], target, old, (start, stop), logged)
                written.append(names[-1])
        files.write_info(scratch / files.INFO, self._schema, self._generated)
        files.write_state(scratch / files.STATE, names, self._dataset_id, bounds[-1][1])
        written += [files.INFO, files.STATE]
        self._synced([scratch / name for name in written])
        for name, bound in zip(names, bounds, strict=True):
            if bound in old and old[bound] != name:
                link_stills([str(target / old[bound]), str(target / name)])
        for name in written:
            (scratch / name).replace(target / name)
        for shard in target.glob(files.SHARD_PATTERN):
            if shard.name not in names:
                shard.unlink()
        self._adopted = None
        return [target / name for name in names]

    def _stored_shards(self, target: Path) -> dict[tuple[int, int], str]:
        """Return the files this package wrote, by the first and the end of their episodes."""
        if self._adopted or not (target / files.STATE).exists():
            return {}
        state = files.read_state(target)
        *full, (first, _) = files.shard_bounds(state.num_episodes)
        # The last file may have more than `state.json` says: a writer was killed after renaming the one, not the other.
        last = files.read_shard(target / state.files[-1])
        return dict(zip([*full, (first, last[EPISODE][-1].as_py() + 1)], state.files, strict=True))

    def _write_shard(
        self,
        path: Path,
        target: Path,
        old: Mapping[tuple[int, int], str],
        bounds: tuple[int, int],
        logged: Sequence[LoggedEpisode],
    ) -> None:
        """Write the episodes from bounds[0] to before bounds[1], which are in old files or logged."""
        schema = files.arrow_schema(self._schema, self._generated)
        tables = list(self._adopted_tables(schema, bounds)) if self._adopted else []
        for (first, end), name in old.items():
            if first < bounds[1] and end > bounds[0]:
                table = files.read_shard(target / name)
                rows = np.searchsorted(files.numpy_numbers(table[EPISODE]), bounds)
                tables.append(table.slice(rows[0], rows[1] - rows[0]).cast(schema))
        stored = bounds[0] if not tables else tables[-1][EPISODE][-1].as_py() + 1
        for episode in logged:
            if stored <= episode.i < bounds[1]:
                images = {
                    name: [
                        image_path(episode.i, 0 if name in episode.notes["constant"] else step, name, suffix)
                        for step in range(episode.rows)
                    ]
                    for name, suffix in self._suffixes.items()
                }
                tables.append(_table(schema, episode.i, {**episode.columns, **images}, episode.rows))
        notes = {
            "first_episode": bounds[0],
            "images": self._suffixes,
            "generated": self._generated,
            "sealed_from": self._sealed_from,
        }
        files.write_shard(path, schema, tables, notes)

    def _adopted_tables(self, schema: pa.Schema, bounds: tuple[int, int]) -> Iterator[pa.Table]:
        """The episodes of another program's dataset."""
        layout = self._adopted
        if layout is None:
            return
        columns = {name: layout.load(name) for name in layout.columns if name not in layout.frames}
        for i in range(bounds[0], min(bounds[1], len(layout.index.lengths))):
            rows = layout.index.rows_of(i)
            images = {name: layout.paths(name, rows) for name in layout.frames}
            yield _table(schema, i, {name: values[rows] for name, values in columns.items()} | images, len(rows))


def _generated(schema: Mapping[str, Column]) -> list[str]:
    """The index columns that have to be added to the rows of an episode."""
    return [name for name in files.INDEX_FIELDS if name not in schema]


def _table(schema: pa.Schema, i: int, columns: Mapping[str, np.ndarray | list[str]], rows: int) -> pa.Table:
    """The rows of one episode."""
    pa = require("pyarrow", "data")
    index = {
        EPISODE: np.full(rows, i, np.int32),
        STEP: np.arange(rows, dtype=np.int32),
        "episode_len": np.full(rows, rows, np.int32),
    }
    arrays = []
    for field in schema:
        values = columns[field.name] if field.name in columns else index[field.name]
        if pa.types.is_string(field.type):
            arrays.append(pa.array(values if isinstance(values, list) else values.tolist(), pa.string()))
        else:
            arrays.append(files.arrow_numbers(np.asarray(values)))
    return pa.Table.from_arrays(arrays, schema=schema)
