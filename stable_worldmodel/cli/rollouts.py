"""`swm collect`: episodes of an environment into a dataset."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.options import EnvArgument, EnvArgumentsArgument
from stable_worldmodel.cli.output import JsonOption, print_json
from stable_worldmodel.errors import ContractError


def collect(
    env: EnvArgument,
    arguments: EnvArgumentsArgument = None,
    out: Annotated[
        str, typer.Option("--out", "-o", help="Dataset to write; its suffix decides about the format.")
    ] = "dataset.h5",
    policy: Annotated[
        str,
        typer.Option(
            help="random, or one that comes with the environment: expert ...", autocompletion=completion.policies
        ),
    ] = "random",
    policy_options: Annotated[
        list[str] | None, typer.Option("--policy-option", "-p", metavar="KEY=VALUE", help="Option of the policy.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes the dataset shall have.")] = 10,
    num_envs: Annotated[int, typer.Option(min=1, help="Environments played side by side.")] = 8,
    variation: Annotated[
        str | None, typer.Option(help="Factors drawn anew in every episode: names, or all.", show_default="none")
    ] = None,
    image_size: Annotated[int, typer.Option(min=1, help="Side of the pictures in px.")] = 64,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps after which an episode ends.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of episode 0; episode k has seed + k.")] = 0,
    format: Annotated[
        str | None,
        typer.Option(help="Data format.", show_default="by the suffix, else hdf5", autocompletion=completion.formats),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="If it exists: resume, append, overwrite or error.",
            autocompletion=completion.words("resume", "append", "overwrite", "error"),
        ),
    ] = "resume",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes.", show_default="as many as pay off")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Record in shards on many machines: local, ray or slurm.",
            autocompletion=completion.words("local", "ray", "slurm"),
        ),
    ] = None,
    cluster_options: Annotated[
        list[str] | None,
        typer.Option("--cluster-option", metavar="KEY=VALUE", help="workers=8, address=auto, partition=gpu ..."),
    ] = None,
    shards: Annotated[int | None, typer.Option(min=1, help="How many shards.", show_default="64")] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Record only shard K of N, from 1/N to N/N; then join them with swm merge."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Record episodes into a dataset. The same command continues what was interrupted."""
    from stable_worldmodel.data import load_dataset
    from stable_worldmodel.data.registry import writer_target
    from stable_worldmodel.envs import resolve_id

    # A URL is for shards, which are uploaded.
    target = out if "://" in out and (cluster or shard) else str(writer_target(out, format)[1])
    recipe = Recipe(
        env=resolve_id(env),
        num_envs=num_envs,
        image_size=image_size,
        world={
            "max_episode_steps": max_steps,
            **({"backend": "process", "workers": workers} if workers else {}),
            **env_arguments(arguments or []),
        },
        policy=policy,
        settings={"seed": seed, **parse_options(policy_options or [])},
        out=out,
        collect={
            "episodes": episodes,
            "seed": seed,
            "options": {"variation": variation.split(",")} if variation else None,
            "format": format,
            "mode": mode,
            **_sharding(cluster, cluster_options, shards, shard),
        },
    )
    recipe.run()
    if shard and _show_shard(target, shard, as_json):
        return
    dataset = load_dataset(target)
    if as_json:
        print_json({"path": str(target), "episodes": dataset.num_episodes, "rows": int(dataset.lengths.sum())})
        return
    typer.echo(f"{target}: {dataset.num_episodes} episodes, {int(dataset.lengths.sum())} rows")
    typer.echo(f"\nThe same in Python:\n\n{recipe.script()}")


def _sharding(
    cluster: str | None, cluster_options: list[str] | None, shards: int | None, shard: str | None
) -> dict[str, Any]:
    """What the options about shards mean to `World.collect`."""
    if shard is not None:
        from stable_worldmodel.cluster.shards import parse_shard

        if cluster or cluster_options or shards:
            raise ContractError("--shard records one shard here: leave out --cluster, --cluster-option and --shards")
        number, of = parse_shard(shard)
        return {"shards": of, "shard": number}
    if cluster is None:
        if cluster_options or shards:
            raise ContractError("--shards and --cluster-option: only with --cluster")
        return {}
    options = parse_options(cluster_options or [])
    return {"cluster": cluster, **({"shards": shards} if shards else {}), "cluster_options": options or None}


def _show_shard(target: str, shard: str, as_json: bool) -> bool:
    """Say what was recorded; False when the shards are merged already."""
    from stable_worldmodel.cluster.remote import is_remote
    from stable_worldmodel.cluster.shards import ShardedRun, parse_shard, shards_folder

    number, shards = parse_shard(shard)
    if is_remote(target):
        if as_json:
            print_json({"path": target, "shard": number, "shards": shards})
        else:
            typer.echo(f"{target}: shard {number}/{shards} is there\nwhen all shards are: swm merge {target}")
        return True
    if not shards_folder(Path(target)).is_dir():
        return False
    run = ShardedRun.open(Path(target))
    if as_json:
        episodes = len(run.episodes_of(number))
        print_json({"path": str(run.path_of(number)), "shard": number, "shards": run.shards, "episodes": episodes})
        return True
    typer.echo(f"{run.path_of(number)}: {run.describe(number)}")
    typer.echo(f"when all shards are there: swm merge {target}")
    return True


@dataclass(frozen=True)
class Recipe:
    """A collection, to be carried out or to be shown as Python."""

    env: str
    num_envs: int
    image_size: int
    world: dict[str, Any]  # further arguments of World
    policy: str
    settings: dict[str, Any]  # arguments of the policy
    out: str
    collect: dict[str, Any]  # arguments of World.collect

    def run(self) -> None:
        """Collect."""
        from stable_worldmodel.policy.named import make_policy
        from stable_worldmodel.world import World

        policy = make_policy(self.policy, self.env, **self.settings)
        with World(self.env, self.num_envs, (self.image_size, self.image_size), verbose=0, **self.world) as world:
            world.set_policy(policy)
            world.collect(self.out, **self.collect)

    def script(self) -> str:
        """The lines that do the same."""
        size = self.image_size
        policy = _arguments([repr(self.policy), repr(self.env)], self.settings)
        return "\n".join(
            [
                "import stable_worldmodel as swm",
                "from stable_worldmodel.policy.named import make_policy",
                "",
                f"with swm.World({_arguments([repr(self.env), self.num_envs, (size, size)], self.world)}) as world:",
                f"    world.set_policy(make_policy({policy}))",
                f"    world.collect({_arguments([repr(self.out)], self.collect)})",
            ]
        )


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; a value is a Python literal, `true`, `false` or `none` in any case, or else text."""
    options = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ContractError(f"{pair!r}: expected KEY=VALUE, such as bounded=true")
        words = {"true": True, "false": False, "none": None}
        try:
            options[key] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options


def env_arguments(pairs: list[str]) -> dict[str, Any]:
    """Arguments of an environment. ContractError for one of `World`, which would not arrive there."""
    from stable_worldmodel.world import World

    found = parse_options(pairs)
    taken = sorted(found.keys() & (inspect.signature(World).parameters.keys() - {"trust_remote_code"}))
    if taken:
        raise ContractError(f"{', '.join(taken)}: no argument of an environment; swm collect --help lists the options")
    return found


def _arguments(positional: list[Any], keywords: dict[str, Any]) -> str:
    named = [f"{key}={value!r}" for key, value in keywords.items() if value is not None]
    return ", ".join([*map(str, positional), *named])
