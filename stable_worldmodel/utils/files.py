"""Where the library keeps files, and writing small ones: a reader sees the old content or the new, never half."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def cache_root(override: str | os.PathLike[str] | None = None) -> Path:
    """The cache root: `override`, else the environment variable STABLEWM_HOME, else `~/.stable_worldmodel`.

    The variable is read at every call, `~` is expanded, and empty means unset. Nothing is created.
    """
    return Path(override or os.environ.get("STABLEWM_HOME") or "~/.stable_worldmodel").expanduser()


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write `data` through a temporary file beside `path`, creating parent folders; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # two processes may write the same target
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON, indented, by `write_atomically`."""
    return write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())
