"""Makes a world model and an objective costable: encode once, roll candidates out in latent space, score them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from stable_worldmodel.errors import MissingKeyError
from stable_worldmodel.planning.objectives import reads_last_only
from stable_worldmodel.protocols import Actionable, Costable, Dynamics, Info, Objective

GoalEncoder = Callable[[Dynamics, Info], Info]


def flat_goal_encode(model: Dynamics, info: Info) -> Info:
    """Encode the goal as if it were the present: `goal` as `pixels`, each `goal_<key>` as `<key>`.

    For models with one latent per frame. The goal has no action, and nothing of the present observation takes part.

    Returns:
        {"goal_emb": (n, T, D)}. Raises MissingKeyError if info has no goal.
    """
    return {"goal_emb": model.encode(goal_observation(info))["emb"]}


def split_goal_encode(model: Dynamics, info: Info) -> Info:
    """As `flat_goal_encode`, for models with one latent per input: each `<key>_emb` is also kept, as `<key>_goal_emb`.

    Predictions of such models hold actions, so that only their parts can be compared with a goal.
    """
    observation = goal_observation(info)
    encoded = model.encode(observation)
    parts = {key: value for key, value in encoded.items() if key.endswith("_emb") and key not in observation}
    return {"goal_emb": encoded["emb"], **{f"{key[: -len('_emb')]}_goal_emb": value for key, value in parts.items()}}


def default_goal_encode(model: Dynamics, info: Info) -> Info:
    """`split_goal_encode` for models with `extra_encoders`, else `flat_goal_encode`."""
    extra = getattr(model, "extra_encoders", None)
    return (split_goal_encode if extra is not None and len(extra) else flat_goal_encode)(model, info)


def goal_observation(info: Info) -> Info:
    """The goal as an observation. MissingKeyError if info has none."""
    observation = {key.removeprefix("goal_"): info[key] for key in raw_goal_keys(info) if key != "goal"}
    if "goal" in info:
        observation["pixels"] = info["goal"]
    observation.pop("action", None)
    observation.pop("action_history", None)
    if not observation:
        raise MissingKeyError(
            f"info has no 'goal' or 'goal_<key>' among {sorted(info)}; use a goal-conditioned env, "
            "or ShootingCostEvaluator(..., encode_goal=None) if the objective needs no goal"
        )
    return observation


def raw_goal_keys(info: Info) -> list[str]:
    """The entries of an info that show the goal as it is observed."""
    return [key for key in info if key == "goal" or (key.startswith("goal_") and not key.endswith("_emb"))]


class ShootingCostEvaluator(nn.Module):
    """The cost of an action sequence is what the objective says of its imagined outcome.

    Info is un-expanded, every value (n, ...); only latents are repeated for the S candidates, by the model's rollout.
    The evaluator has `get_constraints` only if `constraints` are given, `get_action` and `propose` only if the model
    does.
    If neither objective nor constraints read more than the last prediction, models whose `rollout` takes `last_only`
    are asked for no more.

    Args:
        model: a world model with `encode` and `rollout`. `rollout` uses `emb` of the info if it is there.
        objective: scores the rolled-out info, which also holds the candidates as `action_candidates`.
        constraints: objectives whose values must be <= 0.
        encode_goal: maps (model, info) to the goal's entries, called while `goal_emb` is missing; None never encodes.
        autocast: precision in which the model computes where that is safe, e.g. torch.bfloat16; None is its own. The
            objective is computed outside of it.
    """

    def __init__(
        self,
        model: Dynamics,
        objective: Objective,
        constraints: Sequence[Objective] | None = None,
        encode_goal: GoalEncoder | None = default_goal_encode,
        autocast: torch.dtype | None = None,
    ):
        super().__init__()
        self.autocast = autocast
        self.model = model
        self.objective = objective
        self.encode_goal = encode_goal
        self.constraints = list(constraints or ())
        # Solvers ask for these by their presence.
        if self.constraints:
            self.get_constraints = self._get_constraints
        if isinstance(model, Actionable):
            self.get_action = model.get_action
        if callable(getattr(model, "propose", None)):
            self.propose = model.propose  # type: ignore[attr-defined]
        takes_last_only = "last_only" in inspect.signature(model.rollout).parameters
        self._last_only = takes_last_only and all(map(reads_last_only, [objective, *self.constraints]))

    def prepare(self, info: Info) -> Info:
        """The context of a solve: a new info with goal and observation encoded; entries already there are kept.

        The raw `action` of the last step is dropped: what led here is `action_history`. Latents `past_emb` (n, L', ...)
        of frames seen before come in front of those of the frames in the info.
        """
        prepared = {key: value for key, value in info.items() if key != "action"}
        with self._precision(prepared):
            if self.encode_goal is not None and "goal_emb" not in prepared:
                prepared.update(self.encode_goal(self.model, prepared))
            if "emb" not in prepared:
                past = prepared.pop("past_emb", None)
                prepared = self.model.encode(prepared)
                if past is not None:
                    emb = prepared["emb"]
                    prepared = {**prepared, "emb": torch.cat([past.to(emb), emb], dim=1)}
        return prepared

    def goal_entries(self, context: Info) -> Info:
        """The part of a context that is a function of the goal alone, so that later contexts can be given it."""
        return {key: value for key, value in context.items() if key == "goal_emb" or key.endswith("_goal_emb")}

    def context_entries(self, context: Info) -> Info:
        """The latents `emb` of a context's frames, if the model says with `framewise = True` that it encodes frame by
        frame; else nothing.
        """
        return {"emb": context["emb"]} if getattr(self.model, "framewise", False) else {}

    def rollout(self, info: Info, candidates: torch.Tensor) -> Info:
        """Roll candidates (n, S, H, A) out: a new info with `predicted_emb` and `action_candidates`."""
        return self._rolled_out(self.prepare(info), candidates)

    def cost(self, context: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of candidates (n, S, H, A), given what `prepare` returned."""
        return self.objective(self._rolled_out(context, candidates, **self._shortcut()))

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of candidates (n, S, H, A) for an info that need not be prepared."""
        return self.cost(self.prepare(info), candidates)

    def cost_and_constraints(self, context: Info, candidates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Costs (n, S) and constraint values (n, S, C) of one rollout."""
        rolled_out = self._rolled_out(context, candidates, **self._shortcut())
        return self.objective(rolled_out), self._values(rolled_out)

    def criterion(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of an info that `rollout` returned."""
        return self.objective({**info, "action_candidates": candidates})

    def _get_constraints(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Constraint values (n, S, C), satisfied where <= 0."""
        return self._values(self._rolled_out(self.prepare(info), candidates, **self._shortcut()))

    def _values(self, rolled_out: Info) -> torch.Tensor:
        return torch.stack([constraint(rolled_out) for constraint in self.constraints], dim=-1)

    def _shortcut(self) -> dict[str, bool]:
        return {"last_only": True} if self._last_only else {}

    def _rolled_out(self, context: Info, candidates: torch.Tensor, **options: Any) -> Info:
        with self._precision(context):
            rolled_out = self.model.rollout(context, candidates, **options)
        return {**rolled_out, "action_candidates": candidates}

    def _precision(self, info: Info) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        device = next((value.device.type for value in info.values() if isinstance(value, torch.Tensor)), "cpu")
        return torch.autocast(device, self.autocast)


class ExpandedInfo:
    """Gives a cost that was written for one info row per candidate, (n, S, ...), what it expects.

    Tensors are expanded as views; nothing is copied.

    Args:
        cost: an object with `get_cost(info, candidates)`, and possibly `get_constraints`.
    """

    def __init__(self, cost: Costable):
        self.wrapped = cost
        if callable(getattr(cost, "get_constraints", None)):
            self.get_constraints = lambda info, candidates: cost.get_constraints(  # type: ignore[attr-defined]
                _expanded(info, candidates.shape[1]), candidates
            )

    def parameters(self) -> Any:
        """The wrapped cost's parameters, which tell solvers its device and dtype."""
        parameters = getattr(self.wrapped, "parameters", None)
        return parameters() if callable(parameters) else iter(())

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of candidates (n, S, H, A)."""
        return self.wrapped.get_cost(_expanded(info, candidates.shape[1]), candidates)


def _expanded(info: Info, samples: int) -> Info:
    return {
        key: value[:, None].expand(-1, samples, *value.shape[1:]) if isinstance(value, torch.Tensor) else value
        for key, value in info.items()
    }
