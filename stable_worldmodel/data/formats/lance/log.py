"""Episodes that are durable and not yet in the tables.

A Lance version per episode costs more than encoding it does, so episodes are first appended to a log beside the
dataset, `<name>.pending/<first episode>.log`, and go into the tables many at a time. Readers see both.

A record is one line of JSON and its CRC-32, as in the journal, followed by the episode's rows of each table as Arrow
streams. Line and streams begin at multiples of 64 bytes, so that arrays are used where they lie in the mapped file.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_worldmodel.data.formats.lance.tables import sync_path

if TYPE_CHECKING:
    import pyarrow as pa

ALIGNMENT = 64

Rows = dict[str, "pa.RecordBatch"]  # of one episode, by table


@dataclass(frozen=True)
class Pending:
    """One logged episode: its journal record and its rows of each table, in mapped memory."""

    record: dict[str, Any]
    rows: Rows


class Log:
    """Appends episodes to a log file. Raises OSError, and leaves no part of the episode, when the disk is full."""

    def __init__(self, folder: Path, first_episode: int, dataset_id: str) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{first_episode:09d}.log"
        self.size = 0
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._append(_line({"dataset_id": dataset_id, "parts": []}), [])

    def append(self, record: Mapping[str, Any], rows: Rows) -> None:
        """Write one episode and hand it to the operating system."""
        streams = {table: _stream(batch) for table, batch in rows.items()}
        parts = [[table, stream.size] for table, stream in streams.items()]
        self._append(_line({"record": record, "parts": parts}), list(streams.values()))

    def _append(self, line: bytes, streams: list[pa.Buffer]) -> None:
        pieces: list[Any] = []
        for piece in (line, *streams):
            pieces += [piece, b"\0" * (-len(piece) % ALIGNMENT)]
        left, size = b"".join(pieces), self.size
        try:
            while left:
                written = os.pwrite(self._fd, left, size)
                left, size = left[written:], size + written
        except OSError:
            self.cut(self.size)
            raise
        self.size = size

    def cut(self, size: int) -> None:
        """Forget what was appended beyond `size` bytes."""
        os.ftruncate(self._fd, size)
        self.size = size

    def sync(self) -> None:
        """Force everything written to the disk."""
        os.fsync(self._fd)
        sync_path(self.path.parent)

    def close(self) -> None:
        os.close(self._fd)


class Logs:
    """The log files of a dataset as they are now, mapped: what a writer adds or removes later does not matter."""

    def __init__(self, folder: Path) -> None:
        self._maps: list[mmap.mmap] = []
        for path in sorted(folder.glob("*.log")) if folder.is_dir() else ():
            try:
                with path.open("rb") as file:
                    self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except (FileNotFoundError, ValueError):  # removed just now, or still empty
                continue

    def episodes(self, dataset_id: str | None, first: int | None = None) -> Iterator[Pending]:
        """Yield the logged episodes that belong to the dataset; from `first` on without a gap, when it is given."""
        expected = first
        for data in self._maps:
            for pending in _records(data, dataset_id):
                if expected is None:
                    yield pending
                elif pending.record["i"] == expected:
                    yield pending
                    expected += 1


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry).encode()
    return b"%s\t%08x\n" % (text, zlib.crc32(text))


def _stream(batch: pa.RecordBatch) -> pa.Buffer:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def _records(data: mmap.mmap, dataset_id: str | None) -> Iterator[Pending]:
    """Yield the whole records of a log file up to the first torn one; none when it is another dataset's."""
    import pyarrow as pa

    view, at = pa.py_buffer(data), 0
    while at < len(data):
        end = data.find(b"\n", at) + 1
        text, _, checksum = data[at:end].rpartition(b"\t")
        if not end or checksum != b"%08x\n" % zlib.crc32(text):
            return
        entry = json.loads(text)
        if at == 0 and entry.get("dataset_id") != dataset_id:
            return
        at = _aligned(end)
        rows: Rows = {}
        for table, size in entry["parts"]:
            if at + size > len(data):
                return
            try:
                rows[table] = pa.ipc.open_stream(view.slice(at, size)).read_next_batch()
            except (pa.ArrowInvalid, OSError, StopIteration):  # the power failed before it reached the disk
                return
            at = _aligned(at + size)
        if "record" in entry:
            yield Pending(entry["record"], rows)


def _aligned(position: int) -> int:
    return position + -position % ALIGNMENT
