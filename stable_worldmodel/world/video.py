"""Video files: H.264 in MP4, and GIF; frames are padded, never rescaled, to what the codec accepts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError, require
from stable_worldmodel.protocols import Info
from stable_worldmodel.wrappers.images import is_image

if TYPE_CHECKING:
    from stable_worldmodel.world.rollout import Rollout

# Draws row t of an episode: (infos, env, episode number, t) -> frame (H, W, C).
Draw = Callable[[Info, int, int, int], np.ndarray]

EXTENSIONS = ("mp4", "gif")
_LABEL_HEIGHT, _LABEL_SIZE = 24, 16  # pixels


class VideoWriter:
    """Writes uint8 frames (H, W, C) one by one. A context manager; the file is finished however the block ends.

    The file appears with the first frame, so an episode without frames leaves none.

    Args:
        path: ends in .mp4 (libx264, yuv420p) or .gif; anything else raises ContractError.
        fps: frames per second.
    """

    def __init__(self, path: str | Path, fps: int = 15):
        self.path = Path(path)
        if self.path.suffix.lstrip(".") not in EXTENSIONS:
            raise ContractError(f"video path {str(path)!r}: expected a name ending in {EXTENSIONS}")
        self._av = require("av", extra="report")
        self._fps = fps
        self._container: Any = None
        self._stream: Any = None

    def write(self, frame: np.ndarray) -> None:
        """Append one frame; all frames of a video have the same size."""
        rgb = pad_to_even(to_rgb(frame))
        if self._container is None:
            self._open(*rgb.shape[:2])
        elif rgb.shape[:2] != (self._stream.height, self._stream.width):
            raise ContractError(
                f"{self.path.name}: frame size changed from {(self._stream.height, self._stream.width)} "
                f"to {rgb.shape[:2]}"
            )
        for packet in self._stream.encode(self._convert(self._av.VideoFrame.from_ndarray(rgb, format="rgb24"))):
            self._container.mux(packet)

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self.path), "w")
        if self.path.suffix == ".gif":
            self._stream = self._container.add_stream("gif", rate=self._fps)
            self._stream.pix_fmt = "rgb8"
        else:
            # One encoder thread: many small videos are written, and the file must not depend on the machine.
            self._stream = self._container.add_stream(
                "libx264", rate=self._fps, options={"crf": "18", "preset": "veryfast", "threads": "1"}
            )
            self._stream.pix_fmt = "yuv420p"
        self._stream.width, self._stream.height = width, height

    def _convert(self, frame: Any) -> Any:
        return frame.reformat(format=self._stream.pix_fmt)

    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            for packet in self._stream.encode():
                container.mux(packet)
        finally:
            container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: int = 15) -> None:
    """Write all frames to one file."""
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.write(frame)


class EpisodeVideos:
    """One MP4 per episode, written while the episodes run, so that no frames are kept.

    `<stem>_<episode>.mp4` is there once the episode is complete. Until then its frames go to
    `<stem>_<episode>.unfinished.mp4`, which stays, closed and playable, if the run breaks off.

    Args:
        directory: None writes nothing.
        draw: the frame of one row.
    """

    def __init__(self, directory: Path | None, stem: str, draw: Draw, fps: int = 15):
        self._directory = directory
        self._stem = stem
        self._draw = draw
        self._fps = fps
        self._rollout: Rollout | None = None
        self._open: dict[int, tuple[VideoWriter, int]] = {}  # by episode: its file, and how many frames are in it

    def lacks(self, episode: int) -> bool:
        """Whether the file of a complete episode is missing."""
        return self._directory is not None and not self._path(episode).exists()

    def write(self, rollout: Rollout, infos: Info, mask: np.ndarray) -> None:
        """Add one frame to the video of every episode in the envs of `mask`; to be called by a rollout observer."""
        if self._directory is None:
            return
        self._rollout = rollout
        self.settle()
        running = rollout.running
        for env in np.flatnonzero(mask).tolist():
            episode = running[env]
            if episode not in self._open:
                self._path(episode).unlink(missing_ok=True)  # of an earlier run
                self._open[episode] = VideoWriter(self._path(episode).with_suffix(".unfinished.mp4"), self._fps), 0
            video, t = self._open[episode]
            video.write(self._draw(infos, env, episode, t))
            self._open[episode] = video, t + 1

    def settle(self) -> None:
        """Close and name the files of episodes that ended."""
        if self._rollout is None:
            return
        for episode in self._open.keys() - set(self._rollout.running.values()):
            video, _ = self._open.pop(episode)
            video.close()
            video.path.replace(self._path(episode))

    def _path(self, episode: int) -> Path:
        return Path(self._directory or ".") / f"{self._stem}_{episode}.mp4"

    def __enter__(self) -> EpisodeVideos:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.ExitStack() as closing:
            for video, _ in self._open.values():
                closing.callback(video.close)
            closing.callback(self.settle)  # runs first


def image_views(names: str | Sequence[str], images: Collection[str]) -> list[str]:
    """The keys that `names` mean among the image keys `images`; MissingKeyError for one that is none of them.

    A name that is no key itself stands for all its views: `pixels` for `pixels.front` and `pixels.top`.
    """
    chosen: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        views = [name] if name in images else [key for key in images if key.startswith(f"{name}.")]
        if not views:
            raise MissingKeyError(f"no image {name!r}; there are {sorted(images)}")
        chosen += views
    return chosen


def info_images(infos: Info) -> list[str]:
    """Keys of stacked infos (N, T, H, W, C) that hold images."""
    return [key for key, value in infos.items() if np.ndim(value) == 5 and is_image(value[0, -1])]


def stack_views(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images one below the other, as RGB; narrower ones get a black margin on the right."""
    tiles = [to_rgb(image) for image in images]
    width = max(tile.shape[1] for tile in tiles)
    return np.concatenate([np.pad(tile, ((0, 0), (0, width - tile.shape[1]), (0, 0))) for tile in tiles])


def to_rgb(frame: np.ndarray) -> np.ndarray:
    """Grey, RGB or RGBA uint8 (H, W, C) as RGB; transparency is laid over black."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (1, 3, 4):
        raise ContractError(f"video frame: expected uint8 (H, W, 1|3|4), found {frame.dtype} {frame.shape}")
    if frame.shape[2] == 1:
        return np.repeat(frame, 3, axis=2)
    if frame.shape[2] == 4:
        return (frame[:, :, :3] * (frame[:, :, 3:] / 255.0)).round().astype(np.uint8)
    return frame


def pad_to_even(frame: np.ndarray) -> np.ndarray:
    """Add a row and a column of edge pixels where the size is odd; yuv420p needs even sizes."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else frame


def panels(images: Sequence[np.ndarray], labels: Sequence[str], min_height: int = 160) -> np.ndarray:
    """Images of one size side by side, each under its label, enlarged by a whole factor to at least `min_height`."""
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, -(-min_height // images[0].shape[0]))
    tiles = [to_rgb(image).repeat(factor, axis=0).repeat(factor, axis=1) for image in images]
    gap = np.full((tiles[0].shape[0], 4, 3), 255, np.uint8)
    row = np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)
    canvas = Image.new("RGB", (row.shape[1], row.shape[0] + _LABEL_HEIGHT), (255, 255, 255))
    canvas.paste(Image.fromarray(row), (0, _LABEL_HEIGHT))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_LABEL_SIZE)
    for index, label in enumerate(labels):
        draw.text((index * (tiles[0].shape[1] + gap.shape[1]) + 4, 2), label, fill=(40, 40, 40), font=font)
    return np.asarray(canvas)
