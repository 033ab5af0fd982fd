"""What a solver is and what it minimises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stable_worldmodel.protocols import Costable, Info, Solver

__all__ = ["Costable", "Preparable", "Solver"]


@runtime_checkable
class Preparable(Protocol):
    """A cost that can do once per solve what does not depend on the candidates, such as encoding images.

    Solvers call `prepare` before the first `get_cost` and then pass its result instead of the raw info.
    """

    def prepare(self, info: Info) -> Info:
        """Return a new info; `get_cost(prepare(info), c)` equals `get_cost(info, c)`."""
        ...
