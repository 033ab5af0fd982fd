"""From the files of a run to its report.

A source is a folder, a file of results, or a grid. What is looked for in a folder:

    *.json          files of `Results.save`, each an evaluation named like the file; `results.json` of a quickstart
    videos/<name>/  the videos of evaluation <name>, or <name>/; of the only one also videos/ or the folder itself
    metrics.jsonl   rows of a training run, with `run.json` beside it; also in model/
    grid.jsonl      a robustness grid, see `report.grid`
    dataset.*       the data, unless an evaluation names it
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_worldmodel.data.cache import CHECKPOINTS, dataset_places, first_dataset, get_cache_dir
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.report.cards import dataset_card
from stable_worldmodel.report.evaluations import check_results, comparison_of, contrasts_of, evaluation_of
from stable_worldmodel.report.grid import read_grid
from stable_worldmodel.report.model import VIDEO_LIMIT, DatasetCard, HeatMap, RunReport
from stable_worldmodel.utils.mappings import get_in
from stable_worldmodel.utils.suggest import nearest_entry
from stable_worldmodel.world.results import FORMAT, Results

_MOST_ITEMS = 12  # of a list in the configuration
_ORIGIN = ("versions", "git_revision", "platform", "cpu_count", "command")


@dataclass
class Source:
    """What one place says about a run."""

    name: str
    results: dict[str, Results] = field(default_factory=dict)
    videos: dict[str, Path] = field(default_factory=dict)  # by evaluation
    history: list[dict[str, float]] = field(default_factory=list)
    heat_maps: list[HeatMap] = field(default_factory=list)
    dataset: Path | None = None
    run: dict[str, Any] = field(default_factory=dict)  # of `run.json` or of a quickstart's `results.json`

    @property
    def origin(self) -> dict[str, Any]:
        """Versions, revision, machine and command."""
        found = [*(results.provenance or {} for results in self.results.values()), self.run]
        return {key: value for place in reversed(found) for key, value in place.items() if key in _ORIGIN}

    @property
    def is_empty(self) -> bool:
        return not (self.results or self.history or self.heat_maps)


def read_report(places: Sequence[str | Path], title: str | None = None, video_limit: int = VIDEO_LIMIT) -> RunReport:
    """The report of a run, or a comparison of several, from folders and files as the module describes them.

    Raises NotFoundError for a place that does not exist and ContractError for one that holds nothing to report, or
    something damaged.
    """
    if not places:
        raise ContractError("places is empty: expected at least one run or file of results")
    sources = [read_source(place) for place in places]
    named = _named_results(sources)
    comparisons = [comparison_of(name, results) for name, results, _ in named]
    evaluations = [evaluation_of(name, results, videos) for name, results, videos in named]
    origin = sources[0].origin
    return RunReport(
        title=title or _title([source.name for source in sources]),
        comparisons=comparisons,
        contrasts=contrasts_of([(name, results) for name, results, _ in named]),
        evaluations=evaluations,
        heat_maps=[heat_map for source in sources for heat_map in source.heat_maps],
        history=_joined_history(sources),
        dataset=_card(sources),
        timings={name: value for name, value in _values_of(sources, "timings").items() if _is_number(value)},
        command=_command(origin.get("command")),
        seeds=_seeds(sources, named),
        config=_config(sources, named),
        versions=_mapping(origin.get("versions")),
        git_revision=revision if isinstance(revision := origin.get("git_revision"), str) else None,
        machine=_machine(origin),
        video_limit=video_limit,
    )


def find_run(place: str | Path) -> Path:
    """The existing path that `place` means: itself, or a run in the data folder. NotFoundError with both otherwise."""
    path = Path(place).expanduser()
    stored = get_cache_dir() / CHECKPOINTS / path
    if path.exists():
        return path
    if stored.exists() and ".." not in path.parts:
        return stored
    hint = nearest_entry(path.name, (path.absolute().parent, stored.parent))
    raise NotFoundError(f"{str(place)!r} was not found; looked for:\n  {path.absolute()}\n  {stored}{hint}")


def read_source(place: str | Path) -> Source:
    """What a folder or file holds; ContractError if that is nothing."""
    path = find_run(place)
    if path.is_dir():
        source = scan_folder(path)
        if source.is_empty:
            raise ContractError(
                f"{path} holds nothing to report: expected results (*.json), metrics.jsonl or grid.jsonl"
            )
        return source
    if path.suffix == ".jsonl":
        return Source(path.stem, heat_maps=read_grid(path))
    source = Source(path.stem)
    if not _read_json(path, source, only=True):
        raise ContractError(f"{path}: expected results of an evaluation; `Results.save` writes them")
    _read_dataset(path.parent, source)
    return source


def scan_folder(folder: Path) -> Source:
    """What a folder holds, which may be nothing."""
    source = Source(folder.resolve().name)
    files = [path for path in sorted(folder.glob("*.json")) if path.name != "run.json"]
    for path in files:
        _read_json(path, source, only=False)
    if len(source.results) == 1 and not source.videos:
        _use_videos(source, next(iter(source.results)), [folder / "videos", folder])
    for place in (folder, folder / "model"):
        if (place / "metrics.jsonl").is_file():
            source.history = read_rows(place / "metrics.jsonl")
        if (place / "run.json").is_file():
            source.run = {**_load(place / "run.json"), **source.run}
    if (folder / "grid.jsonl").is_file():
        source.heat_maps = read_grid(folder / "grid.jsonl")
    _read_dataset(folder, source)
    return source


def _read_json(path: Path, source: Source, only: bool) -> bool:
    """Add the evaluations of a file, if it has any. `only`: it was named itself, so that damage matters."""
    try:
        document = _load(path)
    except ContractError:
        if only:
            raise
        return False
    if document.get("format") == FORMAT:
        name = path.parent.resolve().name if path.stem == "results" else path.stem
        _add(source, name, _results(document, str(path)), path.parent)
        return True
    evaluations = document.get("evaluations")
    if not isinstance(evaluations, Mapping):
        return False
    for name, evaluation in evaluations.items():
        _add(source, name, _results(evaluation, f"{path}: evaluation {name!r}"), path.parent)
    source.run = {key: value for key, value in document.items() if key != "evaluations"}
    source.history = [_row(row, f"{path}: history") for row in document.get("history") or ()]
    if "planner" in evaluations and "planner" not in source.videos:  # of a quickstart
        _use_videos(source, "planner", [path.parent / "videos"])
    return True


def _results(document: Any, where: str) -> Results:
    try:
        return Results.from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:  # sections of other types
        raise ContractError(f"{where} cannot be read as results: {error}") from error


def _add(source: Source, name: str, results: Results, folder: Path) -> None:
    check_results(name, results)
    source.results[name] = results
    _use_videos(source, name, [folder / "videos" / name, folder / name])


def _use_videos(source: Source, name: str, folders: Sequence[Path]) -> None:
    """Take the first folder that has a video of an episode."""
    for folder in folders:
        if folder.is_dir() and any(folder.glob("*_*.mp4")):
            source.videos[name] = folder
            return


def _read_dataset(folder: Path, source: Source) -> None:
    named = [results.protocol.get("dataset") for results in source.results.values()]
    places = [Path(name) for name in named if isinstance(name, str) and name and "\0" not in name]
    source.dataset = first_dataset([*places, *dataset_places(folder / "dataset")])


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`; a last line without an end, which an interrupted run leaves, is ignored."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ContractError(f"{path}:{number}: expected a JSON object ({error})") from error
        rows.append(_row(row, f"{path}:{number}"))
    return rows


def _row(row: Any, where: str) -> dict[str, float]:
    """A row with a number as its step; values that are no numbers are left out."""
    if not isinstance(row, dict):
        raise ContractError(f"{where}: expected a JSON object, found {str(row)[:60]!r}")
    numbers = {str(name): value for name, value in row.items() if _is_number(value)}
    if not {"step", "epoch"} & numbers.keys():
        raise ContractError(f"{where}: expected the number 'step' or 'epoch', found {sorted(row)}")
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: expected JSON ({error})") from error
    return document if isinstance(document, dict) else {}


# -- putting sources together -----------------------------------------------------------------------------------------


def _named_results(sources: Sequence[Source]) -> list[tuple[str, Results, Path | None]]:
    """All evaluations with their videos: by who was evaluated where that tells them apart, or else by file.

    Files of equal names get the name of their source in front.
    """
    found = [(source, name, results) for source in sources for name, results in source.results.items()]
    files = Counter(name for _, name, _ in found)
    subjects = Counter(_subject(name, results) for _, name, results in found)
    named = []
    for source, name, results in found:
        subject = _subject(name, results)
        shown = name if files[name] == 1 else f"{source.name} {name}"
        named.append((subject if subject and subjects[subject] == 1 else shown, results, source.videos.get(name)))
    return named


def _subject(name: str, results: Results) -> str | None:
    """Who was evaluated, if `swm eval` wrote the file and named it by that: `<subject>-<digest>`."""
    noted = results.protocol.get("evaluation")
    subject = noted.get("subject") if isinstance(noted, Mapping) else None
    if not isinstance(subject, str) or not subject.strip():
        return None
    return subject if re.fullmatch(r".+-[0-9a-f]{8}", name) else None


def _joined_history(sources: Sequence[Source]) -> list[dict[str, float]]:
    """The rows of all runs; where there are several, their lines carry the run's name."""
    if sum(bool(source.history) for source in sources) < 2:
        return [row for source in sources for row in source.history]
    return [
        {(f"{source.name} {key}" if "/" in key else key): value for key, value in row.items()}
        for source in sources
        for row in source.history
    ]


def _card(sources: Sequence[Source]) -> DatasetCard | None:
    place = next((source.dataset for source in sources if source.dataset is not None), None)
    if place is not None:
        return dataset_card(place)
    for source in sources:  # of data that is not here, a training run still knows the size
        described = source.run.get("dataset")
        counts = described if isinstance(described, Mapping) else {}
        episodes, rows = counts.get("episodes"), counts.get("rows")
        if isinstance(episodes, int) and isinstance(rows, int):
            return DatasetCard(str(counts.get("name", "training data")), episodes, rows - episodes)
    return None


def _values_of(sources: Sequence[Source], key: str) -> dict[str, Any]:
    """A mapping that runs noted, with their names in front where there are several sources."""
    found = [(source.name, source.run.get(key)) for source in sources]
    return {
        (name if len(sources) == 1 else f"{source} {name}"): value
        for source, values in found
        if isinstance(values, Mapping)
        for name, value in values.items()
    }


def _seeds(sources: Sequence[Source], named: Sequence[tuple[str, Results, Any]]) -> dict[str, int]:
    seeds: dict[str, int] = {}
    for source in sources:
        try:
            seeds[f"training of {source.name}"] = int(get_in(source.run, ["config", "seed"]))
        except (KeyError, TypeError, ValueError):
            continue
    drawn = {f"episodes of {name}": results.protocol.get("seed") for name, results, _ in named}
    return seeds | {name: seed for name, seed in drawn.items() if isinstance(seed, int)}


def _config(sources: Sequence[Source], named: Sequence[tuple[str, Results, Any]]) -> dict[str, Any]:
    runs = _values_of(sources, "config")
    protocols = {name: _shortened(results.protocol) for name, results, _ in named}
    return {**({"run": runs} if runs else {}), **({"evaluation": protocols} if protocols else {})}


def _shortened(value: Any) -> Any:
    """Long lists by their beginning."""
    if isinstance(value, Mapping):
        return {str(key): _shortened(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) > _MOST_ITEMS:
        return f"{', '.join(map(str, value[:_MOST_ITEMS]))} ... ({len(value)} values)"
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _command(command: Any) -> str:
    if isinstance(command, list):
        words = [str(word) for word in command]
        return shlex.join([Path(words[0]).name, *words[1:]]) if words else ""
    return command if isinstance(command, str) else ""


def _machine(origin: Mapping[str, Any]) -> str:
    cores = origin.get("cpu_count")
    return ", ".join(str(part) for part in (origin.get("platform"), cores and f"{cores} processors") if part)


def _title(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} and {unique[-1]}"
