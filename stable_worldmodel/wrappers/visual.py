"""The visual wrappers: each alters the images in `info` in one way, and nothing else.

What they share, from `keys` to the random streams, is in VisualWrapper; the arithmetic is in `pixels`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers import pixels
from stable_worldmodel.wrappers.images import RESAMPLING, is_image
from stable_worldmodel.wrappers.schedules import Strength
from stable_worldmodel.wrappers.visual_base import VisualWrapper, one_of, whole_number

MID_GRAY = 127.5


class ChromaKeyWrapper(VisualWrapper):
    """Replaces the pixels of a colour range.

    Args:
        low, high: inclusive bounds of the range: one grey value or (r, g, b), 0 ... 255.
        replacement: a colour, or a background image, uint8 (h, w, 1 | 3 | 4) or PIL, brought to the size of the frame.
        opacity: of the replacement.
    """

    shares = ("opacity",)

    def __init__(self, env: gym.Env, low: Any, high: Any, replacement: Any = 0, opacity: Strength = 1.0, **shared: Any):
        super().__init__(env, {"opacity": opacity}, **shared)
        self._low, self._high = pixels.parse_color(low, "low"), pixels.parse_color(high, "high")
        if (self._low > self._high).any():
            raise ContractError(f"low={low!r}, high={high!r}: expected low <= high in every channel")
        self._background = _color_or_image(replacement)
        self._fitted: dict[tuple[int, ...], np.ndarray] = {}

    def draw(self, image, strengths, t, rng):
        background, opacity, changed = self._background_like(image), strengths["opacity"], image.copy()
        if opacity < 1:
            background = np.rint(image + opacity * (background - image.astype(np.float32))).astype(np.uint8)
        mask = pixels.in_range(image, self._low, self._high)
        np.copyto(changed, background, where=mask[:, :, None])
        return changed

    def _background_like(self, image: np.ndarray) -> np.ndarray:
        fitted = self._fitted.get(image.shape)
        if fitted is None:
            height, width, channels = image.shape
            scaled = pixels.resize(self._background, height, width, RESAMPLING["bilinear"])
            fitted = self._fitted[image.shape] = pixels.in_channels(scaled, channels)
        return fitted


class NoiseWrapper(VisualWrapper):
    """Adds independent Gaussian noise to every channel of every pixel; with redraw='episode', a fixed pattern.

    Args:
        std: standard deviation; 1 is the full range of 255.
    """

    shares = ("std",)
    default_redraw = "step"
    same_for_all_keys = False  # two cameras do not share their noise

    def __init__(self, env: gym.Env, std: Strength = 0.1, **shared: Any):
        super().__init__(env, {"std": std}, **shared)

    def draw(self, image, strengths, t, rng):
        return pixels.add_noise(image, strengths["std"], rng)


class ColorJitterWrapper(VisualWrapper):
    """Changes brightness, contrast, saturation and hue by random amounts, as one linear map of colours.

    Contrast is about mid-grey, so that the map does not depend on the frame. Values are clipped once, at the end.

    Args:
        brightness, contrast, saturation: the factor is uniform in [max(0, 1 - value), 1 + value].
        hue: the turn of the colour circle is uniform in [-hue, hue]; 0.5 reaches every hue.
    """

    def __init__(
        self,
        env: gym.Env,
        brightness: Strength = 0.2,
        contrast: Strength = 0.2,
        saturation: Strength = 0.2,
        hue: Strength = 0.05,
        **shared: Any,
    ):
        amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        super().__init__(env, amounts, **shared)

    def draw(self, image, strengths, t, rng):
        # Four draws whatever the strengths are, so that changing one leaves the others' values alone.
        unit = dict(zip(("brightness", "contrast", "saturation", "hue"), rng.uniform(-1, 1, 4), strict=True))
        factor = {name: _factor(strengths[name], unit[name]) for name in ("brightness", "contrast", "saturation")}
        matrix = pixels.jitter_matrix(factor["brightness"], factor["saturation"], strengths["hue"] * unit["hue"])
        contrast = factor["contrast"]
        return pixels.affine_color(image, contrast * matrix, MID_GRAY * (1 - contrast))


class BlurWrapper(VisualWrapper):
    """Gaussian blur.

    Args:
        sigma: standard deviation in pixels.
    """

    def __init__(self, env: gym.Env, sigma: Strength = 1.0, **shared: Any):
        super().__init__(env, {"sigma": sigma}, **shared)

    def draw(self, image, strengths, t, rng):
        return pixels.blur(image, strengths["sigma"])


class OcclusionWrapper(VisualWrapper):
    """Covers parts of the image with rectangles that stay where they are for an episode.

    Args:
        size: longest side of a rectangle, as a share of the image's side; each side is uniform in [size / 2, size].
        count: number of rectangles.
        color: one grey value or (r, g, b); None draws one for every rectangle.
        opacity: of the rectangles.
    """

    shares = ("size", "opacity")

    def __init__(
        self,
        env: gym.Env,
        size: Strength = 0.3,
        count: int = 3,
        color: Any = 0,
        opacity: Strength = 1.0,
        **shared: Any,
    ):
        super().__init__(env, {"size": size, "opacity": opacity}, **shared)
        self._count = whole_number(count, "count", least=1)
        self._color = None if color is None else pixels.parse_color(color, "color")

    def draw(self, image, strengths, t, rng):
        changed = image.copy()
        if strengths["size"] == 0:
            return changed
        for _ in range(self._count):
            sides = strengths["size"] * rng.uniform(0.5, 1, 2)
            corner = (1 - sides) * rng.random(2)
            pixels.fill(changed, corner, sides, _color_or_random(self._color, rng), strengths["opacity"])
        return changed


class CutoutWrapper(OcclusionWrapper):
    """Covers one rectangle at a new random place every step. The arguments are those of OcclusionWrapper."""

    default_redraw = "step"

    def __init__(self, env: gym.Env, size: Strength = 0.5, count: int = 1, color: Any = 0, **shared: Any):
        super().__init__(env, size, count, color, **shared)


class MovingPatchWrapper(VisualWrapper):
    """A patch that starts at a random place, moves in a random direction and bounces off the edges.

    Args:
        size: its sides, as a share of the image's.
        speed: its way per step, in the same unit, >= 0.
        color: one grey value or (r, g, b); None draws one per episode.
        opacity: of the patch.
    """

    shares = ("size", "opacity")

    def __init__(
        self,
        env: gym.Env,
        size: Strength = 0.2,
        speed: float = 0.02,
        color: Any = 0,
        opacity: Strength = 1.0,
        **shared: Any,
    ):
        super().__init__(env, {"size": size, "opacity": opacity}, **shared)
        self._check_strength("speed", speed)
        self._speed = speed
        self._color = None if color is None else pixels.parse_color(color, "color")

    def draw(self, image, strengths, t, rng):
        changed, size = image.copy(), strengths["size"]
        if size == 0:
            return changed
        start, angle = (1 - size) * rng.random(2), 2 * np.pi * rng.random()
        travelled = t * self._speed * np.array([np.sin(angle), np.cos(angle)])
        corner = pixels.bounce(start + travelled, 1 - size)
        color = _color_or_random(self._color, rng)
        pixels.fill(changed, corner, np.full(2, size), color, strengths["opacity"])
        return changed


class RandomShiftWrapper(VisualWrapper):
    """Moves the image by a random number of pixels, edges replicated: the pad and crop of DrQ (Yarats et al. 2021).

    Args:
        pad: largest shift in pixels along each axis, rounded; up, down, left and right alike.
    """

    default_redraw = "step"

    def __init__(self, env: gym.Env, pad: Strength = 4, **shared: Any):
        super().__init__(env, {"pad": pad}, **shared)

    def draw(self, image, strengths, t, rng):
        pad = round(strengths["pad"])
        return pixels.shift(image, *rng.integers(-pad, pad + 1, 2).tolist())


class RandomConvWrapper(VisualWrapper):
    """Convolves the image with a random 3 x 3 kernel that mixes the channels (Lee et al. 2020, Network Randomization).

    The kernel is drawn from Xavier's normal distribution. The result has the spread of the image; it acts on the
    difference from mid-grey and is clipped.

    Args:
        amount: from the image (0) to its convolution (1).
    """

    shares = ("amount",)

    def __init__(self, env: gym.Env, amount: Strength = 1.0, **shared: Any):
        super().__init__(env, {"amount": amount}, **shared)

    def draw(self, image, strengths, t, rng):
        channels, amount = image.shape[2], strengths["amount"]
        kernel = rng.standard_normal((channels, 3, 3, channels)) * (amount / (3 * np.sqrt(channels)))
        kernel[:, 1, 1] += (1 - amount) * np.eye(channels)
        return pixels.convolve(image, kernel, MID_GRAY)


class GrayscaleWrapper(VisualWrapper):
    """Takes the colour out; the number of channels stays.

    Args:
        amount: from the image (0) to its luma (1).
    """

    shares = ("amount",)

    def __init__(self, env: gym.Env, amount: Strength = 1.0, **shared: Any):
        super().__init__(env, {"amount": amount}, **shared)

    def draw(self, image, strengths, t, rng):
        return pixels.affine_color(image, pixels.gray_matrix(strengths["amount"]))


class ResolutionWrapper(VisualWrapper):
    """Samples the image down, each pixel the mean of those it covers, and up again to its size.

    Args:
        reduction: share of rows and columns that are lost; 0.75 leaves a quarter of each.
        resample: filter for the way up: nearest (blocks), bilinear, bicubic, lanczos, box, hamming.
    """

    shares = ("reduction",)

    def __init__(self, env: gym.Env, reduction: Strength = 0.75, resample: str = "nearest", **shared: Any):
        super().__init__(env, {"reduction": reduction}, **shared)
        self._resample = RESAMPLING[one_of(resample, tuple(RESAMPLING), "resample")]

    def draw(self, image, strengths, t, rng):
        height, width = image.shape[:2]
        kept = 1 - strengths["reduction"]
        small = pixels.resize(image, max(1, round(height * kept)), max(1, round(width * kept)), RESAMPLING["box"])
        return pixels.resize(small, height, width, self._resample)


def _factor(spread: float, unit: float) -> float:
    """A number of [max(0, 1 - spread), 1 + spread], for `unit` in [-1, 1]."""
    low, high = max(0.0, 1 - spread), 1 + spread
    return low + (high - low) * (unit + 1) / 2


def _color_or_random(color: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, 3, np.uint8) if color is None else color


def _color_or_image(value: Any) -> np.ndarray:
    """A colour as an image of one pixel, an image (h, w) or (h, w, C) as uint8 (h, w, C)."""
    image = np.asarray(value)
    if image.ndim < 2:
        return pixels.parse_color(value, "replacement")[None, None]
    image = image[:, :, None] if image.ndim == 2 else image
    if not is_image(image) or image.size == 0:
        raise ContractError(
            f"replacement: expected a colour or a uint8 image (h, w, C), found {image.dtype} {image.shape}"
        )
    return pixels.in_channels(image, 1 if image.shape[2] == 1 else 3)
