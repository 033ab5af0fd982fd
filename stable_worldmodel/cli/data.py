"""Datasets at the command line: what there is, what it holds, whether it is whole, and other forms of it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stable_worldmodel.cli.output import JsonOption, print_json, print_table
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import numpy as np

    from stable_worldmodel.data.dataset import Dataset

NameArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="Path of a dataset, or its name in the data folder.")
]


def datasets(as_json: JsonOption = False) -> None:
    """List the datasets in the data folder (STABLEWM_HOME)."""
    from stable_worldmodel.data import get_cache_dir
    from stable_worldmodel.data.catalog import local_datasets
    from stable_worldmodel.data.registry import format_of

    rows = [
        {"name": name, "format": format_of(path).name, "bytes": _size(path)} for name, path in sorted(local_datasets())
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows)
    else:
        typer.echo(f"no datasets in {get_cache_dir()}", err=True)


def inspect(
    name: NameArgument,
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
        **({"bytes": _size(path)} if isinstance(path, Path) else {}),
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


def verify(
    name: NameArgument,
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
    name: NameArgument,
    output: Annotated[
        str | None, typer.Argument(help="Name or path of the new dataset.", show_default="DATASET-FORMAT")
    ] = None,
    dest_format: Annotated[str, typer.Option("--dest-format", "-f", help="Format to write.")] = "video",
    source_format: Annotated[str | None, typer.Option(help="Format to read.", show_default="detected")] = None,
    mode: Annotated[str, typer.Option(help="If the target exists: error, overwrite or append.")] = "error",
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
    sources: Annotated[list[str], typer.Argument(help="Two or more datasets.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Name or path of the new dataset.")],
    dest_format: Annotated[
        str | None, typer.Option("--dest-format", "-f", help="Format to write.", show_default="of the first source")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing target.")] = False,
    mode: Annotated[
        str | None, typer.Option(help="If the target exists: error, overwrite or append; wins over --overwrite.")
    ] = None,
) -> None:
    """Write the episodes of several datasets into one, in the order given."""
    from stable_worldmodel.data import merge as run

    how = mode or ("overwrite" if overwrite else "error")
    written = run(sources, output, dest_format=dest_format, mode=how, progress=True)
    typer.echo(f"written: {written}")


def preview(
    name: NameArgument,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Episodes to draw at random.")] = 4,
    episodes: Annotated[str | None, typer.Option(help="Which episodes, such as 0,3; instead of --num.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the videos.", show_default="previews/DATASET")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Image columns, such as pixels,goal.", show_default="all")] = None,
    fps: Annotated[int, typer.Option(min=1, help="Frames per second.")] = 15,
    open_folder: Annotated[bool, typer.Option("--open", help="Show the folder when done.")] = False,
) -> None:
    """Write episodes as videos, several views side by side."""
    from stable_worldmodel.data import get_cache_dir, load_dataset
    from stable_worldmodel.world.video import write_video

    dataset = load_dataset(name)
    views = _image_columns(dataset, key)
    chosen = _chosen_episodes(dataset.num_episodes, episodes, num, seed)
    folder = output or get_cache_dir(sub_folder="previews") / Path(name).stem
    for episode in chosen:
        write_video(folder / f"ep{episode}.mp4", _panels(dataset, episode, views), fps)
        typer.echo(str(folder / f"ep{episode}.mp4"))
    if open_folder:
        typer.launch(str(folder))


def bench(
    name: NameArgument,
    num_steps: Annotated[int, typer.Option(min=1, help="Observations per window.")] = 4,
    frameskip: Annotated[int, typer.Option(min=1, help="Rows from one observation to the next.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per batch.")] = 64,
    columns: Annotated[
        str | None, typer.Option(help="Columns to load, such as pixels,action.", show_default="all")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to measure for.")] = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast random windows of a dataset load here."""
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
        loaded = 0
        while time.perf_counter() - first_batch < seconds:
            next(batches)
            loaded += loader.sampler.batch_size
        elapsed = time.perf_counter() - first_batch
        result = {
            "windows": len(dataset),
            "seconds to open": round(opened - begin, 3),
            "seconds to the first batch": round(first_batch - opened, 3),
            "windows per second": round(loaded / elapsed),
            "megabytes per second": round(loaded * window_bytes / elapsed / 1e6, 1),
            "buffer megabytes": round(loader.buffer_bytes / 1e6, 1),
        }
        batches.close()
    if as_json:
        print_json(result)
    else:
        print_table([{"measured": key, "value": str(value)} for key, value in result.items()])


def _endless(loader: Any) -> Generator[Any, None, None]:
    while True:
        yield from loader


def _nbytes(batch: dict[str, Any]) -> int:
    return sum(value.nbytes for value in batch.values() if hasattr(value, "nbytes"))


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


def _size(path: Path) -> int:
    """Bytes of a file, or of all files under a directory; a file with several names counts once."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum({(found.st_dev, found.st_ino): found.st_size for file in files if (found := file.stat())}.values())
