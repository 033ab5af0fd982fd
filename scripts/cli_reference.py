"""Write docs/cli.md, the reference of `swm`, from the commands themselves.

.venv/bin/python scripts/cli_reference.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer

from stable_worldmodel.cli import app

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
KINDS = {int: "integer", float: "number", str: "text", Path: "path"}
HEAD = """# Command line

Written by `scripts/cli_reference.py` from what `swm COMMAND --help` shows.

`swm --debug COMMAND` shows the traceback of an error; `swm --version` the version. Every listing has `--json`. A
dataset, a run or a checkpoint is a path, or a name in the data folder (`STABLEWM_HOME`).
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    sections = [section(name, command) for name, command in commands(group)]
    return "\n".join([HEAD, *sections])


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and commands, those of groups behind the name of the group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command


def section(name: str, command: Any) -> str:
    """A command's heading, help, usage, arguments, options and examples."""
    context = command.context_class(command, info_name=f"swm {name}")
    usage = " ".join([f"swm {name}", *command.collect_usage_pieces(context)])
    parts = [f"## {name}", paragraphs(command.help or ""), f"```text\n{usage}\n```"]
    rows = [row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    if rows:
        parts.append("\n".join(["| argument, option | value | default | |", "|---|---|---|---|", *rows]))
    examples = (command.epilog or "").split("\n\n")[1:]
    if examples:
        parts.append("\n".join(["```text", *examples, "```"]))
    return "\n\n".join(parts) + "\n"


def row(parameter: Any) -> str:
    """One line of the table."""
    is_option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.metavar or parameter.name.upper()]
    value = kind(parameter) if is_option else ""
    cells = [", ".join(f"`{name}`" for name in names), value, default(parameter), parameter.help or ""]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def kind(parameter: Any) -> str:
    """What an option takes: its own word for it, its choices, or a type and the least value."""
    annotation = parameter.type_descriptor.annotation
    types = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and t not in (type(None), list)]
    if parameter.is_flag:
        return ""
    if parameter.metavar:
        return f"`{parameter.metavar}`"
    if types and issubclass(types[-1], Enum):
        return ", ".join(f"`{choice.value}`" for choice in types[-1])
    word = KINDS.get(types[-1] if types else str, "text")
    return f"{word} ≥ {parameter.min}" if parameter.min is not None else word


def default(parameter: Any) -> str:
    """What holds where nothing is given."""
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    value = parameter.default
    if value is None or value is False or value == () or callable(value):
        return ""
    if value is True:
        return f"`{parameter.opts[0]}`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def paragraphs(text: str) -> str:
    """Help text with one line per paragraph."""
    return "\n\n".join(re.sub(r"\s+", " ", part).strip() for part in text.split("\n\n"))


if __name__ == "__main__":
    main()
