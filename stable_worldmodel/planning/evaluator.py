"""Makes a world model and an objective costable: encode once, roll candidates out in latent space, score them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from stable_worldmodel.errors import MissingKeyError
from stable_worldmodel.protocols import Actionable, Dynamics, Info, Objective

GoalEncoder = Callable[[Dynamics, Info], Info]


def flat_goal_encode(model: Dynamics, info: Info) -> Info:
    """Encode the goal as if it were the present: `goal` as `pixels`, each `goal_<key>` as `<key>`.

    For models with one latent per frame. The goal has no action, and nothing of the present observation takes part.

    Returns:
        {"goal_emb": (n, T, D)}. Raises MissingKeyError if info has no goal.
    """
    observation = {key.removeprefix("goal_"): value for key, value in info.items() if key.startswith("goal_")}
    if "goal" in info:
        observation["pixels"] = info["goal"]
    observation.pop("action", None)
    observation.pop("action_history", None)
    if not observation:
        raise MissingKeyError(
            f"info has no 'goal' or 'goal_<key>' among {sorted(info)}; use a goal-conditioned env, "
            "or ShootingCostEvaluator(..., encode_goal=None) if the objective needs no goal"
        )
    return {"goal_emb": model.encode(observation)["emb"]}


default_goal_encode = flat_goal_encode


class ShootingCostEvaluator(nn.Module):
    """The cost of an action sequence is what the objective says of its imagined outcome.

    Info is un-expanded, every value (n, ...); only latents are repeated for the S candidates, by the model's rollout.
    The evaluator has `get_constraints` only if `constraints` are given and `get_action` only if the model has it.

    Args:
        model: a world model with `encode` and `rollout`. `rollout` uses `emb` of the info if it is there.
        objective: scores the rolled-out info, which also holds the candidates as `action_candidates`.
        constraints: objectives whose values must be <= 0.
        encode_goal: maps (model, info) to the goal's entries, called while `goal_emb` is missing; None never encodes.
    """

    def __init__(
        self,
        model: Dynamics,
        objective: Objective,
        constraints: Sequence[Objective] | None = None,
        encode_goal: GoalEncoder | None = default_goal_encode,
    ):
        super().__init__()
        self.model = model
        self.objective = objective
        self.encode_goal = encode_goal
        self.constraints = list(constraints or ())
        # Solvers ask for these by their presence.
        if self.constraints:
            self.get_constraints = self._get_constraints
        if isinstance(model, Actionable):
            self.get_action = model.get_action

    def prepare(self, info: Info) -> Info:
        """A new info with goal and observation encoded; entries that are already there are kept.

        The raw `action` of the last step is dropped: what led here is `action_history`.
        """
        prepared = {key: value for key, value in info.items() if key != "action"}
        if self.encode_goal is not None and "goal_emb" not in prepared:
            prepared.update(self.encode_goal(self.model, prepared))
        if "emb" not in prepared:
            prepared = self.model.encode(prepared)
        return prepared

    def rollout(self, info: Info, candidates: torch.Tensor) -> Info:
        """Roll candidates (n, S, H, A) out: a new info with `predicted_emb` and `action_candidates`."""
        return {**self.model.rollout(self.prepare(info), candidates), "action_candidates": candidates}

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of candidates (n, S, H, A)."""
        return self.criterion(self.rollout(info, candidates), candidates)

    def criterion(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of an info that `rollout` returned."""
        return self.objective({**info, "action_candidates": candidates})

    def _get_constraints(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Constraint values (n, S, C), satisfied where <= 0."""
        rolled_out = self.rollout(info, candidates)
        return torch.stack([constraint(rolled_out) for constraint in self.constraints], dim=-1)
