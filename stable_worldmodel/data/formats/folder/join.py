"""Joins `folder` or `video` datasets in a new directory: files of frames are linked or copied, tables written anew."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.composition import column_differences
from stable_worldmodel.data.formats.directory.record import record_of
from stable_worldmodel.data.formats.folder import npz_table as npz
from stable_worldmodel.data.formats.folder.layout import TABLE_SUFFIX, FolderIndex, FolderLayout, write_index
from stable_worldmodel.data.formats.shared.disk import sync
from stable_worldmodel.data.journal import Journal, journal_path, make_header, read_records
from stable_worldmodel.errors import ContractError

_EPISODE_FILE = re.compile(r"ep_(\d+)(?P<rest>[_.].*)")


def join_directories(sources: Sequence[Path], new: Path, metadata: Mapping[str, Any]) -> np.ndarray:
    """Write the episodes of `sources`, in order, to the directory `new`; returns their lengths (E,).

    The sources are closed and have a journal, whose checksums are carried over. Files of frames become other names of
    the same files where the file system allows it, else copies, and are never decoded. The first source decides about
    dtypes. Everything is on the disk when this returns.

    Raises ContractError when the columns differ, or the kinds of file that their frames are in.
    """
    layouts = [FolderLayout(path) for path in sources]
    first = layouts[0]
    for layout in layouts:
        if layout.logged or layout.lost or layout.dataset_id is None:
            raise ContractError(f"{layout.path}: {layout.lost or 'it is not closed, or has no journal'}")
        faults = column_differences(_kinds(first.columns), _kinds(layout.columns))
        if faults or layout.suffixes != first.suffixes:
            listed = "\n  ".join(faults or [f"files {layout.suffixes} instead of {first.suffixes}"])
            raise ContractError(f"{layout.path} does not match {first.path}:\n  {listed}")
    new.mkdir()
    dtypes = {name: _write_column(layouts, new, name) for name in first.columns if name not in first.frames}
    index, written = _joined_index(layouts), list[Path]()
    for name in first.frames:
        (new / name).mkdir()
        before = 0
        for layout in layouts:
            written += _link_frames(layout.path / name, new / name, before, len(layout.index.lengths))
            before += len(layout.index.lengths)
    write_index(new, index)
    with Journal(journal_path(new)) as journal:
        journal.begin(make_header(str(index.dataset_id), first.columns, metadata, first_episode=0), 0)
        for layout in layouts:
            _copy_journal(layout, journal, dtypes)
        journal.sync()
    sync([*written, *new.glob(f"*{TABLE_SUFFIX}"), *(new / name for name in first.frames), new])
    return index.lengths


def _kinds(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns without the size of their numbers."""
    wide = {"i": np.int64, "u": np.int64, "f": np.float64, "c": np.complex128}
    return {
        name: Column(np.dtype(wide.get(column.dtype.kind, column.dtype)), column.shape, column.kind)
        for name, column in columns.items()
    }


def _joined_index(layouts: Sequence[FolderLayout]) -> FolderIndex:
    stored = [layout.stored for layout in layouts]
    names = sorted({name for index in stored for name in index.constant})
    rows = np.cumsum([0, *(index.num_rows for index in stored)])
    unsealed = [i for i, index in enumerate(stored) if index.sealed_from]
    episodes = np.cumsum([0, *(len(index.lengths) for index in stored)])
    return FolderIndex(
        np.concatenate([index.lengths for index in stored]),
        np.concatenate([index.offsets + start for index, start in zip(stored, rows, strict=False)]),
        uuid.uuid4().hex,
        {name: np.concatenate([index.flags(name) for index in stored]) for name in names},
        int(episodes[unsealed[-1]] + stored[unsealed[-1]].sealed_from) if unsealed else 0,
    )


def _write_column(layouts: Sequence[FolderLayout], new: Path, name: str) -> np.dtype:
    """Write one table of numbers or texts of all parts; returns its dtype."""
    files = [layout.path / f"{name}{TABLE_SUFFIX}" for layout in layouts]
    dtypes = [npz.read_header(file)[1] for file in files]
    dtype = dtypes[0]
    if dtype.kind in "US":
        dtype = np.dtype(f"U{max(found.itemsize // (4 if found.kind == 'U' else 1) for found in dtypes)}")
    rows = [layout.stored.num_rows for layout in layouts]

    def blocks() -> Iterator[np.ndarray]:
        for file, count in zip(files, rows, strict=True):
            for block in npz.read_blocks(file, count):
                values = np.char.decode(block, "utf-8") if block.dtype.kind == "S" else block
                cast = values.astype(dtype, copy=False)
                if dtype.kind in "iu" and not np.array_equal(cast, values):
                    raise ContractError(f"{file}: values do not fit into {dtype.name}, the dtype of the first episodes")
                yield cast

    npz.write_arrays(new / files[0].name, dtype, (sum(rows), *layouts[0].columns[name].shape), blocks())
    return dtype


def _link_frames(source: Path, target: Path, before: int, episodes: int) -> list[Path]:
    """Give the files of `episodes` episodes a name in `target`, numbered from `before` on; returns those copied."""
    names = []
    with os.scandir(source) as entries:
        for entry in entries:
            found = _EPISODE_FILE.fullmatch(entry.name)
            if found and int(found[1]) < episodes:
                names.append((entry.name, f"ep_{int(found[1]) + before}{found['rest']}"))
    copied: list[Path] = []
    for old, name in names:
        old, name = f"{source}{os.sep}{old}", f"{target}{os.sep}{name}"
        try:
            if not copied:
                os.link(old, name)
                continue
        except OSError:  # too many links, or a file system that has none
            pass
        shutil.copyfile(old, name)
        copied.append(Path(name))
    return copied


def _copy_journal(layout: FolderLayout, journal: Journal, dtypes: Mapping[str, np.dtype]) -> None:
    """Carry the records of the episodes over, numbered on; checksums of cast columns are made anew."""
    records = [record for record in read_records(layout.path, layout.dataset_id) if record["kind"] == "episode"]
    if [record["len"] for record in records] != layout.index.lengths.tolist():
        raise ContractError(
            f"{layout.path}: its journal has {len(records)} episodes, the index {len(layout.index.lengths)}"
        )
    changed = {
        name: layout.load(name).astype(dtype)
        for name, dtype in dtypes.items()
        if layout.columns[name].kind != "text" and layout.columns[name].dtype != dtype
    }
    for i, record in enumerate(records):
        rows = layout.index.rows_of(i)
        cast = record_of(0, len(rows), {name: values[rows] for name, values in changed.items()}, {}) if changed else {}
        crcs = {**record["crc32"], **cast.get("crc32", {})}
        journal.append({**record, "i": journal.num_episodes, "crc32": crcs})
