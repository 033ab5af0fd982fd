"""A hook of mkdocs: puts benchmarks/results/*.md into the page docs/benchmarks.md when the site is built.

Nothing is copied into the repository, so the page cannot be out of date.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
PAGE, MARK = "benchmarks.md", "<!-- results -->"
FIRST = ("quickstart.md", "baseline.md", "envs.md", "mujoco.md", "rollout.md")  # then by name


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return markdown.replace(MARK, sections()) if page.file.src_uri == PAGE else markdown


def sections() -> str:
    """All results, one section per file."""
    files = sorted(RESULTS.glob("*.md"), key=lambda file: (*(file.name != name for name in FIRST), file.name))
    return "\n\n".join(section(file.read_text(encoding="utf-8")) for file in files)


def section(text: str) -> str:
    """A result file with its headings one level lower; lines of code that look like headings stay."""
    parts = re.split(r"(^```.*?^```)", text.strip(), flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else re.sub(r"^#", "##", part, flags=re.MULTILINE) for part in parts)
