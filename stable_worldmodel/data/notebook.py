"""Datasets and episodes in a notebook: a table, a filmstrip, a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.shared.mp4 import encode_video
from stable_worldmodel.errors import ContractError, MissingDependencyError, MissingKeyError, require
from stable_worldmodel.utils.notebook import as_rgb, display_html, display_video, html_filmstrip, html_table

if TYPE_CHECKING:
    from stable_worldmodel.data.dataset import Dataset

_THUMBNAILS = 8
_SMALLEST = 256  # px; smaller videos are shown this wide

# Rows of an image column: (name, row numbers) -> (n, H, W, C).
Read = Callable[[str, np.ndarray], np.ndarray]


class EpisodeView:
    """One episode of a dataset, read when it is looked at. `len` is its number of rows."""

    def __init__(self, dataset: Dataset, index: int):
        self.dataset, self.index = dataset, index

    def __len__(self) -> int:
        return int(self.dataset.lengths[self.index])

    def __repr__(self) -> str:
        return f"<episode {self.index}: {len(self)} rows of {', '.join(self.dataset.columns)}>"

    def __getitem__(self, column: str) -> np.ndarray:
        """All rows of a column: images (rows, H, W, C), text as `str` objects."""
        return self.dataset.read_rows(self.index, 0, len(self), [column])[column]

    def _read(self, column: str, rows: np.ndarray) -> np.ndarray:
        parts = [self.dataset.read_rows(self.index, row, row + 1, [column])[column] for row in rows.tolist()]
        return np.concatenate(parts)

    def _repr_html_(self) -> str:
        return episode_html(
            f"Episode {self.index} of {self.dataset.num_episodes}", len(self), self._columns, self._read
        )

    def show(self, column: str | None = None, fps: int = 15) -> None:
        """Show the episode as a video in a notebook; see `show_episode`."""
        show_episode(f"episode {self.index}", self._columns, lambda name: self[name], column, fps)

    @property
    def _columns(self) -> Mapping[str, Column]:
        return self.dataset.columns


def dataset_html(dataset: Dataset) -> str:
    """A table of the columns below what the dataset is, and the beginning of its first episode."""
    lengths = dataset.lengths
    facts = [f"{dataset.num_episodes:,} episodes", f"{int(lengths.sum()):,} rows"]
    if len(lengths):
        facts.append(f"{lengths.min()} to {lengths.max()} rows each")
    facts.append(f"{len(dataset):,} windows of {dataset.num_steps} × {dataset.frameskip} rows")  # noqa: RUF001
    rows = [(name, column.kind, _dtype(column)) for name, column in dataset.columns.items()]
    return html_table(("column", "kind", "one row"), rows, f"{type(dataset).__name__}: {', '.join(facts)}")


def episode_html(title: str, rows: int, columns: Mapping[str, Column], read: Read) -> str:
    """A filmstrip of each image column, and a table of all columns."""
    chosen = np.unique(np.linspace(0, rows - 1, _THUMBNAILS).round().astype(int)) if rows else np.arange(0)
    strips = [
        f"<div>{html_filmstrip(list(read(name, chosen)), name)}</div>" for name in _images(columns) if len(chosen)
    ]
    table = html_table(("column", "one row"), [(name, _dtype(column)) for name, column in columns.items()])
    details = f"<details><summary>{len(columns)} columns</summary>{table}</details>"
    return f"<div><p>{title} · {rows} rows</p>{''.join(strips)}{details}</div>"


def show_episode(
    title: str,
    columns: Mapping[str, Column],
    read: Callable[[str], np.ndarray],
    column: str | None = None,
    fps: int = 15,
) -> None:
    """Show the images of an episode below the cell of a notebook: as a video, or as a filmstrip without PyAV.

    Args:
        read: all rows (T, H, W, C) of an image column.
        column: which; default: `pixels`, else the first image column.

    Raises MissingDependencyError without IPython, ContractError when there are no images or `fps` is below 1, and
    MissingKeyError when `column` is none of them.
    """
    require("IPython.display", "view")
    images = _images(columns)
    if fps < 1:
        raise ContractError(f"fps={fps}: expected an integer >= 1")
    if not images:
        raise ContractError(f"{title} has no images to show; its columns are {', '.join(columns) or 'none'}")
    name = column or images[0]
    if name not in images:
        raise MissingKeyError(f"no image column {name!r}; there are {images}")
    frames = as_rgb(read(name))
    try:
        data = encode_video(_even(frames), fps=fps)
    except MissingDependencyError:
        display_html(html_filmstrip(list(frames[:: max(1, len(frames) // _THUMBNAILS)]), name))
        return
    display_video(data, max(frames.shape[2], _SMALLEST))


def _images(columns: Mapping[str, Column]) -> Sequence[str]:
    return sorted((n for n, c in columns.items() if c.kind == "image"), key=lambda n: (n != "pixels", n))


def _even(frames: np.ndarray) -> np.ndarray:
    """Frames with even sides, which every player knows, by repeating the last row and column of pixels."""
    _, height, width, _ = frames.shape
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _dtype(column: Column) -> Any:
    return f"{column.type_name} {column.shape}" if column.shape else column.type_name
