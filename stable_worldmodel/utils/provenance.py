"""What a result needs beside its numbers to be repeated: versions, machine, git revision."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("gymnasium", "numpy", "torch", "accelerate", "h5py", "pillow", "scipy", "av"),
    # physics, rules and pictures of environments
    *("ale-py", "craftax", "dm_control", "gymnasium-robotics", "jax", "mujoco", "ogbench", "pybullet", "PyFlyt"),
    *("pygame-ce", "pymunk", "shapely"),
)


def package_versions() -> dict[str, str]:
    """Versions of this library, Python and the packages a result depends on (only those installed)."""
    from stable_worldmodel import __version__

    versions = {"stable-worldmodel": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_revision() -> str | None:
    """Commit of the checkout this library runs from, with `-dirty` when files differ; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *args], capture_output=True, text=True, check=False, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy inside somebody else's repository must not report that repository's commit.
    if git("ls-files", "--error-unmatch", __file__) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--untracked-files=no") else commit


def provenance() -> dict[str, Any]:
    """Everything above plus the machine and the command line, as JSON-able values."""
    return {
        "versions": package_versions(),
        "git_revision": git_revision(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "command": sys.argv,
    }
