"""What one would write first to load windows: a `torch.utils.data.Dataset` that reads the whole span of each.

`loading.py` measures against these readers of the public layouts.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

STEPS, SKIP = 4, 5  # of a window
ROWS = 100  # per episode

Span = dict[str, np.ndarray]  # column -> (T * K, ...)


class Naive(torch.utils.data.Dataset):
    """Windows of a dataset, one at a time. `open_span` gives a function from (episode, first row) to all its rows."""

    def __init__(self, episodes: int, open_span: Callable[[], Callable[[int, int], Span]]):
        self._per_episode = ROWS - STEPS * SKIP + 1
        self._size = episodes * self._per_episode
        self._open_span = open_span
        self._span: Callable[[int, int], Span] | None = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, window: int) -> dict[str, torch.Tensor]:
        if self._span is None:
            self._span = self._open_span()  # in the worker
        span = {name: torch.from_numpy(rows) for name, rows in self._span(*divmod(window, self._per_episode)).items()}
        return {name: v.reshape(STEPS, -1) if name == "action" else v[::SKIP] for name, v in span.items()}


def naive_hdf5(path: Path) -> Callable[[int, int], Span]:
    import h5py

    file = h5py.File(path, "r")
    columns = {name: file[name] for name in file if name not in ("ep_len", "ep_offset")}

    def span(episode: int, start: int) -> Span:
        first = episode * ROWS + start
        return {name: column[first : first + STEPS * SKIP] for name, column in columns.items()}

    return span


def naive_folder(path: Path) -> Callable[[int, int], Span]:
    from PIL import Image

    tables, images = _tables(path), _folders(path)

    def span(episode: int, start: int) -> Span:
        steps = range(start, start + STEPS * SKIP)
        values = _rows(tables, episode, start)
        for name in images:
            values[name] = np.stack(
                [np.asarray(Image.open(path / name / f"ep_{episode}_step_{t}.jpeg")) for t in steps]
            )
        return values

    return span


def naive_video(path: Path) -> Callable[[int, int], Span]:
    import av

    tables, videos = _tables(path), _folders(path)

    def span(episode: int, start: int) -> Span:
        values = _rows(tables, episode, start)
        for name in videos:
            with av.open(str(path / name / f"ep_{episode}.mp4")) as container:
                stream = container.streams.video[0]
                tick = float(stream.time_base * stream.average_rate)  # frames per unit of time
                container.seek(round(start / tick), stream=stream)
                frames = (
                    f.to_ndarray(format="rgb24") for f in container.decode(stream) if round(f.pts * tick) >= start
                )
                values[name] = np.stack(list(itertools.islice(frames, STEPS * SKIP)))
        return values

    return span


def naive_lance(path: Path) -> Callable[[int, int], Span]:
    import lance
    from PIL import Image

    dataset = lance.dataset(str(path))

    def span(episode: int, start: int) -> Span:
        first = episode * ROWS + start
        table = dataset.take(list(range(first, first + STEPS * SKIP))).to_pydict()
        return {name: np.stack([_decoded(value) for value in values]) for name, values in table.items()}

    def _decoded(value: Any) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value)

    return span


def _tables(path: Path) -> Span:
    return {file.stem: np.load(file)["arr_0"] for file in path.glob("*.npz") if not file.stem.startswith("ep_")}


def _rows(tables: Span, episode: int, start: int) -> Span:
    first = episode * ROWS + start
    return {name: table[first : first + STEPS * SKIP] for name, table in tables.items()}


def _folders(path: Path) -> list[str]:
    return [folder.name for folder in path.iterdir() if folder.is_dir()]


NAIVE = {"hdf5": naive_hdf5, "folder": naive_folder, "lance": naive_lance, "video": naive_video}
# Written for the naive reader, which knows only the public layouts: every row of every column in its place.
PUBLIC_OPTIONS: dict[str, dict[str, Any]] = {"hdf5": {"unique_columns": ()}}
