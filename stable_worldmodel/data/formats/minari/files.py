"""The files of a Minari dataset, episode by episode: one HDF5 file, or one Arrow file per episode.

    data/metadata.json           spaces, environment, storage format
    data/main_data.hdf5          groups `episode_<i>`: observations (L + 1 rows), actions, rewards, ... (L rows), or
    data/<i>/part-0.arrow        the same as columns of L + 1 rows, the last of actions, rewards ... being padding
    data/<i>/metadata.json       seed and number of steps

Dict spaces are groups or structs, tuple spaces groups with members `_index_<i>` or structs with members `<i>`. Images
of 32 pixels or more are JPEG files as byte strings, unless the recording said otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stable_worldmodel.data.formats.hf_arrow.files import numpy_numbers
from stable_worldmodel.data.formats.shared.images import JPEG_START
from stable_worldmodel.errors import ContractError, NotFoundError, require

if TYPE_CHECKING:
    import h5py

MAIN_FILE, METADATA = "main_data.hdf5", "metadata.json"
_PART = "part-0.arrow"
_TUPLE = "_index_"  # precedes the number of a member of a tuple space

Leaf = tuple[str, ...]  # where a value lies: ("observations", "image"); members of tuples are numbers


class Episodes(Protocol):
    """Raw access to the episodes of a dataset, in the order of their numbers."""

    def __len__(self) -> int: ...

    def steps(self, i: int) -> int:
        """Env steps of an episode."""
        ...

    def seed(self, i: int) -> int | None: ...

    def leaves(self) -> list[Leaf]:
        """All arrays of the first episode."""
        ...

    def read(self, i: int, leaf: Leaf, rows: np.ndarray | None = None) -> np.ndarray:
        """Return ascending rows of an array, all by default: numbers (n, ...), or objects: texts and JPEG bytes."""
        ...


def data_folder(path: Path) -> Path | None:
    """Return the directory with the files of the dataset that `path` means, None when it is none."""
    if path.name == MAIN_FILE and path.is_file():
        return path.parent
    for folder in (path / "data", path):
        arrow = (folder / METADATA).is_file() and next(folder.glob(f"*/{_PART}"), None) is not None
        if (folder / MAIN_FILE).is_file() or arrow:
            return folder
    return None


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read `metadata.json`, with the spaces and the environment decoded; empty when there is none."""
    path = folder / METADATA
    if not path.exists():
        return {}
    try:
        found = dict(json.loads(path.read_text()))
        for key in ("observation_space", "action_space", "env_spec"):
            if isinstance(found.get(key), str):
                found[key] = json.loads(found[key])
    except (ValueError, TypeError) as error:
        raise ContractError(f"{path}: damaged: {error}") from error
    return found


def open_episodes(folder: Path, metadata: Mapping[str, Any]) -> Episodes:
    return HDF5Episodes(folder / MAIN_FILE) if (folder / MAIN_FILE).exists() else ArrowEpisodes(folder, metadata)


class HDF5Episodes:
    """Episodes in one HDF5 file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: tuple[int, h5py.File] | None = None
        names = [name for name in self._file() if name.startswith("episode_")]
        self._names = sorted(names, key=lambda name: int(name.removeprefix("episode_")))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _file(self) -> h5py.File:
        """The open file of this process; handles must not cross a fork."""
        import h5py

        if self._handle is None or self._handle[0] != os.getpid():
            try:
                self._handle = os.getpid(), h5py.File(self.path, "r")
            except OSError as error:
                raise ContractError(f"{self.path}: cannot be read as HDF5: {error}") from error
        return self._handle[1]

    def __len__(self) -> int:
        return len(self._names)

    def steps(self, i: int) -> int:
        group = self._file()[self._names[i]]
        return int(group.attrs["total_steps"]) if "total_steps" in group.attrs else len(group["rewards"])

    def seed(self, i: int) -> int | None:
        seed = self._file()[self._names[i]].attrs.get("seed")
        return int(seed) if isinstance(seed, (int, np.integer)) else None

    def leaves(self) -> list[Leaf]:
        import h5py

        found: list[Leaf] = []

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found.append(tuple(part.removeprefix(_TUPLE) for part in name.split("/")))

        self._file()[self._names[0]].visititems(note)
        return found

    def read(self, i: int, leaf: Leaf, rows: np.ndarray | None = None) -> np.ndarray:
        group: Any = self._file()[self._names[i]]
        try:
            for part in leaf:
                group = group[part if part in group else f"{_TUPLE}{part}"]
            values = group[:] if rows is None else group[rows[0] : rows[-1] + 1][rows - rows[0]]
        except (KeyError, OSError) as error:
            raise ContractError(f"{self.path}: episode {i}, {'/'.join(leaf)}: cannot be read: {error}") from error
        if values.dtype == np.uint8 and values.ndim == 2 and values[:, :2].tobytes() == JPEG_START * len(values):
            return _objects([row.tobytes() for row in values])  # images that happen to have the same number of bytes
        if values.dtype == object:
            return _objects([value.tobytes() if isinstance(value, np.ndarray) else value for value in values])
        return values


class ArrowEpisodes:
    """Episodes in one Arrow file each."""

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self._folders = sorted(
            (part.parent for part in folder.glob(f"*/{_PART}") if part.parent.name.isdigit()),
            key=lambda path: int(path.name),
        )

    def __len__(self) -> int:
        return len(self._folders)

    def steps(self, i: int) -> int:
        described = _episode_metadata(self._folders[i])
        return int(described["total_steps"]) if "total_steps" in described else len(_arrow_rows(self._folders[i])) - 1

    def seed(self, i: int) -> int | None:
        seed = _episode_metadata(self._folders[i]).get("seed")
        return seed if isinstance(seed, int) else None

    def leaves(self) -> list[Leaf]:
        return list(_struct_leaves(_arrow_rows(self._folders[0]).schema, ()))

    def read(self, i: int, leaf: Leaf, rows: np.ndarray | None = None) -> np.ndarray:
        pa = require("pyarrow", "data")
        table = _arrow_rows(self._folders[i])
        try:
            field, array = table.schema.field(leaf[0]), table[leaf[0]].combine_chunks()
            for part in leaf[1:]:
                field = field.type.field(part)
                array = array.field(part)
        except (KeyError, pa.ArrowException) as error:
            raise ContractError(f"{self._folders[i]}: no {'/'.join(leaf)}: {error}") from error
        array = array if rows is None else array.take(pa.array(rows))
        if pa.types.is_binary(array.type) or pa.types.is_string(array.type):
            return _objects(array.to_pylist())
        values = numpy_numbers(array)
        shape = self._shape(leaf, field)
        return values if shape is None else values.reshape(len(values), *shape)

    def _shape(self, leaf: Leaf, field: Any) -> tuple[int, ...] | None:
        """The shape of one row, which the file stores flat."""
        noted = (field.metadata or {}).get(b"shape")
        if noted is not None:
            return tuple(int(size) for size in noted.decode().split(",") if size)
        space = self._metadata.get({"observations": "observation_space", "actions": "action_space"}.get(leaf[0], ""))
        for part in leaf[1:]:
            inner = space["subspaces"] if space else None
            space = inner[int(part)] if isinstance(inner, list) else inner.get(part) if inner else None
        return tuple(space["shape"]) if space and "shape" in space else None


def _struct_leaves(fields: Any, above: Leaf) -> Iterator[Leaf]:
    pa = require("pyarrow", "data")
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _struct_leaves([field.type.field(k) for k in range(field.type.num_fields)], (*above, field.name))
        else:
            yield (*above, field.name)


@lru_cache(maxsize=64)
def _arrow_rows(folder: Path) -> Any:
    pa = require("pyarrow", "data")
    try:
        with pa.memory_map(str(folder / _PART)) as file:
            return pa.ipc.open_file(file).read_all()
    except FileNotFoundError:
        raise NotFoundError(f"{folder / _PART} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"{folder / _PART}: damaged: {error}") from error


def _episode_metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except ValueError as error:
        raise ContractError(f"{path}: damaged: {error}") from error


def _objects(values: list[Any]) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out
