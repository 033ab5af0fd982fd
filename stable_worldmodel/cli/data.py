"""Datasets at the command line: what there is, what it holds, whether it is whole, and other forms of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.options import DatasetArgument
from stable_worldmodel.cli.output import JsonOption, print_json, print_table
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.files import disk_size, format_bytes

if TYPE_CHECKING:
    import numpy as np

    from stable_worldmodel.data.dataset import Dataset

_MODES = completion.words("error", "overwrite", "append")


def datasets(as_json: JsonOption = False) -> None:
    """List the datasets in the data folder (STABLEWM_HOME)."""
    from stable_worldmodel.data import get_cache_dir
    from stable_worldmodel.data.catalog import local_datasets
    from stable_worldmodel.data.registry import format_of

    rows: list[dict[str, Any]] = [
        {"name": name, "format": format_of(path).name, "bytes": disk_size(path)}
        for name, path in sorted(local_datasets())
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(
            [{"name": row["name"], "format": row["format"], "size": format_bytes(row["bytes"])} for row in rows]
        )
    else:
        typer.echo(f"no datasets in {get_cache_dir()}", err=True)


def inspect(
    name: DatasetArgument,
    as_json: JsonOption = False,
) -> None:
    """Show what a dataset holds: episodes, rows, columns."""
    from stable_worldmodel.data import load_dataset
    from stable_worldmodel.data.registry import format_of, locate_dataset

    path = locate_dataset(name)
    dataset = load_dataset(path)
    lengths = dataset.lengths
    summary: dict[str, Any] = {
        "path": str(path),
        "format": format_of(path).name,
        **({"bytes": disk_size(path)} if isinstance(path, Path) else {}),
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
    if "bytes" in summary:
        summary["bytes"] = f"{summary['bytes']} ({format_bytes(summary['bytes'])})"
    print_table([{"dataset": key, name: str(value)} for key, value in summary.items()])
    if columns:
        print_table(columns)


def verify(
    name: DatasetArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Read the images too.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop the first episode that is not good and all after it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a dataset against its own index and checksums; exit status 1 if it has faults."""
    from stable_worldmodel.data import verify as check

    report = check(name, deep, repair=repair)
    if as_json:
        print_json({**vars(report), "path": str(report.path), "ok": report.ok})
    else:
        for fault in report.faults:
            typer.echo(fault, err=True)
        repaired = "" if report.repaired_to is None else f", cut to {report.repaired_to} episodes"
        state = "no faults" if report.ok else f"{len(report.faults)} faults{repaired}"
        typer.echo(
            f"{report.path}: {report.episodes} episodes, {report.rows} rows, checksums of {report.checked}: {state}"
        )
    if not report.ok and report.repaired_to is None:
        raise typer.Exit(1)


def convert(
    name: DatasetArgument,
    output: Annotated[
        str | None,
        typer.Argument(metavar="OUTPUT", help="Name or path of the new dataset.", show_default="DATASET-FORMAT"),
    ] = None,
    dest_format: Annotated[
        str, typer.Option("--dest-format", "-f", help="Format to write.", autocompletion=completion.formats)
    ] = "video",
    source_format: Annotated[
        str | None, typer.Option(help="Format to read.", show_default="detected", autocompletion=completion.formats)
    ] = None,
    mode: Annotated[
        str, typer.Option(help="If the target exists: error, overwrite or append.", autocompletion=_MODES)
    ] = "error",
) -> None:
    """Write a dataset in another format."""
    from stable_worldmodel.data import convert as run
    from stable_worldmodel.data.registry import locate_dataset

    source = locate_dataset(name)
    local = Path(source) if isinstance(source, Path) else Path(Path(source).name)
    target = output or str(local.with_name(f"{local.stem}-{dest_format}"))
    written = run(source, target, source_format=source_format, dest_format=dest_format, mode=mode, progress=True)
    typer.echo(f"written: {written}")


def merge(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET",
            help="Two or more datasets; or one that was recorded in shards, which become that dataset.",
            autocompletion=completion.datasets,
        ),
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Name or path of the new dataset.", show_default="the shards'")
    ] = None,
    dest_format: Annotated[
        str | None,
        typer.Option(
            "--dest-format",
            "-f",
            help="Format to write.",
            show_default="of the first source",
            autocompletion=completion.formats,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing target.")] = False,
    mode: Annotated[
        str | None,
        typer.Option(
            help="If the target exists: error, overwrite or append; wins over --overwrite.", autocompletion=_MODES
        ),
    ] = None,
) -> None:
    """Write the episodes of several datasets into one, in the order given; or join the shards of a dataset."""
    from stable_worldmodel.data import merge as run

    if output is None and len(sources) == 1:
        from stable_worldmodel.cluster import merge_shards

        replaced = overwrite if mode is None else mode == "overwrite"
        typer.echo(f"written: {merge_shards(sources[0], format=dest_format, overwrite=replaced)}")
        return
    if output is None:
        raise ContractError(f"{len(sources)} datasets: name the new one with --output")
    how = mode or ("overwrite" if overwrite else "error")
    written = run(sources, output, dest_format=dest_format, mode=how, progress=True)
    typer.echo(f"written: {written}")


def preview(
    name: DatasetArgument,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Episodes to draw at random.")] = 4,
    episodes: Annotated[str | None, typer.Option(help="Which episodes, such as 0,3; instead of --num.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the videos.", show_default="previews/DATASET")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Image columns, such as pixels,goal.", show_default="all")] = None,
    fps: Annotated[int, typer.Option(min=1, help="Frames per second.")] = 15,
    open_folder: Annotated[bool, typer.Option("--open", help="Show the folder when done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write episodes as videos, several views side by side."""
    from stable_worldmodel.data import get_cache_dir, load_dataset
    from stable_worldmodel.utils.progress import TerminalProgress
    from stable_worldmodel.world.video import write_video

    dataset = load_dataset(name)
    views = _image_columns(dataset, key)
    chosen = _chosen_episodes(dataset.num_episodes, episodes, num, seed)
    folder = output or get_cache_dir(sub_folder="previews") / Path(name).stem
    files = [folder / f"ep{episode}.mp4" for episode in chosen]
    with TerminalProgress() as progress:
        task = progress.task("preview", len(chosen))
        for episode, file in zip(chosen, files, strict=True):
            write_video(file, _panels(dataset, episode, views), fps)
            task.advance(1, steps=int(dataset.lengths[episode]))
    if as_json:
        print_json([str(file) for file in files])
    else:
        typer.echo("\n".join(map(str, files)))
    if open_folder:
        typer.launch(str(folder))


def _image_columns(dataset: Dataset, key: str | None) -> list[str]:
    images = [name for name in dataset.column_names if dataset.columns[name].kind == "image"]
    chosen = key.split(",") if key else images
    unknown = [name for name in chosen if name not in images]
    if unknown or not chosen:
        raise ContractError(f"no image columns {unknown}: the dataset has {images}")
    return chosen


def _chosen_episodes(available: int, given: str | None, count: int, seed: int) -> list[int]:
    if given is None:
        import numpy as np

        drawn = np.random.default_rng(seed).permutation(available)[:count]
        return sorted(drawn.tolist())
    try:
        chosen = [int(part) for part in given.split(",")]
    except ValueError:
        raise ContractError(f"--episodes {given!r}: expected numbers such as 0,3") from None
    outside = [episode for episode in chosen if not 0 <= episode < available]
    if outside:
        raise ContractError(f"no episodes {outside}: the dataset has 0..{available - 1}")
    return chosen


def _panels(dataset: Dataset, episode: int, views: list[str]) -> Iterator[np.ndarray]:
    from stable_worldmodel.world.video import panels

    for t in range(int(dataset.lengths[episode])):
        row = dataset.read_rows(episode, t, t + 1, views)
        yield panels([row[view][0] for view in views], views)
