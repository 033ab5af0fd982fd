"""The `lance` format: tables of rows with JPEG images. See `lance` for what is inside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.data.formats.directory.row_log import log_path
from stable_worldmodel.data.formats.lance.layout import TableLayout
from stable_worldmodel.data.formats.lance.location import (
    SUFFIX,
    Location,
    datasets_in,
    has_videos,
    is_side_table,
    locate,
)
from stable_worldmodel.data.formats.lance.schema import EPISODE, EPISODES, FRAMES, STEP
from stable_worldmodel.data.formats.lance.store import Store, open_store
from stable_worldmodel.data.formats.lance.swap import publish_tables
from stable_worldmodel.data.formats.lance.verify import verify_tables
from stable_worldmodel.data.formats.lance.writer import LanceWriter
from stable_worldmodel.data.formats.shared.stored import StoredDataset
from stable_worldmodel.data.registry import Format, PathLike
from stable_worldmodel.data.verify import Report
from stable_worldmodel.errors import ContractError


class LanceFormat(Format):
    """A directory `X.lance`, or a directory or database that holds one."""

    name = "lance"
    suffixes: tuple[str, ...] = (SUFFIX,)
    supports_episode_data = True
    reencodes_images = True

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        text = os.fspath(path).rstrip("/")
        if text.endswith(SUFFIX):
            return "://" in text or not (is_side_table(text) or has_videos(Path(text)))
        return "://" not in text and any(not has_videos(path) for path in _tables_in(Path(text)))

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> LanceDataset:
        return LanceDataset(path, **kwargs)

    @classmethod
    def open_writer(cls, path: PathLike, **kwargs: Any) -> LanceWriter:
        target = Path(path).expanduser().resolve()
        if is_side_table(str(target)):
            raise ContractError(f"{path}: belongs to another dataset beside it; choose another name")
        if not target.name.endswith(SUFFIX) and not datasets_in(target):
            target = target.with_name(target.name + SUFFIX)
        location = Location.of_table(target) if target.name.endswith(SUFFIX) else locate(target)
        if has_videos(location.path(FRAMES)):
            raise ContractError(f"{path}: a dataset with videos; open its writer with format='lance_video'")
        return LanceWriter(location, **kwargs)

    @classmethod
    def verify(cls, path: PathLike, deep: bool = False, repair: bool = False) -> Report:
        return verify_tables(locate(path), deep, repair)

    @classmethod
    def publish(cls, path: Path) -> None:
        publish_tables(Location.of_table(path))

    @classmethod
    def side_files(cls, path: Path) -> list[Path]:
        table = path.name.endswith(SUFFIX)
        side = [Location.of_table(path).path(EPISODES)] if table else []
        return [*super().side_files(path), log_path(path), *side]


def _tables_in(folder: Path) -> list[Path]:
    return [folder / f"{stem}{SUFFIX}" for stem in datasets_in(folder)]


class LanceDataset(StoredDataset):
    """A dataset in Lance tables, as the episodes complete when it was opened; a writer may go on appending.

    path: a directory `X.lance`, one that holds exactly one such, the name of a cached dataset, or a URL (`s3://`,
        `gs://`, `az://`, `hf://`); `uri` is the same. `table_name` chooses among several.
    image_columns: the binary columns that are images; default: all.
    episode_index_column, step_index_column: names in tables of other tools.
    storage_options: for remote tables; `connect_kwargs` may carry them too.
    The other arguments are those of `StoredDataset`. TypeError without `path` and `uri`.

    The images of local tables are read without pylance once they are open, also in forked processes; what their layout
    does not allow to be read so gives a RuntimeError there.
    """

    def __init__(
        self,
        path: PathLike | None = None,
        table_name: str | None = None,
        *,
        uri: str | None = None,
        keys_to_load: Sequence[str] | None = None,
        image_columns: Sequence[str] | None = None,
        episode_index_column: str = EPISODE,
        step_index_column: str = STEP,
        storage_options: Mapping[str, str] | None = None,
        connect_kwargs: Mapping[str, Any] | None = None,
        cache_dir: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        target = path if uri is None else uri
        if target is None:
            raise TypeError(f"{type(self).__name__} needs `path` or `uri`")
        location = locate(target if "://" in os.fspath(target) else dataset_path(target, cache_dir), table_name)
        options = {**((connect_kwargs or {}).get("storage_options") or {}), **(storage_options or {})}
        store = open_store(location, remote_options(location, options), episode_index_column, image_columns)
        if store.losses:  # the rest would look like everything
            raise ContractError(f"{store.losses}; look with data.verify(path), accept it with repair=True")
        if not len(store.lengths):
            raise ContractError(f"{location.uri(FRAMES)}: no episode is complete yet")
        self.path = None if location.remote else Path(location.anchor)
        self._tables = self._layout_of(store, step_index_column)
        names = [name for name in self._tables.columns if name != step_index_column or name in store.places]
        super().__init__(self._tables, keys_to_load=names if keys_to_load is None else keys_to_load, **kwargs)
        self.episode_column_names = tuple(store.data_names)

    def _layout_of(self, store: Store, step_column: str) -> TableLayout:
        return TableLayout(store, store.places, step_column)

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        """Return the per-episode values of `episodes`, in their order and with repeats; default: of all."""
        wanted = np.arange(self.num_episodes) if episodes is None else np.asarray(episodes, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.num_episodes:
            raise ContractError(f"episodes={episodes}: the dataset has episodes 0..{self.num_episodes - 1}")
        return self._tables.episode_data(wanted)


def remote_options(location: Location, given: Mapping[str, str]) -> dict[str, str]:
    """Return what pylance needs to reach remote tables; what is given goes first."""
    scheme = location.folder.partition("://")[0]
    if scheme == "s3":
        region = os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return {"region": region, "virtual_hosted_style_request": "true", **given}
    if scheme == "hf" and os.environ.get("HF_TOKEN"):
        return {"token": os.environ["HF_TOKEN"], **given}
    return dict(given)
