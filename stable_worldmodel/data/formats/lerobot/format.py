"""The `lerobot` format: datasets of the LeRobot project. See `lerobot.info` for what lies where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.formats.directory.record import without_losses
from stable_worldmodel.data.formats.directory.verify import verify_directory
from stable_worldmodel.data.formats.lerobot.info import is_lerobot_dataset
from stable_worldmodel.data.formats.lerobot.layout import LeRobotLayout
from stable_worldmodel.data.formats.lerobot.mapping import ends_without_action
from stable_worldmodel.data.formats.lerobot.writer import LeRobotWriter
from stable_worldmodel.data.formats.shared.stored import StoredDataset
from stable_worldmodel.data.registry import Format, PathLike
from stable_worldmodel.data.remote import is_lerobot_name, locate_lerobot
from stable_worldmodel.data.verify import Report
from stable_worldmodel.errors import ContractError


class LeRobotFormat(Format):
    """A directory with `meta/info.json`, or a name that begins with `lerobot:`."""

    name = "lerobot"
    supports_episode_data = True
    reencodes_images = True

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        return is_lerobot_name(path) or ("://" not in str(path) and is_lerobot_dataset(Path(path)))

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> LeRobotDataset:
        return LeRobotDataset(path=path, **kwargs)

    @classmethod
    def open_writer(cls, path: PathLike, **kwargs: Any) -> LeRobotWriter:
        return LeRobotWriter(path, **kwargs)

    @classmethod
    def stored_rows(cls, episode: Mapping[str, Any], rows: int, options: Mapping[str, Any]) -> int:
        return rows - (not options.get("keep_last", True) and ends_without_action(episode))

    @classmethod
    def verify(cls, path: PathLike, deep: bool = False, repair: bool = False) -> Report:
        return verify_directory(Path(path), LeRobotLayout, LeRobotWriter, deep, repair)


class LeRobotDataset(StoredDataset):
    """A LeRobot dataset of version 2.0, 2.1 or 3.0, as the episodes committed when it was opened.

    name: as for `load_dataset("lerobot:...")`; `path`: the directory.
    primary_camera: the image feature that is the column `pixels`, by its name or what follows `observation.images.`;
        default: `observation.image`, or the only one. The others are `pixels_<view>`.
    The other arguments are those of `StoredDataset`. TypeError without `name` and `path`.

    Attributes:
        fps: frames per second.
        robot_type: text, or None.
        tasks: the sentences of the tasks; the column `task` has one per row.
        has_terminal_row: whether episodes end with the observation after the last action. Sets of other programs do
            not: they have a row per step, and the last action is not NaN.
    """

    def __init__(
        self,
        name: str | None = None,
        *args: Any,
        primary_camera: str | None = None,
        cache_dir: PathLike | None = None,
        path: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        where = path if path is not None else name
        if where is None:
            raise TypeError("LeRobotDataset needs `name` or `path`")
        if path is None or is_lerobot_name(path):
            where = locate_lerobot(str(where), cache_dir)
        self.path = Path(where).expanduser().resolve()
        layout = without_losses(LeRobotLayout(self.path, camera=primary_camera))
        super().__init__(layout, *args, **kwargs)
        self._constants = layout.episodes.constants
        self.episode_column_names = tuple(self._constants)
        self.fps, self.robot_type = layout.info.fps, layout.info.content.get("robot_type")
        self.tasks, self.has_terminal_row = [*layout.episodes.tasks], layout.has_terminal_row

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        """Return the per-episode values of `episodes`, in their order and with repeats; default: of all."""
        wanted = np.arange(self.num_episodes) if episodes is None else np.asarray(episodes, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.num_episodes:
            raise ContractError(f"episodes={episodes}: the dataset has episodes 0..{self.num_episodes - 1}")
        return {name: [values[i] for i in wanted.tolist()] for name, values in self._constants.items()}
