"""What the data folder holds, by kind: `list`, `show`, `delete`, `checkpoints`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.output import JsonOption, print_json, print_table
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.files import format_bytes
from stable_worldmodel.utils.suggest import nearest


def list_cmd(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="model, dataset or world.",
            autocompletion=completion.words("model", "dataset", "world"),
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """List the models, datasets or worlds."""
    names = _names(kind, ("model", "dataset", "world"))
    if as_json:
        print_json(names)
    elif names:
        print_table([{kind: name} for name in names])
    else:
        typer.echo(f"no {kind} in {_root()}", err=True)


def show(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="dataset or world.", autocompletion=completion.words("dataset", "world")),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Which ones.", autocompletion=completion.names_of_kind),
    ] = None,
    all: Annotated[bool, typer.Option("--all", "-a", help="All there are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what datasets or worlds are like."""
    from stable_worldmodel.data import dataset_info, world_info

    known = _names(kind, ("dataset", "world"))
    if not names and not all:
        raise ContractError(f"which {kind}? Give names, or --all")
    chosen = known if all else list(names or ())
    if kind == "world":
        chosen = [_full_id(name) for name in chosen]
    _check_known(kind, chosen, known)
    describe: Callable[[str], Mapping[str, Any]] = dataset_info if kind == "dataset" else world_info
    if as_json:
        print_json({name: _plain(describe(name)) for name in chosen})
        return
    display = display_dataset_info if kind == "dataset" else display_world_info
    for name in chosen:
        display(describe(name))


def delete(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="model or dataset.", autocompletion=completion.words("model", "dataset")),
    ],
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Which ones.", autocompletion=completion.names_of_kind)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete models or datasets of the data folder, after a question."""
    from stable_worldmodel.data import delete_dataset, delete_model

    _check_known(kind, names, _names(kind, ("model", "dataset")))
    if not yes:
        typer.confirm(f"Delete {', '.join(names)}?", abort=True)
    remove = delete_dataset if kind == "dataset" else delete_model
    kept = [name for name in names if not remove(name)]
    if kept:
        raise ContractError(f"not deleted: {kept}")


def checkpoints(
    pattern: Annotated[
        str | None, typer.Argument(metavar="FILTER", help="Regular expression for a run or file.", show_default="all")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the files of trained models."""
    from stable_worldmodel.data import get_cache_dir

    try:
        matches = re.compile(pattern or "").search
    except re.error as error:
        raise ContractError(f"{pattern!r} is not a regular expression: {error}") from None
    root = get_cache_dir(sub_folder="checkpoints")
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    rows: list[dict[str, Any]] = [
        {"run": path.parent.relative_to(root).as_posix(), "file": path.name, "bytes": path.stat().st_size}
        for path in files
        if path.suffix in (".pt", ".ckpt", ".safetensors")
    ]
    rows = [row for row in rows if matches(row["run"]) or matches(row["file"])]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([{"run": row["run"], "file": row["file"], "size": format_bytes(row["bytes"])} for row in rows])
    else:
        typer.echo(f"no checkpoints in {root}", err=True)


def display_dataset_info(info: Mapping[str, Any]) -> None:
    """Print what `dataset_info` returned as a panel."""
    variation = info["variation"]
    _panel(
        info["name"],
        {
            "episodes": info["num_episodes"],
            "rows": info["num_steps"],
            "columns": ", ".join(info["columns"]),
            "pixels": info["obs_shape"],
            "action": info["action_shape"],
            "goal": info["goal_shape"],
            "factors of variation": ", ".join(variation["names"]) if variation["has_variation"] else None,
        },
    )


def display_world_info(info: Mapping[str, Any]) -> None:
    """Print what `world_info` returned as a panel."""
    variation = info["variation"]
    _panel(
        info["name"],
        {
            "observation": _describe_space(info["observation_space"]),
            "action": _describe_space(info["action_space"]),
            "factors of variation": ", ".join(variation["names"]) if variation["has_variation"] else None,
            **info["config"],
        },
    )


def _panel(title: str, values: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(name, "none" if value is None else str(value))
    Console(markup=False, highlight=False).print(Panel(table, title=title, title_align="left", expand=False))


def _describe_space(space: Any) -> str:
    if isinstance(space, list):
        return ", ".join(_describe_space(part) for part in space)
    if "type" not in space:
        return ", ".join(f"{name}: {_describe_space(part)}" for name, part in space.items())
    size = space.get("n", space.get("shape", ""))
    return f"{space['type']} {size}".strip()


def _names(kind: str, allowed: tuple[str, ...]) -> list[str]:
    from stable_worldmodel.data import list_datasets, list_models, list_worlds

    if kind not in allowed:
        raise ContractError(f"kind {kind!r}: expected one of {', '.join(allowed)}")
    return {"model": list_models, "dataset": list_datasets, "world": list_worlds}[kind]()


def _check_known(kind: str, names: list[str], known: list[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        hints = "".join(nearest(name, known) for name in unknown)
        raise ContractError(f"no {kind} {', '.join(unknown)}; there are: {', '.join(known) or 'none'}{hints}")


def _full_id(name: str) -> str:
    return name if "/" in name else f"swm/{name}"


def _root() -> str:
    from stable_worldmodel.data import get_cache_dir

    return str(get_cache_dir())


def _plain(value: Any) -> Any:
    """As JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
