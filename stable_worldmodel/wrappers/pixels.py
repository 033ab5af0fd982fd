"""What visual wrappers do to one frame: pure functions of uint8 images (H, W, C), C = 1 or 3.

None but `fill` changes its input. Values are rounded and clipped to 0 ... 255 once, at the end.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError

LUMA = np.array([0.299, 0.587, 0.114])  # weights of ITU-R BT.601, which Pillow uses too
_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def parse_color(color: Any, name: str) -> np.ndarray:
    """A colour, given as one grey value or as (r, g, b), as uint8 (3,); anything else is a ContractError."""
    values = np.asarray(color)
    whole = values.dtype.kind in "iu" and values.shape in ((), (3,))
    if not whole or values.min() < 0 or values.max() > 255:
        raise ContractError(f"{name}={color!r}: expected an integer or three, 0 ... 255")
    return np.broadcast_to(values, 3).astype(np.uint8)


def in_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """A colour or image (..., 1 | 3 | 4), uint8, in 1 or 3 channels. Alpha is dropped, colour becomes luma."""
    pixels = pixels[..., :3]
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.rint(pixels @ LUMA).astype(np.uint8)[..., None]


def resize(image: np.ndarray, height: int, width: int, resample: int) -> np.ndarray:
    """Bring an image to (height, width) with one of Pillow's filters."""
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize((width, height), Image.Resampling(resample))).reshape(height, width, -1)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of standard deviation `sigma` pixels, as Pillow's three box blurs; edges are replicated."""
    from PIL import Image, ImageFilter

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(sigma))).reshape(image.shape)


def affine_color(image: np.ndarray, matrix: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """Every pixel p becomes `matrix @ p + offset`; `matrix` is (3, 3).

    A grey pixel has no hue: its value is scaled by what the matrix makes of grey light, the luma of its row sums.
    """
    if image.shape[2] == 1:
        table = np.arange(256) * float(LUMA @ matrix.sum(axis=1)) + offset
        return np.take(np.rint(table).clip(0, 255).astype(np.uint8), image)
    values = image.reshape(-1, 3).astype(np.float32) @ matrix.T.astype(np.float32)
    return _to_uint8(values, offset).reshape(image.shape)


def jitter_matrix(brightness: float, saturation: float, hue: float) -> np.ndarray:
    """The colour matrix (3, 3) that scales brightness and saturation and turns the hue by `hue` full circles.

    Saturation and hue act in YIQ space, where they scale and rotate the two chroma axes and keep the luma.
    """
    c, s = saturation * math.cos(2 * math.pi * hue), saturation * math.sin(2 * math.pi * hue)
    return brightness * (_FROM_YIQ @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ _TO_YIQ)


def gray_matrix(amount: float) -> np.ndarray:
    """The colour matrix (3, 3) that goes from identity (0) to luma in every channel (1)."""
    return (1 - amount) * np.eye(3) + amount * np.tile(LUMA, (3, 1))


@functools.cache
def _normal_quantiles() -> np.ndarray:
    """65 536 equally likely values of the standard normal distribution, float32, within 4.3 deviations."""
    from scipy.special import ndtri

    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


def add_noise(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Add independent Gaussian noise to every value; `std` is in units of full brightness, at most 1."""
    # 16 random bits look a value up: a third of the time that drawing floats takes.
    quantiles = np.rint(_normal_quantiles() * (255 * std)).astype(np.int16)
    noisy = np.take(quantiles, np.frombuffer(rng.bytes(2 * image.size), "<u2")).reshape(image.shape)
    noisy += image
    return noisy.clip(0, 255, out=noisy).astype(np.uint8)


def fill(image: np.ndarray, corner: np.ndarray, size: np.ndarray, color: np.ndarray, opacity: float) -> None:
    """Paint a rectangle into `image`, in place: top left `corner` and `size`, both (2,), as shares of its sides."""
    sides = np.array(image.shape[:2])
    start = np.rint(corner * sides).astype(int)
    stop = start + np.ceil(size * sides).astype(int)
    region = image[start[0] : stop[0], start[1] : stop[1]]
    paint = in_channels(color, image.shape[2])
    region[:] = np.rint(region + opacity * (paint - region.astype(np.float32)))


def bounce(position: np.ndarray, limit: float) -> np.ndarray:
    """Fold positions on a line into [0, limit], as a ball between two walls."""
    return limit - np.abs(position % (2 * limit) - limit) if limit > 0 else np.zeros_like(position)


def shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move the content by whole pixels; edges are replicated."""
    for axis, distance in enumerate((down, right)):
        size = image.shape[axis]
        image = image.take(np.clip(np.arange(size) - distance, 0, size - 1), axis)
    return image


def convolve(image: np.ndarray, kernel: np.ndarray, pivot: float) -> np.ndarray:
    """Convolve `image - pivot` with a kernel (C, 3, 3, C) and add `pivot` again; edges are replicated.

    Output channel d at y, x is the sum of kernel[c, i, j, d] (image[y + i - 1, x + j - 1, c] - pivot) over c, i, j.
    """
    height, width, channels = image.shape
    planes = np.pad(image, ((1, 1), (1, 1), (0, 0)), "edge").transpose(2, 0, 1).astype(np.float32)
    planes -= pivot
    windows = np.lib.stride_tricks.sliding_window_view(planes, (3, 3), axis=(1, 2))  # (C, H, W, 3, 3)
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(9 * channels, height * width)
    values = kernel.reshape(9 * channels, channels).T.astype(np.float32) @ columns  # (C, H W)
    return np.ascontiguousarray(_to_uint8(values, pivot).T).reshape(image.shape)


def in_range(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Mask (H, W) of the pixels with low <= value <= high in every channel; bounds are uint8 (3,)."""
    channels = image.shape[2]
    # One comparison per value: what lies below `low` wraps around to above `high - low`.
    bottom, top = in_channels(low, channels), in_channels(high, channels)
    inside = [image[:, :, c] - bottom[c] <= top[c] - bottom[c] for c in range(channels)]
    return functools.reduce(np.logical_and, inside)


def _to_uint8(values: np.ndarray, offset: float) -> np.ndarray:
    """Float values plus `offset`, rounded and clipped; overwrites `values`."""
    values += np.float32(offset + 0.5)
    return values.clip(0, 255, out=values).astype(np.uint8)
