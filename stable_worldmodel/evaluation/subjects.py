"""What can be evaluated: checkpoints, which plan or act by themselves, and policies that need no training."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.evaluation.floors import NoopPolicy, ReplayPolicy
from stable_worldmodel.evaluation.names import NAMED, ORACLE, SOLVERS
from stable_worldmodel.policy import BasePolicy, PlanConfig
from stable_worldmodel.policy.named import make_policy
from stable_worldmodel.train.protocol import EvalProtocol


@dataclass(frozen=True)
class Subject:
    """Somebody who acts. `policy` makes one for items whose recorded actions, if there are any, are given."""

    policy: Callable[[Sequence[Any] | None], BasePolicy]
    split: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of the data that it was trained on
    close: Callable[[], None] = lambda: None


def protocol_of(name: str) -> EvalProtocol:
    """The protocol in a checkpoint, or the published one."""
    if name in NAMED:
        return EvalProtocol()
    from stable_worldmodel.wm.checkpoint import load_checkpoint

    saved = load_checkpoint(name).protocol
    known = {key: value for key, value in saved.items() if key in EvalProtocol.__dataclass_fields__}
    shape = known.get("image_shape")
    return EvalProtocol(**{**known, "image_shape": None if shape is None else tuple(shape)})


def content_of(name: str) -> str | None:
    """The hash of a checkpoint's weights, which tells two trainings into one folder apart; None for other policies."""
    if name in NAMED:
        return None
    from stable_worldmodel.wm.hub import CONFIG_FILE, locate

    config = locate(name) / CONFIG_FILE
    return json.loads(config.read_text()).get("weights_sha256") if config.is_file() else None


def load(name: str, protocol: EvalProtocol, device: str = "cpu") -> Subject:
    """The subject of that name, for the env of the protocol. Raises NotFoundError or ContractError."""
    env_id, seed = protocol.env["id"], protocol.seed
    if name == "noop":
        return Subject(lambda actions: NoopPolicy())
    if name == "replay":
        return Subject(lambda actions: ReplayPolicy(actions or ()))
    if name == ORACLE:
        return _oracle(protocol)
    if name in NAMED:
        return Subject(lambda actions: make_policy(name, env_id, seed=seed))
    from stable_worldmodel.wm.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(name)
    policy = _policy_of(checkpoint, protocol, device)
    return Subject(lambda actions: policy, checkpoint.split)


def split_of(name: str) -> Mapping[str, Sequence[int]]:
    """Episodes per part of the data that a checkpoint was trained on; nothing for other policies."""
    if name in NAMED:
        return {}
    from stable_worldmodel.wm.checkpoint import checkpoint_info

    return checkpoint_info(name)["split"]


def _oracle(protocol: EvalProtocol) -> Subject:
    """MPPI with the env as its own model. ContractError for an env without a Box of actions."""
    from stable_worldmodel.evaluation.curves import CostCurves
    from stable_worldmodel.planning.oracle import oracle_cost, oracle_for
    from stable_worldmodel.policy import WorldModelPolicy
    from stable_worldmodel.solver import MPPISolver

    block, env = 5, protocol.env
    cost = oracle_cost(env["id"], env.get("arguments"), action_block=block)
    settings = oracle_for(env["id"]).solver_settings()
    solver = MPPISolver(cost=cost, seed=protocol.seed, callbacks=[CostCurves()], **settings)
    return Subject(lambda actions: WorldModelPolicy(solver, PlanConfig(5, 1, action_block=block)), close=cost.close)


def _policy_of(checkpoint: Any, protocol: EvalProtocol, device: str) -> BasePolicy:
    """A planner if the protocol says how to plan and the model can, else the model's own actions."""
    from stable_worldmodel.policy import FeedForwardPolicy, WorldModelPolicy
    from stable_worldmodel.policy.actor import ActorPolicy

    model, process = checkpoint.model.to(device), checkpoint.scalers
    if protocol.plan is not None:
        return WorldModelPolicy(make_solver(model, protocol, device), plan_config(protocol), process=process)
    if callable(getattr(model, "explore", None)) and not protocol.dataset:  # for rewards, towards no goal
        config = checkpoint.model.config
        history = int(checkpoint.extra.get("run", {}).get("online", {}).get("history", 1))
        return ActorPolicy(model, (*config.images, *config.inputs), process, history=history)
    if callable(getattr(model, "get_action", None)):
        return FeedForwardPolicy(model, process=process)
    raise ContractError(
        f"{type(model).__name__} gives no actions, and the protocol does not say how to plan with it: "
        "expected plan={'horizon': ..., 'receding_horizon': ..., 'action_block': ...}"
    )


def plan_config(protocol: EvalProtocol) -> PlanConfig:
    """How far a protocol plans. ContractError for values that PlanConfig does not take."""
    try:
        return PlanConfig(**(protocol.plan or {}))
    except TypeError as error:
        raise ContractError(f"plan {dict(protocol.plan or {})}: {error}") from error


def changed_solver(saved: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The solver of a protocol with single values replaced; another type keeps of the saved ones what it takes."""
    kept = dict(saved or {})
    kind = changes.get("type")
    if kind in SOLVERS and kind != kept.get("type", "cem"):
        kept = _taken(kind, kept)
    return {**kept, **changes}


def _taken(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    from stable_worldmodel import solver as solvers

    names = inspect.signature(getattr(solvers, SOLVERS[kind])).parameters
    return {name: value for name, value in settings.items() if name in names}


def make_solver(model: Any, protocol: EvalProtocol, device: str) -> Any:
    """The solver that a protocol names, over the cost of a model."""
    from stable_worldmodel import solver as solvers
    from stable_worldmodel.evaluation.curves import CostCurves
    from stable_worldmodel.planning import ShootingCostEvaluator, goal_objective

    settings = {"type": "cem", "seed": protocol.seed, **(protocol.solver or {})}
    kind = settings.pop("type")
    if kind not in SOLVERS:
        raise ContractError(f"solver type {kind!r}: expected one of {', '.join(SOLVERS)}")
    own = callable(getattr(model, "get_cost", None))  # such as a predicted return
    cost = model if own else ShootingCostEvaluator(model, goal_objective(model))
    watched = {} if settings.get("compiled") else {"callbacks": [CostCurves()]}  # a captured loop calls no Python
    try:
        return getattr(solvers, SOLVERS[kind])(**_taken(kind, {"cost": cost, "device": device, **watched}), **settings)
    except TypeError as error:
        raise ContractError(f"solver {kind!r}: {error}") from error
