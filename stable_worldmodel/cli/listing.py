"""Looking around: environments, their factors of variation, datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
    env: Annotated[str, typer.Argument(help="Environment id; 'TwoRoom-v1' means 'swm/TwoRoom-v1'.")],
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


def datasets(as_json: JsonOption = False) -> None:
    """List the datasets in the data folder (STABLEWM_HOME)."""
    from stable_worldmodel.data import detect_format, get_cache_dir

    root = get_cache_dir()
    rows = []
    for folder in (root, root / "datasets"):
        # `datasets` itself looks like a dataset to formats that are directories of files.
        entries = sorted(set(folder.glob("*")) - {root / "datasets"})
        found = [(path, detect_format(path)) for path in entries]
        rows += [{"name": path.name, "format": fmt.name, "bytes": _size(path)} for path, fmt in found if fmt]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows)
    else:
        typer.echo(f"no datasets in {root}", err=True)


def inspect(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="Path of a dataset, or its name in the data folder.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a dataset holds: episodes, rows, columns."""
    from stable_worldmodel.data import dataset_path, detect_format, load_dataset

    path = dataset_path(name)
    found = detect_format(path)
    dataset = load_dataset(path)
    lengths = dataset.lengths
    summary: dict[str, Any] = {
        "path": str(path),
        "format": found.name if found else "",
        "bytes": _size(path),
        "episodes": len(lengths),
        "rows": int(lengths.sum()),
        "shortest": int(lengths.min()) if len(lengths) else 0,
        "longest": int(lengths.max()) if len(lengths) else 0,
    }
    first = dataset.read_rows(0, 0, 1) if len(lengths) else {}
    columns = [{"column": key, "shape": list(v.shape[1:]), "dtype": str(v.dtype)} for key, v in first.items()]
    if as_json:
        print_json({**summary, "columns": columns})
        return
    print_table([{"dataset": key, name: str(value)} for key, value in summary.items()])
    if columns:
        print_table(columns)


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


def _size(path: Path) -> int:
    """Bytes of a file, or of all files under a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
