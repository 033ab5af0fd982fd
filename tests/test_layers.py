"""Imports inside the package point one way: from a layer to itself or to one below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import stable_worldmodel

PACKAGE = "stable_worldmodel"
ROOT = Path(stable_worldmodel.__file__).parent

# From top to bottom. Parts of one line may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("quickstart",),
    ("viewer",),
    ("report",),
    ("evaluation", "online"),
    ("world", "lerobot", "cluster"),
    ("train",),
    ("policy",),
    ("solver", "planning"),
    ("wm",),
    ("data",),
    ("pool",),
    ("wrapper", "wrappers"),
    ("envs",),
    ("spaces",),
    ("buffer", "utils", "protocols"),
    ("errors",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def imported_modules(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything `tree` imports when it runs, at any depth.

    `from a import b` gives `a.b`, whether b is a module or a name in it. `package` resolves relative imports.
    Blocks under `if TYPE_CHECKING:` never run and are left out.
    """
    if isinstance(tree, ast.If) and ast.unparse(tree.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for node in tree.orelse:
            yield from imported_modules(node, package)
        return
    if isinstance(tree, ast.Import):
        for alias in tree.names:
            yield tree.lineno, alias.name
    if isinstance(tree, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) - tree.level + 1] if tree.level else []
        base = ".".join([*parents, *([tree.module] if tree.module else [])])
        for alias in tree.names:
            yield tree.lineno, f"{base}.{alias.name}"
    for child in ast.iter_child_nodes(tree):
        yield from imported_modules(child, package)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `module`, a full dotted name with this source, imports from above its layer."""
    package = module if is_package else module.rpartition(".")[0]
    own = module.split(".")[1]
    if own not in RANK:
        return [f"{module}: {own!r} has no place in LAYERS"]
    found = []
    for line, name in imported_modules(ast.parse(source), package):
        parts = name.split(".")
        if parts[0] != PACKAGE or name == f"{PACKAGE}.__version__":
            continue
        target = parts[1] if len(parts) > 1 else "the package itself"
        if target not in RANK:
            found.append(f"{module}:{line} imports {name}: name the layer that defines it")
        elif RANK[target] < RANK[own]:
            found.append(f"{module}:{line} imports {name}: {own} lies below {target}")
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_from_above_its_layer() -> None:
    files = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]
    found = [
        fault for path in files for fault in violations(path.read_text(), module_name(path), path.stem == "__init__")
    ]
    assert not found, "\n".join(found)


def test_package_itself_imports_nothing_of_the_library_eagerly() -> None:
    source = (ROOT / "__init__.py").read_text()
    assert [name for _, name in imported_modules(ast.parse(source), PACKAGE) if name.startswith(PACKAGE)] == []


@pytest.mark.parametrize(
    "source",
    [
        "from stable_worldmodel.world import World",
        "from stable_worldmodel import world",
        "import stable_worldmodel.world.world as w",
        "from ..world import World",
        "from .. import world",
        "def f():\n    if True:\n        from stable_worldmodel.world import World",
        "import stable_worldmodel",
        "from stable_worldmodel import World",
    ],
)
def test_import_from_above_is_found(source: str) -> None:
    assert len(violations(source, "stable_worldmodel.policy.base")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from stable_worldmodel.solver import CEMSolver",
        "from stable_worldmodel.errors import ContractError",
        "from stable_worldmodel import __version__",
        "from .random import RandomPolicy",
        "from ..spaces import Box",
        "import numpy as np",
        "if TYPE_CHECKING:\n    from stable_worldmodel.world import World",
    ],
)
def test_import_from_below_is_allowed(source: str) -> None:
    assert violations(source, "stable_worldmodel.policy.base") == []


def test_relative_import_in_a_package_starts_at_the_package() -> None:
    assert violations("from .world import World", "stable_worldmodel.policy", is_package=True) == []
    assert len(violations("from ..world import World", "stable_worldmodel.policy", is_package=True)) == 1


def test_every_part_of_the_package_has_a_layer() -> None:
    assert violations("", "stable_worldmodel.cellar.wine") == [
        "stable_worldmodel.cellar.wine: 'cellar' has no place in LAYERS"
    ]
