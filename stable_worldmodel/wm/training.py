"""What a training loop may ask of a model.

A model called with (batch, generator) returns (loss, metrics): a scalar with gradients for every trainable parameter,
and detached scalars. Two optional hooks:

    `parameter_groups`   a tuple of `ParameterGroup`, in place of one group for all
    `after_step()`       called after every optimiser step, for copies that follow the weights

Its config says before the model is built what belongs in a batch, and has values that the dataset decides:

    `reads()`            the columns of a batch, and how goals are drawn, as a `Reads`
    `action_dim`         flattened env actions of one macro step
    `inputs`, `images`   where the model has a choice of what it observes: columns of numbers with widths, of images
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class GoalDraw:
    """How the goals of clips are drawn, see `data.GoalDataset`."""

    probabilities: tuple[float, float, float, float]  # random, geometric future, uniform future, current
    gamma: float = 0.99  # of the geometric future


@dataclass(frozen=True)
class Reads:
    """The columns of a model's batches.

    Of frames (B, T, ...), but for `action` (B, T, A). `reward` and `terminated` are those of a macro step: the sum of
    the rewards, and whether any env step of it terminated, both on arrival at their frame.
    """

    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()  # read where the dataset has them
    observed: tuple[str, ...] = ("pixels",)  # those of `columns` of which a goal consists
    goals: GoalDraw | None = None  # adds `goal_<observed>` (B, 1, ...) and `goal_step` (B,)
    actor_goals: GoalDraw | None = None  # adds `actor_goal_<observed>` (B, 1, ...)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters whose full name begins with a match of `pattern`, and how their optimiser differs."""

    pattern: str
    lr_scale: float = 1.0  # of the run's learning rate
    options: tuple[tuple[str, Any], ...] = ()  # further optimiser options, e.g. (("eps", 1e-5),)


def optimizer_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimiser: `params`, `name`, `lr_scale` and the group's options.

    Raises ContractError if a pattern matches no trainable parameter, or a trainable parameter no pattern or several.
    """
    groups: tuple[ParameterGroup, ...] = getattr(model, "parameter_groups", (ParameterGroup(""),))
    found: dict[str, list[Any]] = {group.pattern: [] for group in groups}
    for name, parameter in _trainable(model):
        matches = [group.pattern for group in groups if re.match(group.pattern, name)]
        if len(matches) != 1:
            raise ContractError(f"parameter {name} belongs to the groups {matches}: expected exactly one")
        found[matches[0]].append(parameter)
    empty = [pattern for pattern, parameters in found.items() if not parameters]
    if empty:
        raise ContractError(f"no trainable parameter matches the groups {empty} of {type(model).__name__}")
    return [
        {"params": found[group.pattern], "name": group.pattern, "lr_scale": group.lr_scale, **dict(group.options)}
        for group in groups
    ]


def after_step(model: nn.Module) -> None:
    """Call the model's `after_step` if it has one; to be called after every optimiser step."""
    hook = getattr(model, "after_step", None)
    if hook is not None:
        hook()


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
