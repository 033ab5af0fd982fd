"""What an environment does with its variation space when an episode starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.spaces.tree import Dict


def reset_variation_space(
    variation_space: Dict,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    default_variations: Iterable[str] | None = None,
) -> None:
    """Start an episode: seed, return to the defaults, set explicit values, resample the factors asked for, check.

    Args:
        variation_space: the factors of the environment.
        seed: makes the result a function of `seed`, `options` and `default_variations`; None continues the streams.
        options: reset options. `variation` lists the names to resample (`[]`: none), `variation_values` maps names to
            values, which win over samples; constraints of sampled factors see them. Other keys are ignored.
        default_variations: names to resample when `options` has no `variation`.

    Raises:
        ContractError: a name is unknown, a value does not fit, or the factors do not fit together. In the last case
            the space keeps its values, so that an environment may repair them: `variation_space.violations()` names
            what is illegal and `variation_space.update` draws it anew.
    """
    options = options or {}
    if seed is not None:
        variation_space.seed(seed)
    variation_space.reset()
    requested = options.get("variation")
    if requested is None:
        requested = default_variations
    variation_space.update(() if requested is None else requested, fixed=options.get("variation_values"))
    illegal = variation_space.violations()
    if illegal:
        raise ContractError(
            f"illegal values of {', '.join(illegal)}: a default becomes illegal when a factor that its constraint "
            "reads has changed; name it in options['variation'] too, or give it in options['variation_values']"
        )
