"""Checks a dataset in Lance tables. See `data.verify` for what is promised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stable_worldmodel.data.formats.directory.row_log import log_path
from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance.layout import TableLayout
from stable_worldmodel.data.formats.lance.location import Location
from stable_worldmodel.data.formats.lance.rows import Rows, checksums, float_list, stored_numbers
from stable_worldmodel.data.formats.lance.schema import EPISODE, FRAMES, STEP, TABLES
from stable_worldmodel.data.formats.lance.store import Store, open_store
from stable_worldmodel.data.formats.lance.writer import LanceWriter, keep_episodes
from stable_worldmodel.data.lock import WriterLock, is_locked
from stable_worldmodel.data.verify import Report
from stable_worldmodel.errors import ContractError

ROWS_AT_ONCE, FRAMES_AT_ONCE = 4096, 64
NOT_CUT = "no episode is good: nothing was cut; restore a copy or record it again"


def verify_tables(location: Location, deep: bool, repair: bool) -> Report:
    """Check the tables of a dataset; with `repair`, keep the episodes before the first bad one."""
    report = Report(Path(location.anchor))
    live = is_locked(report.path)  # what is in the log is then its writer's business
    try:
        store = open_store(location)
    except ContractError as error:
        report.faults.append(str(error))
        if not repair or not _salvage(location):
            report.faults += [NOT_CUT] * repair
            return report
        store = open_store(location)
    report.episodes, report.rows = len(store.lengths), int(store.lengths.sum())
    if not live:
        _check_log(store, report)
    good = _check_episodes(store, _check_index(store, report), deep, report)
    if repair and report.faults:
        if not good:
            report.faults.append(NOT_CUT)
            return report
        with WriterLock(report.path):
            keep_episodes(location, min(good, store.in_tables))
        with LanceWriter(location) as writer:  # takes from the log what it can, and brings the journal in line
            report.repaired_to = writer.num_episodes
    return report


def _salvage(location: Location) -> bool:
    """Cut tables with files that cannot be read to the episodes before. False when that does not help."""
    with WriterLock(Path(location.anchor)):
        try:
            present = [path for path in map(location.path, TABLES) if tables.versions(path)]
            for path in present:
                tables.drop_torn_versions(path)
            numbers = {path: tables.readable(path, EPISODE) for path in present}
            whole = min(len(np.unique(found[found >= 0])) for found in numbers.values())
            if not whole:
                return False
            for path in reversed(present):
                tables.keep_readable(path, len(numbers[path]))
            keep_episodes(location, whole)
            open_store(location)
        except ContractError:
            return False
    return True


def _check_log(store: Store, report: Report) -> None:
    logged = len(store.lengths) - store.in_tables
    if logged:
        report.faults.append(
            f"its writer died; other programs do not see its last {logged} episodes until it is opened with mode "
            "'append'"
        )
    elif log_path(report.path).exists() and log_path(report.path).stat().st_size:
        report.faults.append(f"{log_path(report.path)} is damaged")
    if store.losses:
        report.faults.append(store.losses)


def _check_index(store: Store, report: Report) -> int:
    """Return the number of leading episodes whose rows are numbered as they should be."""
    lengths = store.lengths
    index = store.frames.read([EPISODE, STEP])
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    wrong = index[EPISODE].to_numpy() != np.repeat(np.arange(len(lengths)), lengths)
    wrong |= index[STEP].to_numpy() != np.arange(len(first)) - first
    if not wrong.any():
        return len(lengths)
    row = int(np.argmax(wrong))
    episode = int(np.searchsorted(np.cumsum(lengths), row, side="right"))
    report.faults.append(f"episode {episode}: row {row} has the wrong {EPISODE!r} or {STEP!r}")
    return episode


def _check_episodes(store: Store, count: int, deep: bool, report: Report) -> int:
    """Return the number of leading episodes that can be read and agree with the journal, where it describes them."""
    names = [name for name, place in store.places.items() if deep or place.column.kind != "image"]
    layout = TableLayout(store, store.places, STEP)
    good = 0
    try:
        for rows in _episodes(store, 0, count, names):
            report.checked += good in store.records
            _compare(store, good, names, rows)
            if deep:
                _decode(layout, good)
            good += 1
    except ContractError as error:
        report.faults.append(f"episode {good}: {error}")
    return good


def _episodes(store: Store, first: int, last: int, names: list[str]) -> Iterator[Rows]:
    """Yield the rows of the episodes [first, last): many are read at a time, fewer around damage."""
    if last - first > 1 and store.lengths[first:last].sum() <= ROWS_AT_ONCE:
        with contextlib.suppress(ContractError):
            yield from [*store.episodes(first, last, names)]
            return
    if last - first > 1:
        middle = (first + last) // 2
        yield from _episodes(store, first, middle, names)
        yield from _episodes(store, middle, last, names)
    elif last > first:
        yield from store.episodes(first, last, names)


def _compare(store: Store, i: int, names: list[str], rows: Rows) -> None:
    """ContractError when an episode is not what was recorded, or the copies for other tools are none."""
    places = {name: store.places[name] for name in names}
    for name, crc in checksums(places, store.data_names, rows).items():
        store.check(name, {i: crc})
    for place in places.values():
        if place.copy:
            expected = float_list(stored_numbers(place, rows)).flatten().to_numpy()
            if not np.array_equal(expected, rows[FRAMES].column(place.copy).flatten().to_numpy(), equal_nan=True):
                raise ContractError(f"{store.frames.uri}: {place.copy!r} is not what was recorded")


def _decode(layout: TableLayout, i: int) -> None:
    """Decode all images of an episode."""
    rows = layout.index.rows_of(i)
    for frames in layout.frames.values():
        for start in range(0, len(rows), FRAMES_AT_ONCE):
            frames.read(rows[start : start + FRAMES_AT_ONCE], None)
