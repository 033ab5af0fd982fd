"""Receding-horizon control: plan H macro steps, execute R of them, replan."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

from stable_worldmodel.errors import ContractError

# Info key of the executed macro actions between the frames of a context: (n, L - 1, A) in the model's action space.
ACTION_HISTORY_KEY = "action_history"


@dataclass(frozen=True)
class PlanConfig:
    """How far to plan, how much of the plan to execute, and how far to look back.

    One macro step is `action_block` env steps. All values are integers >= 1.
    """

    horizon: int  # planned macro steps H
    receding_horizon: int  # executed macro steps before replanning, at most `horizon`
    history_len: int = 1  # frames L given to the model, one per macro step
    action_block: int = 1  # env steps per macro step
    warm_start: bool = True  # start the next plan from the part that was not executed
    # Env steps kept to look back on; None: as many as `history_len` frames span.
    history_max_len: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("horizon", "receding_horizon", "history_len", "action_block"):
            _check_positive(name, getattr(self, name))
        if self.receding_horizon > self.horizon:
            raise ContractError(f"receding_horizon={self.receding_horizon}: expected 1..horizon ({self.horizon})")
        if self.history_max_len is not None and self.history_max_len < self._history_span:
            raise ContractError(
                f"history_max_len={self.history_max_len}: expected >= {self._history_span} env steps, "
                "(history_len - 1) * action_block + 1"
            )

    @property
    def plan_len(self) -> int:
        """Planned env steps."""
        return self.horizon * self.action_block

    @property
    def history_capacity(self) -> int:
        """Env steps to keep."""
        return self.history_max_len or self._history_span

    @property
    def _history_span(self) -> int:
        return (self.history_len - 1) * self.action_block + 1


def _check_positive(name: str, value: object) -> None:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ContractError(f"{name}={value!r}: expected an integer >= 1; set PlanConfig({name}=...)")
