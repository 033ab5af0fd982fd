"""Link installed packages into another virtual environment: `link_packages.py VENV NAME...`."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path


def link(venv: Path, name: str) -> None:
    """Link every file and folder that the distribution `name` has at the top of site-packages."""
    found = distribution(name)
    source = Path(str(found.locate_file("")))
    target = venv / source.relative_to(sys.prefix)
    tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in sorted(tops):
        (target / top).symlink_to(source / top)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        link(Path(sys.argv[1]), name)
