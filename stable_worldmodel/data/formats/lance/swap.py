"""Putting new tables into the place of old ones. The rule is that of `formats.shared.swap`."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from stable_worldmodel.data.formats.directory.row_log import log_path
from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance.location import Location
from stable_worldmodel.data.formats.lance.schema import FRAMES, TABLES
from stable_worldmodel.data.formats.shared.disk import put_in_place, sync
from stable_worldmodel.data.journal import building_path, journal_path


def publish_tables(location: Location) -> None:
    """Put the tables that were built for `location` there, and their journal beside them. The caller holds the lock.

    The frames come last: without them nothing of the rest is visible, and a table is read in the version of theirs.
    """
    path = Path(location.anchor)
    new = location.moved(building_path(path))
    built = {table for table in TABLES if new.path(table).exists()}
    replacing = bool(tables.versions(location.path(FRAMES)))
    if location.has_folder:
        put_in_place(building_path(path), path)
    else:
        for table in (table for table in TABLES if table in built):
            _put(new.path(table), location.path(table), replacing)
    with suppress(FileNotFoundError):  # copies of foreign datasets have none
        journal_path(building_path(path)).replace(journal_path(path))
    if replacing:
        log_path(path).unlink(missing_ok=True)
        for table in TABLES:
            _remove_old(location.path(table), table in built)
    sync([path.parent])


def _put(source: Path, place: Path, replacing: bool) -> None:
    if replacing and tables.versions(place):
        tables.replace(place, source)
        shutil.rmtree(source)
    else:
        shutil.rmtree(place, ignore_errors=True)  # of a writer that was killed right here
        source.rename(place)


def _remove_old(place: Path, is_new: bool) -> None:
    """Remove what a place has of the dataset that was replaced."""
    if is_new:
        tables.clean(place, timedelta(0))
    elif place.exists():
        shutil.rmtree(place)
