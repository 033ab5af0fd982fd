"""`swm eval`: how often checkpoints and policies succeed, alone, beside floors, or over a grid of factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stable_worldmodel.cli import clusters, completion
from stable_worldmodel.cli.options import BudgetOption, DatasetOption, DeviceOption, EnvOption, GoalOffsetOption
from stable_worldmodel.cli.output import JsonOption, print_json, print_table
from stable_worldmodel.cli.rollouts import parse_options
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from stable_worldmodel.evaluation import Evaluation
    from stable_worldmodel.protocols import Executor
    from stable_worldmodel.world import Results

DEFAULT_OUT = Path("eval")


def eval_(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="SUBJECT",
            help="Checkpoints; or random, noop, replay, expert, weak, oracle.",
            autocompletion=completion.subjects,
        ),
    ],
    env: EnvOption = None,
    dataset: DatasetOption = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Record the episodes to start from anew, with this policy.",
            autocompletion=completion.policies,
        ),
    ] = None,
    own_goals: Annotated[bool, typer.Option("--own-goals", help="Let the environment choose start and goal.")] = False,
    episodes: Annotated[int | None, typer.Option(min=1, show_default="the checkpoint's, or 50")] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="the checkpoint's, or 42")] = None,
    goal_offset: GoalOffsetOption = None,
    budget: BudgetOption = None,
    variation: Annotated[str | None, typer.Option(help="Factors drawn anew in every episode: names, or all.")] = None,
    plan: Annotated[
        list[str] | None,
        typer.Option("--plan", metavar="KEY=VALUE", help="Values to replace: horizon, receding_horizon, ..."),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            "--solver",
            metavar="KEY=VALUE",
            help="Values to replace: type=icem, num_samples=300, ...",
            autocompletion=completion.solver_settings,
        ),
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of the pictures in px.")] = None,
    num_envs: Annotated[int, typer.Option(min=1, help="Environments played side by side.")] = 50,
    device: DeviceOption = "cpu",
    floors: Annotated[bool, typer.Option("--floors", help="Also random, no-op and, with a recording, replay.")] = False,
    grid: Annotated[bool, typer.Option("--grid", help="Every factor alone, none, and all; over all seeds.")] = False,
    factors: Annotated[str | None, typer.Option(help="Of the grid: names, default, all.", show_default="all")] = None,
    seeds: Annotated[str | None, typer.Option(help="Of the grid, e.g. 0,1,2.", show_default="the seed")] = None,
    video: Annotated[bool, typer.Option("--video", help="Write an MP4 per episode.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results and videos.")] = DEFAULT_OUT,
    cluster: clusters.ClusterOption = None,
    shards: Annotated[int | None, typer.Option(min=1, help="Parts of an evaluation.", show_default="workers")] = None,
    workers: clusters.WorkersOption = None,
    cluster_option: clusters.MoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score checkpoints and policies; a checkpoint is evaluated by the protocol it was saved with."""
    changes: dict[str, Any] = {
        "env": env,
        "dataset": dataset,
        "episodes": episodes,
        "seed": seed,
        "goal_offset": goal_offset,
        "eval_budget": budget,
        "image_shape": None if image_size is None else (image_size, image_size),
        "recorder": record,
        "variation": tuple(variation.split(",")) if variation else None,
        "plan": parse_options(plan) if plan else None,
        "solver": parse_options(solver) if solver else None,
    }
    _check(own_goals, dataset, record, grid, {"--factors": factors, "--seeds": seeds})
    given = {name: value for name, value in changes.items() if value is not None}
    given |= {"num_envs": num_envs, "device": device} | ({"dataset": None} if own_goals or record else {})
    if grid and shards is not None:
        raise ContractError("--shards: not with --grid, whose cells are the jobs")
    execute = clusters.open_chosen(cluster, workers, cluster_option, {"--shards": shards})
    evaluations = _evaluations(subjects, given, floors)
    if grid:
        _run_grid(evaluations, factors, seeds, out, as_json, execute)
        return
    results = []
    for evaluation in evaluations:
        typer.echo(f"{evaluation.subject} on {evaluation.protocol.env['id']}", err=True)
        name = _file_name(evaluation)
        target = out / name if video else None
        found = evaluation.run(out, video=target, progress=True, cluster=execute, shards=shards)
        found.save(out / f"{name}.json")
        results.append((evaluation, found))
    _print(results, given, out, as_json)


def _check(own_goals: bool, dataset: Any, record: Any, grid: bool, of_grids: Mapping[str, Any]) -> None:
    starts = {"--dataset": dataset, "--record": record, "--own-goals": own_goals or None}
    named = [option for option, value in starts.items() if value is not None]
    if len(named) > 1:
        raise ContractError(f"{' and '.join(named)} exclude each other: name one place to start from")
    useless = [option for option, value in of_grids.items() if value is not None and not grid]
    if useless:
        raise ContractError(f"{', '.join(useless)}: only with --grid")


def _evaluations(subjects: Sequence[str], given: Mapping[str, Any], floors: bool) -> list[Evaluation]:
    """One per subject; policies without a protocol of their own take that of the first checkpoint."""
    from dataclasses import replace

    from stable_worldmodel.evaluation import Evaluation
    from stable_worldmodel.evaluation.names import FLOORS, NAMED

    leader = next((name for name in subjects if name not in NAMED), subjects[0])
    first = Evaluation.of(leader, **given)
    added = [name for name in FLOORS if floors and name not in subjects and (name != "replay" or first.from_recording)]
    split_of = leader if leader not in NAMED else None  # so that all are scored on the same pairs
    named = {name: replace(first, subject=name, split_of=split_of) for name in (*subjects, *added) if name in NAMED}
    return [named[name] if name in named else Evaluation.of(name, **given) for name in (*subjects, *added)]


def _run_grid(
    evaluations: Sequence[Evaluation],
    factors: str | None,
    seeds: str | None,
    out: Path,
    as_json: bool,
    execute: Executor | None,
) -> None:
    from stable_worldmodel.evaluation import Grid

    chosen = tuple(factors.split(",")) if factors else None
    grid = Grid(tuple(evaluations), chosen, _numbers(seeds) or (evaluations[0].protocol.seed,))
    rows = grid.run(out, execute, progress=True)
    if as_json:
        print_json([{key: row[key] for key in _SHOWN} for row in rows])
        return
    print_table([_grid_row(row) for row in rows])
    typer.echo(f"\n{out / 'grid.jsonl'}: {len(rows)} cells; swm report {out} draws them")


def _grid_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "subject": row["checkpoint"],
        "factor": row["factor"],
        "seed": row["seed"],
        "success %": _rounded(row["success_rate"]),
        "95 % interval": f"{row['low']:.1f} to {row['high']:.1f}",
        "episodes": row["episodes"],
    }


_SHOWN = ("checkpoint", "factor", "seed", "success_rate", "low", "high", "successes", "episodes")


def _print(results: Sequence[tuple[Evaluation, Results]], given: Mapping[str, Any], out: Path, as_json: bool) -> None:
    rows = []
    for evaluation, found in results:
        low, high = found.interval()
        rows.append(
            {
                "subject": evaluation.subject,
                "success %": _rounded(found["success_rate"]),
                "95 % interval": f"{low:.1f} to {high:.1f}",
                "episodes": found["episode_count"],
                "return": _rounded(float(found["episode_returns"].mean())),
                "results": str(out / f"{_file_name(evaluation)}.json"),
            }
        )
    if as_json:
        documents = [found.to_json() for _, found in results]
        print_json([{**row, **document["summary"]} for row, document in zip(rows, documents, strict=True)])
        return
    print_table([{key: value for key, value in row.items() if key != "results"} for row in rows])
    typer.echo("\n".join(f"results: {row['results']}" for row in rows))
    typer.echo(f"\nThe same in Python:\n\n{_script([evaluation for evaluation, _ in results], given)}")


def _script(evaluations: Sequence[Evaluation], given: Mapping[str, Any]) -> str:
    """The lines that do the same."""
    from stable_worldmodel.evaluation.names import NAMED

    names = [evaluation.subject for evaluation in evaluations]
    checkpoints = [name for name in names if name not in NAMED] or names[:1]
    shared = [name for name in names if name not in checkpoints]
    keywords = "".join(f", {key}={value!r}" for key, value in given.items())
    lines = ["from stable_worldmodel.evaluation import Evaluation", ""]
    for number, name in enumerate(checkpoints):
        lines.append(f"evaluation{number or ''} = Evaluation.of({name!r}{keywords})")
        lines.append(f"print(evaluation{number or ''}.run())")
    if shared:
        lines.insert(0, "from dataclasses import replace")
        lines += [f"for subject in {shared!r}:", "    print(replace(evaluation, subject=subject).run())"]
    return "\n".join(lines)


def _file_name(evaluation: Evaluation) -> str:
    """Subject and digest, without separators."""
    path = Path(evaluation.subject)
    stem = path.parent.name if path.name == "checkpoint" else path.name
    return f"{stem or 'model'}-{evaluation.digest}"


def _numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ContractError(f"--seeds {text}: expected whole numbers, e.g. 0,1,2") from None


def _rounded(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value
