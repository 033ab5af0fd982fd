"""A variation space in a notebook: its factors, what they may be and what they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from stable_worldmodel.utils.notebook import html_table

_MOST_VALUES = 6  # of an array that is written out


def space_html(space: Any) -> str:
    """A table of the leaves of a `Dict`, or of one leaf."""
    names = space.names() if hasattr(space, "names") else [""]
    rows = [(name or type(space).__name__, *_describe(space._find(name) if name else space)) for name in names]
    return html_table(("factor", "space", "range", "default", "value"), rows, f"{len(rows)} factors of variation")


def _describe(leaf: Any) -> tuple[str, str, str, str]:
    return type(leaf).__name__, _range(leaf), _text(leaf.init_value), _text(leaf.value)


def _range(leaf: Any) -> str:
    if hasattr(leaf, "low"):
        return f"{_text(_one(leaf.low))} to {_text(_one(leaf.high))}"
    if hasattr(leaf, "nvec"):
        return f"{_text(_one(leaf.start))} to {_text(_one(leaf.start + leaf.nvec - 1))}"
    if hasattr(leaf, "n"):
        return f"{leaf.start} to {leaf.start + leaf.n - 1}"
    return ""


def _one(bounds: np.ndarray) -> Any:
    """One number where all are equal."""
    return bounds.flat[0] if bounds.size and (bounds == bounds.flat[0]).all() else bounds


def _text(value: Any) -> str:
    array = np.asarray(value)
    if value is None or array.dtype.kind not in "biuf":
        return "-" if value is None else str(value)
    shown = ", ".join(f"{number:.4g}" for number in array.ravel()[:_MOST_VALUES].tolist())
    return shown if array.size <= _MOST_VALUES else f"{shown} ... ({array.size} values)"
