"""What README and docs say exists: imports, commands and their options, extras."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from pages import LANGUAGES, PAGES, REPOSITORY, blocks, commands

# What a command that runs may begin with.
PROGRAMS = {"swm", "python"}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


@every_page
def test_python_imports_what_exists(page: Path) -> None:
    for block in blocks(page):
        for node in ast.walk(ast.parse(block.text if block.language == "python" else "")):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stable_worldmodel"):
                module = importlib.import_module(str(node.module))
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{block}: {node.module} has no {missing}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "swm":
                assert hasattr(importlib.import_module("stable_worldmodel"), node.attr), f"{block}: swm.{node.attr}"


@every_page
def test_commands_exist_with_the_options_they_are_given(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for block in blocks(page):
        for words in commands(block):
            what = f"{block}: {' '.join(words)}"
            if words[0] == "swm":
                parse(words[1:], what)
            elif words[0] == "make":
                assert set(words[1:]) <= set(targets), what
            elif words[:2] == ["python", "-m"]:
                assert importlib.util.find_spec(words[2]), what
            elif words[0] == "python":
                assert (REPOSITORY / words[1]).exists(), what


@every_page
def test_commands_in_sentences_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for words in re.findall(r"`swm ([a-z][^`]*)`", prose):
        if "/" not in words:  # `swm list/show`
            find_command(words.split(), f"{page.name}: swm {words}")


@every_page
def test_blocks_run_or_say_why_not(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("", *LANGUAGES), f"{block}: expected one of {LANGUAGES}, found {block.language}"
        foreign = {words[0] for words in commands(block)} - PROGRAMS
        assert block.not_run or not foreign, f"{block}: {foreign} do not run; say why in <!-- not run: REASON -->"


def test_few_blocks_are_not_run() -> None:
    every = [block for page in PAGES for block in blocks(page) if block.language in ("python", "sh")]
    left_out = [block for block in every if block.not_run]
    assert all(len(block.not_run.split()) > 1 for block in left_out), "a reason is a sentence"
    assert len(left_out) <= 0.2 * len(every), "\n".join(f"{block}: {block.not_run}" for block in left_out)


@every_page
def test_extras_exist(page: Path) -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    for extras in re.findall(r"(?:stable-worldmodel|'\.)\[([\w,]+)\]", page.read_text(encoding="utf-8")):
        assert set(extras.split(",")) <= known, f"{page.name}: [{extras}]"


def find_command(words: list[str], what: str) -> tuple[Any, list[str]]:
    """The command that the first words name, and the others; fails where there is none."""
    import typer

    from stable_worldmodel.cli import app

    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"{what}: no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def parse(words: list[str], what: str) -> None:
    """Fail where `swm` does not know a command or an option."""
    command, rest = find_command(words, what)
    try:
        command.make_parser(command.context_class(command)).parse_args(rest)
    except Exception as error:  # click's, which typer brings along under another name
        pytest.fail(f"{what}: {error}")
