"""Success under each factor of variation, from the rows that a robustness grid writes.

One JSON object per line and cell: `checkpoint`, `env`, `factor` (a name, `default` for none of them, `all`), `seed`,
`successes` and `episodes`; other keys are ignored. A cell that was run again counts once, as it was last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.report.model import Cell, Comparison, HeatMap

_TEXTS, _NUMBERS = ("checkpoint", "env", "factor"), ("seed", "successes", "episodes")
_FIRST, _LAST = "default", "all"  # factors that are no factor


def read_grid(path: str | Path) -> list[HeatMap]:
    """The heat maps of a file, one per env, in the order in which names appear.

    A last line without an end, which an interrupted run leaves, is ignored. Raises NotFoundError without the file and
    ContractError, naming the line, for anything else that is no cell, and for a file without cells.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no grid file {path}")
    runs: dict[tuple[str, str, str, int], tuple[int, int]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: expected lines of JSON, found something else ({error})") from error
    for number, line in enumerate(lines[:-1], start=1):
        if line.strip():
            row = _parse(line, f"{path}:{number}")
            key = (row["env"], row["factor"], row["checkpoint"], row["seed"])
            runs[key] = row["successes"], row["episodes"]
    if not runs:
        raise ContractError(f"{path}: holds no complete cell; expected one JSON object per line")
    return [_heat_map(env, runs) for env in dict.fromkeys(key[0] for key in runs)]


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ContractError(f"{where}: expected a JSON object, found {line[:60]!r} ({error})") from error
    if not isinstance(row, Mapping):
        raise ContractError(f"{where}: expected a JSON object, found {line[:60]!r}")
    wrong = [name for name in _TEXTS if not isinstance(row.get(name), str) or not row[name]]
    wrong += [name for name in _NUMBERS if not isinstance(row.get(name), int) or isinstance(row[name], bool)]
    if wrong:
        raise ContractError(
            f"{where}: {', '.join(wrong)} missing or of another type; "
            f"expected texts {', '.join(_TEXTS)} and integers {', '.join(_NUMBERS)}"
        )
    if not 0 <= row["successes"] <= row["episodes"] or row["episodes"] < 1:
        raise ContractError(
            f"{where}: {row['successes']} successes of {row['episodes']} episodes: expected 0 <= successes <= episodes"
        )
    return dict(row)


def _heat_map(env: str, runs: Mapping[tuple[str, str, str, int], tuple[int, int]]) -> HeatMap:
    mine = {key[1:]: value for key, value in runs.items() if key[0] == env}
    found = list(dict.fromkeys(factor for factor, _, _ in mine))
    middle = [factor for factor in found if factor not in (_FIRST, _LAST)]
    factors = [name for name in (_FIRST, *middle, _LAST) if name in found]
    checkpoints = list(dict.fromkeys(checkpoint for _, checkpoint, _ in mine))
    cells = {}
    for factor in factors:
        for checkpoint in checkpoints:
            counts = [value for key, value in mine.items() if key[:2] == (factor, checkpoint)]
            if counts:
                successes, episodes = (sum(column) for column in zip(*counts, strict=True))
                cells[factor, checkpoint] = Cell(Comparison.from_counts(checkpoint, successes, episodes), len(counts))
    return HeatMap(env, checkpoints, factors, cells)
