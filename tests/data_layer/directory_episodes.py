"""Episodes with images that survive lossy codecs recognisably, and the comparison of what came back."""

from __future__ import annotations

from typing import Any

import numpy as np
from episode_factory import make_episode

FORMATS = ("folder", "video", "hf_arrow")
# Mean and largest difference of a picture that `make_views` draws, in levels of 255, after the codec of a format.
BOUNDS = {"folder": (2, 30), "hf_arrow": (2, 30), "video": (4, 60)}


def make_views(k: int, rows: int | None = None, side: int = 32, channels: int = 3) -> dict[str, Any]:
    """Episode `k` as `make_episode` has it, with smooth pictures that differ by row, and a goal that does not."""
    episode = make_episode(k, rows, side=8)
    rows = len(episode["reward"])
    y, x = np.mgrid[0:side, 0:side] * (96 / side)
    t = np.arange(rows)[:, None, None]
    pixels = np.stack([x + 5 * t, y + 3 * t + 20 * (k % 5), 200 - x + 0 * t], axis=-1)[..., :channels]
    episode["pixels"] = pixels.clip(0, 255).astype(np.uint8)
    episode["goal"] = np.repeat(episode["pixels"][-1:], rows, axis=0)
    return episode


def assert_close(found: dict[str, np.ndarray], expected: dict[str, Any], format: str) -> None:
    """Equal numbers and texts; pictures within the bound of the format, and of the right row."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        values = np.asarray(values, dtype=object if isinstance(values, list) else None)
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        if values.dtype == np.uint8 and values.ndim == 4:
            error = np.abs(found[name].astype(int) - values)
            mean, largest = BOUNDS[format]
            assert error.mean() <= mean, name
            assert error.max() <= largest, name
            found_rows, rows = (
                images[:, ::4, ::4].reshape(len(images), -1).astype(int) for images in (found[name], values)
            )
            distances = np.abs(found_rows[:, None] - rows).sum(axis=-1)
            assert (np.diag(distances) == distances.min(axis=1)).all(), name  # each resembles its own row most
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)
