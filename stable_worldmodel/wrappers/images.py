"""Pictures in info: render them, bring them to one size, check their size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers.base import Info, InfoWrapper

# Names of Pillow's filters and the values of its Resampling enum, so that building a World does not import Pillow.
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def is_image(value: Any) -> bool:
    """True for a uint8 array (H, W, C) with 1, 3 or 4 channels."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in (1, 3, 4)


def parse_image_shape(shape: Any) -> tuple[int, int, int | None]:
    """Split (H, W) or (H, W, C) into height, width and channels (None = keep what the env draws)."""
    sizes = tuple(shape)
    if len(sizes) not in (2, 3) or any(int(s) != s or s < 1 for s in sizes):
        raise ContractError(f"image shape {shape!r}: expected (H, W) or (H, W, C) with positive integers")
    height, width = int(sizes[0]), int(sizes[1])
    channels = int(sizes[2]) if len(sizes) == 3 else None
    if channels is not None and channels not in _MODES:
        raise ContractError(f"image shape {shape!r}: expected C in {sorted(_MODES)}, found {channels}")
    return height, width, channels


class ImageFormat:
    """Brings any frame to one size and channel count, then through the user's transform.

    Frames that already fit are passed on untouched, so an env that draws at the size asked for costs nothing here.
    """

    def __init__(self, shape: Any, transform: Callable | None = None, resample: str | int | None = None):
        self.height, self.width, self.channels = parse_image_shape(shape)
        self.transform = transform
        name = "bilinear" if resample is None else resample
        self.resample = RESAMPLING.get(name, -1) if isinstance(name, str) else int(name)
        if self.resample not in RESAMPLING.values():
            raise ValueError(f"image_resample={resample!r}: expected one of {', '.join(RESAMPLING)}")

    def __call__(self, frame: Any) -> np.ndarray:
        frame = np.asarray(frame)
        if frame.ndim == 2:
            frame = frame[:, :, None]
        if frame.ndim != 3 or frame.dtype != np.uint8 or frame.shape[2] not in _MODES:
            raise ContractError(
                f"rendered frame: expected uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
                f"found {frame.dtype} {frame.shape}"
            )
        fits = frame.shape[:2] == (self.height, self.width) and self.channels in (None, frame.shape[2])
        if fits and self.transform is None:
            return frame
        return self._through_pillow(frame)

    def _through_pillow(self, frame: np.ndarray) -> np.ndarray:
        from PIL import Image

        image: Any = Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame)
        if self.channels is not None and image.mode != _MODES[self.channels]:
            image = image.convert(_MODES[self.channels])
        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), Image.Resampling(self.resample))
        if self.transform is not None:
            image = self.transform(image)
        pixels: Any = image if hasattr(image, "ndim") else np.asarray(image)  # tensors stay tensors
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


class AddPixelsWrapper(InfoWrapper):
    """Adds the rendered frame to info as `pixels`, uint8 (H, W, C), and the seconds it took as `render_time`.

    Several views become `pixels.<view>` (`render_multiview()` of the env returning a mapping) or `pixels.<index>` (a
    list). An env with a `render_shape` attribute is told to draw at this size; other frames are resized.
    """

    def __init__(
        self,
        env: gym.Env,
        pixels_shape=(84, 84),
        torchvision_transform: Callable | None = None,
        resample: str | int | None = None,
    ):
        super().__init__(env)
        self._format = ImageFormat(pixels_shape, torchvision_transform, resample)
        base = env.unwrapped
        if hasattr(base, "render_shape"):
            base.render_shape = (self._format.height, self._format.width)
        multiview = getattr(base, "render_multiview", None)
        self._draw = multiview if callable(multiview) else env.render

    def amend(self, info: Info) -> None:
        start = time.perf_counter()
        frames = self._draw()
        info["render_time"] = time.perf_counter() - start
        if isinstance(frames, Mapping):
            views = {f"pixels.{name}": frame for name, frame in frames.items()}
        elif isinstance(frames, (list, tuple)):
            views = {f"pixels.{index}": frame for index, frame in enumerate(frames)}
        else:
            views = {"pixels": frames}
        for key, frame in views.items():
            if frame is None:
                raise RuntimeError(
                    f"{self.env.unwrapped} rendered no frame with render_mode={self.env.render_mode!r}; "
                    "expected render_mode='rgb_array'"
                )
            info[key] = self._format(frame)


class ResizeGoalWrapper(InfoWrapper):
    """Brings `goal` to one size when it is an image; vector goals and absent goals are left alone."""

    def __init__(
        self,
        env: gym.Env,
        pixels_shape=(84, 84),
        torchvision_transform: Callable | None = None,
        resample: str | int | None = None,
    ):
        super().__init__(env)
        self._format = ImageFormat(pixels_shape, torchvision_transform, resample)

    def amend(self, info: Info) -> None:
        goal = info.get("goal")
        if is_image(goal):
            info["goal"] = self._format(goal)


class EnsureImageShape(InfoWrapper):
    """Raises RuntimeError unless `info[image_key]` exists and has height and width `image_shape`."""

    def __init__(self, env: gym.Env, image_key: str, image_shape):
        super().__init__(env)
        self._key = image_key
        self._shape = parse_image_shape(image_shape)[:2]

    def amend(self, info: Info) -> None:
        if self._key not in info:
            raise RuntimeError(f"info has no image {self._key!r}; it has {sorted(info)}")
        found = tuple(np.shape(info[self._key])[:2])
        if found != self._shape:
            raise RuntimeError(f"info[{self._key!r}]: expected height and width {self._shape}, found {found}")
