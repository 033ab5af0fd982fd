"""The finished episodes of an interrupted evaluation, so that the same call goes on where it stopped.

A file belongs to one evaluation: its name is a hash of everything an episode is a function of. What the hash cannot see
is code: an env or a policy edited between two runs under the same name counts as the same.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.files import write_atomically
from stable_worldmodel.world.episode import SUCCESS_KEYS, Episode
from stable_worldmodel.world.identity import fingerprint

logger = logging.getLogger(__name__)

FOLDER = "partial"  # of the cache root
_FORMAT = 1
_COLUMNS = {
    "index": np.int64,
    "length": np.int64,
    "total_reward": np.float64,
    "success": bool,
    "terminated": bool,
    "truncated": bool,
}


class PartialRun:
    """The finished episodes of a run by number, each reduced to what results need.

    Args:
        keys: info keys whose last value is kept, beside those that tell success.
        seed: of the run; episode k has `seed + k`.
        path: written after every `every` completions and read here, if it exists; None keeps nothing on disk.
    """

    def __init__(self, keys: Sequence[str], seed: int | None, path: Path | None = None, every: int = 1):
        self._keys = tuple(keys)
        self._seed = seed
        self._path = path
        self._every = every
        self._unsaved = 0
        self.episodes: dict[int, Episode] = {} if path is None else self._load(path)

    def keep(self, episodes: Iterable[Episode]) -> None:
        """Add finished episodes, and write the file when enough of them are new. Known ones are left out."""
        for episode in episodes:
            if episode.index not in self.episodes:
                final = {key: episode.final[key] for key in (*self._keys, *SUCCESS_KEYS) if key in episode.final}
                self.episodes[episode.index] = dataclasses.replace(episode, columns={}, final=final)
                self._unsaved += 1
        if self._path is not None and self._unsaved >= self._every:
            self._unsaved = 0
            self._save(self._path)

    def remove(self) -> None:
        """Delete the file; the run is over."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _save(self, path: Path) -> None:
        """Write all episodes. What goes wrong is logged, and ends the writing but not the run."""
        try:
            write_atomically(path, _encode([self.episodes[e] for e in sorted(self.episodes)], self._keys))
        except (OSError, TypeError, ValueError, KeyError) as error:
            logger.warning("no more partial results are kept: cannot write %s: %s", path, error)
            path.unlink(missing_ok=True)
            self._path = None

    def _load(self, path: Path) -> dict[int, Episode]:
        if not path.exists():
            return {}
        try:
            episodes = _decode(path.read_bytes(), self._keys, self._seed)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("partial results in %s cannot be read, so the run starts over: %r", path, error)
            return {}
        logger.info("%d episodes were finished before, by %s", len(episodes), path)
        return episodes


def check_dump_every(value: Any) -> int:
    """Return the interval as int, 0 for none; anything but an integer is a ContractError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ContractError(f"dump_every={value!r}: expected an integer; values below 1 keep nothing")
    return max(0, int(value))


def _encode(episodes: Sequence[Episode], keys: Sequence[str]) -> bytes:
    """An .npz without pickled objects. TypeError or ValueError for values that neither NumPy nor JSON can keep."""
    arrays = {name: np.array([getattr(e, name) for e in episodes], dtype) for name, dtype in _COLUMNS.items()}
    for key in SUCCESS_KEYS:
        flags = [e.final.get(key) for e in episodes]
        arrays[f"{key}_given"] = np.array([flag is not None for flag in flags])
        arrays[f"{key}_value"] = np.array([bool(np.any(flag)) if flag is not None else False for flag in flags])
    for number, key in enumerate(keys):
        values = [np.asarray(e.final[key]) for e in episodes]
        uniform = len({value.shape for value in values}) == 1 and not any(value.dtype.hasobject for value in values)
        arrays[f"key_{number}"] = np.stack(values) if uniform else np.array([_as_json(value) for value in values])
        arrays[f"key_{number}_json"] = np.array(not uniform)
    file = io.BytesIO()
    np.savez(file, **{"format": np.array(_FORMAT), **arrays})  # type: ignore[arg-type]
    return file.getvalue()


def _decode(data: bytes, keys: Sequence[str], seed: int | None) -> dict[int, Episode]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        if int(file["format"]) != _FORMAT:
            raise ValueError(f"format {file['format']}: expected {_FORMAT}")
        columns = {name: file[name].tolist() for name in _COLUMNS}
        finals: list[dict[str, Any]] = [{} for _ in columns["index"]]
        for key in SUCCESS_KEYS:
            for final, given, value in zip(finals, file[f"{key}_given"], file[f"{key}_value"], strict=True):
                if given:
                    final[key] = value
        for number, key in enumerate(keys):
            read = _from_json if file[f"key_{number}_json"] else np.asarray
            for final, value in zip(finals, file[f"key_{number}"], strict=True):
                final[key] = read(value)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    episodes = [
        Episode(seed=None if seed is None else seed + row["index"], final=final, **row)
        for row, final in zip(rows, finals, strict=True)
    ]
    return {episode.index: episode for episode in episodes}


def _as_json(value: np.ndarray) -> str:
    text = json.dumps([value.dtype.str, value.tolist()])
    if json.loads(text)[1] != value.tolist():
        raise ValueError(f"an eval key holds {value!r}, which JSON changes")
    return text


def _from_json(text: Any) -> np.ndarray:
    dtype, value = json.loads(str(text))
    if not np.dtype(dtype).hasobject:
        return np.array(value, dtype)
    array = np.empty((), object)
    array[()] = value
    return array


def partial_path(*identity: Any) -> Path:
    """Where the partial results of the run with this identity are, whether they exist or not."""
    from stable_worldmodel import __version__
    from stable_worldmodel.data import get_cache_dir

    return get_cache_dir(sub_folder=FOLDER) / f"evaluate_{fingerprint([__version__, *identity])}.npz"
