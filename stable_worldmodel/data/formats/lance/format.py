"""The `lance` format: tables of rows with JPEG images. See `lance.schema` for what is inside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.data.formats.lance.columns import episode_data
from stable_worldmodel.data.formats.lance.layout import TableLayout
from stable_worldmodel.data.formats.lance.location import (
    SUFFIX,
    Location,
    datasets_in,
    has_videos,
    is_side_table,
    locate,
)
from stable_worldmodel.data.formats.lance.schema import EPISODE, STEP
from stable_worldmodel.data.formats.lance.store import Store, open_store
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
        if target.name.endswith(SUFFIX):
            location = Location.of_table(target)
        else:
            location = locate(target) if datasets_in(target) else Location.of_table(target / f"{target.name}{SUFFIX}")
        if has_videos(Path(location.frames)):
            raise ContractError(f"{path}: a dataset with videos; open its writer with format='lance_video'")
        return LanceWriter(location, **kwargs)

    @classmethod
    def verify(cls, path: PathLike, deep: bool = False, repair: bool = False) -> Report:
        return verify_tables(locate(path), deep, repair)

    @classmethod
    def side_files(cls, path: Path) -> list[Path]:
        location = Location.of_table(path) if path.name.endswith(SUFFIX) else Location.of_directory(path)
        beside = [Path(location.episodes)] if path.name.endswith(SUFFIX) else []
        return [*super().side_files(path), location.log, *beside]


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

    Local tables are read without pylance once they are open, also in forked processes; where their layout does not
    allow it, a forked process gets a RuntimeError.
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
        if not len(store.lengths):
            raise ContractError(f"{location.frames}: no episode is complete yet")
        self.path = None if location.remote else Path(location.anchor)
        self._store = store
        layout = self._columns_of(store, step_index_column)
        super().__init__(layout, keys_to_load=layout.default if keys_to_load is None else keys_to_load, **kwargs)
        self.episode_column_names = tuple(store.data_names)

    def _columns_of(self, store: Store, step_column: str) -> TableLayout:
        return TableLayout(store, store.places, step_column)

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        """Return the per-episode values of `episodes`, in their order and with repeats; default: of all."""
        wanted = np.arange(self.num_episodes) if episodes is None else np.asarray(episodes, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.num_episodes:
            raise ContractError(f"episodes={episodes}: the dataset has episodes 0..{self.num_episodes - 1}")
        return episode_data(self._store, wanted)


def remote_options(location: Location, given: Mapping[str, str]) -> dict[str, str]:
    """Return what pylance needs to reach remote tables; what is given goes first."""
    scheme = location.folder.partition("://")[0]
    if scheme == "s3":
        region = os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return {"region": region, "virtual_hosted_style_request": "true", **given}
    if scheme == "hf" and os.environ.get("HF_TOKEN"):
        return {"token": os.environ["HF_TOKEN"], **given}
    return dict(given)
