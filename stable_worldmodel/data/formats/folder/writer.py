"""Writes `folder` and `video` datasets. See `folder.layout` for what lies where."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns
from stable_worldmodel.data.formats.directory.record import DirectoryLayout, FileSums
from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode
from stable_worldmodel.data.formats.directory.stills import is_constant, link_stills, still_encoder, write_stills
from stable_worldmodel.data.formats.directory.writer import DirectoryWriter
from stable_worldmodel.data.formats.folder import npz_table as npz
from stable_worldmodel.data.formats.folder.layout import (
    LENGTHS,
    OFFSETS,
    TABLE_SUFFIX,
    FolderIndex,
    FolderLayout,
    frame_name,
    frame_suffixes,
    image_folders,
    is_folder_dataset,
    read_index,
    write_index,
)
from stable_worldmodel.data.formats.shared import mp4
from stable_worldmodel.data.formats.shared.frames import VIDEO_SUFFIX
from stable_worldmodel.errors import ContractError, require

_EPISODE_OF_FILE = re.compile(r"ep_(\d+)[_.]")


class FolderWriter(DirectoryWriter):
    """Appends complete episodes to a directory with one image file per frame.

    image_format: `jpeg`, or `png` for frames without loss, which the public package cannot read. Images with an alpha
        channel are PNG in any case. An existing column keeps the kind of file it has.
    quality: of JPEG, 1..95 and more; colours lose half their resolution (4:2:0).
    The other arguments are those of `DirectoryWriter`.
    """

    format_name = "folder"

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "append",
        *,
        image_format: Literal["jpeg", "png"] = "jpeg",
        quality: int = 95,
        **options: Any,
    ) -> None:
        self._still_suffix, self._encode = still_encoder(image_format, quality)
        self._suffixes: dict[str, str] = {}  # image column -> what its files end in
        super().__init__(path, mode, **options)

    def _recognises(self, path: Path) -> bool:
        return is_folder_dataset(path) and VIDEO_SUFFIX not in frame_suffixes(path)

    def _read_identity(self, path: Path) -> str | None:
        return read_index(path).dataset_id

    def _open_layout(self, path: Path, keep: int | None) -> DirectoryLayout:
        layout = FolderLayout(path)
        if keep is None:
            layout.check_lengths()
        self._suffixes = dict(layout.suffixes)
        return layout

    def _check(self, columns: Columns) -> None:
        super()._check(columns)
        for name, values in columns.items():
            if Column.of(values).kind == "image" and name.endswith(TABLE_SUFFIX):
                raise ContractError(f"column name {name!r}: images cannot have a name that ends in {TABLE_SUFFIX!r}")

    # -- frames -------------------------------------------------------------------------------------------------------

    def _suffix_of(self, name: str) -> str:
        """What the files of an image column end in."""
        if name not in self._suffixes:
            alpha = self._schema[name].shape[2] not in (1, 3)
            self._suffixes[name] = ".png" if alpha else self._default_suffix()
        return self._suffixes[name]

    def _default_suffix(self) -> str:
        return self._still_suffix

    def _write_frames(self, target: Path, i: int, name: str, values: np.ndarray) -> FileSums:
        suffix = self._suffix_of(name)
        ensure_dir_exists(target / name)
        if suffix == VIDEO_SUFFIX:
            return self._write_video(target / frame_name(name, i, 0, suffix), values)
        files = [str(target / frame_name(name, i, step, suffix)) for step in range(len(values))]
        sums = write_stills(files, values, self._encode[suffix])
        if sums.constant:
            link_stills(files)
        self._written(Path(file) for file in files[: len(sums.crcs)])
        return sums

    def _write_video(self, path: Path, values: np.ndarray) -> FileSums:
        raise NotImplementedError

    def _frame_files(self, target: Path, i: int, name: str, rows: int) -> Iterable[Path]:
        return {target / frame_name(name, i, step, self._suffix_of(name)) for step in range(rows)}

    def _remove_leftovers(self, target: Path) -> None:
        for folder in image_folders(target):
            with os.scandir(folder) as entries:
                for entry in entries:
                    found = _EPISODE_OF_FILE.match(entry.name)
                    if found and int(found[1]) >= self.num_episodes:
                        Path(entry.path).unlink()

    # -- the table ----------------------------------------------------------------------------------------------------

    def _fold_bytes(self, target: Path) -> int:
        return sum(file.stat().st_size for file in target.glob(f"*{TABLE_SUFFIX}"))

    def _fold_into(self, target: Path, scratch: Path, logged: Sequence[LoggedEpisode], keep: int | None) -> list[Path]:
        none = np.empty(0, dtype=np.int64)
        stored = read_index(target) if is_folder_dataset(target) else FolderIndex(none, none)
        known = len(stored.lengths)
        new = [episode for episode in logged if episode.i >= known and (keep is None or episode.i < keep)]
        index = stored.extended(new)
        sealed_from = index.sealed_from if stored.dataset_id else known
        index = replace(index, dataset_id=self._dataset_id, sealed_from=sealed_from)
        index = index if keep is None else index.cut(keep)
        for name, column in self._schema.items():
            if column.kind != "image":
                kept = min(stored.num_rows, index.num_rows)
                _write_column(target, scratch, name, column, kept, [episode.columns[name] for episode in new])
        write_index(scratch, index)
        names = [*(path.name for path in scratch.iterdir() if path.name not in (LENGTHS, OFFSETS)), OFFSETS, LENGTHS]
        if len(index.lengths) < known:
            names.reverse()  # the index never speaks of rows that are not there
        self._synced([scratch / name for name in names])
        for name in names:
            (scratch / name).replace(target / name)
        return []


class VideoWriter(FolderWriter):
    """Appends complete episodes to a directory with one MP4 per episode and image column.

    gop: frames from one key frame to the next. Small is fast for windows, large is small on disk.
    crf: x264's quality, 0 (best) .. 51. preset: x264's, from `ultrafast` to `veryslow`.
    fps: nominal; default: `fps` or `render_fps` of the metadata, or 25.
    Images with an alpha channel are PNG files, as in a `folder` dataset.
    """

    format_name = "video"

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "append",
        *,
        fps: int | None = None,
        gop: int = mp4.GOP,
        crf: int = mp4.CRF,
        preset: str = mp4.PRESET,
        **options: Any,
    ) -> None:
        if (fps is not None and fps < 1) or gop < 1:
            raise ContractError(f"fps={fps}, gop={gop}: expected both >= 1")
        require("av", "data")
        self._video: dict[str, Any] = {"crf": crf, "preset": preset}
        self._fps, self._gop = fps, gop
        super().__init__(path, mode, **options)

    def _recognises(self, path: Path) -> bool:
        return is_folder_dataset(path) and not {".jpeg", ".jpg"} & frame_suffixes(path)

    def _default_suffix(self) -> str:
        return VIDEO_SUFFIX

    def _write_video(self, path: Path, values: np.ndarray) -> FileSums:
        constant = is_constant(values)
        gop, fps = len(values) if constant else self._gop, self._frame_rate(self._fps, mp4.FPS)
        data = mp4.encode_video(values, fps, gop, **self._video)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        self._written([path])
        return FileSums((zlib.crc32(data),), len(data), constant)


def _write_column(target: Path, scratch: Path, name: str, column: Column, kept: int, new: Sequence[np.ndarray]) -> None:
    """Write `scratch/<name>.npz`: the first `kept` rows of the file in `target`, then the new ones."""
    old = target / f"{name}{TABLE_SUFFIX}"
    dtypes = [part.dtype for part in new]
    if kept:
        dtypes.append(npz.read_header(old)[1])
    dtype = column.dtype
    if column.kind == "text":
        dtype = np.dtype(f"U{max(1, *(found.itemsize // (4 if found.kind == 'U' else 1) for found in dtypes))}")

    def blocks() -> Iterator[np.ndarray]:
        for block in npz.read_blocks(old, kept) if kept else ():
            yield np.char.decode(block, "utf-8") if block.dtype.kind == "S" else block
        yield from new

    rows = kept + sum(map(len, new))
    npz.write_arrays(scratch / old.name, dtype, (rows, *column.shape), blocks())
