"""`swm bench`: how fast an environment plays, a dataset loads and a planner decides, here and now."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.options import DatasetArgument, DeviceOption, EnvArgument, EnvArgumentsArgument
from stable_worldmodel.cli.output import JsonOption, print_json, print_table
from stable_worldmodel.cli.rollouts import env_arguments, parse_options
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from stable_worldmodel.evaluation import Evaluation
    from stable_worldmodel.policy import WorldModelPolicy
    from stable_worldmodel.world import World

ROUNDS = 3
PLAYGROUND = "playground"
# What a checkpoint is planned with unless it says otherwise; the playground, always.
_PLAN = {"horizon": 5, "receding_horizon": 1, "action_block": 5}
_SOLVER = {"type": "cem", "num_samples": 300, "n_steps": 30, "topk": 30}

SecondsOption = Annotated[float, typer.Option(min=0.1, help="Time to measure for.")]


def rollout(
    env: EnvArgument,
    arguments: EnvArgumentsArgument = None,
    num_envs: Annotated[int, typer.Option(min=1, help="Environments played side by side.")] = 8,
    image_size: Annotated[int, typer.Option(min=1, help="Side of the pictures in px.")] = 64,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps after which an episode ends.")] = 50,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes.", show_default="as many as pay off")
    ] = None,
    seconds: SecondsOption = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Measure how many steps a collection with random actions makes, pictures and resets included, nothing written."""
    from stable_worldmodel.envs import resolve_id
    from stable_worldmodel.policy import RandomPolicy
    from stable_worldmodel.world import World

    settings = {"max_episode_steps": max_steps, **env_arguments(arguments or [])}
    if workers:
        settings |= {"backend": "process", "workers": workers}
    begin = time.perf_counter()
    with World(resolve_id(env), num_envs, (image_size, image_size), verbose=0, **settings) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.reset(seed=0)
        opened = time.perf_counter()
        first = _play(world, num_envs, 0)  # also to see how many episodes a round should have
        episodes = max(num_envs, round(num_envs * seconds / ROUNDS / first.seconds))
        rounds = [_play(world, episodes, num_envs + i * episodes) for i in range(ROUNDS)]
        result = {
            "env": resolve_id(env),
            "pool": type(world.envs).__name__,
            "num_envs": num_envs,
            "image_size": image_size,
            "open_seconds": round(opened - begin, 3),
            **_spread("steps_per_second", [played.steps / played.seconds for played in rounds]),
            "steps": sum(played.steps for played in rounds),
        }
    _print(result, as_json)


def loading(
    name: DatasetArgument,
    num_steps: Annotated[int, typer.Option(min=1, help="Observations per window.")] = 4,
    frameskip: Annotated[int, typer.Option(min=1, help="Rows from one observation to the next.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per batch.")] = 64,
    columns: Annotated[
        str | None, typer.Option(help="Columns to load, such as pixels,action.", show_default="all")
    ] = None,
    seconds: SecondsOption = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast random windows of a dataset load, as training reads them."""
    from stable_worldmodel.data import load_dataset
    from stable_worldmodel.data.loader import Loader

    begin = time.perf_counter()
    keys = columns.split(",") if columns else None
    dataset = load_dataset(name, num_steps=num_steps, frameskip=frameskip, keys_to_load=keys)
    opened = time.perf_counter()
    with Loader(dataset, min(batch_size, len(dataset))) as loader:
        batches = _endless(loader)
        first = next(batches)
        first_batch = time.perf_counter()
        window_bytes = _nbytes(first) // len(first[dataset.column_names[0]])
        rates = [_load(batches, loader.sampler.batch_size, seconds / ROUNDS) for _ in range(ROUNDS)]
        rate = _spread("windows_per_second", rates)
        result = {
            "dataset": name,
            "windows": len(dataset),
            "batch_size": loader.sampler.batch_size,
            "open_seconds": round(opened - begin, 3),
            "first_batch_seconds": round(first_batch - opened, 3),
            **rate,
            "megabytes_per_second": round(rate["windows_per_second"] * window_bytes / 1e6, 1),
            "buffer_megabytes": round(loader.buffer_bytes / 1e6, 1),
        }
        batches.close()
    _print(result, as_json)


def planning(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="The exact dynamics of TwoRoom if left out.", autocompletion=completion.runs
        ),
    ] = PLAYGROUND,
    solver: Annotated[
        list[str] | None,
        typer.Option("--solver", metavar="KEY=VALUE", help="type=icem, ...", autocompletion=completion.solver_settings),
    ] = None,
    plan: Annotated[
        list[str] | None, typer.Option("--plan", metavar="KEY=VALUE", help="horizon, action_block, ...")
    ] = None,
    num_envs: Annotated[int, typer.Option(min=1, help="Environments that are planned for at once.")] = 1,
    decisions: Annotated[int, typer.Option(min=1, help="How many to measure, after a first one.")] = 20,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Measure how long a decision of a planner takes, in its environment, encoding of pictures included."""
    evaluation = _evaluation(model, parse_options(plan or []), parse_options(solver or []), num_envs, device)
    protocol = evaluation.protocol
    with evaluation.world(num_envs) as world:
        world.reset(seed=protocol.seed)
        policy = _planner(evaluation)
        world.set_policy(policy)
        seed = protocol.seed
        while len(policy.plan_seconds) <= decisions:
            if (world.terminateds | world.truncateds).any():  # so that every decision is about all envs
                seed += num_envs
                world.reset(seed=seed)
            world.step()
        first, *rest = policy.plan_seconds[: decisions + 1]
    result = {
        "model": model,
        "env": protocol.env["id"],
        "num_envs": num_envs,
        "device": device,
        **dict(protocol.solver or {}),
        **dict(protocol.plan or {}),
        "first_ms": round(1e3 * first, 2),
        **_spread("ms_per_decision", [1e3 * value for value in rest]),
        "decisions": len(rest),
    }
    _print(result, as_json)


class _Play:
    """A round of random play. It is a writer that counts."""

    def __init__(self) -> None:
        self.steps, self.seconds = 0, 0.0

    def write_episode(self, episode: Any, **kwargs: Any) -> None:
        self.steps += len(episode["step_idx"]) - 1


def _play(world: World, episodes: int, seed: int) -> _Play:
    played = _Play()
    begin = time.perf_counter()
    world.collect(writer=played, episodes=episodes, seed=seed, progress=False)  # type: ignore[arg-type]
    played.seconds = time.perf_counter() - begin
    return played


def _load(batches: Generator[Any, None, None], batch_size: int, seconds: float) -> float:
    """Windows per second."""
    loaded, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        next(batches)
        loaded += batch_size
    return loaded / (time.perf_counter() - begin)


def _endless(loader: Any) -> Generator[Any, None, None]:
    while True:
        yield from loader


def _nbytes(batch: dict[str, Any]) -> int:
    return sum(value.nbytes for value in batch.values() if hasattr(value, "nbytes"))


def _evaluation(model: str, plan: dict[str, Any], solver: dict[str, Any], num_envs: int, device: str) -> Evaluation:
    """Env, planner and their settings: what a checkpoint says, with single values replaced."""
    from stable_worldmodel.evaluation import Evaluation
    from stable_worldmodel.train.protocol import EvalProtocol

    if model == PLAYGROUND:
        protocol = EvalProtocol({"id": "swm/TwoRoom-v1"}, plan={**_PLAN, **plan}, solver={**_SOLVER, **solver})
        return Evaluation(PLAYGROUND, protocol, num_envs=num_envs, device=device)
    found = Evaluation.of(model)
    if found.protocol.plan is None:
        raise ContractError(f"{model!r} acts without planning: expected a checkpoint whose protocol has a plan")
    solver = solver if found.protocol.solver else {**_SOLVER, **solver}
    return Evaluation.of(model, num_envs=num_envs, device=device, plan=plan, solver=solver)


def _planner(evaluation: Evaluation) -> WorldModelPolicy:
    from stable_worldmodel.evaluation import subjects
    from stable_worldmodel.planning.playground import TwoRoomDynamics
    from stable_worldmodel.policy import WorldModelPolicy

    protocol = evaluation.protocol
    if evaluation.subject != PLAYGROUND:
        return subjects.load(evaluation.subject, protocol, evaluation.device).policy(None)  # type: ignore[return-value]
    config = subjects.plan_config(protocol)
    dynamics = TwoRoomDynamics(_layout(protocol.env["id"], protocol.seed), action_block=config.action_block)
    return WorldModelPolicy(subjects.make_solver(dynamics, protocol, evaluation.device), config)


def _layout(env_id: str, seed: int) -> Any:
    import gymnasium as gym

    env = gym.make(env_id, render_mode=None, disable_env_checker=True)
    env.reset(seed=seed)
    unwrapped: Any = env.unwrapped
    return unwrapped.layout()


def _spread(name: str, values: list[float]) -> dict[str, float]:
    """The median of several rounds, and from where to where they went."""
    import statistics

    found = {name: statistics.median(values), f"{name}_lowest": min(values), f"{name}_highest": max(values)}
    return {key: round(value, 2) if value < 100 else round(value) for key, value in found.items()}


def _print(result: dict[str, Any], as_json: bool) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    result |= {"cores": cores, "load": load}
    if load is not None and load > cores:
        typer.echo(f"load {load} on {cores} cores: other work keeps this machine busy, it can do better", err=True)
    if as_json:
        print_json(result)
        return
    print_table([{"measured": key.replace("_", " "), "value": str(value)} for key, value in result.items()])
