"""Checks an HDF5 dataset file. See `data.verify` for what is promised."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.formats.hdf5 import layout
from stable_worldmodel.data.formats.hdf5.repair import is_marked_open, needs_repair, read_superblock, repair_superblock
from stable_worldmodel.data.formats.hdf5.writer import HDF5Writer
from stable_worldmodel.data.journal import read_header, read_records
from stable_worldmodel.data.lock import WriterLock, is_locked
from stable_worldmodel.data.verify import Report
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import h5py


def verify_file(path: Path, deep: bool, repair: bool) -> Report:
    """Check one file; with `repair`, keep the episodes before the first bad one."""
    report = Report(path)
    live = is_locked(path)  # a writer is at work: the open mark and rows beyond the last episode are its own
    if not live and is_marked_open(read_superblock(path)):
        report.faults.append("its writer died; opening it with mode 'append' puts that right")
    with layout.damage_explained(path), layout.open_for_reading(path) as file:
        lengths, offsets = layout.episode_index(file)
        report.episodes, report.rows = len(lengths), int(lengths.sum())
        good = check_index(lengths, offsets, report)
        good = min(good, _check_columns(file, offsets + lengths, live, report))
        lost = lost_columns(read_header(path, layout.identity_of(file)), layout.columns_of(file))
        if lost:
            report.faults.append(f"the columns {lost} cannot be read at all; restore the file from a copy")
        else:
            good = min(good, _check_journal(file, deep, lengths[:good], offsets[:good], report))
    if repair and report.faults and not lost:
        _keep(path, good)
        report.repaired_to = good
    return report


def lost_columns(header: Mapping[str, Any] | None, columns: Collection[str]) -> list[str]:
    """Return the columns that a journal describes and the file does not show."""
    return sorted((header or {"columns": {}})["columns"].keys() - set(columns))


def _keep(path: Path, episodes: int) -> None:
    """Cut the file after its first `episodes` episodes."""
    with WriterLock(path):
        if needs_repair(path, read_superblock(path)):
            repair_superblock(path)
        try:
            with layout.open_for_append(path) as file:
                lengths, offsets = layout.episode_index(file)
                rows = int((offsets + lengths)[:episodes].max(initial=0))
                columns = layout.columns_of(file)
                layout.cut(layout.datasets_of(file, columns), layout.sizes_of(columns, rows, episodes))
        except RuntimeError as error:  # the library's, about damage beyond the rows
            raise ContractError(
                f"{path}: too much is damaged to be cut off in place ({error}); convert it to save what can be read"
            ) from error
    HDF5Writer(path).close()  # brings the journal in line


def check_index(lengths: np.ndarray, offsets: np.ndarray, report: Report) -> int:
    """Return the number of leading episodes that have rows of their own."""
    order = np.argsort(offsets, kind="stable")
    starts, ends = offsets[order], (offsets + lengths)[order]
    bad = (lengths <= 0) | (offsets < 0)
    bad[np.maximum(order[1:], order[:-1])[starts[1:] < ends[:-1]]] = True  # of two that overlap, the later one
    if not bad.any():
        return len(lengths)
    first = int(np.argmax(bad))
    report.faults.append(f"episode {first}: rows {offsets[first]} + {lengths[first]} overlap another's or are none")
    return first


def _check_columns(file: h5py.File, ends: np.ndarray, live: bool, report: Report) -> int:
    """Return the number of leading episodes for which every column is long enough."""
    good, rows = len(ends), int(ends.max(initial=0))
    for name, column in layout.columns_of(file).items():
        found, sizes = column.readable_rows(), column.sizes(rows)
        if found < rows:
            good = min(good, int(np.argmax(ends > found)))
            report.faults.append(f"column {name!r}: {found} rows, the episodes need {rows}")
        for path, dataset in column.datasets.items():
            if len(dataset) > sizes[path] and not live:
                report.faults.append(
                    f"column {path!r}: {len(dataset) - sizes[path]} rows belong to no complete episode"
                )
    return good


def _check_journal(file: h5py.File, deep: bool, lengths: np.ndarray, offsets: np.ndarray, report: Report) -> int:
    """Return the number of leading episodes that agree with the journal, where it describes them."""
    columns = layout.columns_of(file)
    images = {name for name, stored in columns.items() if stored.column.kind == "image"}
    for record in read_records(report.path, layout.identity_of(file)):
        if record["kind"] != "episode" or record["i"] >= len(lengths):
            continue
        i = record["i"]
        rows = slice(offsets[i], offsets[i] + lengths[i])
        checksums = {name: crc for name, crc in record["crc32"].items() if deep or name not in images}
        wrong = [
            name
            for name, crc in checksums.items()
            if name not in columns or zlib.crc32(columns[name].read(rows).data) != crc
        ]
        report.checked += 1
        if record["len"] != lengths[i] or wrong:
            report.faults.append(f"episode {i}: differs from what was recorded, in {wrong or 'its length'}")
            return i
    return len(lengths)
