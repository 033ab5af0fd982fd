"""What Lance tables hold: where each column of an episode lies, and how it is turned into Arrow arrays and back.

| table | one row per | fields |
|---|---|---|
| `X.lance`, "frames" | step | `episode_idx`, `step_idx`, images as JPEG, numbers as float32 lists |
| `X_episodes.lance`, "episodes" | episode | optional: per-episode data, and what rows of float32 cannot hold |
| `X_videos.lance`, "videos" | episode and view | only in the format `lance.video`: MP4 |

Field metadata says what a field was: `swm.name`, `swm.dtype`, `swm.shape` and, in the side table, `swm.form`: `exact`
(the bytes of all rows), `text` (the text of the episode, or a JSON list of one per row) or `unique` (images that rarely
change, each once, see `pack_frames`). Fields without it are those of other tools; their numbers are float32 vectors.
Encoded images carry a seal, see `disk`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.hdf5.columns import is_unique
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

Form = Literal["image", "number", "strings", "exact", "text", "unique", "video"]

FRAMES, EPISODES, VIDEOS = "frames", "episodes", "videos"
EPISODE, STEP = "episode_idx", "step_idx"
VIDEO_KEY, VIDEO_BYTES = "video_key", "video_bytes"
LIST_OF_TEXTS = "\x1e"  # begins a text value that is a JSON list (RFC 7464)
FORMS_IN_FRAMES, FORMS_IN_SIDE_TABLE = ("image", "number", "strings"), ("exact", "text", "unique")
UNKNOWN_IMAGE = Column(np.dtype(np.uint8), (0, 0, 3), "image")  # only the pictures of other tools tell their size
LARGE_ROW = 4096  # bytes; rows of this size are kept as float32 only
BLOB = {"lance-encoding:blob": "true"}
IN_FLOAT32 = frozenset("?bBhHef")  # type codes whose values float32 holds exactly
# Rows of images lie in a page one after another, unchanged, so that a reader can address them.
ENCODED = {
    "lance-encoding:structural-encoding": "fullzip",
    "lance-encoding:compression": "none",
    "lance-encoding:dict-divisor": "1000000000",  # no dictionary
}
COMPRESSED = {"lance-encoding:compression": "zstd"}


@dataclass(frozen=True)
class Place:
    """Where a column is stored: `form` tells the table, `field` the field in it (for a video its key)."""

    column: Column
    form: Form
    field: str
    exact: str | None = None  # field of the side table with all bits of a "number"
    foreign: bool = False  # of another tool, which did not say what the column was


Places = dict[str, Place]  # by column name


def field_name(name: str) -> str:
    """The name of a column as a field: Lance takes dots for nesting."""
    return name.replace(".", "_")


def plan(columns: Mapping[str, np.ndarray], unique_columns: Sequence[str], video: bool) -> Places:
    """Decide where the columns of a new dataset go, by its first episode."""
    places: Places = {}
    fields: dict[str, str] = {}
    for name, values in columns.items():
        column = Column.of(values)
        place = places[name] = _place(name, column, is_unique(name, column, unique_columns), video)
        other = fields.setdefault(place.field, name)
        if other != name:
            raise ContractError(f"columns {other!r} and {name!r} both become field {place.field!r}; rename one")
    return places


def _place(name: str, column: Column, unique: bool, video: bool) -> Place:
    field = field_name(name)
    exact = f"exact_{field}"
    if column.kind == "text":
        return Place(column, "text", field)
    if unique:
        return Place(column, "unique", field)
    if column.kind == "image":
        return Place(column, "video" if video and column.shape[-1] != 4 else "image", field)
    if column.dtype.kind == "c" or name == STEP:
        return Place(column, "exact", exact)
    in_frames = column.dtype.char in IN_FLOAT32 or column.row_bytes >= LARGE_ROW
    return Place(column, "number", field, None if in_frames else exact)


# -- schemas ----------------------------------------------------------------------------------------------------------


def schemas_of(places: Places, episode_data: Mapping[str, Any], dataset_id: str) -> dict[str, pa.Schema]:
    """Return the schemas of the tables that these columns and the per-episode data need."""
    import pyarrow as pa

    metadata = {"swm.dataset_id": dataset_id}
    index = pa.field(EPISODE, pa.int32())
    frames = [_field(name, place) for name, place in places.items() if place.form in FORMS_IN_FRAMES]
    side = [_field(name, place) for name, place in places.items() if place.form in FORMS_IN_SIDE_TABLE]
    side += [_exact_field(name, place) for name, place in places.items() if place.exact]
    side += [data_field(key, data_value(key, value)) for key, value in sorted(episode_data.items())]
    names = [EPISODE, *(field.name for field in side)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ContractError(f"per-episode data: the names {twice} are taken; rename it")
    tables = {FRAMES: pa.schema([index, pa.field(STEP, pa.int32()), *frames], metadata)}
    if side:
        tables[EPISODES] = pa.schema([index, *side], metadata)
    videos = {place.field: _describe(name, place) for name, place in places.items() if place.form == "video"}
    if videos:
        tables[VIDEOS] = video_schema(metadata | {"swm.videos": json.dumps(videos)})
    return tables


def video_schema(metadata: Mapping[Any, Any]) -> pa.Schema:
    """Return the schema of a table of videos."""
    import pyarrow as pa

    blob = pa.field(VIDEO_BYTES, pa.large_binary(), metadata=BLOB)
    return pa.schema([pa.field(EPISODE, pa.int32()), pa.field(VIDEO_KEY, pa.string()), blob], metadata)


def _field(name: str, place: Place) -> pa.Field:
    import pyarrow as pa

    about = _describe(name, place)
    if place.form == "image":
        return pa.field(place.field, pa.binary(), metadata=about | ENCODED)
    if place.form == "number":
        width = int(np.prod(place.column.shape, dtype=np.int64))
        return pa.field(place.field, pa.list_(pa.float32(), width), metadata=about)
    if place.form == "text":
        return pa.field(place.field, pa.string(), metadata=about | {"swm.form": place.form})
    encoding = ENCODED if place.column.kind == "image" else COMPRESSED
    return pa.field(place.field, pa.large_binary(), metadata=about | encoding | {"swm.form": place.form})


def _exact_field(name: str, place: Place) -> pa.Field:
    import pyarrow as pa

    about = _describe(name, place) | COMPRESSED | {"swm.form": "exact"}
    return pa.field(place.exact, pa.large_binary(), metadata=about)


def _describe(name: str, place: Place) -> dict[str, str]:
    shape = json.dumps(list(place.column.shape))
    return {"swm.name": name, "swm.dtype": place.column.type_name, "swm.shape": shape}


def data_field(key: str, value: Any) -> pa.Field:
    """Return the field of a per-episode value as `data_value` gives it. Arrays lose what float32 does not hold."""
    import pyarrow as pa

    for kind, type_ in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64()), (str, pa.string())):
        if isinstance(value, kind):
            return pa.field(key, type_)
    if isinstance(value, bytes):
        return pa.field(key, pa.large_binary())
    about = {"swm.dtype": value.dtype.name, "swm.shape": json.dumps(list(value.shape))}
    return pa.field(key, pa.list_(pa.float32()), metadata=about)


def data_value(key: str, value: Any) -> Any:
    """Return a per-episode value as bool, int, float, str, bytes or a numeric array; else ContractError."""
    if not isinstance(key, str) or not key.strip():
        raise ContractError(f"per-episode data {key!r}: expected a name")
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ContractError(f"per-episode data {key!r}: {value} does not fit into int64")
    if isinstance(value, (bool, int, float, str, bytes)):
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise ContractError(f"per-episode data {key!r}: expected text, bytes, numbers or an array of numbers")
    return array


def places_of(frames: pa.Schema, side: pa.Schema | None, videos: pa.Schema | None) -> tuple[Places, list[str]]:
    """Return where the columns of existing tables are, and the names of their per-episode data."""
    places: Places = {}
    for field in frames:
        if field.name not in (EPISODE, STEP) and (place := _frames_place(field)) is not None:
            places[_about(field, "name") or field.name] = place
    data = []
    for field in side or ():
        form = _about(field, "form")
        if form is None:
            data += [field.name] if field.name != EPISODE else []
            continue
        name = _about(field, "name") or field.name
        if form == "exact" and name in places:
            places[name] = replace(places[name], exact=field.name)
        else:
            places[name] = Place(_column(field.metadata), form, field.name)  # type: ignore[arg-type]
    about_videos = json.loads(((videos and videos.metadata) or {}).get(b"swm.videos", b"{}"))
    for key, about in about_videos.items():
        encoded = {entry.encode(): value.encode() for entry, value in about.items()}
        places[about["swm.name"]] = Place(_column(encoded), "video", key)
    return places, data


def _frames_place(field: pa.Field) -> Place | None:
    import pyarrow.types as t

    about = field.metadata or {}
    if t.is_binary(field.type) or t.is_large_binary(field.type):
        own = b"swm.shape" in about
        return Place(_column(about) if own else UNKNOWN_IMAGE, "image", field.name, foreign=not own)
    if t.is_string(field.type) or t.is_large_string(field.type):
        return Place(Column(np.dtype(object), (), "text"), "strings", field.name, foreign=True)
    vector = t.is_fixed_size_list(field.type)
    value = field.type.value_type if vector else field.type
    if not (t.is_integer(value) or t.is_floating(value) or t.is_boolean(value)):
        return None
    if b"swm.shape" in about:
        return Place(_column(about), "number", field.name)
    shape = (field.type.list_size,) if vector else ()
    column = Column(np.dtype(value.to_pandas_dtype()), shape, "number")
    return Place(column, "number", field.name, foreign=True)


def _column(about: Mapping[bytes, bytes]) -> Column:
    dtype, shape = about[b"swm.dtype"].decode(), tuple(json.loads(about[b"swm.shape"]))
    if dtype == "text":
        return Column(np.dtype(object), shape, "text")
    return Column.numeric(np.dtype(dtype), shape)


def _about(field: pa.Field, key: str) -> str | None:
    value = (field.metadata or {}).get(f"swm.{key}".encode())
    return None if value is None else value.decode()
