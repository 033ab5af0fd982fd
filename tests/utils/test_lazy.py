"""A missing optional package is an error that names the extra, wherever the name came from."""

import subprocess
import sys

import pytest

from stable_worldmodel.errors import MissingDependencyError, require
from stable_worldmodel.utils.lazy import lazy_exports


def without_torch(script):
    """Run `script` where importing torch fails as if it were not installed."""
    code = f"import sys; sys.modules['torch'] = None\n{script}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_names_resolve_and_unknown_ones_do_not():
    resolve = lazy_exports("shapes", {"sqrt": "math"})
    assert resolve("sqrt")(4) == 2
    with pytest.raises(AttributeError, match="module 'shapes' has no attribute 'area'"):
        resolve("area")


@pytest.mark.parametrize(
    "statement",
    [
        "from stable_worldmodel.train import train",
        "from stable_worldmodel.wm import LeWM",
        "from stable_worldmodel.solver import CEMSolver",
        "from stable_worldmodel.policy import WorldModelPolicy",
    ],
)
def test_a_missing_torch_names_the_extra(statement):
    done = without_torch(statement)
    assert "MissingDependencyError" in done.stderr
    assert "stable-worldmodel[train]" in done.stderr


def test_the_command_line_says_it_in_one_message(tmp_path):
    done = without_torch(
        f"sys.argv = ['swm', 'quickstart', '--out', {str(tmp_path / 'run')!r}]\n"
        "from stable_worldmodel.cli import main; main()"
    )
    assert done.returncode == 1
    assert "stable-worldmodel[train]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "dataset.h5").exists()


def test_faults_of_other_modules_are_not_disguised():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        require("no_such_module")
    with pytest.raises(MissingDependencyError, match=r"stable-worldmodel\[report\]"):
        require("no_such_module", "report")
