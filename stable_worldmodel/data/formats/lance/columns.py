"""Reading the numbers, texts and per-episode values of a store. What the journal has checksums of is compared."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import decode_text
from stable_worldmodel.data.formats.lance.rows import numbers, texts_of
from stable_worldmodel.data.formats.lance.schema import EPISODES, FRAMES, Place
from stable_worldmodel.data.formats.lance.store import EPISODE_DATA, Store, bytes_of
from stable_worldmodel.data.formats.lance.values import slices
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa


def whole_column(store: Store, name: str, place: Place) -> np.ndarray:
    """Return a column of numbers or text over all rows, (N, *shape)."""
    if place.form == "text":
        return _texts(store, name, place.field)
    exact = place.field if place.form == "exact" else place.exact
    if exact is not None:
        return _exact(store, name, place, exact)
    pieces = [] if not store.frames.rows else [*store.frames.batches(place.field, place.column.row_bytes)]
    pieces += store.pending_arrays(FRAMES, place.field)
    if place.form == "strings":
        return decode_text([text or "" for piece in pieces for text in piece.to_pylist()])
    if store.records and not place.foreign:
        _check_rows(store, name, np.concatenate([piece.flatten().to_numpy() for piece in pieces]))
    parts = [numbers(piece, place.column) for piece in pieces]
    return np.concatenate([np.empty((0, *place.column.shape), dtype=place.column.dtype), *parts])


def _check_rows(store: Store, name: str, flat: np.ndarray) -> None:
    """Compare the rows of float32 of a column, all in one array."""
    data, row_bytes = flat.tobytes(), flat.nbytes // max(int(store.lengths.sum()), 1)
    crcs, start = {}, 0
    for episode, length in enumerate(store.lengths.tolist()):
        end = start + length * row_bytes
        crcs[episode] = zlib.crc32(memoryview(data)[start:end])
        start = end
    store.check(name, crcs)


def _exact(store: Store, name: str, place: Place, field: str) -> np.ndarray:
    values = side_bytes(store, field, np.arange(len(store.lengths)))
    sizes = (store.lengths * place.column.row_bytes).tolist()
    wrong = next((i for i, value in enumerate(values) if len(value) != sizes[i]), None)
    if wrong is not None:
        raise ContractError(
            f"{store.location.episodes}: {field!r} of episode {wrong} has {len(values[wrong])} bytes, "
            f"expected {sizes[wrong]}"
        )
    store.check(name, {i: zlib.crc32(value) for i, value in enumerate(values)})
    flat = np.frombuffer(b"".join(values), dtype=place.column.dtype)
    return flat.reshape(-1, *place.column.shape)


def _texts(store: Store, name: str, field: str) -> np.ndarray:
    values = _side_values(store, field, np.arange(len(store.lengths)))
    store.check(name, {i: zlib.crc32(repr([value]).encode()) for i, value in enumerate(values)})
    texts: list[str] = []
    for episode, (value, length) in enumerate(zip(values, store.lengths.tolist(), strict=True)):
        try:
            texts += texts_of(value, length)
        except ValueError as error:
            raise ContractError(f"{store.location.episodes}: {field!r} of episode {episode}: {error}") from error
    return decode_text(texts)


def episode_data(store: Store, episodes: Sequence[int] | np.ndarray) -> dict[str, list[Any]]:
    """Return the per-episode values of `episodes`, in any order and with repeats; arrays in their dtype and shape."""
    unique, inverse = np.unique(np.asarray(episodes, dtype=np.int64), return_inverse=True)
    pieces = {name: _side_pieces(store, name, unique) for name in store.data_names}
    if store.records:
        _check_data(store, pieces, unique)
    found = {}
    for name, arrays in pieces.items():
        values = [_restored(store, name, value) for array in arrays for value in array.to_pylist()]
        found[name] = [values[i] for i in inverse.tolist()]
    return found


def _check_data(store: Store, pieces: dict[str, list[pa.Array]], episodes: np.ndarray) -> None:
    crcs = dict.fromkeys(episodes.tolist(), 0)
    for name in sorted(pieces):
        single = (array.slice(i, 1) for array in pieces[name] for i in range(len(array)))
        for episode, value in zip(crcs, single, strict=True):
            for piece in bytes_of(value):
                crcs[episode] = zlib.crc32(piece, crcs[episode])
    store.check(EPISODE_DATA, crcs)


def _restored(store: Store, name: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    about = (store.side.schema.field(name).metadata or {}) if store.side else {}
    array = np.array(value, dtype=np.float32)
    if b"swm.dtype" not in about:
        return array
    return array.astype(np.dtype(about[b"swm.dtype"].decode())).reshape(json.loads(about[b"swm.shape"]))


def side_bytes(store: Store, field: str, episodes: np.ndarray) -> list[memoryview]:
    """Return binary values of the side table for ascending episodes."""
    return [value for piece in _side_pieces(store, field, episodes) for value in slices(piece)]


def _side_values(store: Store, field: str, episodes: np.ndarray) -> list[Any]:
    return [value for piece in _side_pieces(store, field, episodes) for value in piece.to_pylist()]


def _side_pieces(store: Store, field: str, episodes: np.ndarray) -> list[pa.Array]:
    """A field of the side table for ascending episodes, from the table and from the log."""
    in_table, logged = episodes[episodes < store.in_tables], episodes[episodes >= store.in_tables]
    pieces = []
    if len(in_table) and store.side is not None:
        rows = store.side_rows[in_table]
        if len(rows) == store.side.rows and np.array_equal(rows, np.arange(len(rows))):
            pieces.append(store.side.read([field])[field].combine_chunks())
        else:
            pieces.append(store.side.take(field, rows))
    arrays = store.pending_arrays(EPISODES, field) if len(logged) else []
    return [*pieces, *(arrays[episode - store.in_tables] for episode in logged.tolist())]
