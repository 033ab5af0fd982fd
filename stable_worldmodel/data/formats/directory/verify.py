"""Checks a directory dataset. See `data.verify` for what is promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.formats.directory.record import DirectoryLayout, record_of, stored_record
from stable_worldmodel.data.formats.hdf5.verify import check_index
from stable_worldmodel.data.journal import Record, read_records
from stable_worldmodel.data.lock import WriterLock, is_locked
from stable_worldmodel.data.verify import Report
from stable_worldmodel.errors import ContractError

_FRAMES_AT_ONCE = 64
_NOT_CUT = "no episode is good: nothing was cut; restore a copy or record it again"

Table = Mapping[str, np.ndarray]


def verify_directory(
    path: Path,
    open_layout: Callable[..., DirectoryLayout],
    open_writer: Callable[..., Any],
    deep: bool,
    repair: bool,
) -> Report:
    """Check one dataset; with `repair`, keep the episodes before the first bad one.

    open_layout: called with the path and `damage`, a list that takes the faults found while reading.
    open_writer: called with the path and `keep`.

    A dataset without one good episode is reported and left as it is.
    """
    path = path.expanduser().resolve()
    report = Report(path)
    live = is_locked(path)
    try:
        layout = open_layout(path, damage=report.faults)
        table = {name: layout.load(name) for name in layout.columns if name not in layout.frames}
    except ContractError as error:
        report.faults += [str(error), *([_NOT_CUT] if repair else [])]
        return report
    index = layout.index
    report.episodes, report.rows = len(index.lengths), int(index.lengths.sum())
    if layout.logged and not live:
        report.faults.append(
            f"its writer died; other programs do not see its last {len(layout.logged)} episodes until it is opened "
            "with mode 'append'"
        )
    good = check_index(index.lengths, index.offsets, report)
    good = min(good, _check_columns(layout, table, report))
    good = _check_episodes(layout, path, table, deep, good, report)
    if repair and report.faults:
        if good:
            with WriterLock(path):
                layout.restore(table)
            open_writer(path, keep=good).close()
            report.repaired_to = good
        else:
            report.faults.append(_NOT_CUT)
    return report


def _check_columns(layout: DirectoryLayout, table: Table, report: Report) -> int:
    """Return the number of leading episodes that all columns reach."""
    ends = layout.index.offsets + layout.index.lengths
    good = len(ends)
    for values in table.values():
        if len(values) < ends.max(initial=0):  # the layout has told why
            good = min(good, int(np.argmax(ends > len(values))))
    if layout.lost:
        report.faults.append(str(layout.lost))
    return 0 if layout.lost.columns else good


def _check_episodes(layout: DirectoryLayout, path: Path, table: Table, deep: bool, good: int, report: Report) -> int:
    """Return the number of leading episodes that agree with the journal, where it describes them."""
    damaged = bool(report.faults) and not layout.logged
    records = _records(path, layout.dataset_id)
    for i in range(good):
        recorded = records.get(i)
        if recorded is None and damaged:
            report.faults.append(f"episode {i}: nothing tells whether the damage concerns it")
            return i
        report.checked += recorded is not None
        try:
            fault = _episode_fault(layout, table, i, recorded, deep)
        except (OSError, ContractError) as error:
            fault = str(error)
        if fault:
            report.faults.append(f"episode {i}: {fault}")
            return i
    return good


def _records(path: Path, dataset_id: str | None) -> dict[int, Record]:
    """The journal's lines about episodes, by episode."""
    return {record["i"]: record for record in read_records(path, dataset_id) if record["kind"] == "episode"}


def _episode_fault(layout: DirectoryLayout, table: Table, i: int, recorded: Record | None, deep: bool) -> str | None:
    """Return what is wrong with an episode, or None."""
    rows = layout.index.rows_of(i)
    if deep:
        found = stored_record(layout, table, i)
    else:
        found = record_of(i, len(rows), {name: values[rows] for name, values in table.items()}, {})
        for frames in layout.frames.values():
            missing = next((file for file in frames.files(rows) if not file.exists()), None)
            if missing:
                return f"{missing} is missing"
    if recorded is not None:
        crcs = recorded["crc32"]
        wrong = sorted(name for name, crc in found["crc32"].items() if crcs.get(name) != crc)
        if wrong or recorded["len"] != len(rows):
            return f"differs from what was recorded, in {wrong or 'its length'}"
    if deep:
        for frames in layout.frames.values():
            for start in range(0, len(rows), _FRAMES_AT_ONCE):
                frames.read(rows[start : start + _FRAMES_AT_ONCE], None)
    return None
