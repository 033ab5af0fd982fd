"""Names near to one that does not exist."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable
from pathlib import Path


def nearest(name: str, known: Iterable[str]) -> str:
    """A line that suggests the nearest of `known`, to put behind an error's message; empty if none is near."""
    close = difflib.get_close_matches(name, [*known], n=2, cutoff=0.7)
    return f"\ndid you mean {' or '.join(map(repr, close))}?" if close else ""


def nearest_entry(name: str, folders: Iterable[Path]) -> str:
    """`nearest` among what lies in `folders`, with and without suffix; those that cannot be read have nothing."""
    known: dict[str, None] = {}
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):
            known |= {word: None for entry in sorted(folder.iterdir()) for word in (entry.name, entry.stem)}
    return nearest(name, known)
