"""Still images as bytes: JPEG and PNG, encoded and decoded by libjpeg-turbo where it is installed, else by Pillow."""

from __future__ import annotations

import io
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError

JPEG_CHANNELS = (1, 3)
JPEG_START = b"\xff\xd8"

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode (H, W, 1 or 3) uint8; colours with 4:2:0 chroma."""
    turbo = _turbojpeg()
    if turbo is None:
        return _encode(image, "JPEG", quality=quality, subsampling=2)
    gray = image.shape[2] == 1
    return turbo.encode_jpeg(np.ascontiguousarray(image), quality, *(("GRAY", "Gray") if gray else ("RGB", "420")))


def encode_png(image: np.ndarray) -> bytes:
    """Encode (H, W, 1, 3 or 4) uint8 without loss."""
    return _encode(image, "PNG", compress_level=1)


def image_shape(data: bytes) -> tuple[int, int, int]:
    """Return (H, W, C) of an encoded image, as `decode_image` delivers it."""
    image = _open(data)
    mode = _output_mode(image)
    return image.height, image.width, next(channels for channels, name in _MODES.items() if name == mode)


def decode_image(data: bytes, out: np.ndarray) -> None:
    """Decode into `out` (H, W, C), contiguous uint8. ContractError when the image is damaged or of another shape."""
    turbo = _turbojpeg() if data[:2] == JPEG_START and out.shape[2] in JPEG_CHANNELS else None
    if turbo is None:
        _decode_with_pillow(data, out)
        return
    try:
        found = turbo.decode_jpeg(data, "GRAY" if out.shape[2] == 1 else "RGB", buffer=out)
    except ValueError as error:
        raise ContractError(f"cannot be decoded as {out.shape}: {error}") from error
    if found.shape != out.shape:
        raise ContractError(f"expected an image of {out.shape}, found {found.shape}")


def _decode_with_pillow(data: bytes, out: np.ndarray) -> None:
    image = _open(data)
    try:
        decoded = np.asarray(image.convert(_output_mode(image)))
    except (OSError, SyntaxError, ValueError, MemoryError) as error:  # what Pillow raises for damaged files
        raise ContractError(f"cannot be decoded: {error}") from error
    decoded = decoded[..., None] if decoded.ndim == 2 else decoded
    if decoded.shape != out.shape:
        raise ContractError(f"expected an image of {out.shape}, found {decoded.shape}")
    out[:] = decoded


def _open(data: bytes) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ContractError(f"cannot be decoded as JPEG or PNG: {error}") from error


def _output_mode(image: Any) -> str:
    return image.mode if image.mode in _MODES.values() else "RGB"


def _encode(image: np.ndarray, format: str, **options: Any) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(data, format, **options)
    return data.getvalue()


@lru_cache(maxsize=1)
def _turbojpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
