"""Writes LeRobot datasets, version 3.0. See `info` for what lies where.

Each episode has a data file and videos of its own; LeRobot's file sizes are limits only. They are prepared in a hidden
folder beside the dataset and renamed into it, then the tables that name them, and `info.json` last: that is the commit.
Files and rows beyond the episodes that it counts are ignored by readers, and removed or replaced by the next writer.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import EPISODE_DATA_KEY, Column
from stable_worldmodel.data.episode import Columns, check_schema, prepare_episode
from stable_worldmodel.data.formats.directory.record import record_of, stored_record
from stable_worldmodel.data.formats.lerobot import mapping, parquet, statistics
from stable_worldmodel.data.formats.lerobot.constants import check_constants, describe_constants
from stable_worldmodel.data.formats.lerobot.encoder import EPISODES_PER_TABLE, Encoder
from stable_worldmodel.data.formats.lerobot.index import EPISODES_FOLDER, numbered_files
from stable_worldmodel.data.formats.lerobot.info import (
    EPISODES_PATH,
    FILES_PER_CHUNK,
    FPS,
    INFO,
    STATS,
    TASKS,
    Info,
    Json,
    is_lerobot_dataset,
    new_content,
    place,
    write_info,
)
from stable_worldmodel.data.formats.lerobot.layout import LeRobotLayout
from stable_worldmodel.data.formats.shared.disk import sync
from stable_worldmodel.data.formats.shared.writer import Episode, EpisodeWriter
from stable_worldmodel.data.journal import Journal, journal_path, make_header
from stable_worldmodel.data.registry import PathLike
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 200


class LeRobotWriter(EpisodeWriter):
    """Appends complete episodes to the LeRobot dataset in the directory `path`, which must be one of this package.

    fps: frames per second; default: `fps` or `render_fps` of the metadata, or 10.
    task: the sentence for episodes without a text column `task`.
    keep_last: store the last row of an episode, which has no action, see `mapping`. Without it episodes have as many
        rows as steps, as LeRobot's own, and do not come back complete.
    use_videos: images as H.264 videos, where they have three channels; False stores all as PNG, exactly.
    robot_type: noted in `info.json`.
    keep: drop all episodes from this number on; for repairs.
    The other arguments are those of `EpisodeWriter`. An existing dataset keeps what it was created with.

    Episodes may carry per-episode constants under `_episode_data`; their keys are those of the first episode.
    """

    def __init__(
        self,
        path: PathLike,
        mode: str = "append",
        *,
        fps: int | None = None,
        task: str = "",
        keep_last: bool = True,
        use_videos: bool = True,
        robot_type: str | None = None,
        keep: int | None = None,
        **options: Any,
    ) -> None:
        require("pyarrow", "data")
        if fps is not None and fps < 1:
            raise ContractError(f"fps={fps}: expected 1 or more")
        if use_videos:
            require("av", "data")
        self._fps, self._task, self._robot_type = fps, task, robot_type
        self._keep_last, self._use_videos, self._keep = keep_last, use_videos, keep
        self._constants: Mapping[str, Any] = {}  # of the episode being written
        self._unsynced: list[Path] = []
        super().__init__(path, mode, **options)

    def _exists(self) -> bool:
        if is_lerobot_dataset(self.path):
            return True
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if self.mode == "error":
            return True
        raise ContractError(f"{self.path} exists and is not a 'lerobot' dataset; choose another path")

    def _identity(self) -> str | None:
        return Info.read(self.path).dataset_id if is_lerobot_dataset(self.path) else None

    def _check(self, columns: Columns) -> None:
        pa = require("pyarrow", "data")
        for name, values in columns.items():
            if name.startswith(".") or len(name.encode()) > MAX_NAME_BYTES:
                raise ContractError(f"column name {name!r} cannot be the name of a file; rename it")
            if values.dtype == object:
                _check_texts(name, values)
                continue
            try:
                pa.from_numpy_dtype(values.dtype)
            except pa.ArrowNotImplementedError as error:
                raise ContractError(f"column {name!r}: Arrow has no {values.dtype} numbers") from error
            if values.ndim - 1 > mapping.MAX_AXES:
                raise ContractError(
                    f"column {name!r}: {values.ndim - 1} axes per row, LeRobot allows {mapping.MAX_AXES}"
                )

    def write_episode(self, episode: Episode) -> None:
        """Check `episode` and commit it. Raises ContractError, before anything is written, when it does not fit."""
        if self._closed:
            raise RuntimeError(f"{self.path}: the writer is closed; open a new one with mode 'append'")
        columns = prepare_episode(episode, self._warned)
        constants: Any = episode.get(EPISODE_DATA_KEY) or {}
        if not self._is_open and not self._replacing and is_lerobot_dataset(self.path):
            self._open(self.path)  # an error came after the first episode had been published
        if self._is_open:
            columns = check_schema(columns, self._schema)
        self._check(columns)
        self._constants = check_constants(constants, self._ours["episode_data"] if self._is_open else None)
        if self._is_open:
            self._commit(columns)
        else:
            self._create({name: columns[name] for name in sorted(columns)})

    # -- creating, opening, closing -----------------------------------------------------------------------------------

    def _create(self, columns: Columns) -> None:
        try:
            self._schema = {name: Column.of(values) for name, values in columns.items()}
            self._links = mapping.link_columns(self._schema)
            features = mapping.features_of(self._links.values(), self._use_videos, self._keep_last)
            self._content = new_content(features, self._frame_rate(self._fps, FPS), self._robot_type)
            self._ours: Json = {
                "dataset_id": uuid.uuid4().hex,
                "episodes": 0,
                "keep_last": self._keep_last,
                "columns": mapping.links_as_json(self._links),
                "episode_data": describe_constants(self._constants),
                "metadata": self.metadata,
            }
            self._tasks: list[str] = []
            self._table: pa.Table | None = None
            ensure_dir_exists(self._new)
            self._continue(self._new, 0)
            self._commit(columns)
            if not self._replacing:
                self._finish()
                self._publish()
                self._open(self.path)
        except BaseException:
            if self._is_open:
                self._journal.close()
            self._is_open, self.num_episodes = False, 0
            self._discard_partial()
            raise

    def _open(self, target: Path) -> None:
        damage: list[str] | None = None if self._keep is None else []
        layout = LeRobotLayout(target, damage)
        info = layout.info
        if not info.is_v3 or not info.is_ours:
            raise ContractError(
                f"{self.path}: other programs wrote episodes of it ({info.version}), it can be read but not continued; "
                "copy it with convert(..., dest_format='lerobot') and options of its own"
            )
        if self._keep is None and layout.lost.columns:
            raise ContractError(f"{self.path}: {layout.lost}; restore a copy, nothing can be added without them")
        if self._keep is None and layout.lost:
            logger.warning("%s: %s; they are written again", self.path, layout.lost)
        episodes = len(layout.index.lengths) if self._keep is None else self._keep
        self._schema, self._links = layout.columns, layout.links
        self._content, self._ours = info.content, dict(info.ours)
        self._keep_last = bool(self._ours.get("keep_last", True))
        self._tasks = layout.episodes.tasks[: int(info.content["total_tasks"])]
        if not self._keep_last:
            self._links = {name: link for name, link in self._links.items() if name in self._ours["columns"]}
            self._schema = {name: link.column for name, link in self._links.items()}
        self._continue(target, episodes)
        self._table = self._read_table(target, episodes)
        unknown = range(self._journal.num_episodes, episodes)  # committed, then killed before the journal
        table = {name: layout.load(name) for name in layout.columns if name not in layout.frames} if unknown else {}
        for i in unknown:
            self._journal.append(stored_record(layout, table, i))
        self._adopt_metadata(self._ours["metadata"])
        if self._keep is not None:
            self._cut(target, episodes, int(layout.index.lengths[:episodes].sum()))
        if self._crashed or self._keep is not None:
            self._remove_leftovers(target)

    def _continue(self, target: Path, episodes: int) -> None:
        """Open the journal of `target`, which has this many episodes."""
        self._journal = Journal(journal_path(target))
        header = make_header(self._ours["dataset_id"], self._schema, self._ours["metadata"], 0)
        self._journal.begin(header, episodes)
        self._encoder = Encoder(self._content, self._links, self._keep_last, self._task, self._ours["episode_data"])
        self._target, self._is_open, self.num_episodes = target, True, episodes

    def _read_table(self, target: Path, episodes: int) -> pa.Table | None:
        """The last table of episodes, if it has room."""
        rows = episodes % EPISODES_PER_TABLE
        if not rows:
            return None
        return parquet.read_table(target / _table_file(episodes - 1)).slice(0, rows)

    def _finish(self) -> None:
        try:
            self._write_stats()
            self._sync_all([])
            self._journal.sync()
        finally:
            self._journal.close()
            self._is_open = False
            self._remove_scratch()

    # -- one episode --------------------------------------------------------------------------------------------------

    def _commit(self, columns: Columns) -> None:
        """Append one episode. The renaming of `info.json` is the commit."""
        target, i = self._target, self.num_episodes
        draft = self._encoder.encode(i, self._content["total_frames"], columns, self._tasks, self._constants)
        content = self._counted(i + 1, self._content["total_frames"] + draft.rows, len(draft.tasks))
        ours = {**self._ours, "episodes": i + 1}
        table = self._with_row(draft.row)
        data_file = self._content["data_path"].format(**place(i, FILES_PER_CHUNK))
        tables = {data_file: draft.data, _table_file(i): table}
        if draft.tasks != self._tasks:
            tables[TASKS] = parquet.tasks_table(draft.tasks)
        names = [*draft.videos, *tables]
        scratch = self._scratch()
        try:
            for name, data in draft.videos.items():
                (scratch / _flat(name)).write_bytes(data)
            for name, content_of in tables.items():
                parquet.write_table(scratch / _flat(name), content_of)
            write_info(scratch / _flat(INFO), content, ours)
            sums = draft.sums_with((scratch / _flat(data_file)).read_bytes() if draft.stills else b"")
            if time.monotonic() - self._last_sync >= self._fsync_every:
                self._sync_all([scratch / _flat(name) for name in (*names, INFO)])
            self._rename(scratch, target, names)
            (scratch / _flat(INFO)).replace(target / INFO)
        except BaseException:
            if _episodes_in(target) == i + 1:  # it came between the commit and here
                self._committed(i + 1, content, ours, draft.tasks, table, names)
            raise
        self._committed(i + 1, content, ours, draft.tasks, table, names)
        self._journal.append(record_of(i, draft.rows, draft.columns, sums))
        self._after_commit()

    def _counted(self, episodes: int, frames: int, tasks: int) -> Json:
        counts = {"total_episodes": episodes, "total_frames": frames, "total_tasks": tasks}
        return {**self._content, **counts, "splits": {"train": f"0:{episodes}"}}

    def _with_row(self, row: pa.Table) -> pa.Table:
        pa = require("pyarrow", "data")
        if self._table is None or len(self._table) >= EPISODES_PER_TABLE:
            return row
        return pa.concat_tables([self._table, row.cast(self._table.schema)]).combine_chunks()

    def _rename(self, scratch: Path, target: Path, names: list[str]) -> None:
        for name in names:
            ensure_dir_exists((target / name).parent)
            (scratch / _flat(name)).replace(target / name)

    def _committed(
        self, episodes: int, content: Json, ours: Json, tasks: list[str], table: pa.Table, names: list[str]
    ) -> None:
        self.num_episodes, self._content, self._ours, self._tasks, self._table = episodes, content, ours, tasks, table
        self._unsynced += [self._target / name for name in (*names, INFO)]

    def _after_commit(self) -> None:
        """Statistics of the whole set, when it has doubled. The episode is safe: a full disk is the next one's."""
        try:
            if self.num_episodes & (self.num_episodes - 1) == 0:
                self._write_stats()
        except OSError as error:
            logger.warning("%s: committed, but its statistics are not up to date: %s", self.path, error)

    # -- the whole set ------------------------------------------------------------------------------------------------

    def _write_stats(self) -> None:
        """Write `stats.json` if it does not describe all rows."""
        from stable_worldmodel.data.formats.lerobot.repair import set_statistics, stats_rows

        target = self._target
        if stats_rows(target) == self._content["total_frames"]:
            return
        new = self._scratch() / _flat(STATS)
        new.write_text(statistics.stats_json(set_statistics(target)))
        new.replace(target / STATS)
        self._unsynced.append(target / STATS)

    def _cut(self, target: Path, episodes: int, rows: int) -> None:
        """Drop everything from episode number `episodes` on: from `info.json` first."""
        content = self._counted(episodes, rows, len(self._tasks))
        scratch = self._scratch()
        self._content, self._ours = content, {**self._ours, "episodes": episodes}
        write_info(scratch / _flat(INFO), content, self._ours)
        (scratch / _flat(INFO)).replace(target / INFO)
        parquet.write_table(scratch / _flat(TASKS), parquet.tasks_table(self._tasks))
        (scratch / _flat(TASKS)).replace(target / TASKS)
        if self._table is not None:
            name = _table_file(episodes - 1)
            parquet.write_table(scratch / _flat(name), self._table)
            (scratch / _flat(name)).replace(target / name)
        (target / STATS).unlink(missing_ok=True)

    def _remove_leftovers(self, target: Path) -> None:
        """Remove files of episodes from number `num_episodes` on, and stills of an unfinished recording."""
        folders = [(target / "data", ".parquet")]
        folders += [(folder, ".mp4") for folder in (target / "videos").glob("*")]
        for folder, suffix in folders:
            _remove([path for number, path in numbered_files(folder, suffix) if number >= self.num_episodes])
        tables = -(-self.num_episodes // EPISODES_PER_TABLE)
        _remove([path for n, path in numbered_files(target / EPISODES_FOLDER, ".parquet") if n >= tables])
        shutil.rmtree(target / "images", ignore_errors=True)

    def _sync_all(self, new: list[Path]) -> None:
        """Wait for everything written, and for `new`, before `info.json` speaks of it."""
        written = [path for path in dict.fromkeys(self._unsynced) if path.exists()]
        sync([*written, *dict.fromkeys(path.parent for path in written), *new])
        self._unsynced.clear()
        self._last_sync = time.monotonic()

    def _scratch(self) -> Path:
        return ensure_dir_exists(self._partial / f"{self.path.name}.files")

    def _remove_scratch(self) -> None:
        if self._partial.exists():
            shutil.rmtree(self._partial / f"{self.path.name}.files", ignore_errors=True)
            if not any(self._partial.iterdir()):
                self._partial.rmdir()


def _table_file(episode: int) -> str:
    """The table that has the row of an episode."""
    return EPISODES_PATH.format(**place(episode // EPISODES_PER_TABLE, FILES_PER_CHUNK))


def _flat(name: str) -> str:
    """Name, in the scratch folder, of what will be the file `name`."""
    return name.replace("/", "|")


def _episodes_in(target: Path) -> int:
    try:
        return Info.read(target).episodes
    except (OSError, ValueError):
        return -1


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        if path.parent.name.startswith("chunk-") and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _check_texts(name: str, texts: np.ndarray) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ContractError(f"column {name!r}: text {text!r} is not valid Unicode ({error})") from error
