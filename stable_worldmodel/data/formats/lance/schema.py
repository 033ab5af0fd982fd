"""What the tables hold: the field of each column, and what a field says about the column that is in it.

Field metadata says what a column was: `swm.name`, `swm.dtype`, `swm.shape` and, in the side table, `swm.form`. Fields
without it are those of other tools; their numbers are float32 vectors.
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
TABLES = (EPISODES, VIDEOS, FRAMES)  # in the order in which they are written: readers go by the frames
TABLE_OF: dict[Form, str] = {
    "image": FRAMES,  # JPEG, or PNG where there is an alpha channel
    "number": FRAMES,  # float32
    "strings": FRAMES,  # a text per step, of other tools only
    "exact": EPISODES,  # the bytes of all rows of an episode; what float32 cannot hold
    "text": EPISODES,  # the text of an episode, or a marked JSON list with one per row
    "unique": EPISODES,  # images that rarely change, each once
    "video": VIDEOS,  # MP4
}
EPISODE, STEP = "episode_idx", "step_idx"
VIDEO_KEY, VIDEO_BYTES = "video_key", "video_bytes"
UNKNOWN_IMAGE = Column(np.dtype(np.uint8), (0, 0, 3), "image")  # only the pictures of other tools tell their size
LARGE_ROW = 4096  # bytes; rows of this size are kept as float32 only, and not held in memory
IN_FLOAT32 = frozenset("?bBhHef")  # type codes whose values float32 holds exactly
# Values lie in a file one after another, unchanged, so that a reader can address them, see `pages`.
PLAIN = {
    "lance-encoding:structural-encoding": "fullzip",
    "lance-encoding:compression": "none",
    "lance-encoding:dict-divisor": "1000000000",  # no dictionary
}
COMPRESSED = {"lance-encoding:compression": "zstd"}


@dataclass(frozen=True)
class Place:
    """Where a column is stored: a field of the table that its form tells."""

    column: Column
    form: Form
    field: str  # for a video its key
    copy: str | None = None  # the field of the frames that has an "exact" column as float32, for other tools
    foreign: bool = False  # written by another tool, which did not say what the column was

    @property
    def table(self) -> str:
        return TABLE_OF[self.form]


Places = dict[str, Place]  # by column name


def field_name(name: str) -> str:
    """Return the field of a column: Lance takes dots for nesting."""
    return name.replace(".", "_")


def plan(columns: Mapping[str, np.ndarray], unique_columns: Sequence[str], video: bool) -> Places:
    """Decide where the columns of a new dataset go, by its first episode."""
    places: Places = {}
    names: dict[str, str] = {}
    for name, values in columns.items():
        column = Column.of(values)
        places[name] = _place(name, column, is_unique(name, column, unique_columns), video)
        other = names.setdefault(field_name(name), name)
        if other != name:
            raise ContractError(f"columns {other!r} and {name!r} both become {field_name(name)!r}; rename one")
    return places


def _place(name: str, column: Column, unique: bool, video: bool) -> Place:
    field = field_name(name)
    if column.kind == "text":
        return Place(column, "text", field)
    if unique:
        return Place(column, "unique", field)
    if column.kind == "image":
        return Place(column, "video" if video and column.shape[-1] != 4 else "image", field)
    if column.dtype.kind == "c" or name == STEP:  # which float32 or another column of the table stands in the way of
        return Place(column, "exact", f"exact_{field}")
    if column.dtype.char in IN_FLOAT32 or column.row_bytes >= LARGE_ROW:
        return Place(column, "number", field)
    return Place(column, "exact", f"exact_{field}", copy=field)


# -- schemas ----------------------------------------------------------------------------------------------------------


def schemas_of(places: Places, episode_data: Mapping[str, Any], dataset_id: str, video: bool) -> dict[str, pa.Schema]:
    """Return the schemas of the tables that columns and per-episode data need, and with `video` that of videos."""
    import pyarrow as pa

    fields: dict[str, list[pa.Field]] = {FRAMES: [pa.field(STEP, pa.int32())], EPISODES: [], VIDEOS: []}
    for name, place in places.items():
        if place.form != "video":
            fields[place.table].append(_field(name, place))
        if place.copy:
            fields[FRAMES].append(_field(name, replace(place, form="number", field=place.copy)))
    fields[EPISODES] += [data_field(key, value) for key, value in sorted(episode_data.items())]
    names = [EPISODE, *(field.name for field in fields[EPISODES])]
    if len(names) > len({*names}):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ContractError(f"per-episode data: the names {twice} are taken; rename it")
    used = [table for table in TABLES if fields[table] or (table == VIDEOS and video)]
    about = identity(dataset_id, used)
    found = {table: pa.schema([pa.field(EPISODE, pa.int32()), *fields[table]], about) for table in used}
    if video:
        videos = {place.field: _describe(name, place) for name, place in places.items() if place.form == "video"}
        found[VIDEOS] = video_schema(about | {"swm.videos": json.dumps(videos)})
    return found


def identity(dataset_id: str, used: Sequence[str]) -> dict[str, str]:
    """Return what the tables of a dataset say about it: `used` are all of them."""
    return {"swm.dataset_id": dataset_id, "swm.tables": ",".join(used)}


def video_schema(metadata: Mapping[Any, Any]) -> pa.Schema:
    """Return the schema of a table of videos."""
    import pyarrow as pa

    blob = pa.field(VIDEO_BYTES, pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    return pa.schema([pa.field(EPISODE, pa.int32()), pa.field(VIDEO_KEY, pa.string()), blob], metadata)


def _field(name: str, place: Place) -> pa.Field:
    import pyarrow as pa

    about = _describe(name, place) | ({"swm.form": place.form} if place.table == EPISODES else {})
    if place.form == "number":
        width = int(np.prod(place.column.shape, dtype=np.int64))
        return pa.field(place.field, pa.list_(pa.float32(), width), metadata=about)
    if place.form == "text":
        return pa.field(place.field, pa.string(), metadata=about)
    if place.form == "exact":
        return pa.field(place.field, pa.large_binary(), metadata=about | COMPRESSED)
    return pa.field(place.field, pa.binary(), metadata=about | PLAIN)


def _describe(name: str, place: Place) -> dict[str, str]:
    shape = json.dumps(list(place.column.shape))
    return {"swm.name": name, "swm.dtype": place.column.type_name, "swm.shape": shape}


def data_field(key: str, value: Any) -> pa.Field:
    """Return the field of a per-episode value as `data_value` gives it. Arrays lose what float32 does not hold."""
    import pyarrow as pa

    if isinstance(value, np.ndarray):
        about = {"swm.dtype": value.dtype.name, "swm.shape": json.dumps(list(value.shape))}
        return pa.field(key, pa.list_(pa.float32()), metadata=about)
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.large_binary()}
    return pa.field(key, types[type(value)])


def data_value(key: str, value: Any) -> Any:
    """Return a per-episode value as bool, int, float, str, bytes or a numeric array; else ContractError."""
    if not isinstance(key, str) or not key.strip():
        raise ContractError(f"per-episode data {key!r}: expected a name")
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ContractError(f"per-episode data {key!r}: {value} does not fit into int64")
    plain = next((kind for kind in (bool, int, float, str, bytes) if isinstance(value, kind)), None)
    if plain is not None:
        return plain(value)  # which a subclass of it is not
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise ContractError(f"per-episode data {key!r}: expected text, bytes, numbers or an array of numbers")
    return array


def places_of(schemas: Mapping[str, pa.Schema]) -> tuple[Places, list[str]]:
    """Return where the columns of existing tables are, and the names of their per-episode data."""
    places: Places = {}
    for field in schemas[FRAMES]:
        if field.name not in (EPISODE, STEP) and (place := _frames_place(field)) is not None:
            places[_about(field).get("swm.name", field.name)] = place
    data = []
    for field in schemas.get(EPISODES, ()):
        about = _about(field)
        form: Any = about.get("swm.form")
        if form is None:
            data += [field.name] if field.name != EPISODE else []
            continue
        if form not in TABLE_OF:
            raise ValueError(f"a column of the form {form!r}")
        name = about["swm.name"]
        places[name] = Place(_column(about), form, field.name, places[name].field if name in places else None)
    for key, about in json.loads(_about(schemas.get(VIDEOS)).get("swm.videos", "{}")).items():
        places[about["swm.name"]] = Place(_column(about), "video", key)
    return places, data


def _frames_place(field: pa.Field) -> Place | None:
    import pyarrow.types as t

    about = _about(field)
    own = "swm.shape" in about
    if t.is_binary(field.type) or t.is_large_binary(field.type):
        return Place(_column(about) if own else UNKNOWN_IMAGE, "image", field.name, foreign=not own)
    if t.is_string(field.type) or t.is_large_string(field.type):
        return Place(Column(np.dtype(object), (), "text"), "strings", field.name, foreign=True)
    vector = t.is_fixed_size_list(field.type)
    value = field.type.value_type if vector else field.type
    if not (t.is_integer(value) or t.is_floating(value) or t.is_boolean(value)):
        return None
    if own:
        return Place(_column(about), "number", field.name)
    column = Column(np.dtype(value.to_pandas_dtype()), (field.type.list_size,) if vector else (), "number")
    return Place(column, "number", field.name, foreign=True)


def _column(about: Mapping[str, str]) -> Column:
    shape = tuple(json.loads(about["swm.shape"]))
    if about["swm.dtype"] == "text":
        return Column(np.dtype(object), shape, "text")
    return Column.numeric(np.dtype(about["swm.dtype"]), shape)


def _about(item: pa.Field | pa.Schema | None) -> dict[str, str]:
    """The metadata of a field or schema."""
    found = {} if item is None else item.metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}
