"""The pages of the documentation as programs: their code blocks, in order, and what the page says about running them.

HTML comments before a block, which readers do not see, say how tests treat it:

    <!-- not run: REASON -->     it is only checked: Python compiles, commands exist and have the options used
    <!-- smaller: OLD -> NEW --> it runs with NEW in place of OLD, which must occur in it
    <!-- needs: PACKAGE -->      it runs where PACKAGE can be imported
    <!-- given: NAME NAME -->    (anywhere on the page) what lies in the working directory at the start

As a script, `python tests/pages.py PAGE` runs a page in the working directory. Python blocks share one namespace; a
line like `x.shape  # (3, 4)` is a claim and must hold.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LANGUAGES = ("python", "sh", "text", "json", "yaml")  # the first two run

_COMMENT = re.compile(r"<!-- *(not run|smaller|needs|given): *(.*?) *-->", re.DOTALL)
_BLOCK = re.compile(
    r"(?P<notes>(?:<!--(?:(?!-->).)*-->\s*)*)^```(?P<language>\w*)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
_CLAIM = re.compile(r"#\s*(\([\d, ]*\))")


@dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
        language: of the info string, or "".
        line: number of its first line of code in the page, from 1.
        text: the code as readers see it.
        code: the code as tests run it.
        not_run: the reason why it is not, or "".
        needs: package without which it is left out, or "".
    """

    page: Path
    language: str
    line: int
    text: str
    code: str
    not_run: str = ""
    needs: str = ""

    @property
    def runs(self) -> bool:
        """Whether it can run here."""
        return not self.not_run and not (self.needs and importlib.util.find_spec(self.needs) is None)

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [_block(page, text, match) for match in _BLOCK.finditer(text)]


def given(page: Path) -> list[str]:
    """What the page's examples find in the working directory."""
    notes = _COMMENT.findall(page.read_text(encoding="utf-8"))
    return [name for kind, value in notes if kind == "given" for name in value.split()]


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    code, notes = match["code"], _COMMENT.findall(match["notes"])
    line = text[: match.start("code")].count("\n") + 1
    for kind, value in notes:
        if kind == "smaller":
            old, _, new = value.partition(" -> ")
            if old not in code:
                raise ValueError(f"{page.name}:{line}: {old!r} is to be replaced and does not occur")
            code = code.replace(old, new)
    said = dict(notes)
    return Block(page, match["language"], line, match["code"], code, said.get("not run", ""), said.get("needs", ""))


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block as words, without comments and without variables that are set before them."""
    if block.language != "sh":
        return []
    lines = [shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), line)))]


def run_page(page: Path) -> None:
    """Run the page's blocks in the working directory."""
    namespace = ModuleType("__main__")
    sys.modules["__main__"] = namespace
    sys.path.insert(0, "")
    for block in blocks(page):
        if block.runs and block.language == "python":
            _run_python(block, vars(namespace))
        elif block.runs and block.language == "sh":
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True, stdin=subprocess.DEVNULL)


def _run_python(block: Block, namespace: dict[str, object]) -> None:
    lines = block.code.splitlines()
    tree = ast.parse(block.code)
    ast.increment_lineno(tree, block.line - 1)
    for node in tree.body:
        claim = _CLAIM.search(lines[(node.end_lineno or 0) - block.line]) if isinstance(node, ast.Expr) else None
        if isinstance(node, ast.Expr) and claim:
            value = eval(compile(ast.Expression(node.value), str(block.page), "eval"), namespace)
            if tuple(value) != ast.literal_eval(claim[1]):
                raise ValueError(f"{block.page.name}:{node.lineno}: {claim[1]} is said, {tuple(value)} is true")
        else:
            exec(compile(ast.Module([node], []), str(block.page), "exec"), namespace)


if __name__ == "__main__":
    run_page(Path(sys.argv[1]).resolve())
