"""Which tables a path means."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stable_worldmodel.data.formats.lance.schema import EPISODES, FRAMES, VIDEOS
from stable_worldmodel.errors import ContractError, NotFoundError

SUFFIX = ".lance"
SUFFIXES = {FRAMES: SUFFIX, EPISODES: "_episodes.lance", VIDEOS: "_videos.lance"}


@dataclass(frozen=True)
class Location:
    """Where the tables of a dataset are: `<folder>/<stem>.lance` and beside it those with one row per episode.

    `folder` is a path or a URL. Journal, lock and log lie beside `anchor` and are named after it: the table of frames,
    or the folder when the dataset has it for itself.
    """

    folder: str
    stem: str
    anchor: str

    @classmethod
    def of_table(cls, path: Path) -> Location:
        """A dataset whose table of frames is at `path`."""
        return cls(str(path.parent), path.name.removesuffix(SUFFIX), str(path))

    @classmethod
    def of_directory(cls, path: Path, stem: str | None = None) -> Location:
        """A dataset that has the directory `path` for itself; its tables are named after it."""
        return cls(str(path), stem or path.name, str(path))

    def uri(self, table: str) -> str:
        return f"{self.folder}/{self.stem}{SUFFIXES[table]}"

    def path(self, table: str) -> Path:
        return Path(self.uri(table))

    @property
    def remote(self) -> bool:
        return "://" in self.folder

    @property
    def has_folder(self) -> bool:
        """Whether the dataset has the folder for itself."""
        return self.folder == self.anchor

    def moved(self, anchor: Path) -> Location:
        """The same tables with another anchor."""
        return self.of_directory(anchor, self.stem) if self.has_folder else self.of_table(anchor)

    def others(self) -> list[str]:
        """What else is in the folder that the dataset should have for itself."""
        own = {self.path(table).name for table in SUFFIXES}
        return sorted({entry.name for entry in Path(self.folder).iterdir()} - own) if self.has_folder else []


def locate(path: str | os.PathLike[str], table_name: str | None = None) -> Location:
    """Find the tables that `path` means: a table, or a directory (or a database URL) that holds them.

    ContractError when there are several and `table_name` does not choose, NotFoundError when there are none.
    """
    text = os.fspath(path)
    remote = "://" in text
    text = text.rstrip("/") if remote else str(Path(text).expanduser().resolve())
    if text.endswith(SUFFIX) and table_name is None:
        folder, _, name = text.rpartition("/")
        return _location(folder, name[: -len(_suffix_of(text))], remote)
    if table_name is None and remote:
        raise ContractError(f"{text}: expected a URL ending in {SUFFIX!r}, or table_name=")
    return _location(text, table_name.removesuffix(SUFFIX) if table_name else _only_dataset(Path(text)), remote)


def _location(folder: str, stem: str, remote: bool) -> Location:
    alone = not remote and has_videos(Path(f"{folder}/{stem}{SUFFIX}"))
    return Location(folder, stem, folder if alone else f"{folder}/{stem}{SUFFIX}")


def has_videos(table: Path) -> bool:
    """Whether a table of frames has its images in a table of videos beside it."""
    return table.with_name(table.name.removesuffix(SUFFIX) + SUFFIXES[VIDEOS]).is_dir()


def is_side_table(path: str) -> bool:
    """Whether `path` names a table that belongs to another one."""
    return _suffix_of(path) != SUFFIX


def _suffix_of(path: str) -> str:
    for suffix in (SUFFIXES[EPISODES], SUFFIXES[VIDEOS]):
        if path.endswith(suffix) and Path(path.removesuffix(suffix) + SUFFIX).is_dir():
            return suffix
    return SUFFIX


def datasets_in(folder: Path) -> list[str]:
    """The stems of the datasets in a directory."""
    entries = folder.iterdir() if folder.is_dir() else ()
    names = [entry.name for entry in entries if entry.name.endswith(SUFFIX) and not entry.name.startswith(".")]
    return sorted(name.removesuffix(SUFFIX) for name in names if not is_side_table(str(folder / name)))


def _only_dataset(folder: Path) -> str:
    found = datasets_in(folder)
    if len(found) > 1:
        raise ContractError(f"{folder}: holds the tables {found}; choose one with table_name=")
    if not found:
        raise NotFoundError(f"{folder}: no Lance table ({SUFFIX!r}) there")
    return found[0]
