"""Video files: H.264 in MP4, and GIF; frames are padded, never rescaled, to what the codec accepts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, require

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
