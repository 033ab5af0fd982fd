"""An episode in the Rerun viewer, where the package rerun-sdk is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_worldmodel.errors import require
from stable_worldmodel.viewer.sources import Source, check_episode

TIMELINE = "row"
_APPLICATION = "stable_worldmodel"
_BLOCK = 64  # frames held at once


def require_rerun() -> Any:
    """The package; MissingDependencyError naming the extra that installs it."""
    return require("rerun", "view")


def stream_episode(source: Source, episode: int, save: str | Path | None = None) -> None:
    """Send images and numeric columns of one episode to a Rerun viewer that is opened for it, or to the file `save`.

    Every row is a moment of the timeline `row`. Raises MissingKeyError without such an episode, MissingDependencyError
    without rerun-sdk, and OSError when the file cannot be written.
    """
    check_episode(source, episode)
    rerun = require_rerun()
    recording = rerun.RecordingStream(_APPLICATION)
    if save is None:
        recording.spawn()
    else:
        path = Path(save)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # says why it cannot be written, if it cannot
        recording.save(path)
    values = source.read_columns(episode, source.columns)
    length = int(source.lengths[episode])
    for first in range(0, length, _BLOCK):
        rows = list(range(first, min(first + _BLOCK, length)))
        images = {name: source.read_images(name, episode, rows) for name in source.images}
        for t in rows:
            recording.set_time(TIMELINE, sequence=t)
            for name, frames in images.items():
                recording.log(f"images/{name}", rerun.Image(frames[t - first]))
            for name, column in values.items():
                recording.log(f"columns/{name}", rerun.Scalars(column[t]))
    recording.flush()
