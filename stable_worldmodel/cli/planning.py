"""`swm plan`: how a planner searches, what it imagines, and what comes of it, on single start and goal pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.options import BudgetOption, DatasetOption, DeviceOption, EnvOption, GoalOffsetOption
from stable_worldmodel.cli.output import JsonOption, print_json, print_table
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from stable_worldmodel.evaluation import Evaluation
    from stable_worldmodel.planning.trace import Decision, TracedSolver

_SOLVERS = ("cem", "icem", "mppi", "categorical_cem")  # of `evaluation.subjects`, those with these options
_BUDGET = (300, 30, 30)  # samples, iterations and elites with a model


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoint; or oracle, which plans with the environment itself.",
            autocompletion=completion.planners,
        ),
    ],
    env: EnvOption = None,
    dataset: DatasetOption = None,
    pairs: Annotated[int, typer.Option(min=1, help="Start and goal pairs, drawn from the dataset.")] = 1,
    pair: Annotated[
        list[str] | None, typer.Option("--pair", metavar="EPISODE:ROW", help="Start here instead. Repeatable.")
    ] = None,
    goal_offset: GoalOffsetOption = None,
    budget: BudgetOption = None,
    solver: Annotated[
        str | None,
        typer.Option(
            help="cem, icem, mppi; categorical_cem.",
            show_default="cem; oracle mppi",
            autocompletion=completion.words(*_SOLVERS),
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Candidates per iteration.", show_default="300")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, show_default="30; oracle 4")] = None,
    elites: Annotated[int | None, typer.Option(min=1, show_default="30; oracle 16")] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Planned macro steps.", show_default="5")] = None,
    action_block: Annotated[
        int | None, typer.Option(min=1, help="Steps per macro step.", show_default="the model's; oracle 5")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of pairs and planner.")] = 42,
    device: DeviceOption = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of the oracle.", show_default="one per core")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for plots and videos.")] = Path("plans"),
    as_json: JsonOption = False,
) -> None:
    """Plan from recorded starts, replanning after every macro step, and show how the search went.

    Prints the cost per iteration of the first decisions; writes it as a plot, with what was executed against what every
    plan imagined, and imagined futures as a video if the model can decode.
    """
    from stable_worldmodel.data import load_dataset
    from stable_worldmodel.errors import require
    from stable_worldmodel.evaluation.names import ORACLE
    from stable_worldmodel.planning.oracle import oracle_for
    from stable_worldmodel.utils.progress import TerminalProgress

    require("matplotlib", "report")
    changes = {"env": env, "dataset": dataset, "goal_offset": goal_offset, "eval_budget": budget}
    evaluation = _evaluation(model, {**changes, "seed": seed, "device": device})
    if evaluation.protocol.dataset is None:
        raise ContractError(f"{model!r} does not say which dataset its starts are from: expected --dataset")
    recording = load_dataset(evaluation.protocol.dataset)
    if "pixels" in recording.columns:  # goals are shown as they were recorded
        shape = recording.columns["pixels"].shape
        evaluation = replace(evaluation, protocol=replace(evaluation.protocol, image_shape=(shape[0], shape[1])))
    chosen = _chosen_pairs(pair or [], pairs, recording, evaluation)
    settings = {"num_samples": samples, "n_steps": iterations, "topk": elites}
    oracle = oracle_for(evaluation.protocol.env["id"])
    budget_of = (oracle.num_samples, oracle.n_steps, oracle.topk) if model == ORACLE else _BUDGET
    sizes = {name: settings[name] or default for name, default in zip(settings, budget_of, strict=True)}
    sizes["topk"] = sizes["topk"] if elites else min(sizes["topk"], sizes["num_samples"])
    reports: list[_Report] = []
    with evaluation.world(1, 2 * evaluation.protocol.eval_budget) as world:
        setup = _oracle if model == ORACLE else _with_model
        session = setup(evaluation, world, solver, sizes, {"horizon": horizon, "action_block": action_block}, workers)
        try:
            with TerminalProgress() as progress:
                task = progress.task("plan", len(chosen))
                for item in chosen:
                    reports.append(_run(session, world, recording, evaluation, *item))
                    task.advance(1, steps=reports[-1].steps)
            files = _write(session, reports, out)
        finally:
            session.close()
    _print(evaluation, session, reports, files, as_json)


@dataclass
class _Session:
    """A planner that is being watched."""

    cost: Any
    traced: TracedSolver
    policy: Any
    close: Any
    is_oracle: bool
    make_env: Any
    settings: dict[str, Any]  # as printed


@dataclass
class _Report:
    """One pair, and what the planner did about it."""

    episode: int
    start: int
    success: bool
    steps: int
    decisions: list[Decision] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        totals = [decision.result["timing"]["total"] for decision in self.decisions]
        return {
            "episode": self.episode,
            "start": self.start,
            "success": self.success,
            "steps": self.steps,
            "decisions": len(self.decisions),
            "plan_costs": [decision.result["costs"][0] for decision in self.decisions],
            "ms_per_decision": round(1e3 * sum(totals) / len(totals), 2),
            "search": self.decisions[0].search(),
        }


def _evaluation(model: str, changes: Mapping[str, Any]) -> Evaluation:
    """Env, dataset and protocol: what the checkpoint says, with single values replaced."""
    from stable_worldmodel.envs import resolve_id
    from stable_worldmodel.evaluation import Evaluation
    from stable_worldmodel.evaluation.names import ORACLE
    from stable_worldmodel.train.protocol import EvalProtocol

    given = {name: value for name, value in changes.items() if value is not None}
    if model != ORACLE:
        return Evaluation.of(model, **given)
    if "env" not in given or "dataset" not in given:
        raise ContractError("the oracle knows no environment and no dataset by itself: expected --env and --dataset")
    device = given.pop("device")
    return Evaluation(ORACLE, EvalProtocol(**{**given, "env": {"id": resolve_id(given["env"])}}), device=device)


def _chosen_pairs(named: Sequence[str], count: int, recording: Any, evaluation: Evaluation) -> list[tuple[int, int]]:
    """(episode, row) of every start."""
    from stable_worldmodel.evaluation import sample_pairs

    if named:
        parts = [text.partition(":") for text in named]
        if not all(first.isdigit() and last.isdigit() for first, _, last in parts):
            raise ContractError(f"--pair {' '.join(named)}: expected EPISODE:ROW, such as 3:10")
        return [(int(first), int(last)) for first, _, last in parts]
    lengths = recording.lengths
    drawn = sample_pairs(lengths, range(len(lengths)), count, evaluation.protocol.goal_offset, evaluation.protocol.seed)
    return list(zip(drawn.episodes, drawn.starts, strict=True))


def _with_model(
    evaluation: Evaluation, world: Any, solver: str | None, sizes: dict[str, int], plan: dict[str, Any], workers: Any
) -> _Session:
    """Plan with the world model of a checkpoint."""
    from stable_worldmodel.planning import ShootingCostEvaluator, goal_objective
    from stable_worldmodel.wm import load_checkpoint

    checkpoint = load_checkpoint(evaluation.subject)
    model = checkpoint.model.to(evaluation.device)
    if not callable(getattr(model, "rollout", None)):
        raise ContractError(f"{type(model).__name__} imagines nothing: expected a world model with `rollout`")
    if plan["action_block"] is None:
        width = max(1, math.prod(world.single_action_space.shape))
        saved = (evaluation.protocol.plan or {}).get("action_block")
        plan = {**plan, "action_block": saved or max(1, model.config.action_dim // width)}
    cost = ShootingCostEvaluator(model, goal_objective(model))
    return _session(evaluation, world, cost, solver or "cem", sizes, plan, checkpoint.scalers)


def _oracle(
    evaluation: Evaluation, world: Any, solver: str | None, sizes: dict[str, int], plan: dict[str, Any], workers: Any
) -> _Session:
    """Plan with the env itself."""
    from stable_worldmodel.planning.oracle import oracle_cost

    plan = {**plan, "action_block": plan["action_block"] or 5}
    env = evaluation.protocol.env
    cost = oracle_cost(env["id"], env.get("arguments"), action_block=plan["action_block"], workers=workers)
    return _session(evaluation, world, cost, solver or "mppi", sizes, plan, {})


def _session(
    evaluation: Evaluation, world: Any, cost: Any, name: str, sizes: dict[str, int], plan: dict[str, Any], process: Any
) -> _Session:
    from stable_worldmodel import solver as solvers
    from stable_worldmodel.evaluation.names import ORACLE, SOLVERS
    from stable_worldmodel.planning.diagnostics import recorders
    from stable_worldmodel.planning.oracle import oracle_for
    from stable_worldmodel.planning.simulator import env_factory
    from stable_worldmodel.planning.trace import TracedSolver
    from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
    from stable_worldmodel.solver.callbacks import VarNormRecorder
    from stable_worldmodel.solver.discrete import is_discrete

    is_oracle = evaluation.subject == ORACLE
    discrete = is_discrete(world.single_action_space)
    if discrete and is_oracle:
        raise ContractError("the oracle plans continuous actions: expected an environment with a Box of them")
    name = "categorical_cem" if discrete else name
    if name not in _SOLVERS or (name == "categorical_cem" and not discrete):
        raise ContractError(f"--solver {name}: expected one of {', '.join(_SOLVERS)}, the last for discrete actions")
    callbacks = [entry for entry in recorders() if not (discrete and isinstance(entry, VarNormRecorder))]
    settings: dict[str, Any] = {**sizes, "seed": evaluation.protocol.seed}
    if is_oracle:
        settings = {**oracle_for(evaluation.protocol.env["id"]).solver_settings(), **settings}
    made = getattr(solvers, SOLVERS[name])(cost=cost, device=evaluation.device, callbacks=callbacks, **settings)
    traced = TracedSolver(made)
    config = PlanConfig(plan["horizon"] or 5, 1, action_block=plan["action_block"])
    policy = WorldModelPolicy(traced, config, process=process)
    world.set_policy(policy)
    shown = {"solver": name, **settings, "horizon": config.horizon, "action_block": config.action_block}
    close = getattr(cost, "close", lambda: None)
    env = evaluation.protocol.env
    return _Session(cost, traced, policy, close, is_oracle, env_factory(env["id"], env.get("arguments")), shown)


def _run(session: _Session, world: Any, recording: Any, evaluation: Evaluation, episode: int, start: int) -> _Report:
    """Plan and act for one pair."""
    protocol = evaluation.protocol
    session.traced.decisions.clear()
    results = world.evaluate(
        dataset=recording,
        episodes_idx=[episode],
        start_steps=[start],
        goal_offset=protocol.goal_offset,
        eval_budget=protocol.eval_budget,
        seed=protocol.seed,
    )
    success, steps = bool(results["episode_successes"][0]), int(results["episode_lengths"][0])
    return _Report(episode, start, success, steps, list(session.traced.decisions))


def _write(session: _Session, reports: Sequence[_Report], out: Path) -> list[Path]:
    """Plots, and videos where the model can decode."""
    import numpy as np

    from stable_worldmodel.planning.diagnostics import imagined_frames, plot_search, plot_states, write_gif
    from stable_worldmodel.planning.trace import latent_paths, merged_search, principal_components, simulated_paths

    out.mkdir(parents=True, exist_ok=True)
    files = [out / "search.png"]
    plot_search(merged_search([report.decisions[0] for report in reports]), files[0])
    for i, report in enumerate(reports):
        path = out / f"pair_{i}_states.png"
        latents: list[Any] = []
        if session.is_oracle:
            rows = [session.cost.prepare(decision.info)[0] for decision in report.decisions]
            block = session.settings["action_block"]
            executed, plans = simulated_paths(session.make_env, rows, report.decisions, block)
            names = [f"state {k}" for k in range(executed.shape[1])]
        else:
            observed, imagined, latents = latent_paths(session.cost, report.decisions)
            executed, plans, share = principal_components(observed, imagined)
            names = [f"component {k + 1} (of {100 * share:.0f} %)" for k in range(executed.shape[1])]
        plot_states(executed, dict(enumerate(plans)), names, path)
        files.append(path)
        if latents and callable(getattr(session.cost.model, "decode", None)):
            futures = [imagined_frames(session.cost.model, future)[0] for future in latents]
            frames = np.concatenate(futures)  # one decision after the other
            files.append(write_gif(frames, out / f"pair_{i}_imagined.gif", fps=4))
    return files


def _print(
    evaluation: Evaluation, session: _Session, reports: Sequence[_Report], files: Sequence[Path], as_json: bool
) -> None:
    import numpy as np

    found = [report.to_json() for report in reports]
    if as_json:
        protocol = {name: getattr(evaluation.protocol, name) for name in ("dataset", "goal_offset", "eval_budget")}
        env = evaluation.protocol.env["id"]
        result = {"model": evaluation.subject, "env": env, **protocol, "settings": session.settings}
        print_json({**result, "pairs": found, "files": [str(file) for file in files]})
        return
    searches = [row["search"] for row in found]
    means = {name: np.mean([search[name] for search in searches], axis=0) for name in searches[0]}
    count = len(next(iter(means.values())))
    rows = [{"iteration": i, **{name: f"{values[i]:.4g}" for name, values in means.items()}} for i in range(count)]
    print_table(rows, title=f"first decision, mean over {len(found)} pair{'s' * (len(found) > 1)}")
    print_table(
        [
            {
                "pair": f"{row['episode']}:{row['start']}",
                "success": "yes" if row["success"] else "no",
                "steps": row["steps"],
                "decisions": row["decisions"],
                "first plan's cost": f"{row['plan_costs'][0]:.4g}",
                "last plan's cost": f"{row['plan_costs'][-1]:.4g}",
                "ms per decision": f"{row['ms_per_decision']:.1f}",
            }
            for row in found
        ]
    )
    typer.echo("\n".join(str(file) for file in files))
