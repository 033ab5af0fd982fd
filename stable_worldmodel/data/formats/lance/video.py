"""The `lance_video` format: Lance tables whose images are one short-GOP MP4 per episode and column."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_worldmodel.data.formats.lance.format import LanceDataset, LanceFormat
from stable_worldmodel.data.formats.lance.layout import INDEXES_KEPT, TableLayout
from stable_worldmodel.data.formats.lance.location import SUFFIX, Location, datasets_in, has_videos, locate
from stable_worldmodel.data.formats.lance.schema import FRAMES
from stable_worldmodel.data.formats.lance.store import Store
from stable_worldmodel.data.formats.lance.swap import publish_tables
from stable_worldmodel.data.formats.lance.writer import LanceWriter
from stable_worldmodel.data.registry import PathLike
from stable_worldmodel.errors import ContractError, MissingKeyError


class LanceVideoFormat(LanceFormat):
    """A directory with the tables `X.lance`, `X_videos.lance` and, if there is something for it, `X_episodes.lance`."""

    name = "lance_video"
    suffixes = ()

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        text = os.fspath(path).rstrip("/")
        if "://" in text:
            return False
        tables = [text] if text.endswith(SUFFIX) else [f"{text}/{stem}{SUFFIX}" for stem in datasets_in(Path(text))]
        return any(has_videos(Path(table)) for table in tables)

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> LanceVideoDataset:
        return LanceVideoDataset(path, **kwargs)

    @classmethod
    def open_writer(cls, path: PathLike, **kwargs: Any) -> LanceWriter:
        """Open a writer, see `LanceWriter`. `fps`, `gop`, `crf` and `preset` are those of `mp4.encode_video`.

        Without `fps` that of the metadata (`fps` or `render_fps`) counts, or 10.
        """
        target = Path(path).expanduser().resolve()
        if target.name.endswith(SUFFIX) or datasets_in(target):
            location = locate(target)
            if not has_videos(location.path(FRAMES)):
                raise ContractError(f"{path}: a dataset without videos; open its writer with format='lance'")
        elif target.is_dir() and any(target.iterdir()):
            raise ContractError(f"{target} exists and is no dataset of format 'lance_video'; choose another path")
        else:
            location = Location.of_directory(target)
        options: dict[str, Any] = {key: kwargs.pop(key) for key in ("fps", "gop", "crf", "preset") if key in kwargs}
        if (options.get("fps") or 1) < 1 or options.get("gop", 1) < 1:
            raise ContractError(f"{options}: expected fps and gop >= 1")
        return LanceWriter(location, video=options, **kwargs)

    @classmethod
    def publish(cls, path: Path) -> None:
        publish_tables(Location.of_directory(path))


class LanceVideoDataset(LanceDataset):
    """A dataset in Lance tables with images as MP4.

    video_keys: the videos to load, by column; default: all.
    decoder_cache_size: videos whose packet table is kept.
    blob_buffer_size: accepted for compatibility; local videos are mapped, remote ones read whole.
    The other arguments are those of `LanceDataset`.
    """

    def __init__(
        self,
        path: PathLike | None = None,
        table_name: str | None = None,
        *,
        video_keys: Sequence[str] | None = None,
        decoder_cache_size: int = INDEXES_KEPT,
        blob_buffer_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._video_keys = video_keys
        self._indexes_kept = max(1, decoder_cache_size)
        super().__init__(path, table_name, **kwargs)

    def _layout_of(self, store: Store, step_column: str) -> TableLayout:
        videos = {name for name, place in store.places.items() if place.form == "video"}
        chosen = videos if self._video_keys is None else {*self._video_keys}
        if not chosen <= videos:
            raise MissingKeyError(f"no videos {sorted(chosen - videos)}; the dataset has {sorted(videos)}")
        places = {name: place for name, place in store.places.items() if name in chosen or name not in videos}
        return TableLayout(store, places, step_column, self._indexes_kept)
