"""Checks a dataset in Lance tables. See `data.verify` for what is promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stable_worldmodel.data.formats.lance.append import keep
from stable_worldmodel.data.formats.lance.layout import TableLayout
from stable_worldmodel.data.formats.lance.location import Location
from stable_worldmodel.data.formats.lance.log import Logs, Rows
from stable_worldmodel.data.formats.lance.rows import float_list
from stable_worldmodel.data.formats.lance.schema import EPISODE, EPISODES, FRAMES, STEP
from stable_worldmodel.data.formats.lance.store import EPISODE_DATA, Store, checksums, open_store, stored_rows
from stable_worldmodel.data.formats.lance.writer import LanceWriter
from stable_worldmodel.data.lock import WriterLock, is_locked
from stable_worldmodel.data.verify import Report
from stable_worldmodel.errors import ContractError

FRAMES_AT_ONCE = 64


def verify_tables(location: Location, deep: bool, repair: bool) -> Report:
    """Check the tables of a dataset; with `repair`, keep the episodes before the first bad one."""
    report = Report(Path(location.anchor))
    live = is_locked(report.path)  # what is in the log is then its writer's business
    try:
        store = open_store(location)
    except ContractError as error:
        report.faults.append(str(error))
        return report
    report.episodes, report.rows = len(store.lengths), int(store.lengths.sum())
    if not live:
        _check_log(store, report)
    good = _check_episodes(store, _check_index(store, report), deep, report)
    if repair and report.faults:
        if not good:
            report.faults.append("no episode is good: nothing was cut; restore a copy or record it again")
            return report
        with WriterLock(report.path):
            keep(location, min(good, store.in_tables))
        with LanceWriter(location) as writer:  # takes from the log what it can, and brings the journal in line
            report.repaired_to = writer.num_episodes
    return report


def _check_log(store: Store, report: Report) -> None:
    if store.pending:
        report.faults.append(
            f"its writer died; other programs do not see its last {len(store.pending)} episodes until it is opened "
            "with mode 'append'"
        )
    logged = [episode.record["i"] for episode in Logs(store.location.log).episodes(store.frames.id)]
    if max(logged, default=-1) >= len(store.lengths):
        report.faults.append(f"episode {len(store.lengths)}: damaged in the log")
    if max(store.records, default=-1) >= len(store.lengths):
        report.faults.append(f"{max(store.records) + 1} episodes were recorded, {len(store.lengths)} are there")


def _check_index(store: Store, report: Report) -> int:
    """Return the number of leading episodes whose rows are numbered as they should be."""
    lengths = store.lengths[: store.in_tables]
    index = store.frames.read([EPISODE, STEP])
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    wrong = index[EPISODE].to_numpy() != np.repeat(np.arange(store.in_tables), lengths)
    wrong |= index[STEP].to_numpy() != np.arange(len(first)) - first
    if not wrong.any():
        return len(store.lengths)
    row = int(np.argmax(wrong))
    episode = int(np.searchsorted(np.cumsum(lengths), row, side="right"))
    report.faults.append(f"episode {episode}: row {row} has the wrong {EPISODE!r} or {STEP!r}")
    return episode


def _check_episodes(store: Store, episodes: int, deep: bool, report: Report) -> int:
    """Return the number of leading episodes that can be read and agree with the journal, where it describes them."""
    names = [name for name, place in store.places.items() if deep or place.column.kind != "image"]
    layout = TableLayout(store, store.places, STEP) if deep else None
    for i in range(episodes):
        try:
            rows = stored_rows(store, i, names)
            report.checked += i in store.records
            _compare(store, i, names, rows)
            if layout is not None:
                _decode(layout, i)
        except ContractError as error:
            report.faults.append(f"episode {i}: {error}")
            return i
    return episodes


def _compare(store: Store, i: int, names: list[str], rows: Rows) -> None:
    """ContractError when an episode is not what was recorded, or its rows are not what its exact values say."""
    recorded = store.records.get(i, {}).get("crc32", {})
    found = checksums({name: store.places[name] for name in names}, store.data_names, rows)
    wrong = [name for name, crc in found.items() if recorded.get(name, crc) != crc]
    for name in names:
        place = store.places[name]
        if place.exact and name not in wrong:
            values = np.frombuffer(rows[EPISODES].column(place.exact)[0].as_py(), place.column.dtype)
            expected = float_list(values.reshape(-1, *place.column.shape)).flatten().to_numpy()
            stored = rows[FRAMES].column(place.field).flatten().to_numpy()
            wrong += [] if np.array_equal(expected, stored, equal_nan=True) else [name]
    if wrong:
        labels = sorted("its per-episode data" if name == EPISODE_DATA else name for name in wrong)
        raise ContractError(f"differs from what was recorded, in {labels}")


def _decode(layout: TableLayout, i: int) -> None:
    """Decode all images of an episode."""
    rows = layout.index.rows_of(i)
    for frames in layout.frames.values():
        for start in range(0, len(rows), FRAMES_AT_ONCE):
            frames.read(rows[start : start + FRAMES_AT_ONCE], None)
