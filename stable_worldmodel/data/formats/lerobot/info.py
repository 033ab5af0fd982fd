"""`meta/info.json` of a LeRobot dataset: versions, features, where its files lie, and what this package notes there.

    meta/info.json                                  counts, features, path templates; renamed into place last
    meta/stats.json, meta/tasks.parquet             statistics of the whole set; the sentences of its tasks
    meta/episodes/chunk-000/file-000.parquet        a row per episode, 3.0
    data/chunk-000/file-000.parquet                 a row per frame: numbers, texts, stills as PNG
    videos/<feature>/chunk-000/file-000.mp4         the frames of a feature

Version 2 has one data file and one video per episode, and JSON lines for episodes and tasks. The key `swm` of
`info.json` is ours; other programs ignore it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stable_worldmodel.errors import ContractError, NotFoundError

INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
VERSION = "v3.0"
FILES_PER_CHUNK = 1000
FPS = 10

IMAGE_KINDS = ("image", "video")
INDEX_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}

_OLD_INFO = "meta_data/info.json"  # of version 1
_OURS = "swm"
_CRC = "crc32"

Json = dict[str, Any]


def is_lerobot_dataset(path: Path) -> bool:
    return (path / INFO).is_file() or (path / _OLD_INFO).is_file()


@dataclass(frozen=True)
class Info:
    """The content of `info.json`."""

    path: Path  # of the dataset
    content: Json

    @classmethod
    def read(cls, path: Path) -> Info:
        """Read and check it. Raises ContractError when it is damaged or of a version that cannot be read."""
        if not (path / INFO).is_file() and (path / _OLD_INFO).is_file():
            raise _too_old(path, "v1")
        try:
            content = json.loads((path / INFO).read_bytes())
            version, features = str(content["codebase_version"]), content["features"]
            counts = [content["total_episodes"], content["fps"]]
        except FileNotFoundError:
            raise NotFoundError(f"{path / INFO} does not exist; expected a LeRobot dataset in {path}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ContractError(f"{path / INFO}: damaged: {error!r}") from error
        _check_version(path, version)
        if content.get("storage_format", "parquet") != "parquet":
            raise ContractError(
                f"{path}: its storage format is {content['storage_format']!r}, only Parquet and MP4 can be read; "
                "export it with LeRobot first"
            )
        if not isinstance(features, dict) or not all(_is_feature(feature) for feature in features.values()):
            raise ContractError(f"{path / INFO}: damaged: 'features' does not describe features")
        if not all(isinstance(count, (int, float)) and count >= 0 for count in counts) or not content["fps"]:
            raise ContractError(f"{path / INFO}: damaged: expected counts, found {counts}")
        if not isinstance(content.get(_OURS, {}), dict):
            raise ContractError(f"{path / INFO}: damaged: expected an object under {_OURS!r}")
        return cls(path, content)

    @property
    def version(self) -> str:
        return str(self.content["codebase_version"])

    @property
    def is_v3(self) -> bool:
        return self.version.startswith("v3.")

    @property
    def episodes(self) -> int:
        return int(self.content["total_episodes"])

    @property
    def fps(self) -> float:
        return self.content["fps"]

    @property
    def features(self) -> dict[str, Json]:
        return self.content["features"]

    @property
    def ours(self) -> Json:
        """What this package noted; empty for sets of other programs."""
        return self.content.get(_OURS, {})

    @property
    def dataset_id(self) -> str | None:
        return self.ours.get("dataset_id")

    @property
    def is_ours(self) -> bool:
        """Whether this package wrote all episodes."""
        return bool(self.ours) and self.ours.get("episodes") == self.episodes

    @property
    def is_intact(self) -> bool:
        """Whether nothing has changed since this package wrote it."""
        return self.ours.get(_CRC) == _checksum(self.content)

    def named(self, *kinds: str) -> list[str]:
        """Names of the features with one of these dtypes."""
        return [name for name, feature in self.features.items() if feature["dtype"] in kinds]

    def file(self, template: str, **values: Any) -> str:
        """Fill a path template in; ContractError when it leads out of the dataset."""
        try:
            found = str(self.content.get(template) or "").format(**values)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ContractError(f"{self.path / INFO}: {template}: {error!r}") from error
        if not found or PurePosixPath(found).is_absolute() or ".." in PurePosixPath(found).parts or "\0" in found:
            raise ContractError(f"{self.path / INFO}: {template} leads to {found!r}, out of the dataset")
        return found


def write_info(path: Path, content: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Write the file `path` with our notes and a checksum in it."""
    noted = {**content, _OURS: {key: value for key, value in ours.items() if key != _CRC}}
    noted[_OURS][_CRC] = _checksum(noted)
    path.write_text(json.dumps(noted, indent=4, ensure_ascii=False), encoding="utf-8")


def _checksum(content: Json) -> int:
    ours = {key: value for key, value in content[_OURS].items() if key != _CRC}
    return zlib.crc32(json.dumps({**content, _OURS: ours}, sort_keys=True).encode())


def new_content(features: Mapping[str, Json], fps: int, robot_type: str | None) -> Json:
    """`info.json` of a dataset without episodes."""
    return {
        "codebase_version": VERSION,
        "robot_type": robot_type,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(feature["dtype"] == "video" for feature in features.values()) else None,
        "features": dict(features),
    }


def place(number: int, per_chunk: int) -> dict[str, int]:
    """Where the file with this running number lies."""
    return {"chunk_index": number // per_chunk, "file_index": number % per_chunk}


def _is_feature(feature: Any) -> bool:
    return (
        isinstance(feature, dict) and isinstance(feature.get("dtype"), str) and isinstance(feature.get("shape"), list)
    )


def _check_version(path: Path, version: str) -> None:
    try:
        major = int(version.removeprefix("v").split(".")[0])
    except ValueError as error:
        raise ContractError(f"{path / INFO}: codebase_version {version!r}: expected 'v3.0' or the like") from error
    if major < 2:
        raise _too_old(path, version)
    if major > 3:
        raise ContractError(f"{path}: LeRobot format {version} is newer than v3, which this release reads; update it")


def _too_old(path: Path, version: str) -> ContractError:
    return ContractError(
        f"{path}: LeRobot format {version} cannot be read, only v2.0 to v3.0; convert it with LeRobot's "
        "convert_dataset_v1_to_v2.py"
    )
