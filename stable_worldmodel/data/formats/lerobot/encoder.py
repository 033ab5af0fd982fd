"""One episode as the files and rows of a LeRobot dataset, in memory."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.episode import Columns
from stable_worldmodel.data.formats.directory.record import FileSums
from stable_worldmodel.data.formats.directory.stills import is_constant
from stable_worldmodel.data.formats.lerobot import mapping, parquet, statistics
from stable_worldmodel.data.formats.lerobot.constants import constant_columns
from stable_worldmodel.data.formats.lerobot.index import CONSTANT, FILLED
from stable_worldmodel.data.formats.lerobot.info import FILES_PER_CHUNK, Json, place
from stable_worldmodel.data.formats.lerobot.mapping import TASK, Link, Stored
from stable_worldmodel.data.formats.shared import mp4
from stable_worldmodel.data.formats.shared.images import encode_png
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.errors import require

if TYPE_CHECKING:
    import pyarrow as pa

EPISODES_PER_TABLE = 64  # the table of episodes is rewritten up to this size, then another one begins


@dataclass(frozen=True)
class Images:
    """The image columns of an episode, encoded."""

    videos: dict[str, bytes]  # by file
    sums: dict[str, FileSums]  # of the videos, by column
    stills: dict[str, list[bytes]]  # by feature
    stats: dict[str, statistics.Stats]  # by feature


@dataclass(frozen=True)
class Draft:
    """What an episode adds to a dataset."""

    rows: int
    tasks: list[str]  # of the whole set
    videos: dict[str, bytes]  # by file
    data: pa.Table
    row: pa.Table  # of the table of episodes
    columns: Columns  # numbers and texts as readers return them
    sums: dict[str, FileSums]  # of the videos, by column
    stills: list[str]  # columns that lie in the data file

    def sums_with(self, data: bytes) -> dict[str, FileSums]:
        """The sums of all image columns; `data` is the data file."""
        return {**self.sums, **{name: FileSums((zlib.crc32(data),), len(data)) for name in self.stills}}


class Encoder:
    """Encodes the episodes of one dataset.

    content: of `info.json`, where the first episode completes what is said about videos.
    described: the per-episode data, see `constants.describe_constants`.
    The other arguments are those of `LeRobotWriter`.
    """

    def __init__(self, content: Json, links: Mapping[str, Link], keep_last: bool, task: str, described: Json) -> None:
        self._features: dict[str, Json] = content["features"]
        self._fps, self._video_path = content["fps"], content["video_path"]
        self._links, self._keep_last, self._task, self._described = links, keep_last, task, described
        self._has_tasks = any(link.feature == TASK for link in links.values())

    def encode(
        self, i: int, first_row: int, columns: Columns, tasks: Sequence[str], constants: Mapping[str, Any]
    ) -> Draft:
        """Encode episode `i`, whose rows are numbered from `first_row`. `tasks`: those of the set so far."""
        stored = mapping.encode(columns, self._links, self._keep_last)
        texts = columns[TASK].tolist()[: stored.rows] if self._has_tasks else [self._task] * stored.rows
        own_tasks = list(dict.fromkeys(texts))
        all_tasks = [*tasks, *(text for text in own_tasks if text not in tasks)]
        numbers = {text: all_tasks.index(text) for text in own_tasks}
        values = stored.features | {
            "timestamp": (np.arange(stored.rows) / self._fps).astype(np.float32),
            "frame_index": np.arange(stored.rows),
            "episode_index": np.full(stored.rows, i),
            "index": first_row + np.arange(stored.rows),
            "task_index": np.array([numbers[text] for text in texts], dtype=np.int64),
        }
        images = self._encode_images(i, columns, stored.rows)
        stats = {
            name: images.stats[name] if name in images.stats else statistics.number_stats(values[name])
            for name, feature in self._features.items()
            if statistics.has_stats(feature)
        }
        row = self._episode_row(i, first_row, stored, own_tasks, images.sums)
        row |= statistics.stats_columns(stats) | constant_columns(constants, self._described)
        return Draft(
            stored.rows,
            all_tasks,
            images.videos,
            parquet.feature_table(self._features, {**values, **images.stills}),
            require("pyarrow", "data").table(row),
            self._as_read(stored, texts),
            images.sums,
            [link.name for link in self._links.values() if link.feature in images.stills],
        )

    def _encode_images(self, i: int, columns: Columns, rows: int) -> Images:
        links = [link for link in self._links.values() if link.column.kind == "image"]
        images = Images({}, {}, {}, {})

        def encode(start: int, stop: int) -> None:
            for link in links[start:stop]:
                frames = columns[link.name][:rows]
                feature = self._features[link.feature]
                images.stats[link.feature] = statistics.image_stats(frames)
                if feature["dtype"] == "image":
                    images.stills[link.feature] = [encode_png(frame) for frame in frames]
                    continue
                constant = is_constant(frames)
                data = mp4.encode_video(frames, self._fps, gop=len(frames) if constant else mp4.GOP)
                where = place(i, FILES_PER_CHUNK)
                images.videos[self._video_path.format(video_key=link.feature, **where)] = data
                images.sums[link.name] = FileSums((zlib.crc32(data),), len(data), constant)
                feature.setdefault("info", _video_info(frames, self._fps))

        in_threads(encode, len(links), 1)
        return images

    def _episode_row(
        self, i: int, first_row: int, stored: Stored, tasks: list[str], videos: Mapping[str, FileSums]
    ) -> dict[str, pa.Array]:
        """The columns of the row in the table of episodes, without statistics."""
        pa = require("pyarrow", "data")

        def numbers(prefix: str, values: Mapping[str, int]) -> dict[str, Any]:
            return {f"{prefix}{key}": pa.array([value], pa.int64()) for key, value in values.items()}

        where, texts = place(i, FILES_PER_CHUNK), pa.list_(pa.string())
        columns = {**numbers("", {"episode_index": i}), "tasks": pa.array([tasks], texts)}
        columns |= numbers("", {"length": stored.rows}) | numbers("data/", where)
        columns |= numbers("dataset_", {"from_index": first_row, "to_index": first_row + stored.rows})
        for name, feature in self._features.items():
            if feature["dtype"] == "video":
                columns |= numbers(f"videos/{name}/", where)
                columns[f"videos/{name}/from_timestamp"] = pa.array([0.0])
                columns[f"videos/{name}/to_timestamp"] = pa.array([stored.rows / self._fps])
        columns |= numbers("meta/episodes/", place(i // EPISODES_PER_TABLE, FILES_PER_CHUNK))
        constant = sorted(self._links[name].feature for name, sums in videos.items() if sums.constant)
        return columns | {FILLED: pa.array([list(stored.filled)], texts), CONSTANT: pa.array([constant], texts)}

    def _as_read(self, stored: Stored, texts: list[str]) -> Columns:
        found = {}
        for name, link in self._links.items():
            if link.column.kind == "text":
                found[name] = np.array(texts if link.feature == TASK else stored.features[link.feature], dtype=object)
            elif link.column.kind == "number":
                filled = np.array([name in stored.filled])
                read = link if self._keep_last else mapping.without_last(link)
                found[name] = mapping.decode(stored.features[link.feature], read, np.array([stored.rows]), filled)
                if read.native:
                    found[link.feature] = stored.features[link.feature]
        return found


def _video_info(frames: np.ndarray, fps: int) -> Json:
    height, width = frames.shape[1:3]
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv444p" if height % 2 or width % 2 else "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
