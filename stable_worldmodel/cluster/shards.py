"""A collection in shards: which episodes each has, where they lie, and what is written down about the run.

Beside the dataset `data.h5` that is to be, `data.h5.shards/` holds `run.json`, which says what is collected, and one
dataset per shard, `00003-of-00064.h5`. Shard k of N has the episodes k - 1 of N equal, contiguous ranges. A shard is a
dataset like any other: its writer's lock keeps others out, its journal tells what is complete.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_worldmodel.data.cache import PathLike, ensure_dir_exists
from stable_worldmodel.data.formats.folder.join import join_directories
from stable_worldmodel.data.formats.hdf5.join import join_files
from stable_worldmodel.data.journal import Record, check_metadata, journal_path, read_journal
from stable_worldmodel.data.lock import holder
from stable_worldmodel.data.registry import Format, get_format, writer_target
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.utils.files import write_atomically

RUN_FILE = "run.json"
VERSION = 1
STAGING = "hdf5"  # of shards of formats that cannot be joined as stored; exact, so that images are encoded only once
STAGING_OPTIONS: dict[str, Any] = {"text_width": 256}

# Format -> what joins datasets of it without decoding: (sources, new, metadata) -> lengths of the episodes.
JOINS = {"hdf5": join_files, "folder": join_directories, "video": join_directories}


def check_shards(shards: Any, episodes: int) -> int:
    """Return the number of shards; ContractError unless 1 <= shards <= episodes."""
    if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= episodes:
        raise ContractError(f"shards={shards!r}: expected an integer from 1 to the number of episodes, {episodes}")
    return shards


def episodes_of(number: int, shards: int, episodes: int) -> range:
    """The episodes of shard `number`, 1 ... shards. The ranges follow each other and differ in length by 1 at most."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= shards:
        raise ContractError(f"shard={number!r}: expected an integer from 1 to {shards}, the number of shards")
    return range((number - 1) * episodes // shards, number * episodes // shards)


def parse_shard(text: str) -> tuple[int, int]:
    """`3/64` as (3, 64); ContractError for anything else, and outside of 1/64 ... 64/64."""
    number, slash, shards = text.partition("/")
    if not (slash and number.isascii() and number.isdigit() and shards.isascii() and shards.isdigit()):
        raise ContractError(f"shard {text!r}: expected NUMBER/SHARDS, from 1/64 to 64/64 for 64 shards")
    if not 1 <= int(number) <= int(shards):
        raise ContractError(f"shard {text!r}: expected a number from 1 to {int(shards)}")
    return int(number), int(shards)


def shards_folder(target: Path) -> Path:
    """Where the shards of the dataset `target` lie."""
    return target.with_name(f"{target.name}.shards")


@dataclass(frozen=True)
class ShardedRun:
    """A run that is written down beside its target.

    Attributes:
        target: the dataset that the shards become.
        content: what `run.json` holds: format, episodes, shards, and what is collected by what (env, policy, seed ...).
    """

    target: Path
    content: Mapping[str, Any]

    # -- what is written down -----------------------------------------------------------------------------------------

    @classmethod
    def open(cls, target: Path) -> ShardedRun:
        """Read the run that is written down beside `target`; NotFoundError when there is none."""
        path = shards_folder(target) / RUN_FILE
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"{target} has no shards: expected {path}") from None
        except ValueError as error:
            raise ContractError(f"{path}: damaged: {error}") from error
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise ContractError(f"{path}: expected a description of a run, version {VERSION}")
        return cls(target, content)

    @classmethod
    def begin(
        cls, path: PathLike, format: str | None, episodes: int, shards: int, what: Mapping[str, Any]
    ) -> ShardedRun:
        """Write a run down, or join the one that is there.

        `what`: env, policy, seed, options and the writer's options, as JSON values. Raises ContractError when another
        run is written down there, naming what differs. Any number of machines may do this at the same time.
        """
        fmt, target = writer_target(path, format)
        target = target.expanduser().resolve()
        content = check_metadata(
            {
                "version": VERSION,
                "target": target.name,
                "format": fmt.name,
                "episodes": episodes,
                "shards": check_shards(shards, episodes),
                **what,
            }
        )
        folder = ensure_dir_exists(shards_folder(target))
        _write_once(folder / RUN_FILE, json.dumps(content, indent=2).encode() + b"\n")
        run = cls.open(target)
        found = differing(run.content, content)
        if found:
            raise ContractError(
                f"{folder} holds shards of another run, with {found}; use another path, or delete that folder"
            )
        return run

    # -- shards -------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return shards_folder(self.target)

    @property
    def shards(self) -> int:
        return self.content["shards"]

    @property
    def episodes(self) -> int:
        return self.content["episodes"]

    @property
    def format(self) -> type[Format]:
        """Of the dataset."""
        return get_format(self.content["format"])

    @property
    def shard_format(self) -> type[Format]:
        """Of the shards."""
        return self.format if self.format.name in JOINS else get_format(STAGING)

    @property
    def is_staged(self) -> bool:
        """Whether the shards have another format than the dataset, which is then encoded when they are merged."""
        return self.shard_format is not self.format

    def episodes_of(self, number: int) -> range:
        return episodes_of(number, self.shards, self.episodes)

    def path_of(self, number: int) -> Path:
        """Where shard `number` lies."""
        self.episodes_of(number)
        suffix = next(iter(self.shard_format.suffixes), "")
        return self.folder / f"{number:05d}-of-{self.shards:05d}{suffix}"

    def metadata_of(self, number: int) -> dict[str, Any]:
        """What tells a shard from the others in its metadata."""
        span = self.episodes_of(number)
        return {"shard": {"number": number, "shards": self.shards, "episodes": [span.start, span.stop]}}

    def recorded(self, number: int) -> list[Record]:
        """The journal of a shard: its header, and a record of each complete episode. Empty when there is none."""
        try:
            return [record for record, _ in read_journal(journal_path(self.path_of(number)))]
        except FileNotFoundError:
            return []

    def is_finished(self, number: int) -> bool:
        """Whether all episodes of a shard are complete and nobody is writing to it."""
        path, records = self.path_of(number), self.recorded(number)
        if not records or not path.exists() or holder(path):
            return False
        if records[0]["metadata"].get("shard") != self.metadata_of(number)["shard"]:
            raise ContractError(f"{path} is no shard of this run: {_short(records[0]['metadata'].get('shard'))}")
        return sum(record["kind"] == "episode" for record in records) == len(self.episodes_of(number))

    def missing(self) -> list[str]:
        """What there is to say about each shard that is not finished."""
        return [self.describe(number) for number in range(1, self.shards + 1) if not self.is_finished(number)]

    def describe(self, number: int) -> str:
        """How far a shard is."""
        done = sum(record["kind"] == "episode" for record in self.recorded(number))
        held = holder(self.path_of(number))
        state = f"{done} of {len(self.episodes_of(number))} episodes" if done else "missing"
        return f"shard {number}/{self.shards}: {state}" + (f", being written by {held}" if held else "")


def differing(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """What differs between two descriptions of a run, in words; empty if nothing does."""
    keys = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
    return ", ".join(f"{key} {_short(found.get(key))} instead of {_short(expected.get(key))}" for key in keys)


def _write_once(path: Path, data: bytes) -> None:
    """Write a file unless it is there. Of many that try at once, one succeeds, and all see its content whole."""
    if path.exists():
        return
    new = write_atomically(path.with_name(f".{path.name}.{uuid.uuid4().hex}"), data)
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
