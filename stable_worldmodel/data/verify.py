"""Checks a dataset on disk against its own index and journal."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.data.journal import building_path, journal_path
from stable_worldmodel.data.lock import DatasetLockedError, WriterLock
from stable_worldmodel.data.registry import PathLike, format_of


@dataclass
class Report:
    """What `verify` found. `ok` when there are no faults."""

    path: Path
    episodes: int = 0  # complete ones
    rows: int = 0
    checked: int = 0  # episodes whose checksums were compared; foreign datasets have none
    faults: list[str] = field(default_factory=list)  # one sentence each
    repaired_to: int | None = None  # episodes left by the repair

    @property
    def ok(self) -> bool:
        return not self.faults


def verify(
    name: PathLike,
    deep: bool = False,
    *,
    repair: bool = False,
    format: str | None = None,
    cache_dir: PathLike | None = None,
) -> Report:
    """Check the episode index, the lengths of the columns and the journal's checksums.

    deep: also check the images, which means reading all of them.
    repair: when there are faults, drop the first episode that is not good and all after it. Nothing is guessed.
    """
    path = dataset_path(name, cache_dir)
    _finish_publish(path)
    return format_of(path, format).verify(path, deep, repair)


def _finish_publish(path: Path) -> None:
    """Let the journal of a dataset follow it, if its writer was killed in between; what is beside it is another's."""
    from stable_worldmodel.data.formats.shared.swap import finish_publish

    if journal_path(building_path(path)).exists():
        with suppress(OSError, DatasetLockedError), WriterLock(path):
            finish_publish(path, lambda: None)
