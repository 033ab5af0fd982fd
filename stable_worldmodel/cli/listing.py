"""Looking around: environments and their factors of variation."""

from __future__ import annotations

from typing import Any

import typer

from stable_worldmodel.cli.options import EnvArgument
from stable_worldmodel.cli.output import JsonOption, print_json, print_table


def envs(as_json: JsonOption = False) -> None:
    """List the environments, by kind of action."""
    from stable_worldmodel.envs import DISCRETE_WORLDS, WORLDS

    groups = {"continuous": sorted(WORLDS - DISCRETE_WORLDS), "discrete": sorted(DISCRETE_WORLDS)}
    if as_json:
        print_json(groups)
        return
    print_table([{"environment": name, "actions": kind} for kind, names in groups.items() for name in names])


def fovs(
    env: EnvArgument,
    as_json: JsonOption = False,
) -> None:
    """Show the factors of variation of an environment."""
    import gymnasium

    from stable_worldmodel.envs import resolve_id

    name = resolve_id(env)
    world = gymnasium.make(name, disable_env_checker=True)
    try:
        space = getattr(world.unwrapped, "variation_space", None)
        factors = [] if space is None else [_describe_factor(path, _leaf(space, path)) for path in space.names()]
    finally:
        world.close()
    if as_json:
        print_json(factors)
    elif factors:
        print_table(factors, title=name)
    else:
        typer.echo(f"{name} has no factors of variation", err=True)


def _leaf(space: Any, path: str) -> Any:
    for key in path.split("."):
        space = space[key]
    return space


def _describe_factor(name: str, space: Any) -> dict[str, Any]:
    """One factor as JSON values: name, type, range, default."""
    if hasattr(space, "low"):
        low, high = _shorten(space.low), _shorten(space.high)
    elif hasattr(space, "nvec"):
        low, high = _shorten(space.start), _shorten(space.start + space.nvec - 1)
    else:
        low, high = int(space.start), int(space.start + space.n - 1)
    default = space.init_value
    plain = default.tolist() if hasattr(default, "tolist") else default
    return {"factor": name, "type": type(space).__name__, "low": low, "high": high, "default": plain}


def _shorten(bounds: Any) -> Any:
    """Bounds as a list, or as one number where they are all equal."""
    return bounds.flat[0].item() if (bounds == bounds.flat[0]).all() else bounds.tolist()
