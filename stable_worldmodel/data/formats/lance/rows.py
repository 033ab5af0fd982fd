"""Episodes as rows of the tables, and stored values back as arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns, check_schema
from stable_worldmodel.data.formats.hdf5.columns import split_frames
from stable_worldmodel.data.formats.lance import schema
from stable_worldmodel.data.formats.lance.log import Rows
from stable_worldmodel.data.formats.lance.schema import EPISODE, EPISODES, FRAMES, STEP, VIDEOS, Place, Places
from stable_worldmodel.data.formats.shared.disk import seal
from stable_worldmodel.data.formats.shared.images import JPEG_CHANNELS, encode_jpeg, encode_png
from stable_worldmodel.data.formats.shared.mp4 import encode_video
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

LIST_OF_TEXTS = "\x1e"  # begins a text value that is a JSON list (RFC 7464)
PACK = b"\x1eswm"  # begins a value that holds several images
FRAMES_PER_BLOCK = 8  # that one thread encodes


@dataclass
class Encoder:
    """Turns the episodes of one dataset into rows. `video`: arguments of `mp4.encode_video`."""

    places: Places
    schemas: Mapping[str, pa.Schema]
    quality: int = 95  # of JPEG
    video: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, episode: int, columns: Columns, data: Mapping[str, Any]) -> Rows:
        """Return the rows of an episode; `columns` and `data` must fit, see `fit`."""
        length = len(next(iter(columns.values())))
        rows = {FRAMES: self._frames(episode, columns, length)}
        if EPISODES in self.schemas:
            rows[EPISODES] = self._side_row(episode, columns, data)
        if VIDEOS in self.schemas:
            rows[VIDEOS] = self._videos(episode, columns)
        return rows

    def _frames(self, episode: int, columns: Columns, length: int) -> pa.RecordBatch:
        import pyarrow as pa

        by_field = {
            place.field: (name, place) for name, place in self.places.items() if place.form in schema.FORMS_IN_FRAMES
        }
        arrays = []
        for field_ in self.schemas[FRAMES]:
            if field_.name == EPISODE:
                arrays.append(pa.array(np.full(length, episode), field_.type))
            elif field_.name == STEP:
                arrays.append(pa.array(np.arange(length), field_.type))
            else:
                name, place = by_field[field_.name]
                arrays.append(self._in_frames(place, columns[name], field_.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schemas[FRAMES])

    def _in_frames(self, place: Place, values: np.ndarray, type_: pa.DataType) -> pa.Array:
        import pyarrow as pa

        if place.form == "image":
            return pa.array(encode_images(values, self.quality), type_)
        if place.form == "strings":
            return pa.array(values.tolist(), type_)
        array = float_list(values) if place.column.shape or not place.foreign else pa.array(values)
        return array if array.type == type_ else array.cast(type_)

    def _side_row(self, episode: int, columns: Columns, data: Mapping[str, Any]) -> pa.RecordBatch:
        import pyarrow as pa

        values: dict[str, Any] = {EPISODE: episode, **data}
        for name, place in self.places.items():
            if place.form == "text":
                values[place.field] = text_value(columns[name])
            elif place.form == "unique":
                values[place.field] = self._unique(columns[name])
            elif place.form == "exact":
                values[place.field] = columns[name].tobytes()
            if place.exact:
                values[place.exact] = columns[name].tobytes()
        side = self.schemas[EPISODES]
        arrays = [
            pa.array([value.reshape(-1) if isinstance(value, np.ndarray) else value], field_.type)
            for field_, value in ((field_, values[field_.name]) for field_ in side)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=side)

    def _unique(self, values: np.ndarray) -> bytes:
        """Each image once, with the first row that shows it."""
        frames, shown = split_frames(values, 0)
        return pack_frames(encode_images(frames, self.quality), np.flatnonzero(np.diff(shown, prepend=-1)))

    def _videos(self, episode: int, columns: Columns) -> pa.RecordBatch:
        import pyarrow as pa

        keys = [(place.field, name) for name, place in self.places.items() if place.form == "video"]
        videos = [b""] * len(keys)

        def work(start: int, stop: int) -> None:
            for k in range(start, stop):
                videos[k] = encode_video(columns[keys[k][1]], **self.video)

        in_threads(work, len(keys), 1)
        arrays = [
            pa.array([episode] * len(keys), pa.int32()),
            pa.array([key for key, _ in keys], pa.string()),
            pa.array(videos, pa.large_binary()),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schemas[VIDEOS])


def encode_images(frames: np.ndarray, quality: int) -> list[bytes]:
    """Encode frames (n, H, W, C) on several threads: sealed JPEG, or PNG where there is an alpha channel."""
    encoded = [b""] * len(frames)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            jpeg = frames.shape[-1] in JPEG_CHANNELS
            encoded[i] = seal(encode_jpeg(frames[i], quality) if jpeg else encode_png(frames[i]))

    in_threads(work, len(frames), FRAMES_PER_BLOCK)
    return encoded


def pack_frames(encoded: Sequence[bytes], rows: np.ndarray) -> bytes:
    """Join images that begin to be shown at `rows` (n,), the first of which is 0. One image stays as it is."""
    if len(encoded) == 1:
        return encoded[0]
    table = np.stack([rows, [len(image) for image in encoded]], axis=1).astype("<u4")
    return PACK + len(encoded).to_bytes(4, "little") + table.tobytes() + b"".join(encoded)


def unpack_frame(packed: Any, row: int) -> memoryview:
    """Return the image that is shown at a row of an episode. ValueError when `packed` is damaged."""
    view = memoryview(packed)
    if view[: len(PACK)] != PACK:
        return view
    count = int.from_bytes(view[4:8], "little")
    rows, sizes = np.frombuffer(view, "<u4", 2 * count, 8).reshape(count, 2).astype(np.int64).T
    i = int(np.searchsorted(rows, row, side="right")) - 1
    start = 8 + 8 * count + int(sizes[:i].sum())
    if i < 0 or 8 + 8 * count + int(sizes.sum()) != len(view):
        raise ValueError(f"the images of an episode do not fit into {len(view)} bytes")
    return view[start : start + int(sizes[i])]


def as_stored(columns: Columns) -> Columns:
    """Return `columns` with images named `pixels...` that have their channels first turned to (rows, H, W, C)."""
    turned = {}
    for name, values in columns.items():
        pictures = values.dtype == np.uint8 and values.ndim == 4 and name.partition(".")[0].startswith("pixels")
        if pictures and values.shape[1] in (1, 3, 4) and values.shape[-1] not in (1, 3, 4):
            values = np.moveaxis(values, 1, -1)
        turned[name] = values
    return turned


def fit(columns: Columns, places: Places, dropped: set[str]) -> Columns:
    """Return the columns in the form in which the dataset has them; ContractError naming all that do not fit.

    Columns of other tools are vectors of float32 under names without dots, and take any numbers of the same size. What
    they have no place for, text and `step_idx`, is added to `dropped`.
    """
    if any(place.foreign for place in places.values()):
        columns = {name if name in places else schema.field_name(name): values for name, values in columns.items()}
        if STEP in columns and np.array_equal(columns[STEP], np.arange(len(columns[STEP]))):
            del columns[STEP]  # the table numbers its rows itself
        no_place = {
            name
            for name, values in columns.items()
            if name not in places and (name == STEP or values.dtype.kind in "OSU")
        }
        dropped |= no_place
        columns = {
            name: _loosened(values, places.get(name)) for name, values in columns.items() if name not in no_place
        }
    return check_schema(columns, {name: place.column for name, place in places.items()})


def _loosened(values: np.ndarray, place: Place | None) -> np.ndarray:
    if place is None or not place.foreign:
        return values
    shape = (len(values), *place.column.shape)
    if place.form == "number" and values.dtype.kind in "biuf" and values.size == np.prod(shape):
        return values.reshape(shape).astype(place.column.dtype)
    if place.column.kind == "image" and values.shape == (*shape[:-1], 1):
        return np.broadcast_to(values, shape)
    return values


def fit_data(data: Mapping[str, Any] | None, side: pa.Schema | None, names: Sequence[str]) -> dict[str, Any]:
    """Return the per-episode values; ContractError when keys, kinds or shapes are not those of the dataset."""
    values = {key: schema.data_value(key, value) for key, value in (data or {}).items()}
    faults = [f"{key}: missing" for key in set(names) - values.keys()]
    faults += [f"{key}: not in the dataset" for key in values.keys() - set(names)]
    for key in sorted(values.keys() & set(names)):
        expected, found = side.field(key), schema.data_field(key, values[key])  # type: ignore[union-attr]
        if expected.type != found.type and isinstance(values[key], int) and str(expected.type) == "double":
            values[key] = float(values[key])
        elif expected.type != found.type or _shape(expected) not in (None, _shape(found)):
            faults.append(f"{key}: expected {_words(expected)}, found {_words(found)}")
    if faults:
        raise ContractError("the per-episode data does not match the dataset:\n  " + "\n  ".join(sorted(faults)))
    return values


def _shape(field: pa.Field) -> bytes | None:
    return (field.metadata or {}).get(b"swm.shape")


def _words(field: pa.Field) -> str:
    shape = _shape(field)
    return f"an array of shape {shape.decode()}" if shape else str(field.type)


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
