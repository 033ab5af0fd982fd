"""Moving what was built in the hidden folder of a dataset into its place, so that no instant shows a mixture.

The dataset goes first, in one step; then its journal; then what was left of the old dataset. Readers take the journal
that names the dataset they see, from beside it or from the hidden folder, so they miss nothing in between. The next
writer ends what a killed one has begun.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stable_worldmodel.data.formats.shared.disk import put_in_place, sync
from stable_worldmodel.data.journal import building_path, first_record, journal_path
from stable_worldmodel.errors import ContractError


def publish(path: Path) -> None:
    """Put the dataset that was built for `path` there, and its journal beside it. The caller holds the lock."""
    new = building_path(path)
    put_in_place(new, path)
    with suppress(FileNotFoundError):  # copies of foreign datasets have none
        journal_path(new).replace(journal_path(path))
    sync([path.parent])


def finish_publish(path: Path, identity: Callable[[], str | None]) -> None:
    """End a `publish` that was killed. The caller holds the lock.

    identity: says which dataset is at `path`; None where only its place tells.
    """
    new = building_path(path)
    old = new.with_name(f"{new.name}.old")  # see `put_in_place`
    if old.exists() and not path.exists():
        old.replace(path)
    if not (journal_path(new).exists() and path.exists()):
        return
    found = None
    with suppress(ContractError, OSError):
        found = identity()
    if found is None:
        has_moved = not new.exists()
    else:
        beside, hidden = (_dataset_id(journal_path(place)) for place in (path, new))
        has_moved = hidden == found != beside
    if has_moved:
        journal_path(new).replace(journal_path(path))


def discard(path: Path) -> None:
    """Remove the hidden folder. The journal first: alone it would say that the dataset has moved into place."""
    new = building_path(path)
    journal_path(new).unlink(missing_ok=True)
    if new.parent.exists():
        shutil.rmtree(new.parent)


def _dataset_id(journal: Path) -> str | None:
    with suppress(FileNotFoundError):
        return first_record(journal).get("dataset_id")
    return None
