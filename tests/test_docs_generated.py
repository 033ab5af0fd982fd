"""The parts of the documentation that are made from something else show it as it is now."""

from __future__ import annotations

import importlib.util
import inspect
import re
from types import ModuleType
from typing import Any

import pytest
from pages import REPOSITORY

PAGES = REPOSITORY / "docs"
DOCUMENTED = (
    "data",
    "envs",
    "evaluation",
    "lerobot",
    "online",
    "planning",
    "policy",
    "pool",
    "report",
    "solver",
    "spaces",
    "train",
    "utils",
    "viewer",
    "wm",
    "world",
    "wrappers",
)


def script(name: str) -> ModuleType:
    """A module of `scripts`."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    written = (PAGES / "cli.md").read_text(encoding="utf-8")
    assert written == script("cli_reference").page(), "run .venv/bin/python scripts/cli_reference.py"


def test_every_command_is_in_the_reference_with_an_example() -> None:
    text = (PAGES / "cli.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    names = {section.partition("\n")[0] for section in sections}
    assert {"quickstart", "collect", "train", "eval", "plan", "report", "view", "doctor"} <= names
    for section in sections:
        assert section.count("swm ") >= 1, section


def test_the_benchmarks_page_holds_every_result() -> None:
    sections = script("benchmarks_page").sections()
    for file in (REPOSITORY / "benchmarks" / "results").glob("*.md"):
        title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        assert f"\n## {title}\n" in f"\n{sections}", file.name
    assert not re.search(r"^# ", re.sub(r"^```.*?^```", "", sections, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)


def test_headings_move_down_and_code_stays() -> None:
    section = script("benchmarks_page").section("# A\n\n## B\n\n```sh\n# not a heading\n```\n\n# C\n")
    assert section == "## A\n\n### B\n\n```sh\n# not a heading\n```\n\n## C"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [page for page in PAGES.rglob("*.md") if f": {page.relative_to(PAGES).as_posix()}\n" not in navigation]
    assert not missing


@pytest.mark.parametrize("package", DOCUMENTED)
def test_the_reference_has_every_public_class_and_function(package: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (PAGES / "reference").glob("*.md"))
    named = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    module = importlib.import_module(f"stable_worldmodel.{package}")
    public = [getattr(module, name) for name in module.__all__]
    objects = [thing for thing in public if inspect.isclass(thing) or inspect.isfunction(thing)]
    missing = [thing for thing in objects if not named & {f"{thing.__module__}.{thing.__qualname__}", *parents(thing)}]
    assert not missing


def parents(thing: Any) -> set[str]:
    """The modules that contain it."""
    parts = thing.__module__.split(".")
    return {".".join(parts[: i + 1]) for i in range(len(parts))}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_pictures_exist_and_are_small(page: str) -> None:
    path = REPOSITORY / page
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / name).stat().st_size <= 300_000


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_links_of_the_readme_lead_to_files() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    assert len(targets) > 20
    assert not [target for target in targets if not (REPOSITORY / target).exists()]
