"""What the shell offers when Tab is pressed: names of what there is. Nothing is looked up before.

A function here gets the beginning of a word, and is given to `typer.Argument` or `typer.Option` as `autocompletion`.
What it cannot look up it does not offer; the shell then falls back to file names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import typer

Completer: TypeAlias = Callable[[str], list[str]]


def _quiet(look_up: Callable[[str], Iterable[str]]) -> Completer:
    """What `look_up` yields of words that begin so; nothing if it fails, for a Tab must not print a traceback."""

    @functools.wraps(look_up)
    def complete(incomplete: str) -> list[str]:
        try:
            return sorted({word for word in look_up(incomplete) if word.startswith(incomplete)})
        except Exception:  # whatever a damaged data folder may cause
            return []

    return complete


def words(*known: str) -> Completer:
    """Offer fixed words."""
    return _quiet(lambda incomplete: known)


@_quiet
def envs(incomplete: str) -> Iterable[str]:
    """Ids of environments; those that begin with `swm/` only once a word was begun."""
    from stable_worldmodel.envs import WORLDS

    return [id.rpartition("/")[2] for id in WORLDS] + (list(WORLDS) if incomplete else [])


@_quiet
def datasets(incomplete: str) -> Iterable[str]:
    """Datasets of the data folder, and those beside the path that was begun."""
    from stable_worldmodel.data import list_datasets
    from stable_worldmodel.data.registry import detect_format

    folder, slash, begun = incomplete.rpartition("/")
    around = Path(folder + slash).expanduser()
    here = [path.name for path in around.iterdir() if path.name.startswith(begun) and detect_format(path)]
    return [*list_datasets(), *(f"{folder}{slash}{name}" for name in here)]


@_quiet
def runs(incomplete: str) -> Iterable[str]:
    """Trained models of the data folder."""
    from stable_worldmodel.data import list_models

    return list_models()


@_quiet
def datasets_and_runs(incomplete: str) -> Iterable[str]:
    """Both."""
    return [*datasets(incomplete), *runs(incomplete)]


@_quiet
def subjects(incomplete: str) -> Iterable[str]:
    """What can be evaluated."""
    from stable_worldmodel.evaluation.names import NAMED

    return [*NAMED, *runs(incomplete)]


@_quiet
def planners(incomplete: str) -> Iterable[str]:
    """What can be planned with."""
    return ["oracle", *runs(incomplete)]


@_quiet
def solvers(incomplete: str) -> Iterable[str]:
    """Names of solvers."""
    from stable_worldmodel.evaluation.names import SOLVERS

    return SOLVERS


@_quiet
def solver_settings(incomplete: str) -> Iterable[str]:
    """`type=` with the names of solvers, and the values that most of them have."""
    return [*(f"type={name}" for name in solvers("")), "num_samples=", "n_steps=", "topk="]


@_quiet
def models(incomplete: str) -> Iterable[str]:
    """Names of world models."""
    from stable_worldmodel.wm.registry import MODELS

    return MODELS


@_quiet
def formats(incomplete: str) -> Iterable[str]:
    """Names of dataset formats."""
    from stable_worldmodel.data import list_formats

    return list_formats()


@_quiet
def policies(incomplete: str) -> Iterable[str]:
    """Policies that need no training."""
    from stable_worldmodel.policy.named import SCRIPTED

    return ["random", *SCRIPTED]


@_quiet
def training_words(incomplete: str) -> Iterable[str]:
    """The first words of `swm train MODEL`, with datasets and environments as values.

    bash takes what stands behind `=` for a word of its own, so that these values come without their key there.
    """
    key, equals, begun = incomplete.partition("=")
    if not equals:
        return ["data=", "env=", "preset=", "out=", *datasets(incomplete), *envs(incomplete)]
    values: dict[str, Completer] = {"data": datasets, "env": envs, "preset": words("debug", "small", "paper", "goals")}
    offered = values[key](begun) if key in values else []
    return [f"{key}={value}" for value in offered]


def names_of_kind(ctx: typer.Context, incomplete: str) -> list[str]:
    """What `swm show KIND` and `swm delete KIND` can be given."""
    from stable_worldmodel.data import list_datasets, list_worlds

    known = {"model": runs, "dataset": words(*list_datasets()), "world": words(*list_worlds())}
    kind = ctx.params.get("kind")
    return known[kind](incomplete) if kind in known else []
