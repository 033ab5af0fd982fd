"""An episode as rows of the tables: encoding, and what its line in the journal says about them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns
from stable_worldmodel.data.formats.lance import schema
from stable_worldmodel.data.formats.lance.schema import EPISODE, EPISODES, FRAMES, STEP, VIDEOS, Place, Places
from stable_worldmodel.data.formats.lance.values import slices
from stable_worldmodel.data.formats.shared.disk import SEAL, SEAL_BYTES, seal
from stable_worldmodel.data.formats.shared.images import JPEG_CHANNELS, encode_jpeg, encode_png
from stable_worldmodel.data.formats.shared.mp4 import encode_video
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.data.journal import Record
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

LIST_OF_TEXTS = "\x1e"  # begins a text value that is a JSON list (RFC 7464)
PACK = b"\x1eswm"  # begins a value that holds several images
FRAMES_PER_BLOCK = 4  # that one thread encodes
EPISODE_DATA = "_episode_data"  # the entry of the checksums for all of it

Rows = dict[str, "pa.RecordBatch"]  # of one episode, by table


@dataclass
class Encoder:
    """Turns the episodes of one dataset into rows. `video`: arguments of `mp4.encode_video`."""

    places: Places
    schemas: Mapping[str, pa.Schema]
    quality: int = 95  # of JPEG
    video: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, episode: int, columns: Columns, data: Mapping[str, Any]) -> Rows:
        """Return the rows of an episode; `columns` and `data` must fit, see `fit`."""
        rows = {FRAMES: self._frames(episode, columns)}
        if EPISODES in self.schemas:
            rows[EPISODES] = self._side_row(episode, columns, data)
        if VIDEOS in self.schemas:
            rows[VIDEOS] = self._videos(episode, columns)
        return rows

    def _frames(self, episode: int, columns: Columns) -> pa.RecordBatch:
        import pyarrow as pa

        length = len(next(iter(columns.values())))
        arrays: dict[str, Any] = {EPISODE: np.full(length, episode), STEP: np.arange(length)}
        for name, place in self.places.items():
            if place.form == "image":
                arrays[place.field] = encode_images(columns[name], self.quality)
            elif place.form == "strings":
                arrays[place.field] = columns[name].tolist()
            elif place.form == "number" and place.foreign and not place.column.shape:
                arrays[place.field] = columns[name]
            elif place.form == "number" or place.copy:
                arrays[place.copy or place.field] = float_list(columns[name])
        fields = self.schemas[FRAMES]
        made = [_array(arrays[field_.name], field_.type) for field_ in fields]
        return pa.RecordBatch.from_arrays(made, schema=fields)

    def _side_row(self, episode: int, columns: Columns, data: Mapping[str, Any]) -> pa.RecordBatch:
        import pyarrow as pa

        values: dict[str, Any] = {EPISODE: episode}
        values |= {key: value.reshape(-1) if isinstance(value, np.ndarray) else value for key, value in data.items()}
        for name, place in self.places.items():
            if place.form == "text":
                values[place.field] = text_value(columns[name])
            elif place.form == "unique":
                values[place.field] = pack_frames(columns[name], self.quality)
            elif place.form == "exact":
                values[place.field] = columns[name].tobytes()
        side = self.schemas[EPISODES]
        return pa.RecordBatch.from_arrays([pa.array([values[f.name]], f.type) for f in side], schema=side)

    def _videos(self, episode: int, columns: Columns) -> pa.RecordBatch:
        import pyarrow as pa

        keys = [(place.field, name) for name, place in self.places.items() if place.form == "video"]
        videos = [b""] * len(keys)

        def work(start: int, stop: int) -> None:
            for k in range(start, stop):
                videos[k] = encode_video(columns[keys[k][1]], **self.video)

        in_threads(work, len(keys), 1)
        arrays = ([episode] * len(keys), [key for key, _ in keys], videos)
        fields = self.schemas[VIDEOS]
        made = [pa.array(array, field_.type) for array, field_ in zip(arrays, fields, strict=True)]
        return pa.RecordBatch.from_arrays(made, schema=fields)


def _array(values: Any, type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    array = values if isinstance(values, pa.Array) else pa.array(values)
    return array if array.type == type_ else array.cast(type_)


def encode_images(images: np.ndarray, quality: int) -> list[bytes]:
    """Encode (n, H, W, C) on several threads: sealed JPEG, or PNG where there is an alpha channel.

    An image that equals the one before it is not encoded again: its entry is the same object.
    """
    encoded = [b""] * len(images)
    words = images.reshape(len(images), -1)
    if words.flags.c_contiguous and words.shape[1] % 8 == 0:
        words = words.view(np.uint64)  # compared several times faster

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            if i and np.array_equal(words[i], words[i - 1]):
                continue
            jpeg = images.shape[-1] in JPEG_CHANNELS
            encoded[i] = seal(encode_jpeg(images[i], quality) if jpeg else encode_png(images[i]))

    in_threads(work, len(images), FRAMES_PER_BLOCK)
    for i in range(1, len(encoded)):
        encoded[i] = encoded[i] or encoded[i - 1]
    return encoded


def pack_frames(images: np.ndarray, quality: int) -> bytes:
    """Join the images of an episode (n, H, W, C), each with the first row that shows it. A single one is left bare."""
    encoded = encode_images(images, quality)
    rows = [i for i in range(len(encoded)) if i == 0 or encoded[i] is not encoded[i - 1]]
    if len(rows) == 1:
        return encoded[0]
    unique = [encoded[i] for i in rows]
    table = np.stack([rows, [len(image) for image in unique]], axis=1).astype("<u4")
    return PACK + len(unique).to_bytes(4, "little") + table.tobytes() + b"".join(unique)


def unpack_frame(packed: Any, row: int) -> memoryview:
    """Return the image that is shown at a row of an episode. ContractError when `packed` is damaged."""
    view = memoryview(packed)
    if view[: len(PACK)] != PACK:
        return view
    count = int.from_bytes(view[4:8], "little")
    first = 8 + 8 * count
    rows, sizes = np.frombuffer(view[8:first], "<u4").reshape(-1, 2).astype(np.int64).T
    i = int(np.searchsorted(rows, row, side="right")) - 1
    if i < 0 or len(rows) != count or first + int(sizes.sum()) != len(view):
        raise ContractError(f"the images of an episode do not fit into {len(view)} bytes")
    start = first + int(sizes[:i].sum())
    return view[start : start + int(sizes[i])]


def float_list(values: np.ndarray) -> pa.Array:
    """Return rows (n, ...) of numbers as a list of float32 each."""
    import pyarrow as pa

    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def numbers(array: pa.Array, column: Column) -> np.ndarray:
    """Return a field of frames as rows (n, *shape) in the column's dtype."""
    import pyarrow.types as t

    flat = array.flatten() if t.is_fixed_size_list(array.type) else array
    return flat.to_numpy(zero_copy_only=False).astype(column.dtype, copy=False).reshape(len(array), *column.shape)


def text_value(texts: np.ndarray) -> str:
    """Return the texts of an episode as one: the text itself if all are equal, else a marked JSON list."""
    if all(text == texts[0] for text in texts) and not texts[0].startswith(LIST_OF_TEXTS):
        return str(texts[0])
    return LIST_OF_TEXTS + json.dumps(texts.tolist(), ensure_ascii=False)


def texts_of(value: str, rows: int) -> list[str]:
    """Return one text per row of what `text_value` made; ContractError when their number is not `rows`."""
    if not value.startswith(LIST_OF_TEXTS):
        return [value] * rows
    texts = json.loads(value[1:])
    if len(texts) != rows:
        raise ContractError(f"{len(texts)} texts are stored for {rows} rows")
    return texts


# -- checksums ---------------------------------------------------------------------------------------------------------


def make_record(i: int, rows: Rows, places: Places, data_names: Sequence[str]) -> Record:
    """Describe episode `i` for the journal, by what is stored of it."""
    seed = places.get("seed")
    return {
        "kind": "episode",
        "i": i,
        "len": rows[FRAMES].num_rows,
        "seed": int(stored_numbers(seed, rows).flat[0]) if seed and seed.column.dtype.kind in "iu" else None,
        "bytes": sum(batch.nbytes for batch in rows.values()),
        "crc32": checksums(places, data_names, rows),
    }


def stored_numbers(place: Place, rows: Rows) -> np.ndarray:
    """Return a column of numbers of one episode, (rows, *shape)."""
    array = rows[place.table].column(place.field)
    if place.form == "exact":
        return np.frombuffer(array[0].as_py(), place.column.dtype).reshape(-1, *place.column.shape)
    return numbers(array, place.column)


def checksums(places: Places, data_names: Sequence[str], rows: Rows) -> dict[str, int]:
    """Return the CRC-32 of an episode's stored values by column, and of its per-episode data in one more entry."""
    found = {name: crc_of(_pieces(place, rows)) for name, place in sorted(places.items())}
    if data_names:
        arrays = [rows[EPISODES].column(name) for name in sorted(data_names)]
        found[EPISODE_DATA] = crc_of([piece for array in arrays for piece in value_bytes(array)])
    return found


def _pieces(place: Place, rows: Rows) -> list[Any]:
    """What the checksum of a column is made of. The seal of an image stands for all of it."""
    if place.form == "video":
        row = rows[VIDEOS].column(schema.VIDEO_KEY).to_pylist().index(place.field)
        array = rows[VIDEOS].column(schema.VIDEO_BYTES).slice(row, 1)
    else:
        array = rows[place.table].column(place.field)
    values = value_bytes(array)
    if place.column.kind != "image":
        return values
    sealed = [value[-SEAL_BYTES:-4] == SEAL and value[: len(PACK)] != PACK for value in values]
    return [value[-SEAL_BYTES:] if whole else value for value, whole in zip(values, sealed, strict=True)]


def crc_of(pieces: Sequence[Any]) -> int:
    """Return the CRC-32 of pieces one after another."""
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def value_bytes(array: pa.Array) -> list[Any]:
    """Return what a checksum is made of: bytes value by value, lists of numbers all in one, others in words."""
    import pyarrow.types as t

    if t.is_binary(array.type) or t.is_large_binary(array.type):
        return slices(array)
    if t.is_fixed_size_list(array.type):
        return [np.ascontiguousarray(array.flatten().to_numpy(zero_copy_only=False))]
    return [repr(value).encode() for value in array.to_pylist()]
