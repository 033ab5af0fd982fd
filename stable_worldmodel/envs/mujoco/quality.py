"""How much a picture may cost, as data. The level is an argument of an environment, never chosen by the hardware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from stable_worldmodel.errors import ContractError


@dataclass(frozen=True)
class Quality:
    """A level. Functions take the longer side of the picture in pixels and what the model itself asks for.

    Attributes:
        samples: of multisampling per pixel.
        shadow_side: side of shadow maps.
        slices, stacks: around and along the round shapes that MuJoCo tessellates.
        shadows, reflections: whether they are drawn.
    """

    name: str
    samples: Callable[[int, int], int]
    shadow_side: Callable[[int, int], int]
    slices: Callable[[int, int], int]
    stacks: Callable[[int, int], int]
    shadows: bool = True
    reflections: bool = True

    def configure(self, model: Any, side: int) -> tuple[int, ...]:
        """Write the level for pictures of this side into `model.vis.quality`; return what was there before."""
        settings = model.vis.quality
        before = (settings.offsamples, settings.shadowsize, settings.numslices, settings.numstacks)
        chosen = (self.samples, self.shadow_side, self.slices, self.stacks)
        restore(model, tuple(int(choose(side, own)) for choose, own in zip(chosen, before, strict=True)))
        return before


def restore(model: Any, values: tuple[int, ...]) -> None:
    """Write back what `Quality.configure` returned."""
    settings = model.vis.quality
    settings.offsamples, settings.shadowsize, settings.numslices, settings.numstacks = values


def _own(side: int, own: int) -> int:
    return own


def _none(side: int, own: int) -> int:
    return 0


def _up_to(most: int, side: int, own: int) -> int:
    return own if side <= most else 0


def _shadow_side(side: int, own: int) -> int:
    """The power of two from 2 to 4 times the side of the picture, at least 256."""
    return min(own, max(256, 1 << (2 * side - 1).bit_length()))


def _slices(side: int, own: int) -> int:
    return min(own, max(10, side // 16))


def _stacks(side: int, own: int) -> int:
    return min(own, max(6, side // 28))


QUALITIES = {
    quality.name: quality
    for quality in (
        Quality("full", _own, _own, _own, _own),
        Quality("matched", _none, _shadow_side, _slices, _stacks),
        Quality("fast", _none, _shadow_side, _slices, _stacks, shadows=False, reflections=False),
    )
}


def quality_named(name: str, smooth: int = 0) -> Quality:
    """The level of this name, else ContractError.

    `smooth`: longest side of the pictures for which "matched" keeps the model's multisampling; a scene full of edges
    needs it to look the same, the more so the smaller the picture.
    """
    if name not in QUALITIES:
        raise ContractError(f"quality={name!r}: expected one of {', '.join(QUALITIES)}")
    found = QUALITIES[name]
    if name != "matched" or not smooth:
        return found
    return replace(found, samples=partial(_up_to, smooth))
