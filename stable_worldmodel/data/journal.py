"""The journal beside a dataset: who recorded it and a checksum of every committed episode.

`<name>.journal` holds JSON lines, each followed by a tab and the CRC-32 of its text, so that a line torn by a crash is
recognised and ignored. The first line is the header; then comes one line per committed episode. A dataset without a
journal is complete and usable, there is only less to say about it.

A new dataset is built with its journal in a hidden folder, and both are moved into place one after the other. So the
journal of a dataset is the one that names it, beside it or still in that folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stable_worldmodel import __version__
from stable_worldmodel.data.columns import Column
from stable_worldmodel.errors import ContractError

JOURNAL_VERSION = 1

Record = dict[str, Any]
T = TypeVar("T")


def journal_path(dataset: Path) -> Path:
    """Where the journal of `dataset` lies."""
    return dataset.with_name(dataset.name + ".journal")


def building_path(dataset: Path) -> Path:
    """Where what is to appear at `dataset` is built: in a hidden folder of the same file system."""
    return dataset.with_name(f".{dataset.name}.partial") / dataset.name


def format_line(record: Record) -> bytes:
    """Return a line of a journal."""
    text = json.dumps(record, default=_plain, sort_keys=True).encode()
    return b"%s\t%08x\n" % (text, zlib.crc32(text))


def parse_line(line: bytes) -> Record | None:
    """Return the record in a line of a journal, or None when it is torn or damaged."""
    text, _, checksum = line.rpartition(b"\t")
    return json.loads(text) if checksum == b"%08x\n" % zlib.crc32(text) else None


def make_header(
    dataset_id: str, schema: Mapping[str, Column], metadata: Mapping[str, Any], first_episode: int
) -> Record:
    """Build the header: `first_episode` is the number of episodes that were there before the journal."""
    return {
        "kind": "header",
        "version": JOURNAL_VERSION,
        "tool": f"stable_worldmodel {__version__}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "dataset_id": dataset_id,
        "first_episode": first_episode,
        "columns": {
            name: {"dtype": column.type_name, "shape": list(column.shape)} for name, column in sorted(schema.items())
        },
        "metadata": dict(metadata),
    }


def episode_record(i: int, columns: Mapping[str, np.ndarray]) -> Record:
    """Describe episode `i` by the stored form of its columns: rows, seed, bytes and a CRC-32 per column."""
    seed = columns.get("seed")
    return {
        "kind": "episode",
        "i": i,
        "len": len(next(iter(columns.values()))),
        "seed": int(seed.flat[0]) if seed is not None and seed.dtype.kind in "iu" else None,
        "bytes": sum(values.nbytes for values in columns.values()),
        "crc32": {name: zlib.crc32(np.ascontiguousarray(values).data) for name, values in sorted(columns.items())},
    }


def read_journal(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield (record, end of its line in bytes) up to the first torn or damaged line."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            record = parse_line(line)
            if record is None:
                return
            end += len(line)
            yield record, end


def look_for(dataset: Path, read: Callable[[Path], T]) -> list[T]:
    """Return what `read` finds in journals that may be that of `dataset`: the one beside it, then one of a replacement.

    That one is read first, because it may be moved beside the dataset meanwhile. Empty findings are left out.
    """
    found: list[T] = []
    for journal in (journal_path(building_path(dataset)), journal_path(dataset)):
        with contextlib.suppress(FileNotFoundError):
            found.insert(0, read(journal))
    return [content for content in found if content]


def read_header(dataset: Path, dataset_id: str | None) -> Record | None:
    """Return the header of the journal that names the dataset at `dataset`, or None."""
    return next((header for header in look_for(dataset, first_record) if _names(header, dataset_id)), None)


def read_records(dataset: Path, dataset_id: str | None) -> list[Record]:
    """Return all records of the journal that names the dataset at `dataset`; nothing when there is none."""
    return next((records for records in look_for(dataset, all_records) if _names(records[0], dataset_id)), [])


def first_record(journal: Path) -> Record:
    """Return the first record of a journal; nothing when it is damaged."""
    with journal.open("rb") as file:
        return parse_line(file.readline()) or {}


def all_records(journal: Path) -> list[Record]:
    """Return the records of a journal up to the first torn or damaged line."""
    return [record for record, _ in read_journal(journal)]


def _names(header: Record, dataset_id: str | None) -> bool:
    return dataset_id is not None and header.get("dataset_id") == dataset_id


class Journal:
    """Appends records to a journal file; a torn last line is dropped first. `begin` must precede episode records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Record = {}
        self.num_episodes = 0
        self._file = path.open("ab")
        self._cut(max((end for _, end in read_journal(path)), default=0))

    def begin(self, header: Record, episodes: int) -> None:
        """Continue the journal of this dataset after at most `episodes` episodes, or start it with `header`."""
        keep = 0
        for record, end in read_journal(self.path):
            if record["kind"] == "header":
                if record["dataset_id"] != header["dataset_id"]:
                    break  # of a dataset that was here before
                self.header = record
                self.num_episodes = int(record["first_episode"])
            elif record["kind"] == "episode":
                if record["i"] != self.num_episodes or self.num_episodes >= episodes:
                    break
                self.num_episodes += 1
            keep = end
        if self.header:
            self._cut(keep)
            return
        self._cut(0)
        self.header = header
        self.num_episodes = int(header["first_episode"])
        self.append(header)

    def _cut(self, size: int) -> None:
        if self.path.stat().st_size > size:
            self._file.truncate(size)

    def append(self, record: Record) -> None:
        """Write one record and hand it to the operating system."""
        self._file.write(format_line(record))
        self._file.flush()
        self.num_episodes += record["kind"] == "episode"

    def sync(self) -> None:
        """Force everything written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `metadata` as it will be read back: JSON values, NumPy numbers and arrays made plain."""
    return json.loads(json.dumps(dict(metadata or {}), default=_plain))


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it does."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ContractError(f"metadata value {value!r} ({type(value).__name__}): expected JSON types, numbers or arrays")
