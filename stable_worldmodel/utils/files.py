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


def disk_size(path: Path) -> int:
    """Bytes of a file or of all files below a directory; a file with several names counts once."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum({(found.st_dev, found.st_ino): found.st_size for found in (file.stat() for file in files)}.values())


def format_bytes(size: float) -> str:
    """Such as `43.2 MB`."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
