"""`swm collect`: episodes of an environment into a dataset."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stable_worldmodel.cli.output import JsonOption, print_json
from stable_worldmodel.errors import ContractError


def collect(
    env: Annotated[str, typer.Argument(help="Environment id; 'TwoRoom-v1' means 'swm/TwoRoom-v1'.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]", help="Arguments of the environment.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Dataset to write; its suffix decides about the format.")] = (
        Path("dataset.h5")
    ),
    policy: Annotated[str, typer.Option(help="random, or one that comes with the environment: expert ...")] = "random",
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
    format: Annotated[str | None, typer.Option(help="Data format.", show_default="by the suffix, else hdf5")] = None,
    mode: Annotated[str, typer.Option(help="If it exists: resume, append, overwrite or error.")] = "resume",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes.", show_default="as many as pay off")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Record episodes into a dataset. The same command continues what was interrupted."""
    from stable_worldmodel.data import load_dataset
    from stable_worldmodel.data.registry import writer_target
    from stable_worldmodel.envs import resolve_id

    _, target = writer_target(out, format)
    recipe = Recipe(
        env=resolve_id(env),
        num_envs=num_envs,
        image_size=image_size,
        world={
            "max_episode_steps": max_steps,
            **({"backend": "process", "workers": workers} if workers else {}),
            **parse_options(arguments or []),
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
        },
    )
    recipe.run()
    dataset = load_dataset(target)
    if as_json:
        print_json({"path": str(target), "episodes": dataset.num_episodes, "rows": int(dataset.lengths.sum())})
        return
    typer.echo(f"{target}: {dataset.num_episodes} episodes, {int(dataset.lengths.sum())} rows")
    typer.echo(f"\nThe same in Python:\n\n{recipe.script()}")


@dataclass(frozen=True)
class Recipe:
    """A collection, to be carried out or to be shown as Python."""

    env: str
    num_envs: int
    image_size: int
    world: dict[str, Any]  # further arguments of World
    policy: str
    settings: dict[str, Any]  # arguments of the policy
    out: Path
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
                f"    world.collect({_arguments([repr(str(self.out))], self.collect)})",
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


def _arguments(positional: list[Any], keywords: dict[str, Any]) -> str:
    named = [f"{key}={value!r}" for key, value in keywords.items() if value is not None]
    return ", ".join([*map(str, positional), *named])
