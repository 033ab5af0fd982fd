"""HTML for notebooks. Colours are those of the page around it, so light and dark themes both work."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from stable_worldmodel.errors import require

_LEFT = 'style="text-align:left"'
_HEIGHT, _MOST_WIDTH = 72, 960  # px of a filmstrip


def html_table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table of texts, all of them escaped. The first cell of a row is its heading."""
    head = "".join(f'<th scope="col" {_LEFT}>{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    title = f"<caption {_LEFT}>{escape(caption)}</caption>" if caption else ""
    table = f"{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<table style="color:inherit;margin-bottom:.5em">{table}</table>'


def _cells(row: Sequence[Any]) -> str:
    first, *others = (escape(str(value)) for value in row)
    return f'<th scope="row" {_LEFT}>{first}</th>' + "".join(f"<td {_LEFT}>{value}</td>" for value in others)


def html_filmstrip(frames: Sequence[np.ndarray], label: str = "") -> str:
    """Frames (H, W, C) uint8 side by side, as one picture inside the text."""
    from PIL import Image

    tiles = [Image.fromarray(as_rgb(frame)) for frame in frames]
    width = max(1, round(_HEIGHT * tiles[0].width / tiles[0].height))
    tiles = tiles[: max(1, _MOST_WIDTH // (width + 2))]
    sheet = Image.new("RGB", (len(tiles) * (width + 2) - 2, _HEIGHT), (128, 128, 128))
    for i, tile in enumerate(tiles):
        how = Image.Resampling.BOX if tile.height > _HEIGHT else Image.Resampling.NEAREST
        sheet.paste(tile.resize((width, _HEIGHT), how), (i * (width + 2), 0))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    return f'<img src="{source}" alt="{escape(label)}" style="max-width:100%;height:auto">'


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """Grey, RGB or RGBA (..., H, W, C) as RGB; transparency is left out."""
    return np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame[..., :3]


def display_html(html: str) -> None:
    """Show HTML below the notebook's cell. MissingDependencyError without IPython."""
    display = require("IPython.display", "view")
    display.display(display.HTML(html))


def display_video(data: bytes, width: int) -> None:
    """Show an MP4 below the notebook's cell, playing and repeating. MissingDependencyError without IPython."""
    display = require("IPython.display", "view")
    attributes = "controls autoplay loop muted playsinline style='image-rendering:pixelated'"
    shown = display.Video(data=data, mimetype="video/mp4", embed=True, width=width, html_attributes=attributes)
    display.display(shown)
