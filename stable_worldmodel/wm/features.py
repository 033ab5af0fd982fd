"""Features of a frozen backbone, computed once and kept on disk.

A store is a folder with `features.npy` (rows, P, W), float16 unless asked otherwise, read through a memory map, and
`features.json`, which says what they are features of. It is written in blocks and continues where it was interrupted.
Models with a frozen backbone take a batch's `pixels_emb` in place of `pixels`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.files import write_json
from stable_worldmodel.wm.backbones import Backbone

DTYPES = ("float16", "float32")
_ARRAY, _INDEX = "features.npy", "features.json"


def backbone_fingerprint(backbone: Backbone) -> str:
    """A hash of a backbone's weights, image size and normalisation."""
    digest = hashlib.sha256(f"{type(backbone).__name__} {backbone.image_size}".encode())
    for name, tensor in [*backbone.state_dict().items(), ("mean", backbone.mean), ("std", backbone.std)]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_features(
    folder: str | Path,
    backbone: Backbone,
    read_pixels: Callable[[int, int], Any],
    rows: int,
    *,
    source: str = "",
    block: int = 256,
    dtype: str = "float16",
) -> np.ndarray:
    """Compute the features of `rows` frames into `folder` and return them, memory-mapped (rows, P, W).

    Args:
        read_pixels: (start, stop) to frames (stop - start, 3, h, w) uint8.
        source: what the frames are, e.g. a hash of the dataset. A store of another source or backbone is refused.
        block: frames at a time; a last, smaller block is filled up, since rounding may depend on how many there are.
        dtype: float16, or float32 for all that the backbone computes, in twice the space.
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise ContractError(f"dtype={dtype!r}: expected one of {DTYPES}")
    index = {"rows": rows, "patches": backbone.patches, "width": backbone.width, "source": source, "dtype": dtype}
    index["backbone"] = backbone_fingerprint(backbone)
    done = _done(folder, index)
    shape = (rows, backbone.patches, backbone.width)
    folder.mkdir(parents=True, exist_ok=True)
    mode = "r+" if done else "w+"
    array = np.lib.format.open_memmap(folder / _ARRAY, mode, dtype=np.dtype(dtype), shape=shape)
    device = backbone.mean.device
    for start in range(done, rows, block):
        stop = min(start + block, rows)
        pixels = torch.as_tensor(read_pixels(start, stop)).to(device)  # (b, 3, h, w)
        pixels = pixels[torch.arange(min(block, rows)).clamp(max=stop - start - 1)]  # (block, 3, h, w)
        with torch.inference_mode():
            array[start:stop] = backbone(pixels[None])[0, : stop - start].float().cpu().numpy()
        array.flush()
        write_json(folder / _INDEX, {**index, "done": stop})
    return open_features(folder)


def open_features(folder: str | Path) -> np.ndarray:
    """The finished features of a store, memory-mapped (rows, P, W). ContractError if it is not finished."""
    folder = Path(folder)
    index = _read_index(folder)
    if index is None or index["done"] != index["rows"]:
        raise ContractError(f"{folder} holds no finished features; call write_features to compute or continue them")
    return np.load(folder / _ARRAY, mmap_mode="r")


def _done(folder: Path, index: dict[str, Any]) -> int:
    """How many rows of a store are there already."""
    found = _read_index(folder)
    if found is None:
        return 0
    done = int(found.pop("done"))
    found.setdefault("dtype", "float16")  # of stores that did not say it
    changed = sorted(name for name in index if found.get(name) != index[name])
    if changed:
        raise ContractError(f"{folder} holds features with other {', '.join(changed)}; use another folder")
    return done


def _read_index(folder: Path) -> dict[str, Any] | None:
    path = folder / _INDEX
    return json.loads(path.read_text()) if path.is_file() else None
