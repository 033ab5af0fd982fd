"""The variation space of an environment, and what happens to it at reset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.errors import ContractError

_PREFIX = "variation."

Repairs = Mapping[str, Callable[[], Any]]


class FactorSpace(spaces.Dict):
    """Groups of factors, drawn in the order written: a factor stands after those that its constraint reads.

    Constraints should be methods of a subclass: bound methods survive copying and pickling of the space.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, Any]]):
        children = {name: spaces.Dict(dict(factors), sampling_order=list(factors)) for name, factors in groups.items()}
        super().__init__(children, sampling_order=list(children))
        self._factors = {f"{group}.{name}": leaf for group, leaves in groups.items() for name, leaf in leaves.items()}

    def factor(self, name: str) -> Any:
        """The space of one factor, by its dotted name."""
        return self._factors[name]

    def value_of(self, name: str) -> Any:
        """The current value of one factor; what a constraint reads."""
        return self._factors[name].value

    def draw_factors(
        self,
        seed: int | None,
        options: Mapping[str, Any],
        default_variations: Iterable[str],
        repairs: Repairs | None = None,
    ) -> None:
        """Draw the factors of an episode; a factor that another one made illegal is repaired.

        Seed, return to the defaults, resample what `options["variation"]` names, write `options["variation_values"]`.
        A factor may then be illegal, because its constraint reads another one that changed. Unless its value was
        given, it is replaced by what its repair computes, or drawn anew where there is none or that is illegal too.

        Raises:
            ContractError: a name is unknown, or a given value is illegal.
        """
        if seed is not None:
            self.seed(seed)
        self.reset()
        requested = options.get("variation")
        self.update(default_variations if requested is None else requested)
        given = options.get("variation_values") or {}
        self.set_value(given)
        repaired: set[str] = set()
        while illegal := self.violations():
            name = illegal[0]
            if name in repaired or is_covered(name, given):
                raise ContractError(f"the value of {name!r} does not fit the other factors; change it or leave it out")
            self._repair(name, repairs or {})
            repaired.add(name)

    def _repair(self, name: str, repairs: Repairs) -> None:
        if name in repairs:
            value = repairs[name]()
            if self._factors[name].contains(value):
                self._factors[name].set_value(value)
                return
        self.update([name])


def is_covered(name: str, names: Iterable[str]) -> bool:
    """Whether a factor, or the group that holds it, is among `names`."""
    return any(name == key or name.startswith(f"{key}.") for key in names)


def recorded_factors(row: Mapping[str, Any]) -> dict[str, Any]:
    """The `variation.<name>` columns of a dataset row, as reset option `variation_values`.

    Whether a column has one value per row or one per episode makes no difference to a row. Formats that store every
    number as an array are accepted: an array of one element becomes a scalar.
    """
    values = {key.removeprefix(_PREFIX): np.asarray(value) for key, value in row.items() if key.startswith(_PREFIX)}
    return {name: value.reshape(()) if value.size == 1 else value for name, value in values.items()}
